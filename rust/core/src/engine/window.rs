//! One window of the output: read what it needs, compute it block by block, digest it.

mod packet;
mod pieces;

use std::collections::HashMap;

pub use self::packet::{Packet, Part};
use self::pieces::{Collect, LookedUp, Piece, disordered};
use crate::checkpoint::vector;
use crate::codec::derived::Made;
use crate::codec::lora_product;
use crate::engine::gather::{self, Gather, Loaded, Slot, Sources};
use crate::error::Result;
use crate::format::blocks::{self, BLOCK};
use crate::numeric::combine::combine;
use crate::numeric::dtype::{Dtype, Float};
use crate::numeric::operand::{Exceptions, Operand, Rounding, Term};
use crate::numeric::philox;
use crate::numeric::simd::Isa;
use crate::numeric::stats::Stats;
use crate::numeric::subtract::subtract;
use crate::plan::Plan;
use crate::plan::budget::{Budget, MADE};
use crate::plan::inputs::At;
use crate::plan::layout::{Action, HeaderSource, OutFile};
use crate::plan::options::RoundingMode;
use crate::system::buffer::Buffer;
use crate::system::os::DIRECT_ALIGNMENT;
use crate::system::parallel::Permits;

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

    /// The windows of a plan from a block on, in order.
    pub fn from(plan: &Plan, done: u64) -> Vec<Self> {
        let size = plan.budget.window_blocks;
        let mut windows = Vec::new();
        for (place, file) in plan.layout.files.iter().enumerate() {
            let end = file.first_block + file.blocks();
            let mut block = file.first_block.max(done);
            while block < end {
                let blocks = size.min(end - block);
                windows.push(Self { file: place, block, blocks });
                block += blocks;
            }
        }
        windows
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
    /// Values of one piece that stand in no file.
    made: Buffer,
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
            made: Buffer::new(budget.made as usize),
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

/// Computes a window into the worker's output buffer, and into a packet where its values go to a consumer instead of a
/// file: then nothing is digested.
pub fn compute(shared: &Shared, window: Window, worker: &mut Worker, packet: Option<&mut Packet>) -> Result<Outcome> {
    let plan = shared.plan;
    let file = &plan.layout.files[window.file];
    let (begin, end) = window.range(file);
    let Worker { input, output, made, gather, pieces, slots } = worker;
    let (header, looked_up) = collect(plan, Some(&shared.sources), window, (gather, pieces, slots))?;
    let loaded = gather.load(&shared.sources, input.bytes())?;
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
            let values = values(shared, piece, &slots[piece.slots.clone()], &loaded, made.bytes());
            let mut run = Run { shared, piece, values };
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
        if let Some(packet) = packet {
            packet.fill(plan, pieces, |piece| {
                let from = (DIRECT_ALIGNMENT as u64 + piece.at - begin) as usize;
                (&out[from..], loaded.bytes(slots[piece.slots.start]))
            });
            return outcome;
        }
        for (block, record) in (0u64..).zip(&mut outcome.blocks) {
            let from = begin + block * BLOCK;
            record.digest = blocks::block(&out[place(from)..place((from + BLOCK).min(end))]);
        }
        outcome
    });
    gather.release(&shared.sources)?;
    Ok(outcome)
}

/// The part of the output's header that a window copies from the first input's, and the exceptions of its tensors.
type Collected = (Option<Slot>, HashMap<(usize, usize), LookedUp>);

/// Works out what a window is made of and what it reads.
fn collect(
    plan: &Plan,
    sources: Option<&Sources>,
    window: Window,
    (gather, pieces, slots): (&mut Gather, &mut Vec<Piece>, &mut Vec<Slot>),
) -> Result<Collected> {
    let file = &plan.layout.files[window.file];
    let (begin, end) = window.range(file);
    gather.clear(Some(window.block));
    pieces.clear();
    slots.clear();
    let header = header(gather, file, begin, end);
    let mut collect = Collect { plan, sources, gather, pieces, slots, exceptions: HashMap::new() };
    for block in 0..window.blocks {
        collect.block(file, block as usize, begin + block * BLOCK, end)?;
    }
    Ok((header, collect.exceptions))
}

/// The reads of windows to come, but for exceptions: which these are, only the file itself tells.
pub struct Reads<'a> {
    plan: &'a Plan,
    windows: std::slice::Iter<'a, Window>,
    gather: Gather,
    pieces: Vec<Piece>,
    slots: Vec<Slot>,
}

impl<'a> Reads<'a> {
    /// Of these windows, in their order.
    pub fn of(plan: &'a Plan, windows: &'a [Window]) -> Self {
        let (gather, pieces, slots) = Default::default();
        Self { plan, windows: windows.iter(), gather, pieces, slots }
    }

    /// The next window's.
    pub fn next(&mut self) -> Result<Option<(Window, &[gather::Run])>> {
        let Some(&window) = self.windows.next() else { return Ok(None) };
        collect(self.plan, None, window, (&mut self.gather, &mut self.pieces, &mut self.slots))?;
        Ok(Some((window, self.gather.runs())))
    }
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

/// What a piece is computed from, in the order of its slots; what stands in no file is made in `room`.
fn values<'a>(
    shared: &Shared,
    piece: &Piece,
    slots: &[Slot],
    loaded: &'a Loaded,
    mut room: &'a mut [u8],
) -> Vec<&'a [u8]> {
    let inputs = &shared.plan.inputs;
    let mut slots = slots.iter().map(|&slot| loaded.bytes(slot));
    let mut values: Vec<&[u8]> = slots.by_ref().take(usize::from(inputs.has_target)).collect();
    let terms = &shared.plan.layout.tensors[piece.tensor].terms;
    for term in terms.iter().filter(|term| piece.action == Action::Combine && term.elements >= piece.end) {
        for at in [Some(term.minuend), term.subtrahend].into_iter().flatten() {
            let Some(made) = inputs.made(at) else {
                values.extend(slots.next());
                continue;
            };
            let (mine, rest) = room.split_at_mut((piece.end - piece.first) as usize * MADE);
            room = rest;
            match made {
                Made::Zero => mine.fill(0),
                Made::Product(product) => {
                    let parts: Vec<_> = slots.by_ref().take(product.parts()).collect();
                    lora_product::multiply(shared.isa, product, &parts, piece.first, mine);
                }
            }
            values.push(mine);
        }
        values.extend(slots.by_ref().take(2 * usize::from(term.exceptions.is_some())));
    }
    values
}

/// One piece in work.
struct Run<'a, 'b> {
    shared: &'a Shared<'b>,
    piece: &'a Piece,
    values: Vec<&'a [u8]>,
}

impl<'a> Run<'a, '_> {
    /// Computes the piece to the front of `out`; figures are those of the elements that begin in its block.
    fn compute(&mut self, out: &mut [u8], misfits: &mut Vec<(u64, f32)>) -> Option<Stats> {
        let Piece { first, counted, end, .. } = *self.piece;
        if self.piece.action == Action::Copy {
            let bytes = self.values[0];
            out[..bytes.len()].copy_from_slice(bytes);
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
        let mut values = self.values.iter().copied();
        let mut next = || values.next().unwrap_or_default();
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
            subtract(isa, minuend, subtrahend, from, dtype, out, misfits, stats);
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
        combine(isa, target, &terms, from, dtype, &rounding, out, stats);
    }
}

/// Only float tensors get arithmetic: matching saw to it.
fn float(dtype: Dtype) -> Float {
    dtype.float().unwrap_or(Float::F32)
}
