//! One window of the output: read what it needs, compute it block by block, digest it.

use std::collections::HashMap;

use crate::budget::Budget;
use crate::buffer::Buffer;
use crate::digest;
use crate::dtype::{Dtype, Float};
use crate::error::{Error, Result};
use crate::gather::{Gather, Loaded, Slot, Sources};
use crate::inputs::At;
use crate::kernel::{self, Exceptions, Operand, Rounding, Term};
use crate::layout::{Action, BLOCK, HeaderSource, OutFile};
use crate::matching::TermPlan;
use crate::options::RoundingMode;
use crate::ordered::Permits;
use crate::os::DIRECT_ALIGNMENT;
use crate::philox;
use crate::plan::Plan;
use crate::simd::Isa;
use crate::stats::Stats;
use crate::vector;

/// Some whole blocks of one output file.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Place in the layout's files.
    pub file: usize,
    /// First block, counted over all files.
    pub block: u64,
    /// How many.
    pub blocks: u64,
}

impl Window {
    /// The bytes of the file that it covers, as `[begin, end)`.
    pub fn range(&self, file: &OutFile) -> (u64, u64) {
        let begin = (self.block - file.first_block) * BLOCK;
        (begin, (begin + self.blocks * BLOCK).min(file.len))
    }
}

/// What is known of one block once it is computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockRecord {
    /// XXH3-128 of its bytes.
    pub digest: u128,
    /// Figures of the tensors that have elements beginning in it, by place in the layout.
    pub stats: Vec<(u32, Stats)>,
}

/// Differences that a vector's bf16 values cannot hold, in the order of tensor and element.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Tensors by place in the layout, and how many exceptions each has in this window.
    pub counts: Vec<(u32, u64)>,
    /// Element indices, i64 little-endian.
    pub index: Vec<u8>,
    /// Exact differences, f32 little-endian.
    pub value: Vec<u8>,
}

/// What one window leaves to be taken over in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Its blocks.
    pub blocks: Vec<BlockRecord>,
    /// Its exceptions (`extract` only).
    pub found: Found,
}

/// What all workers of a job share.
pub struct Shared<'a> {
    /// The job.
    pub plan: &'a Plan,
    /// Its open inputs.
    pub sources: Sources<'a>,
    /// The instruction set of the kernels.
    pub isa: Isa,
    /// Limits how many compute at the same time.
    pub permits: Permits,
}

/// What one worker keeps from window to window.
pub struct Worker {
    input: Buffer,
    output: Buffer,
    gather: Gather,
    pieces: Vec<Piece>,
    slots: Vec<Slot>,
}

impl Worker {
    /// Buffers as the budget says. The output has a page to spare on both sides, for elements cut by its edges and for
    /// the last, padded direct write.
    pub fn new(budget: &Budget) -> Self {
        let output = (budget.window_blocks * BLOCK) as usize + 2 * DIRECT_ALIGNMENT;
        Self {
            input: Buffer::new(budget.window_in as usize),
            output: Buffer::new(output),
            gather: Gather::default(),
            pieces: Vec::new(),
            slots: Vec::new(),
        }
    }

    /// The window's bytes with room behind them up to an aligned length.
    pub fn output(&mut self) -> &mut [u8] {
        &mut self.output.bytes()[DIRECT_ALIGNMENT..]
    }
}

/// Elements (or, for a copy, bytes) of one tensor in one block.
struct Piece {
    block: usize,
    /// Place in the layout.
    tensor: usize,
    action: Action,
    /// The first element, which may begin in the block before.
    first: u64,
    /// The first element that begins in this block: only from it on is anything counted.
    counted: u64,
    /// One past the last element.
    end: u64,
    /// The file offset of `first`.
    at: u64,
    /// Its slots: the base, then each term's minuend, subtrahend, exceptions.
    slots: std::ops::Range<usize>,
}

/// Computes a window into the worker's output buffer.
pub fn compute(shared: &Shared, window: Window, worker: &mut Worker) -> Result<Outcome> {
    let plan = shared.plan;
    let file = &plan.layout.files[window.file];
    let (begin, end) = window.range(file);
    let Worker { input, output, gather, pieces, slots } = worker;
    gather.clear();
    pieces.clear();
    slots.clear();
    let header = header(gather, file, begin, end);
    let mut collect = Collect { shared, gather, pieces, slots, exceptions: HashMap::new() };
    for block in 0..window.blocks {
        collect.block(file, block as usize, begin + block * BLOCK, end)?;
    }
    let looked_up = collect.exceptions;
    let loaded = gather.load(&plan.inputs, &shared.sources, input.bytes())?;
    for LookedUp { at, slots, start, stop } in looked_up.values() {
        if !vector::ascend(loaded.bytes(slots[0]), *start, *stop) {
            return Err(disordered(plan, *at));
        }
    }
    let outcome = shared.permits.run(|| {
        let out = output.bytes();
        let place = |offset: u64| DIRECT_ALIGNMENT + offset as usize - begin as usize;
        match (&file.header, header) {
            (_, Some(slot)) => {
                let bytes = loaded.bytes(slot);
                out[DIRECT_ALIGNMENT..DIRECT_ALIGNMENT + bytes.len()].copy_from_slice(bytes);
            }
            (HeaderSource::New(bytes), None) if begin < file.data_start => {
                let part = &bytes[begin as usize..end.min(file.data_start) as usize];
                out[DIRECT_ALIGNMENT..DIRECT_ALIGNMENT + part.len()].copy_from_slice(part);
            }
            _ => {}
        }
        let mut outcome =
            Outcome { blocks: vec![BlockRecord::default(); window.blocks as usize], ..Outcome::default() };
        let mut misfits = Vec::new();
        for piece in pieces.iter() {
            // An element cut by the window's front begins in the spare page before it.
            let from = (DIRECT_ALIGNMENT as u64 + piece.at - begin) as usize;
            let mut run = Run { shared, piece, slots: &slots[piece.slots.clone()], loaded: &loaded };
            if let Some(stats) = run.compute(&mut out[from..], &mut misfits) {
                outcome.blocks[piece.block].stats.push((piece.tensor as u32, stats));
            }
            if !misfits.is_empty() {
                outcome.found.counts.push((piece.tensor as u32, misfits.len() as u64));
                outcome.found.index.extend(misfits.iter().flat_map(|(index, _)| index.to_le_bytes()));
                outcome.found.value.extend(misfits.iter().flat_map(|(_, value)| value.to_le_bytes()));
                misfits.clear();
            }
        }
        for (block, record) in (0u64..).zip(&mut outcome.blocks) {
            let from = begin + block * BLOCK;
            record.digest = digest::block(&out[place(from)..place((from + BLOCK).min(end))]);
        }
        outcome
    });
    gather.release(&plan.inputs, &shared.sources)?;
    Ok(outcome)
}

/// The part of the header in this window, if it is the first input's own.
fn header(gather: &mut Gather, file: &OutFile, begin: u64, end: u64) -> Option<Slot> {
    match file.header {
        HeaderSource::Shard(shard) if begin < file.data_start => {
            Some(gather.range(0, shard as usize, begin, end.min(file.data_start) - begin))
        }
        _ => None,
    }
}

/// Works out the pieces of a window and asks for what they read.
struct Collect<'a, 'b> {
    shared: &'a Shared<'b>,
    gather: &'a mut Gather,
    pieces: &'a mut Vec<Piece>,
    slots: &'a mut Vec<Slot>,
    /// Exceptions are looked up once for each tensor of the window.
    exceptions: HashMap<(usize, usize), LookedUp>,
}

/// Exceptions of one tensor in a window.
struct LookedUp {
    /// Where the indices lie.
    at: At,
    /// Indices and values.
    slots: [Slot; 2],
    /// Elements that the indices may name: from here on.
    start: u64,
    /// And up to here.
    stop: u64,
}

impl Collect<'_, '_> {
    fn block(&mut self, file: &OutFile, block: usize, begin: u64, window_end: u64) -> Result<()> {
        let plan = self.shared.plan;
        let end = (begin + BLOCK).min(window_end);
        for tensor in plan.layout.overlapping(file, begin, end) {
            let this = &plan.layout.tensors[tensor];
            let base = plan.inputs.base().tensors[this.base as usize].dtype;
            // Bytes of the tensor in this block, and in units: elements, or bytes where they are only copied.
            let (from, to) = (begin.max(this.begin) - this.begin, end.min(this.begin + this.bytes()) - this.begin);
            for (first, last, action) in this.spans(base) {
                let bits = this.dtype.bits();
                let unit = if action == Action::Copy { 1 } else { bits / 8 };
                let (first, last) =
                    if action == Action::Copy { (first * bits / 8, last * bits / 8) } else { (first, last) };
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
        let plan = self.shared.plan;
        let this = &plan.layout.tensors[tensor];
        if plan.inputs.has_target {
            let at = At { input: 0, tensor: this.base };
            let size = if action == Action::Copy { 1 } else { plan.inputs.tensor(at).dtype.bits() / 8 };
            self.slots.push(self.gather.tensor(&plan.inputs, at, start * size, (stop - start) * size));
        }
        if action != Action::Combine {
            return Ok(());
        }
        for (number, term) in this.terms.iter().enumerate().filter(|(_, term)| term.elements >= span_end) {
            for at in [Some(term.minuend), term.subtrahend].into_iter().flatten() {
                let size = plan.inputs.tensor(at).dtype.bits() / 8;
                self.slots.push(self.gather.tensor(&plan.inputs, at, start * size, (stop - start) * size));
            }
            if term.exceptions.is_some() {
                if !self.exceptions.contains_key(&(tensor, number)) {
                    let bytes = window_end.min(this.begin + this.bytes()) - this.begin;
                    let last = bytes.div_ceil(this.dtype.bits() / 8);
                    let found = self.look_up(term, start, last.max(stop))?;
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
    fn look_up(&mut self, term: &TermPlan, start: u64, stop: u64) -> Result<LookedUp> {
        let plan = self.shared.plan;
        let inputs = &plan.inputs;
        let Some((at, value)) = term.exceptions else { return Err(Error::Usage("no exceptions to look up".into())) };
        let count = inputs.tensor(at).elements();
        let elements = inputs.tensor(term.minuend).elements();
        let first_from = |wanted: u64| -> Result<u64> {
            let (mut low, mut high) = (0, count);
            while low < high {
                let middle = low + (high - low) / 2;
                let bytes = self.gather.word(inputs, &self.shared.sources, at, middle * 8)?;
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
fn disordered(plan: &Plan, at: At) -> Error {
    let name = plan.inputs.tensor(at).name.strip_suffix(".index").unwrap_or_default();
    let what = format!("the exceptions of tensor `{name}` do not ascend within the tensor; extract the vector again");
    Error::corrupt(plan.inputs.path(at), what)
}

/// One piece in work.
struct Run<'a, 'b> {
    shared: &'a Shared<'b>,
    piece: &'a Piece,
    slots: &'a [Slot],
    loaded: &'a Loaded<'a>,
}

impl<'a> Run<'a, '_> {
    /// Computes the piece to the front of `out`; figures are those of the elements that begin in its block.
    fn compute(&mut self, out: &mut [u8], misfits: &mut Vec<(u64, f32)>) -> Option<Stats> {
        let Piece { first, counted, end, .. } = *self.piece;
        if self.piece.action == Action::Copy {
            out[..(end - first) as usize].copy_from_slice(self.loaded.bytes(self.slots[0]));
            return None;
        }
        let size = float(self.shared.plan.layout.tensors[self.piece.tensor].dtype).size();
        let (cut, rest) = out.split_at_mut((counted - first) as usize * size);
        if !cut.is_empty() {
            // The block before counts these elements; here only their bytes are wanted.
            self.elements(first, counted, cut, &mut Vec::new(), None);
        }
        let mut stats = Stats::default();
        self.elements(counted, end, &mut rest[..(end - counted) as usize * size], misfits, Some(&mut stats));
        Some(stats)
    }

    fn elements(
        &mut self,
        from: u64,
        to: u64,
        out: &mut [u8],
        misfits: &mut Vec<(u64, f32)>,
        stats: Option<&mut Stats>,
    ) {
        let plan = self.shared.plan;
        let this = &plan.layout.tensors[self.piece.tensor];
        let base = &plan.inputs.base().tensors[this.base as usize];
        let (inputs, isa, dtype) = (&plan.inputs, self.shared.isa, float(this.dtype));
        let first = self.piece.first;
        let mut slots = self.slots.iter();
        let mut next = || slots.next().map_or(&[][..], |&slot| self.loaded.bytes(slot));
        let operand = |dtype: Dtype, bytes: &'a [u8]| {
            let float = float(dtype);
            let size = float.size();
            Operand { float, bytes: &bytes[(from - first) as usize * size..(to - first) as usize * size] }
        };
        let of = |at: At| inputs.tensor(at).dtype;
        if !inputs.has_target {
            let term = &this.terms[0];
            let minuend = operand(of(term.minuend), next());
            // `extract` always has a pair: its only origin is one.
            let Some(subtrahend) = term.subtrahend.map(|at| operand(of(at), next())) else { return };
            kernel::subtract(isa, minuend, subtrahend, from, dtype, out, misfits, stats);
            return;
        }
        let target = operand(base.dtype, next());
        let mut terms = Vec::with_capacity(this.terms.len());
        if self.piece.action == Action::Combine {
            for term in this.terms.iter().filter(|term| term.elements >= self.piece.end) {
                let minuend = operand(of(term.minuend), next());
                let subtrahend = term.subtrahend.map(|at| operand(of(at), next()));
                let exceptions = match term.exceptions {
                    Some(_) => Exceptions { index: next(), value: next() },
                    None => Exceptions::NONE,
                };
                terms.push(Term { minuend, subtrahend, exceptions, alpha: term.alpha });
            }
        }
        let rounding = match plan.options.rounding {
            RoundingMode::Nearest => Rounding::Nearest,
            RoundingMode::Stochastic => Rounding::Stochastic { key: philox::key(plan.options.seed, &base.name) },
        };
        kernel::combine(isa, target, &terms, from, dtype, &rounding, out, stats);
    }
}

/// Only float tensors get arithmetic: matching saw to it.
fn float(dtype: Dtype) -> Float {
    dtype.float().unwrap_or(Float::F32)
}
