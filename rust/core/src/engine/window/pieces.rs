//! What a window consists of: which elements of which tensors, and which bytes of the inputs they need.
//!
//! ```text
//! for each block of the window:
//!     for each tensor with bytes in the block:
//!         for each span of the tensor (elements that get the same treatment):
//!             elements = those of the span with bytes in the block
//!             copy:     ask for the first input's own bytes
//!             combine:  ask for them, and for the operands of every term that reaches this far
//!             add:      ask for the operands of every term (the output is a vector)
//! ```
//!
//! An element may be cut by the edge of a block. Then both blocks compute it whole, and only the block in which it
//! begins counts it in the figures.

use std::collections::HashMap;
use std::ops::Range;

use super::exceptions::{self, Exact, LookedUp};
use super::requantise::Stored;
use crate::codec::derived::Encoded;
use crate::codec::scaled::Scaled;
use crate::engine::gather::{Gather, Loaded, Slot, Sources};
use crate::error::Result;
use crate::format::blocks::BLOCK;
use crate::plan::Plan;
use crate::plan::inputs::At;
use crate::plan::layout::{Action, OutFile, Span};
use crate::plan::output::Output;
use crate::plan::terms::TermPlan;

/// Elements of one tensor in one block (or bytes, if an element has less than one byte).
pub(super) struct Piece<'p> {
    /// Number of the block in its window.
    pub block: usize,
    /// The first of the plans that have it.
    pub plan: usize,
    /// Index in the layout.
    pub tensor: usize,
    pub work: Work<'p>,
    /// The first element. It may begin in the previous block.
    pub first: u64,
    /// The first element that begins in this block. Figures are counted from here on.
    pub counted: u64,
    /// One past the last element.
    pub end: u64,
    /// The file offset of `first`.
    pub at: u64,
    /// The elements that are decoded: its own, and where values are quantised again, those of the same blocks, or in a
    /// merge by rows those of the same rows.
    pub decoded: Range<u64>,
    /// How it is quantised again. Then it has all elements of its tensor in the window, and elements are codes.
    pub into: Option<&'p Scaled>,
}

/// What is done with a piece, and where its inputs will be loaded.
pub(super) enum Work<'p> {
    /// The first input's own bytes are copied.
    Copy(Slot),
    /// Terms are added to the first input's own values. Without a term, the values only change their type.
    Combine {
        own: Encoded<'p, Slot>,
        /// The indices of its terms among the terms of the window.
        terms: Range<usize>,
    },
    /// The terms alone are added: the output is a vector. These are their indices among those of the window.
    Add(Range<usize>),
}

impl<'p> Piece<'p> {
    /// The same piece of a job that adds nothing.
    pub fn without_terms(&self) -> Self {
        let work = match &self.work {
            Work::Combine { own, .. } => Work::Combine { own: own.clone(), terms: 0..0 },
            Work::Copy(own) => Work::Copy(*own),
            Work::Add(_) => Work::Add(0..0),
        };
        Self { work, decoded: self.decoded.clone(), ..*self }
    }

    /// The loaded codes and scales of its own values.
    pub fn stored<'l>(&self, loaded: &'l Loaded) -> Stored<'l> {
        match &self.work {
            Work::Combine { own: Encoded::Scaled { bytes: [codes, scales], .. }, .. } => {
                Stored { codes: loaded.bytes(*codes), scales: loaded.bytes(*scales) }
            }
            _ => Stored { codes: &[], scales: &[] },
        }
    }

    /// Whether one of the plans has this piece. Plans with the same terms for a tensor have the same pieces of it.
    pub fn is_of(&self, plans: &[&Plan], plan: usize) -> bool {
        alike(plans, self.tensor, self.plan, plan)
    }
}

/// Whether two plans have the same terms for a tensor, whatever their factors. A factor of 0 has no term.
fn alike(plans: &[&Plan], tensor: usize, a: usize, b: usize) -> bool {
    let terms = |plan: usize| plans[plan].layout.tensors[tensor].terms.len();
    terms(a) == terms(b)
}

/// One term of a piece.
pub(super) struct TermSlots<'p> {
    /// The tensor of the minuend.
    pub at: At,
    pub minuend: Encoded<'p, Slot>,
    /// The subtrahend and its tensor.
    pub subtrahend: Option<(Encoded<'p, Slot>, At)>,
    /// Its exceptions, if it has any and they were looked up.
    pub exceptions: Vec<Exact>,
    pub alpha: f32,
}

/// Works out the pieces of a window and asks for what they read.
pub(super) struct Collect<'a, 'p, 's> {
    /// They share inputs and layout, and differ in their factors.
    pub plans: &'a [&'p Plan],
    /// Where exceptions are looked up. If `None`, exceptions are skipped.
    pub sources: Option<&'a Sources<'s>>,
    pub gather: &'a mut Gather,
    pub pieces: &'a mut Vec<Piece<'p>>,
    pub terms: &'a mut Vec<TermSlots<'p>>,
    /// Exceptions, looked up once for each tensor of the window and each of its terms.
    pub looked_up: HashMap<(usize, usize), Vec<LookedUp>>,
}

impl<'p> Collect<'_, 'p, '_> {
    /// Adds the pieces of the block that begins at byte `begin` of a file.
    pub fn block(&mut self, file: &OutFile, block: usize, begin: u64, window_end: u64) -> Result<()> {
        let Self { plans, .. } = *self;
        let end = (begin + BLOCK).min(window_end);
        for tensor in plans[0].layout.overlapping(file, begin, end) {
            for plan in 0..plans.len() {
                if !(0..plan).any(|earlier| alike(plans, tensor, earlier, plan)) {
                    self.tensor(plan, tensor, block, begin..end, window_end)?;
                }
            }
        }
        Ok(())
    }

    /// Adds the pieces that a tensor has in one block in a plan, and in those that have the same terms for it.
    pub fn tensor(
        &mut self,
        plan: usize,
        tensor: usize,
        block: usize,
        Range { start: begin, end }: Range<u64>,
        window_end: u64,
    ) -> Result<()> {
        let (this, inputs) = (&self.plans[plan].layout.tensors[tensor], &self.plans[plan].inputs);
        let unit = this.dtype.unit();
        if this.requantised && !this.terms.is_empty() {
            return self.codes(plan, tensor, block, begin, window_end);
        }
        // Bytes of the tensor in this block.
        let (from, to) = (begin.max(this.begin) - this.begin, end.min(this.begin + this.bytes()) - this.begin);
        for span in this.spans(inputs) {
            let units = |elements: u64| elements * this.dtype.bits() / 8 / unit;
            let span = Span { begin: units(span.begin), end: units(span.end), ..span };
            let (start, stop) = ((from / unit).max(span.begin), to.div_ceil(unit).min(span.end));
            if start >= stop {
                continue;
            }
            let decoded = self.plans[plan].layout.decoded(this, start, stop);
            let work = self.work(self.plans[plan], tensor, span, decoded.clone(), window_end)?;
            self.pieces.push(Piece {
                block,
                plan,
                tensor,
                work,
                first: start,
                counted: from.div_ceil(unit).max(start),
                end: stop,
                at: this.begin + start * unit,
                decoded,
                into: None,
            });
        }
        Ok(())
    }

    /// Adds the piece of a tensor that is quantised again: all of its codes from byte `begin` of the file to the end of
    /// the window.
    fn codes(&mut self, plan: usize, tensor: usize, block: usize, begin: u64, window_end: u64) -> Result<()> {
        let own = self.plans[plan];
        let (this, inputs) = (&own.layout.tensors[tensor], &own.inputs);
        let at = this.from;
        let Some(into) = inputs.scaled(at) else { return Ok(()) };
        // Its piece began in an earlier block of this window.
        if block > 0 && this.begin < begin {
            return Ok(());
        }
        let from = begin.max(this.begin);
        let code = |offset: u64| (offset - this.begin) * 8 / into.format.codes.bits();
        let (first, end) = (code(from), code(window_end.min(this.begin + this.bytes())));
        let (low, high) = into.format.whole_parts(first, end);
        let span = Span { begin: 0, end: this.elements, action: Action::Combine };
        let encoded = self.gather.operand(inputs, at, low, high);
        let terms = self.terms(own, tensor, span, low..high, window_end)?;
        let work = Work::Combine { own: encoded, terms };
        let (counted, decoded, into) = (first, low..high, Some(into));
        self.pieces.push(Piece { block, plan, tensor, work, first, counted, end, at: from, decoded, into });
        Ok(())
    }

    /// Asks for the inputs of elements `[start, stop)`. The end of their span tells which terms reach this far.
    fn work(
        &mut self,
        plan: &'p Plan,
        tensor: usize,
        span: Span,
        elements: Range<u64>,
        window_end: u64,
    ) -> Result<Work<'p>> {
        let Range { start, end: stop } = elements;
        let (this, inputs) = (&plan.layout.tensors[tensor], &plan.inputs);
        if inputs.output == Output::Vector {
            return Ok(Work::Add(self.terms(plan, tensor, span, start..stop, window_end)?));
        }
        let own = this.from;
        if span.action == Action::Copy {
            // The bytes stay as they are, so the type is that of the output.
            let unit = this.dtype.unit();
            return Ok(Work::Copy(self.gather.tensor(inputs, own, start * unit, (stop - start) * unit)));
        }
        let own = self.gather.operand(inputs, own, start, stop);
        Ok(Work::Combine { own, terms: self.terms(plan, tensor, span, start..stop, window_end)? })
    }

    /// Asks for the operands of every term that reaches as far as this span.
    fn terms(
        &mut self,
        plan: &'p Plan,
        tensor: usize,
        span: Span,
        elements: Range<u64>,
        window_end: u64,
    ) -> Result<Range<usize>> {
        let Range { start, end: stop } = elements;
        let inputs = &plan.inputs;
        let first = self.terms.len();
        for (number, term) in plan.layout.tensors[tensor].reaching(span) {
            let minuend = self.gather.operand(inputs, term.minuend, start, stop);
            let subtrahend = term.subtrahend.map(|at| (self.gather.operand(inputs, at, start, stop), at));
            let exceptions = match self.sources.filter(|_| term.exceptions.is_some()) {
                Some(sources) => self.exceptions(sources, (tensor, number), term, start..stop, window_end)?,
                None => Vec::new(),
            };
            self.terms.push(TermSlots { at: term.minuend, minuend, subtrahend, exceptions, alpha: term.alpha });
        }
        Ok(first..self.terms.len())
    }

    /// The exceptions of a term for the whole window. They are looked up with the first piece of the tensor; later
    /// pieces use the same result.
    fn exceptions(
        &mut self,
        sources: &Sources,
        key: (usize, usize),
        term: &TermPlan,
        elements: Range<u64>,
        window_end: u64,
    ) -> Result<Vec<Exact>> {
        let exact = |found: &Vec<LookedUp>| found.iter().map(|found| found.exact).collect();
        if let Some(found) = self.looked_up.get(&key) {
            return Ok(exact(found));
        }
        let this = &self.plans[0].layout.tensors[key.0];
        let bytes = window_end.min(this.begin + this.bytes()) - this.begin;
        let last = bytes.div_ceil(this.dtype.bits() / 8).max(elements.end);
        let found = exceptions::look_up(self.gather, self.plans[0], sources, term, elements.start..last)?;
        let exact = exact(&found);
        self.looked_up.insert(key, found);
        Ok(exact)
    }
}
