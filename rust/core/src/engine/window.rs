//! One window of the output: some consecutive blocks of one file. It is read, computed and digested as a whole.
//!
//! ```text
//! collect:  for each block, for each tensor in it: a piece, the ranges that it reads, its terms
//! load:     read all ranges of the window
//! compute:  for each piece: decode its operands, combine them, write the result to its place in the output buffer
//! digest:   for each block: XXH3-128 (a vector's block may be packed first)
//! ```

mod exceptions;
mod measuring;
mod merged;
mod outcome;
mod packet;
pub mod packing;
mod pieces;
mod requantise;
mod side;
mod terms;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use self::exceptions::{LookedUp, disordered};
pub use self::measuring::Measuring;
pub use self::outcome::{BlockRecord, Found, FrameRecord, Outcome, Rescaled};
pub use self::packet::{Packet, Part};
use self::packing::{Packing, Palettes};
use self::pieces::{Collect, Piece, TermSlots};
use self::terms::Run;
pub use self::terms::damaged;
use crate::checkpoint::vector;
use crate::codec::packed::unpack::Unpacker;
use crate::control::Control;
use crate::engine::gather::{self, Gather, Loaded, Slot, Sources};
use crate::error::Result;
use crate::format::blocks::{self, BLOCK};
use crate::numeric::simd::Isa;
use crate::numeric::stats::Stats;
use crate::plan::Plan;
use crate::plan::budget::Budget;
use crate::plan::layout::{HeaderSource, OutFile};
use crate::plan::options::RoundingMode;
use crate::system::buffer::Buffer;
use crate::system::os::DIRECT_ALIGNMENT;
use crate::system::parallel::Permits;

/// Consecutive whole blocks of one output file.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Index of the file in the layout.
    pub file: usize,
    /// The first block, counted over all files.
    pub block: u64,
    /// How many blocks.
    pub blocks: u64,
}

impl Window {
    /// The bytes of the file that it covers, as `[begin, end)`.
    pub fn range(&self, file: &OutFile) -> (u64, u64) {
        let begin = (self.block - file.first_block) * BLOCK;
        (begin, (begin + self.blocks * BLOCK).min(file.len))
    }

    /// All windows of a plan, in order.
    pub fn all(plan: &Plan) -> Vec<Self> {
        Self::from(plan, 0..plan.layout.files.len(), &[])
    }

    /// The windows of some files of a plan, in order, for outputs that are done up to these blocks: from the first block
    /// that one of them still needs. An output needs a window as a whole or not at all.
    pub fn from(plan: &Plan, files: Range<usize>, done: &[u64]) -> Vec<Self> {
        let size = plan.budget.window_blocks;
        let first = done.iter().copied().min().unwrap_or(0);
        let mut windows = Vec::new();
        for (place, file) in files.clone().zip(&plan.layout.files[files]) {
            let end = file.first_block + file.blocks();
            let mut block = file.first_block.max(first);
            while block < end {
                let next = done.iter().copied().filter(|&done| done > block).min();
                let blocks = size.min(end - block).min(next.unwrap_or(end) - block);
                windows.push(Self { file: place, block, blocks });
                block += blocks;
            }
        }
        windows
    }
}

/// What all workers of a job share.
pub struct Shared<'p, 's> {
    /// A plan for each output that is computed. They share inputs and layout, and differ in their factors.
    pub plans: Vec<&'p Plan>,
    /// Its open inputs.
    pub sources: Sources<'s>,
    /// The instruction set of the kernels.
    pub isa: Isa,
    /// Limits how many workers compute at the same time.
    pub permits: Permits,
    /// Of a vector that is packed.
    pub palettes: Palettes,
    /// Of a merge.
    pub measuring: Measuring<'p>,
    /// Whether the job is to stop.
    pub control: &'s Control,
}

impl<'p> Shared<'p, '_> {
    /// The plan to ask for what all of them share.
    pub fn plan(&self) -> &'p Plan {
        self.plans[0]
    }
}

/// What one worker keeps from window to window.
pub struct Worker<'p> {
    input: Buffer,
    /// One for each plan.
    outputs: Vec<Buffer>,
    /// Decoded values of one piece.
    made: Buffer,
    tools: Tools,
    gather: Gather,
    pieces: Vec<Piece<'p>>,
    terms: Vec<TermSlots<'p>>,
}

/// What packs and unpacks; made when it is first needed.
#[derive(Default)]
struct Tools {
    packing: Option<Packing>,
    /// One for each operand of a piece.
    unpackers: Vec<Unpacker>,
    requantise: requantise::Tools,
}

impl Worker<'_> {
    /// Allocates the buffers as the budget says. An output buffer has a spare page before and after the window: for
    /// elements that are cut by its edges, and for the padding of the last direct write.
    pub fn new(budget: &Budget) -> Self {
        let output = (budget.window_blocks * BLOCK) as usize + 2 * DIRECT_ALIGNMENT;
        Self {
            input: Buffer::new(budget.window_in as usize),
            outputs: (0..budget.outputs).map(|_| Buffer::new(output)).collect(),
            made: Buffer::new(budget.made as usize),
            tools: Tools::default(),
            gather: Gather::default(),
            pieces: Vec::new(),
            terms: Vec::new(),
        }
    }

    /// The window's bytes as one of the plans has them, with room after them up to an aligned length.
    pub fn output(&mut self, plan: usize) -> &mut [u8] {
        &mut self.outputs[plan].bytes()[DIRECT_ALIGNMENT..]
    }
}

/// Computes a window for some of the plans, named by their places in ascending order: into the worker's output buffers,
/// with an outcome for each. What they read is loaded once. If the values go to a consumer in memory, those of the first
/// plan are also put into `packet`, and no digests are computed.
pub fn compute<'p>(
    shared: &Shared<'p, '_>,
    window: Window,
    worker: &mut Worker<'p>,
    wanted: &[usize],
    packet: Option<&mut Packet>,
) -> Result<Vec<Outcome>> {
    let file = &shared.plan().layout.files[window.file];
    let (begin, end) = window.range(file);
    let packed = shared.plan().layout.packed;
    for tensor in shared.plan().layout.overlapping(file, begin, end) {
        if packed {
            packing::find_palette(shared, tensor, worker)?;
        }
        measuring::ensure(shared, tensor, worker)?;
    }
    load(
        shared,
        window,
        Some(window.block),
        worker,
        |Filled { header, loaded, pieces, terms, outputs, made, tools }| {
            // An element that is cut by the start of the window begins in the spare page before it.
            let place = |offset: u64| (DIRECT_ALIGNMENT as u64 + offset - begin) as usize;
            let header = header_bytes(shared.plan(), file, begin, end, header.map(|slot| loaded.bytes(slot)));
            let blocks = vec![BlockRecord::default(); window.blocks as usize];
            let mut outcomes = vec![Outcome { blocks, ..Outcome::default() }; wanted.len()];
            for &plan in wanted {
                outputs[plan].bytes()[DIRECT_ALIGNMENT..][..header.len()].copy_from_slice(&header);
            }
            outcomes.iter_mut().for_each(|outcome| merged::record(shared, window, outcome));
            let mut misfits = Vec::new();
            for piece in pieces {
                let mut run = Run::new(shared, piece, terms, loaded, made, &mut tools.unpackers)?;
                for (&plan, outcome) in wanted.iter().zip(&mut outcomes) {
                    if !piece.is_of(&shared.plans, plan) {
                        continue;
                    }
                    // With several plans there is one vector, and a tensor has one term.
                    if let [term] = shared.plans[plan].layout.tensors[piece.tensor].terms[..] {
                        run.scale(term.alpha);
                    }
                    if piece.into.is_some() {
                        let stored = piece.stored(loaded);
                        let out = &mut outputs[plan].bytes()[place(piece.at)..];
                        let tools = &mut tools.requantise;
                        requantise::requantise(shared.plans[plan], piece, &mut run, &stored, tools, out, outcome)?;
                        continue;
                    }
                    let stats = if packed {
                        let packing = tools.packing.get_or_insert_default();
                        Some(packing::pack(shared, piece, &mut run, packing, outcome))
                    } else {
                        run.compute(piece, &mut outputs[plan].bytes()[place(piece.at)..], &mut misfits)
                    };
                    outcome.blocks[piece.block].stats.extend(stats.map(|stats| (piece.tensor as u32, stats)));
                    outcome.found.add(piece.tensor as u32, &mut misfits);
                }
            }
            if let Some(packet) = packet {
                let out = &*outputs[0].bytes();
                let computed = |piece: &Piece| &out[place(piece.at)..];
                let own = |piece: &Piece, original: &mut [u8]| {
                    // Without terms, what is computed are the target's own values.
                    let own = piece.without_terms();
                    Run::new(shared, &own, terms, loaded, made, &mut tools.unpackers)?.own(&own, original);
                    Ok(())
                };
                packet.fill(shared.plan(), pieces, computed, own)?;
                return Ok(outcomes);
            }
            for (&plan, outcome) in wanted.iter().zip(&mut outcomes).filter(|_| !packed) {
                for (block, record) in (0u64..).zip(&mut outcome.blocks) {
                    let from = begin + block * BLOCK;
                    record.digest = blocks::block(&outputs[plan].bytes()[place(from)..place((from + BLOCK).min(end))]);
                }
            }
            Ok(outcomes)
        },
    )
}

/// A variant of a job with one vector: another factor, another rounding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variant {
    /// The factor.
    pub alpha: f32,
    /// How results are rounded.
    pub rounding: RoundingMode,
}

/// The figures of a window under each of these variants, for every piece that gets arithmetic: place of the tensor in
/// the layout, and one set of figures for each variant. What they would write is computed and dropped.
pub fn survey<'p>(
    shared: &Shared<'p, '_>,
    window: Window,
    worker: &mut Worker<'p>,
    variants: &[Variant],
) -> Result<Vec<(u32, Vec<Stats>)>> {
    load(
        shared,
        window,
        Some(window.block),
        worker,
        |Filled { loaded, pieces, terms, outputs, made, tools, .. }| {
            let out = outputs[0].bytes();
            let mut found = Vec::new();
            for piece in pieces {
                let mut run = Run::new(shared, piece, terms, loaded, made, &mut tools.unpackers)?;
                let figures: Vec<_> = variants
                    .iter()
                    .filter_map(|&variant| {
                        run.vary(shared.plan(), piece, variant);
                        run.compute(piece, out, &mut Vec::new())
                    })
                    .collect();
                if !figures.is_empty() {
                    found.push((piece.tensor as u32, figures));
                }
            }
            Ok(found)
        },
    )
}

/// What a window takes, once it is loaded, and where its results go.
struct Filled<'a, 'p> {
    header: Option<Slot>,
    loaded: &'a Loaded<'a>,
    pieces: &'a [Piece<'p>],
    terms: &'a [TermSlots<'p>],
    outputs: &'a mut [Buffer],
    /// Room for decoded values.
    made: &'a mut [u8],
    tools: &'a mut Tools,
}

/// Loads what a window takes and does the work on it. `number` is that of the window in the lanes of streamed inputs, or
/// `None` if it is not one of those that they expect.
fn load<'p, R>(
    shared: &Shared<'p, '_>,
    window: Window,
    number: Option<u64>,
    worker: &mut Worker<'p>,
    work: impl FnOnce(Filled<'_, 'p>) -> Result<R>,
) -> Result<R> {
    let Worker { input, outputs, made, tools, gather, pieces, terms } = worker;
    gather.clear(number);
    let (header, looked_up) = collect(&shared.plans, Some(&shared.sources), window, (gather, pieces, terms))?;
    let loaded = &gather.load(&shared.sources, input.bytes())?;
    for LookedUp { at, exact, start, stop } in looked_up.values().flatten() {
        if !vector::ascend(loaded.bytes(exact.slots[0]), *start, *stop) {
            return Err(disordered(shared.plan(), *at));
        }
    }
    let made = made.bytes();
    let done = shared.permits.run(|| work(Filled { header, loaded, pieces, terms, outputs, made, tools }))?;
    gather.release(&shared.sources)?;
    Ok(done)
}

/// The part of the header that a window copies from the first input, and the exceptions of the window's tensors.
type Collected = (Option<Slot>, HashMap<(usize, usize), Vec<LookedUp>>);

/// Works out what a window is made of and what it reads.
fn collect<'p>(
    plans: &[&'p Plan],
    sources: Option<&Sources>,
    window: Window,
    (gather, pieces, terms): (&mut Gather, &mut Vec<Piece<'p>>, &mut Vec<TermSlots<'p>>),
) -> Result<Collected> {
    let file = &plans[0].layout.files[window.file];
    let (begin, end) = window.range(file);
    pieces.clear();
    terms.clear();
    let header = header(gather, file, begin, end);
    let mut collect = Collect { plans, sources, gather, pieces, terms, looked_up: HashMap::new() };
    for block in 0..window.blocks {
        collect.block(file, block as usize, begin + block * BLOCK, end)?;
    }
    Ok((header, collect.looked_up))
}

/// The reads of windows in advance. Exceptions are left out: which of them a window reads is known only from their
/// file.
pub struct Reads<'p, 'w> {
    plans: Vec<&'p Plan>,
    windows: std::slice::Iter<'w, Window>,
    gather: Gather,
    pieces: Vec<Piece<'p>>,
    terms: Vec<TermSlots<'p>>,
}

impl<'p, 'w> Reads<'p, 'w> {
    /// The reads of these windows, in this order.
    pub fn of(plans: &[&'p Plan], windows: &'w [Window]) -> Self {
        let (gather, pieces, terms) = Default::default();
        Self { plans: plans.to_vec(), windows: windows.iter(), gather, pieces, terms }
    }

    /// The next window and its reads; `None` after the last.
    pub fn next(&mut self) -> Result<Option<(Window, &[gather::Run])>> {
        let Some(&window) = self.windows.next() else { return Ok(None) };
        self.gather.clear(Some(window.block));
        collect(&self.plans, None, window, (&mut self.gather, &mut self.pieces, &mut self.terms))?;
        Ok(Some((window, self.gather.runs())))
    }
}

/// Asks for the part of the header in this window, if the header is copied from the first input.
fn header(gather: &mut Gather, file: &OutFile, begin: u64, end: u64) -> Option<Slot> {
    match file.header {
        HeaderSource::Shard(shard) if begin < file.data_start => {
            Some(gather.range(0, shard as usize, begin, end.min(file.data_start) - begin))
        }
        _ => None,
    }
}

/// The part of a file's header that is in `[begin, end)`; `copied` is what was loaded of it, if it is the first input's.
fn header_bytes<'a>(
    plan: &'a Plan,
    file: &'a OutFile,
    begin: u64,
    end: u64,
    copied: Option<&'a [u8]>,
) -> Cow<'a, [u8]> {
    let part = begin as usize..end.min(file.data_start) as usize;
    match (&file.header, copied) {
        (_, Some(bytes)) => bytes.into(),
        (HeaderSource::New(Some(bytes)), None) if begin < file.data_start => bytes[part].into(),
        (HeaderSource::New(None), None) if begin < file.data_start => {
            plan.layout.new_header(file, &plan.inputs)[part].to_vec().into()
        }
        _ => Cow::Borrowed(&[]),
    }
}
