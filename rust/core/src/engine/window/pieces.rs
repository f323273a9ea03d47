//! What a window is made of: which elements of which tensors, and which bytes of the inputs they need.

use std::collections::HashMap;

use crate::codec::derived::Read;
use crate::engine::gather::{Gather, Slot, Sources};
use crate::error::{Error, Result};
use crate::format::blocks::BLOCK;
use crate::plan::Plan;
use crate::plan::inputs::At;
use crate::plan::layout::{Action, OutFile};
use crate::plan::matching::TermPlan;

/// Elements (or bytes, of a type that packs its elements more tightly) of one tensor in one block.
pub(super) struct Piece {
    pub block: usize,
    /// Place in the layout.
    pub tensor: usize,
    pub action: Action,
    /// The first element, which may begin in the block before.
    pub first: u64,
    /// The first element that begins in this block: only from it on is anything counted.
    pub counted: u64,
    /// One past the last element.
    pub end: u64,
    /// The file offset of `first`.
    pub at: u64,
    /// Its slots: the base, then each term's minuend, subtrahend (or what they are made of), exceptions.
    pub slots: std::ops::Range<usize>,
}

/// Works out the pieces of a window and asks for what they read.
pub(super) struct Collect<'a, 'b> {
    pub plan: &'a Plan,
    /// Where exceptions are looked up; without it they are passed over.
    pub sources: Option<&'a Sources<'b>>,
    pub gather: &'a mut Gather,
    pub pieces: &'a mut Vec<Piece>,
    pub slots: &'a mut Vec<Slot>,
    /// Exceptions are looked up once for each tensor of the window.
    pub exceptions: HashMap<(usize, usize), LookedUp>,
}

/// Exceptions of one tensor in a window.
pub(super) struct LookedUp {
    /// Where the indices lie.
    pub at: At,
    /// Indices and values.
    pub slots: [Slot; 2],
    /// Elements that the indices may name: from here on.
    pub start: u64,
    /// And up to here.
    pub stop: u64,
}

impl Collect<'_, '_> {
    pub fn block(&mut self, file: &OutFile, block: usize, begin: u64, window_end: u64) -> Result<()> {
        let plan = self.plan;
        let end = (begin + BLOCK).min(window_end);
        for tensor in plan.layout.overlapping(file, begin, end) {
            let this = &plan.layout.tensors[tensor];
            let base = plan.inputs.base().tensors[this.base as usize].dtype;
            let unit = this.dtype.unit();
            // Bytes of the tensor in this block.
            let (from, to) = (begin.max(this.begin) - this.begin, end.min(this.begin + this.bytes()) - this.begin);
            for (first, last, action) in this.spans(base) {
                let units = |elements: u64| elements * this.dtype.bits() / 8 / unit;
                let (first, last) = (units(first), units(last));
                let (start, stop) = ((from / unit).max(first), to.div_ceil(unit).min(last));
                if start >= stop {
                    continue;
                }
                let slots = self.slots.len();
                self.reads(tensor, action, (start, stop, last), window_end)?;
                self.pieces.push(Piece {
                    block,
                    tensor,
                    action,
                    first: start,
                    counted: from.div_ceil(unit).max(start),
                    end: stop,
                    at: this.begin + start * unit,
                    slots: slots..self.slots.len(),
                });
            }
        }
        Ok(())
    }

    /// Asks for what elements `[start, stop)` read; the span's end tells which terms reach this far.
    fn reads(&mut self, tensor: usize, action: Action, span: (u64, u64, u64), window_end: u64) -> Result<()> {
        let (start, stop, span_end) = span;
        let plan = self.plan;
        let this = &plan.layout.tensors[tensor];
        if plan.inputs.has_target {
            let at = At { input: 0, tensor: this.base };
            let size = plan.inputs.tensor(at).dtype.unit();
            self.slots.push(self.gather.tensor(&plan.inputs, at, start * size, (stop - start) * size));
        }
        if action != Action::Combine {
            return Ok(());
        }
        for (number, term) in this.terms.iter().enumerate().filter(|(_, term)| term.elements >= span_end) {
            for at in [Some(term.minuend), term.subtrahend].into_iter().flatten() {
                if let Some(made) = plan.inputs.made(at) {
                    let range =
                        |Read { shard, begin, len }| self.gather.range(at.input as usize, shard as usize, begin, len);
                    self.slots.extend(made.reads(start, stop).into_iter().map(range));
                    continue;
                }
                let size = plan.inputs.tensor(at).dtype.bits() / 8;
                self.slots.push(self.gather.tensor(&plan.inputs, at, start * size, (stop - start) * size));
            }
            if let Some(sources) = self.sources.filter(|_| term.exceptions.is_some()) {
                if !self.exceptions.contains_key(&(tensor, number)) {
                    let bytes = window_end.min(this.begin + this.bytes()) - this.begin;
                    let last = bytes.div_ceil(this.dtype.bits() / 8);
                    let found = self.look_up(sources, term, start, last.max(stop))?;
                    self.exceptions.insert((tensor, number), found);
                }
                let slots = self.exceptions[&(tensor, number)].slots;
                self.slots.extend(slots);
            }
        }
        Ok(())
    }

    /// The exceptions of elements `[start, stop)`, found by bisection: indices ascend.
    ///
    /// A file in which they do not would give wrong numbers, so every window makes sure of its share. The search always
    /// starts anew: then neighbouring windows agree on where one's share ends and the other's begins, even in such a file,
    /// and no index is passed over.
    fn look_up(&mut self, sources: &Sources, term: &TermPlan, start: u64, stop: u64) -> Result<LookedUp> {
        let plan = self.plan;
        let inputs = &plan.inputs;
        let Some((at, value)) = term.exceptions else { return Err(Error::Usage("no exceptions to look up".into())) };
        let count = inputs.tensor(at).elements();
        let elements = inputs.tensor(term.minuend).elements();
        let first_from = |wanted: u64| -> Result<u64> {
            let (mut low, mut high) = (0, count);
            while low < high {
                let middle = low + (high - low) / 2;
                let bytes = self.gather.word(inputs, sources, at, middle * 8)?;
                if i128::from(i64::from_le_bytes(bytes)) < i128::from(wanted) {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            Ok(low)
        };
        let (low, high) = (first_from(start)?, first_from(stop)?);
        let leftover = (start == 0 && low > 0) || (stop >= elements && high < count);
        if leftover || high - low > stop - start {
            return Err(disordered(plan, at));
        }
        let slots = [
            self.gather.tensor(inputs, at, low * 8, (high - low) * 8),
            self.gather.tensor(inputs, value, low * 4, (high - low) * 4),
        ];
        Ok(LookedUp { at, slots, start, stop: stop.min(elements) })
    }
}

/// The error for a vector's exceptions that a sound vector cannot have.
pub(super) fn disordered(plan: &Plan, at: At) -> Error {
    let name = plan.inputs.tensor(at).name.strip_suffix(".index").unwrap_or_default();
    let what = format!("the exceptions of tensor `{name}` do not ascend within the tensor; extract the vector again");
    Error::corrupt(plan.inputs.path(at), what)
}
