//! A piece of a merge: operands are decoded and widened group by group, a formula computes each group, and the result is
//! rounded once.

use std::ops::Range;
use std::sync::Arc;

use super::pieces::Piece;
use super::side::{Side, tiles};
use super::{Outcome, Shared, Window};
use crate::error::{Error, Result};
use crate::format::blocks::BLOCK;
use crate::numeric::dtype::Float;
use crate::numeric::methods::measure::{Measured, Partial, Probe};
use crate::numeric::methods::merge::{figures, round};
use crate::numeric::methods::{Ready, Recipe, Scratch, mask_key};
use crate::numeric::operand::Rounding;
use crate::numeric::simd::{self, Isa};
use crate::numeric::stats::Stats;
use crate::plan::Plan;
use crate::text::quote;

/// What a piece of a merge is computed from.
pub(super) struct Merged<'v> {
    isa: Isa,
    /// The first element that is loaded.
    first: u64,
    recipe: &'v Recipe,
    /// `None` while the tensor is measured.
    ready: Option<Ready<'v>>,
    operands: Vec<Side<'v>>,
    /// The values of the present group.
    rows: Vec<Vec<f32>>,
    scratch: Scratch,
    result: Vec<f32>,
}

impl<'v> Merged<'v> {
    /// From operands in the order of the recipe.
    pub fn new(shared: &'v Shared, piece: &Piece, recipe: &'v Recipe, operands: Vec<Side<'v>>) -> Result<Self> {
        let plan = shared.plan();
        let known = known(shared, piece.tensor, recipe);
        let ready = known.map(|known| {
            let elements = plan.layout.tensors[piece.tensor].elements;
            Ready::new(recipe, elements, &known, &mask_keys(plan, piece.tensor, recipe))
                .map_err(|why| without_mean(plan, piece.tensor, why))
        });
        let rows = vec![Vec::new(); operands.len()];
        let (scratch, result) = Default::default();
        let (isa, first) = (shared.isa, piece.decoded.start);
        Ok(Self { isa, first, recipe, ready: ready.transpose()?, operands, rows, scratch, result })
    }

    /// Computes elements `[from, to)`, with their figures if they are wanted.
    pub fn elements(
        &mut self,
        (from, to): (u64, u64),
        float: Float,
        rounding: &Rounding,
        out: &mut [u8],
        mut stats: Option<&mut Stats>,
    ) {
        let mut at = from;
        while at < to {
            let group = self.recipe.group(from, at, to);
            let end = group.end.min(to);
            self.fill(&group);
            let Self { isa, ready, rows, scratch, result, .. } = self;
            result.resize((group.end - group.start) as usize, 0.0);
            if let Some(ready) = ready {
                ready.compute(*isa, rows, group.start, scratch, result);
            }
            let within = (at - group.start) as usize..(end - group.start) as usize;
            let out = &mut out[(at - from) as usize * float.size()..(end - from) as usize * float.size()];
            round(*isa, &result[within.clone()], at, float, rounding, out);
            if let Some(stats) = stats.as_deref_mut() {
                let operands: Vec<&[f32]> = rows.iter().map(|row| &row[within.clone()]).collect();
                stats.add(&figures(*isa, &operands, &result[within], at, float, rounding, out));
            }
            at = end;
        }
    }

    /// Adds the elements that begin in the piece's block to what is measured.
    pub fn measure(&mut self, piece: &Piece, probe: &Probe, partial: &mut Partial) {
        let mut at = piece.counted;
        while at < piece.end {
            let group = self.recipe.group(piece.counted, at, piece.end);
            let end = group.end.min(piece.end);
            self.fill(&group);
            let within = (at - group.start) as usize..(end - group.start) as usize;
            probe.add(self.isa, &self.rows, group.start, within, &mut self.scratch, partial);
            at = end;
        }
    }

    /// Widens the operands' values of a group.
    fn fill(&mut self, group: &Range<u64>) {
        let (isa, first) = (self.isa, self.first);
        for (side, row) in self.operands.iter_mut().zip(&mut self.rows) {
            row.resize((group.end - group.start) as usize, 0.0);
            for (from, to) in tiles(group.start, group.end, side.in_tiles()) {
                let part = &mut row[(from - group.start) as usize..(to - group.start) as usize];
                let operand = side.part(isa, first, from, to);
                simd::widen(isa, operand.float, operand.bytes, part);
            }
        }
    }
}

/// The keys of the models' masks for a tensor; none if its recipe draws nothing.
pub(super) fn mask_keys(plan: &Plan, tensor: usize, recipe: &Recipe) -> Vec<[u32; 2]> {
    let this = &plan.layout.tensors[tensor];
    let Some(document) = plan.request.document().filter(|_| recipe.draws().contains(&true)) else { return Vec::new() };
    let name = &plan.inputs.outlined(this.tensor).name;
    // A model's place is that among the inputs, whichever of them have the tensor.
    this.terms.iter().map(|term| mask_key(document.seed, term.minuend.input as usize, name)).collect()
}

/// The error for operands that have no mean.
pub(super) fn without_mean(plan: &Plan, tensor: usize, why: &str) -> Error {
    let name = quote(&plan.inputs.outlined(plan.layout.tensors[tensor].tensor).name);
    Error::Mismatch(format!("tensor {name}: {why}"))
}

/// Adds what was measured of tensors that begin in a window and go on after it, so that a second run need not measure
/// them again.
pub(super) fn record(shared: &Shared, window: Window, outcome: &mut Outcome) {
    let layout = &shared.plan().layout;
    let file = &layout.files[window.file];
    let (begin, end) = window.range(file);
    for tensor in layout.overlapping(file, begin, end) {
        let this = &layout.tensors[tensor];
        if this.begin >= begin
            && this.begin + this.bytes() > end
            && let Some(known) = shared.measuring.known(tensor)
        {
            outcome.measured.push((tensor as u32, known.to_bytes()));
        }
    }
}

/// What is known of a tensor: nothing has to be if its recipe measures nothing. `None` while it is measured.
fn known(shared: &Shared, tensor: usize, recipe: &Recipe) -> Option<Arc<Measured>> {
    if recipe.is_measured(shared.plan().layout.tensors[tensor].elements) {
        shared.measuring.known(tensor)
    } else {
        Some(Arc::default())
    }
}

/// The numbers of the blocks that a tensor has bytes in, within its file.
pub(super) fn blocks(plan: &Plan, tensor: usize) -> Range<u64> {
    let this = &plan.layout.tensors[tensor];
    this.begin / BLOCK..(this.begin + this.bytes()).div_ceil(BLOCK)
}
