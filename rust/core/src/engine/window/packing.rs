//! Packs the blocks of a vector: one frame for each block.
//!
//! All frames of a tensor share a palette. It comes from the block in the middle of the tensor, so it is the same
//! whatever the order of the windows, and wherever an interrupted run stopped.

use std::sync::OnceLock;

use super::pieces::Piece;
use super::terms::Run;
use super::{Filled, FrameRecord, Outcome, Shared, Window, Worker, load};
use crate::codec::packed::frame::{Block, Packer};
use crate::codec::packed::frame_seed;
use crate::codec::packed::palette::Palette;
use crate::error::Result;
use crate::format::blocks::{self, BLOCK};
use crate::format::packed_table;
use crate::numeric::dtype::Float;
use crate::numeric::stats::Stats;
use crate::plan::Plan;
use crate::plan::operands::float;

/// The palettes of a job's tensors, by index in the layout, each once it is known. Empty if nothing is packed.
pub struct Palettes(Vec<OnceLock<Palette>>);

impl Palettes {
    /// None known yet.
    pub fn new(plan: &Plan) -> Self {
        let count = if plan.layout.packed { plan.layout.tensors.len() } else { 0 };
        Self((0..count).map(|_| OnceLock::new()).collect())
    }

    /// The palette of a tensor; `None` if it has only one frame.
    fn get(&self, tensor: usize) -> Option<&Palette> {
        self.0[tensor].get()
    }
}

/// Finds the palette of a tensor, unless it is known.
pub(super) fn find_palette<'p>(shared: &Shared<'p, '_>, tensor: usize, worker: &mut Worker<'p>) -> Result<()> {
    let cell = &shared.palettes.0[tensor];
    let this = &shared.plan().layout.tensors[tensor];
    // A tensor of one frame has its palette there.
    if this.frames() < 2 || cell.get().is_some() {
        return Ok(());
    }
    let layout = &shared.plan().layout;
    let file = layout.files.partition_point(|file| file.tensors.1 <= tensor);
    let block = layout.files[file].first_block + this.begin / BLOCK + this.frames() / 2;
    let window = Window { file, block, blocks: 1 };
    let palette = load(shared, window, None, worker, |Filled { loaded, pieces, terms, made, tools, .. }| {
        let Some(piece) = pieces.first() else { return Ok(Palette::default()) };
        let mut run = Run::new(shared, piece, terms, loaded, made, &mut tools.unpackers)?;
        let packing = tools.packing.get_or_insert_default();
        packing.exact(&mut run, piece);
        let block = Block { float: float(this.dtype), exact: &packing.exact };
        Ok(packing.packer.palette(shared.isa, block))
    })?;
    // Another worker may have found it meanwhile: it is the same.
    let _ = cell.set(palette);
    Ok(())
}

/// Packs a piece, which is all of its block. Returns its figures.
pub(super) fn pack(
    shared: &Shared,
    piece: &Piece,
    run: &mut Run,
    packing: &mut Packing,
    outcome: &mut Outcome,
) -> Stats {
    let plan = shared.plan();
    let this = &plan.layout.tensors[piece.tensor];
    let name = &plan.inputs.base().tensors[this.tensor as usize].name;
    let float = float(this.dtype);
    let stats = packing.exact(run, piece);
    let none = Palette::default();
    let palette = shared.palettes.get(piece.tensor).unwrap_or(&none);
    let bytes = palette.to_bytes();
    let seed = frame_seed(packed_table::seed(name), &bytes, piece.first / (BLOCK / float.size() as u64));
    let start = outcome.frames.len();
    // The palette stands before the first frame.
    let magnitudes = if piece.first == 0 { palette.ranks() / 2 } else { 0 };
    outcome.frames.extend(&bytes[..2 * usize::from(magnitudes)]);
    let block = Block { float, exact: &packing.exact };
    let wide = packing.packer.pack(shared.isa, block, palette, seed, &mut outcome.frames);
    if wide > 0 && float == Float::Bf16 {
        outcome.found.counts.push((piece.tensor as u32, wide));
    }
    let written = &outcome.frames[start..];
    let record = &mut outcome.blocks[piece.block];
    record.digest = blocks::block(written);
    record.frame = FrameRecord { bytes: written.len() as u32, magnitudes };
    stats
}

/// What packs the blocks of one worker.
#[derive(Default)]
pub(super) struct Packing {
    packer: Packer,
    /// The exact values of the current piece.
    exact: Vec<u8>,
}

impl Packing {
    /// Computes a piece in float32, and its figures.
    fn exact(&mut self, run: &mut Run, piece: &Piece) -> Stats {
        self.exact.resize((piece.end - piece.first) as usize * Float::F32.size(), 0);
        run.compute(piece, &mut self.exact, &mut Vec::new()).unwrap_or_default()
    }
}
