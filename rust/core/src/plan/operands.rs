//! What a tensor of the output is computed from. This is the only file that knows which bytes of an input an operand
//! needs.

use std::borrow::Cow;

use crate::codec::derived::{Encoded, Made};
use crate::codec::joined::List;
use crate::codec::ranges::Read;
use crate::numeric::dtype::{Dtype, Float};
use crate::plan::inputs::{At, Inputs};
use crate::plan::layout::{Action, Span, TensorPlan};
use crate::plan::terms::TermPlan;

impl Inputs {
    /// Elements `[first, end)` of a float tensor: the ranges of its input's files, and how they are decoded to values.
    pub fn operand(&self, at: At, first: u64, end: u64) -> Encoded<'_, Read> {
        if let Some(made) = self.made(at).and_then(|made| Encoded::of_made(made, first, end)) {
            return made;
        }
        Encoded::Plain { float: float(self.tensor(at).dtype), bytes: self.stored(at, first, end) }
    }

    /// The lists of exceptions of a vector's tensor with so many elements, by the tensors with indices and values.
    pub fn lists(&self, (index, value): (At, At), elements: u64) -> Cow<'_, [List]> {
        match self.list[index.input as usize].checkpoint.made.as_ref().map(|made| &made[index.tensor as usize]) {
            Some(Made::Lists(lists)) => Cow::Borrowed(lists),
            _ => {
                let (index, value) = (index.tensor, value.tensor);
                Cow::Owned(vec![List { index, value, skip: 0, elements: 0..elements, whole: elements }])
            }
        }
    }

    /// Where elements `[first, end)` of a tensor are stored (or bytes `[first, end)`, if an element has less than one
    /// byte).
    fn stored(&self, at: At, first: u64, end: u64) -> Read {
        let tensor = self.tensor(at);
        let size = tensor.dtype.unit();
        Read { shard: tensor.shard, begin: tensor.begin + first * size, len: (end - first) * size }
    }
}

impl TensorPlan {
    /// The terms that are added to the elements of a span, each with its index.
    pub fn reaching(&self, span: Span) -> impl Iterator<Item = (usize, &TermPlan)> {
        let combined = span.action == Action::Combine;
        self.terms.iter().enumerate().filter(move |(_, term)| combined && term.elements >= span.end)
    }
}

/// The float type of a tensor that gets arithmetic. Matching has refused all other types.
pub fn float(dtype: Dtype) -> Float {
    dtype.float().unwrap_or(Float::F32)
}
