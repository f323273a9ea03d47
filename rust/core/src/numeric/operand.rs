//! What the kernels take: elements in memory, the terms of a sum, and how results are rounded.
//!
//! A call of a kernel is cut into chunks of 4,096 elements from its first one on. The sums of a chunk are f32 in 16
//! lanes, folded into f64 at its end, so they depend on where calls begin and end, and on nothing else. Chunks are
//! computed in parts whose scratch stays in the first-level cache.

use crate::numeric::dtype::Float;

pub(super) const CHUNK: usize = 4096;
/// A multiple of the lanes, so that a chunk's parts continue each other's; 256 and 1,024 are no faster.
pub(super) const PART: usize = 512;

/// Elements in memory: little-endian, at any alignment, whole elements only.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    /// Their type.
    pub float: Float,
    /// Their bytes.
    pub bytes: &'a [u8],
}

impl<'a> Operand<'a> {
    /// Elements `[begin, end)` of it.
    pub fn part(self, begin: usize, end: usize) -> Self {
        Self { bytes: self.bytes_of(begin, end - begin), ..self }
    }

    /// The bytes of `n` elements from element `at` on.
    pub(super) fn bytes_of(self, at: usize, n: usize) -> &'a [u8] {
        let size = self.float.size();
        &self.bytes[at * size..(at + n) * size]
    }
}

/// The exact values of a stored vector's elements that its type cannot hold. Those outside the range of a call are
/// ignored.
#[derive(Clone, Copy)]
pub struct Exceptions<'a> {
    /// Element indices: i64, little-endian, ascending.
    pub index: &'a [u8],
    /// The exact values: f32, little-endian.
    pub value: &'a [u8],
    /// The index of the tensor's first element. It is not 0 if the tensor is a part of the one that was stored (then it
    /// is positive), or if that one is a part of it.
    pub skip: i64,
}

impl Exceptions<'_> {
    /// The exceptions from element `first` on: indices within the tensor, and values.
    fn from(&self, first: u64) -> impl Iterator<Item = (i64, f32)> {
        let (index, skip) = (self.index.as_chunks::<8>().0, self.skip);
        let least = i128::from(skip) + i128::from(first);
        let from = index.partition_point(|&i| i128::from(i64::from_le_bytes(i)) < least);
        let pairs = index.iter().zip(self.value.as_chunks::<4>().0).skip(from);
        pairs.map(move |(&index, &value)| (i64::from_le_bytes(index) - skip, f32::from_le_bytes(value)))
    }

    /// Whether any is of elements `[first, first + count)`.
    pub(super) fn any_within(&self, first: u64, count: usize) -> bool {
        self.from(first).next().is_some_and(|(index, _)| i128::from(index) < i128::from(first) + count as i128)
    }

    /// Replaces elements by their exact values. `values` are the elements of the tensor from index `first` on.
    pub(super) fn replace(&self, first: u64, values: &mut [f32]) {
        for (index, value) in self.from(first) {
            let Ok(place) = usize::try_from(index as u64 - first) else { return };
            let Some(place) = values.get_mut(place) else { return };
            *place = value;
        }
    }
}

/// One vector and its factor.
#[derive(Clone, Copy)]
pub struct Term<'a> {
    /// The minuend, or the stored vector itself.
    pub minuend: Operand<'a>,
    /// `None` if `minuend` is the stored vector itself.
    pub subtrahend: Option<Operand<'a>>,
    /// Exact values for some elements of a stored vector. Used only without a subtrahend.
    pub exceptions: &'a [Exceptions<'a>],
    /// The factor.
    pub alpha: f32,
}

/// What [`crate::numeric::simd::combine_bf16`] works on: bytes of equally many bfloat16 elements.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Term<'a> {
    pub target: &'a [u8],
    /// Or the stored vector.
    pub minuend: &'a [u8],
    pub subtrahend: Option<&'a [u8]>,
    pub alpha: f32,
}

/// How results are rounded to the output's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even.
    Nearest,
    /// To either neighbour, by distance, with the random bits of a tensor's key (see [`crate::numeric::philox::key`]).
    /// With f32 there is nothing to round and this is the same as nearest.
    Stochastic {
        /// The tensor's key.
        key: [u32; 2],
    },
}

/// Marks the values that are Inf or NaN.
pub(super) fn mark(values: &[f32], bad: &mut [bool; PART]) {
    for (bad, value) in bad.iter_mut().zip(values) {
        *bad |= !value.is_finite();
    }
}
