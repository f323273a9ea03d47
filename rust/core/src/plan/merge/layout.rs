//! Where the tensors of a merge are placed, and which elements of them belong together.

use std::ops::Range;

use super::Ways;
use crate::numeric::dtype::Dtype;
use crate::numeric::methods::Recipe;
use crate::plan::inputs::Inputs;
use crate::plan::layout::{Layout, TensorPlan};
use crate::plan::matching::Match;

impl Layout {
    /// Lays out the tensors of a merge, which are those of the outline.
    pub fn of_merge(inputs: &Inputs, matches: Vec<Match>, ways: Ways) -> Self {
        let plan = |(found, (dtype, recipe)): (Match, (Dtype, Option<u32>))| {
            let Match { tensor, from, terms } = found;
            let elements = inputs.tensor(from).elements();
            TensorPlan { tensor, from, dtype, elements, requantised: false, begin: 0, terms, recipe }
        };
        let tensors = matches.into_iter().zip(ways.treatments).map(plan).collect();
        let unquantised = inputs.base().is_quantised();
        let files = Vec::new();
        let mut layout = Self { files, tensors, converted: true, unquantised, packed: false, recipes: ways.recipes };
        layout.place(inputs, true);
        layout
    }

    /// How a tensor is merged, if it is.
    pub fn recipe(&self, tensor: &TensorPlan) -> Option<&Recipe> {
        tensor.recipe.map(|recipe| &self.recipes[recipe as usize])
    }

    /// The elements that have to be decoded together with elements `[first, end)` of a tensor: whole rows, if it is
    /// merged by rows.
    pub fn decoded(&self, tensor: &TensorPlan, first: u64, end: u64) -> Range<u64> {
        match self.recipe(tensor).and_then(|recipe| recipe.row) {
            Some(row) => first / row * row..end.next_multiple_of(row).min(tensor.elements),
            None => first..end,
        }
    }
}
