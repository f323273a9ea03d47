//! How the memory budget is spent: `headers + workers × (input buffer + output buffers)`. It does not depend on the size
//! of a tensor or a shard.

use std::ops::Range;

use crate::checkpoint::Tensor;
use crate::codec::packed::frame;
use crate::error::{Error, Result};
use crate::format::blocks::BLOCK;
use crate::numeric::dtype::Dtype;
use crate::numeric::methods::measure::Measure;
use crate::numeric::stats::Stats;
use crate::plan::inputs::Inputs;
use crate::plan::layout::{Action, Layout, Span, TensorPlan};
use crate::plan::output::Output;
use crate::source::lane::{self, CHUNK};
use crate::source::{Io, LONG};
use crate::system::os::DIRECT_ALIGNMENT;

/// Bytes in memory per tensor of the output, beside what is known of it as a tensor of the inputs: its part of the plan
/// and of the figures, and 64 for what the allocator keeps. With three inputs of 249,756 tensors, a transfer in the least
/// budget, 118 MiB, took 111 MiB at its peak (`RssAnon` of the process, less that of Python before the call).
const PER_TENSOR: u64 = (size_of::<TensorPlan>() + size_of::<Stats>() + 64) as u64;
/// Bytes for each element of a part that is quantised again: values and codes of the part and of one of its blocks.
const REQUANTISING: u64 = 64;
/// Bytes of a scale that changes, in a list that grows.
const RESCALED: u64 = 32;
/// Bytes in memory per frame of a packed output.
const PER_FRAME: u64 = 24;
/// Bytes for each worker: stacks, queues, and what the allocator keeps.
pub const PER_WORKER: u64 = 128 << 10;
/// Bytes for Python's HTTP client, its connections, and the threads that wait for them.
const CLIENT: u64 = 24 << 20;
/// The most chunks of a lane; more would not make a stream faster.
const MOST_CHUNKS: u64 = 256;
/// Bytes of one exception in the file: an index and a value.
pub const EXCEPTION: u64 = 12;

/// What a job needs, found by walking through the blocks of the layout once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Need {
    /// Bytes read from the inputs by the whole job.
    pub read: u64,
    /// The most input bytes that one block needs.
    pub block_in: u64,
    /// The most bytes that one block can add to what waits for its turn: exceptions, a frame, or scales that change.
    pub block_waiting: u64,
    /// Bytes that a worker needs to pack a block, or to make a header.
    pub packing: u64,
    /// The most bytes of decoded values of one tensor in one block.
    pub made: u64,
    /// As `made`, for a tensor that is quantised again: it takes them for every block of a window.
    pub block_made: u64,
    /// The most bytes that unpacking the operands of one tensor needs, beside their values.
    pub unpacking: u64,
    /// Bytes that a worker needs to quantise again.
    pub requantising: u64,
    /// How many outputs are computed from one read: each worker has a buffer for each.
    pub outputs: u64,
    /// Bytes of a block as delivered to a consumer in memory; 0 if windows go to files.
    pub block_delivered: u64,
    /// Bytes of headers and tables.
    pub fixed: u64,
    /// How many inputs are streamed.
    pub lanes: u64,
}

impl Need {
    /// Walks every block of the layout.
    pub fn of(inputs: &Inputs, layout: &Layout, io: Io) -> Self {
        let inputs_known: u64 = inputs.list.iter().map(|input| input.checkpoint.memory()).sum();
        let terms: u64 = layout.tensors.iter().map(|plan| plan.terms.memory()).sum();
        let planned = layout.tensors.len() as u64 * PER_TENSOR + terms + layout.new_headers() + outlined(inputs);
        let lanes = inputs.list.iter().filter(|input| input.checkpoint.place.streams()).count() as u64;
        // Of an output that is packed: the length of each frame, as a number and as text, in each file once.
        let frames = if layout.packed { layout.blocks() * PER_FRAME } else { 0 };
        let fixed = inputs_known + planned + frames;
        // Beside a header there is the list that it is made from.
        let packing = 2 * layout.made_again();
        let mut need = Self { fixed, lanes, packing, outputs: 1, ..Self::default() };
        for file in &layout.files {
            need.read += file.data_start;
            need.block_in = need.block_in.max(file.data_start.min(BLOCK));
            for number in 0..file.blocks() {
                let (mut block_in, mut waiting) = (0, 0);
                for place in layout.overlapping(file, number * BLOCK, (number + 1) * BLOCK) {
                    let share = in_block(inputs, layout, &layout.tensors[place], number);
                    block_in += share.read;
                    need.read += share.measured;
                    waiting += share.waiting;
                    need.packing = need.packing.max(share.packing);
                    need.made = need.made.max(share.made);
                    need.block_made = need.block_made.max(share.block_made);
                    need.requantising = need.requantising.max(share.requantising);
                    need.unpacking = need.unpacking.max(share.unpacking);
                }
                need.read += block_in;
                need.block_in = need.block_in.max(block_in);
                need.block_waiting = need.block_waiting.max(waiting);
            }
        }
        // One tensor at a time is measured.
        let measured = layout.tensors.iter().filter_map(|plan| {
            let blocks = plan.bytes().div_ceil(BLOCK) + 1;
            layout.recipe(plan).map(|recipe| Measure::bytes(recipe, plan.elements, blocks))
        });
        need.fixed += measured.max().unwrap_or(0);
        if io != Io::Mmap || lanes > 0 {
            // A long read starts at an aligned address, and may be extended to aligned offsets on both sides.
            let pads = need.block_in / LONG as u64 * 3 * DIRECT_ALIGNMENT as u64;
            need.block_in += pads + 4 * DIRECT_ALIGNMENT as u64;
        }
        need
    }
}

/// What one tensor needs in one block, in bytes.
#[derive(Default)]
struct Share {
    /// Read from the inputs.
    read: u64,
    /// Read once more from the inputs, because a merge measures the tensor first.
    measured: u64,
    /// Decoded values.
    made: u64,
    /// What unpacking needs.
    unpacking: u64,
    /// What it can add to what waits to be written.
    waiting: u64,
    /// What packing needs.
    packing: u64,
    /// Decoded values of whole blocks, to be quantised again.
    block_made: u64,
    /// What quantising again needs.
    requantising: u64,
}

/// Adds what the elements of a span need.
fn add(share: &mut Share, inputs: &Inputs, plan: &TensorPlan, span: Span) {
    let Span { begin, end, .. } = span;
    let elements = end - begin;
    let (mut made, mut unpacking) = (0, 0);
    if inputs.output == Output::Checkpoint {
        let at = plan.from;
        match inputs.made(at) {
            Some(_) => {
                let own = inputs.operand(at, begin, end);
                share.read += own.read_bytes();
                made += own.window_room(elements);
            }
            None => share.read += inputs.tensor(at).dtype.bits() * elements / 8,
        }
    }
    for (_, term) in plan.reaching(span) {
        for at in [Some(term.minuend), term.subtrahend].into_iter().flatten() {
            let operand = inputs.operand(at, begin, end);
            share.read += operand.read_bytes();
            made += operand.window_room(elements);
            unpacking += operand.unpacking();
        }
        let exceptions = term.exceptions.map_or(0, |(index, _)| inputs.tensor(index).elements().min(elements));
        share.read += exceptions * EXCEPTION;
    }
    share.made = share.made.max(made);
    share.unpacking = share.unpacking.max(unpacking);
}

/// What a tensor needs in one block.
fn in_block(inputs: &Inputs, layout: &Layout, plan: &TensorPlan, number: u64) -> Share {
    let begin = plan.begin.max(number * BLOCK) - plan.begin;
    let end = plan.bytes().min((number + 1) * BLOCK - plan.begin);
    let scaled = inputs.scaled(plan.from);
    if let Some(format) = scaled.map(|scaled| &scaled.format).filter(|_| plan.requantised && !plan.terms.is_empty()) {
        let code = |byte: u64| byte * 8 / format.codes.bits();
        let (first, last) = format.whole_parts(code(begin), code(end));
        let mut share = Share::default();
        add(&mut share, inputs, plan, Span { begin: first, end: last, action: Action::Combine });
        let [rows, columns] = format.part();
        if !format.whole {
            share.waiting = format.blocks_beginning(code(end) - code(begin)) * RESCALED;
        }
        share.block_made = std::mem::take(&mut share.made);
        share.requantising = rows * columns * REQUANTISING;
        return share;
    }
    let bits = plan.dtype.bits();
    // An element that is cut by the edge of a block is read whole in both blocks.
    let (from, to) = (begin * 8 / bits, ((end * 8).div_ceil(bits)).min(plan.elements));
    let part = |span: Span| Span { begin: span.begin.max(from), end: span.end.min(to), ..span };
    let mut share = Share::default();
    if let Some(recipe) = layout.recipe(plan).filter(|_| from < to) {
        let Range { start: begin, end } = layout.decoded(plan, from, to);
        add(&mut share, inputs, plan, Span { begin, end, action: Action::Combine });
        share.measured = share.read * recipe.passes(plan.elements);
        share.packing = recipe.scratch() + Measure::partial(recipe, plan.elements);
        return share;
    }
    for span in plan.spans(inputs).into_iter().map(part).filter(|span| span.begin < span.end) {
        add(&mut share, inputs, plan, span);
    }
    let elements = to.saturating_sub(from);
    if layout.packed {
        share.waiting = frame::longest(elements);
        share.packing = frame::packer_bytes(elements);
    } else if inputs.output == Output::Vector && plan.dtype == Dtype::BF16 {
        share.waiting = elements * EXCEPTION;
    }
    share
}

/// Bytes of memory of the tensors of a merge's output.
fn outlined(inputs: &Inputs) -> u64 {
    let tensors = inputs.outline.iter().flat_map(|outline| &outline.tensors);
    tensors.map(|tensor| size_of::<Tensor>() as u64 + tensor.name.share()).sum()
}

/// Threads and buffers that a budget allows.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// The bytes that the user allows.
    pub bytes: u64,
    /// The most bytes that the job will use.
    pub planned: u64,
    /// The smallest budget that would work.
    pub least: u64,
    /// Threads that compute at the same time.
    pub threads: usize,
    /// Windows in progress at the same time: each is being read, computed or written.
    pub workers: usize,
    /// Blocks of one window.
    pub window_blocks: u64,
    /// Output buffers of each worker.
    pub outputs: usize,
    /// Bytes of input buffer for each window.
    pub window_in: u64,
    /// Chunks that each streamed input may hold ahead of the windows.
    pub lane_chunks: u64,
    /// Bytes for streaming; they are part of `planned`.
    pub streaming: u64,
    /// Bytes of each window for the decoded values of one tensor.
    pub made: u64,
}

impl Budget {
    /// Chooses the largest windows of which two per thread still fit, so that reading, computing and writing overlap.
    /// `bytes` may be exceeded up to `most` by inputs that need it.
    ///
    /// # Errors
    /// The budget is too small even for one window of one block.
    pub fn new(need: &Need, (bytes, most): (u64, u64), threads: usize) -> Result<Self> {
        // A finished window's exceptions or frames wait in memory until their turn to be written. Meanwhile its worker computes
        // another window, so each worker may hold those of two.
        let each = |blocks: u64| {
            let edges = (1 + 2 * need.outputs) * DIRECT_ALIGNMENT as u64;
            PER_WORKER
                + edges
                + need.made
                + need.unpacking
                + need.packing
                + need.requantising
                + blocks * need.block_made
                + blocks
                    * (need.outputs * BLOCK
                        + need.block_in
                        + 2 * need.outputs * need.block_waiting
                        + need.block_delivered)
        };
        // Each window in progress has its own packet, and the consumer has a copy of one.
        let fixed = |blocks: u64| need.fixed + blocks * need.block_delivered;
        // The chunks that are being fetched, and the client that fetches them.
        let streaming = |chunks: u64| if need.lanes > 0 { CLIENT + need.lanes * chunks * CHUNK } else { 0 };
        let least = fixed(1) + each(1) + streaming(lane::LEAST);
        let bytes = if bytes < least && least <= most { least } else { bytes };
        if bytes < least {
            return Err(Error::Usage(format!(
                "--memory {} is too little for these inputs; the least that works is {}KiB",
                human(bytes),
                least.div_ceil(1 << 10)
            )));
        }
        // Half of what is left goes to streaming: a slow network needs requests far ahead, a fast one needs windows.
        let ahead = |bytes: u64| (bytes / CHUNK).checked_div(need.lanes).unwrap_or(0);
        let left = bytes - fixed(1) - streaming(0);
        let lane_chunks = ahead(left / 2).clamp(lane::LEAST, MOST_CHUNKS).min(ahead(left - each(1)));
        let streaming = streaming(lane_chunks);
        let room = |blocks: u64| bytes.saturating_sub(fixed(blocks) + streaming);
        let wanted = (WORKERS_PER_THREAD * threads) as u64;
        let enough = (2 * threads) as u64;
        let window_blocks = WINDOWS.into_iter().find(|&blocks| room(blocks) / each(blocks) >= enough).unwrap_or(1);
        let workers = (room(window_blocks) / each(window_blocks)).min(wanted);
        Ok(Self {
            bytes,
            planned: fixed(window_blocks) + streaming + workers * each(window_blocks),
            least,
            threads: threads.min(usize::try_from(workers).unwrap_or(threads)),
            workers: usize::try_from(workers).unwrap_or(1),
            window_blocks,
            outputs: usize::try_from(need.outputs).unwrap_or(1),
            window_in: window_blocks * need.block_in,
            lane_chunks,
            streaming,
            made: need.made.max(window_blocks * need.block_made),
        })
    }
}

/// Blocks per window that are tried, largest first.
const WINDOWS: [u64; 3] = [4, 2, 1];
/// While one window is computed, others wait for their reads and writes: disks want several requests at once.
const WORKERS_PER_THREAD: usize = 4;

fn human(bytes: u64) -> String {
    if bytes >= 1 << 20 { format!("{}MiB", bytes >> 20) } else { format!("{bytes} bytes") }
}
