//! What a tensor of the output is computed from: the one place that knows which bytes of which input an operand takes.

use crate::codec::derived::Encoded;
use crate::codec::ranges::Read;
use crate::numeric::dtype::{Dtype, Float};
use crate::plan::inputs::{At, Inputs};
use crate::plan::layout::{Action, TensorPlan};
use crate::plan::matching::TermPlan;

impl Inputs {
    /// Elements `[first, end)` of a float tensor: ranges of its input's files, and how they become values.
    pub fn operand(&self, at: At, first: u64, end: u64) -> Encoded<'_, Read> {
        if let Some(made) = self.made(at) {
            return Encoded::of_made(made, first, end);
        }
        Encoded::Plain { float: float(self.tensor(at).dtype), bytes: self.stored(at, first, end) }
    }

    /// Where elements `[first, end)` of a tensor are stored (bytes, of a type that packs its elements more tightly).
    pub fn stored(&self, at: At, first: u64, end: u64) -> Read {
        let tensor = self.tensor(at);
        let size = tensor.dtype.unit();
        Read { shard: tensor.shard, begin: tensor.begin + first * size, len: (end - first) * size }
    }
}

impl TensorPlan {
    /// The terms that are added to the elements of a span which ends here, each with its number.
    pub fn reaching(&self, action: Action, end: u64) -> impl Iterator<Item = (usize, &TermPlan)> {
        self.terms.iter().enumerate().filter(move |(_, term)| action == Action::Combine && term.elements >= end)
    }
}

/// The type of a tensor that gets arithmetic; matching lets no other one through.
pub fn float(dtype: Dtype) -> Float {
    dtype.float().unwrap_or(Float::F32)
}
