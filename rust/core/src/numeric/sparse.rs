//! Where a tensor is not zero, and what stands there: a mask with one bit an element, and a list of values.
//!
//! ```text
//! part:     float32            -> upper halves, mask
//! squeeze:  elements, mask     -> values where the mask is set, in order
//! spread:   mask, values       -> elements, zero where the mask is not set
//! ```
//!
//! An element has 16 bits, or 32 bits in two halves: the upper half of a float32 is a bfloat16. Only +0 counts as zero.
//! The loops here are the specification; for AVX2 there are others in `sparse_avx2`.

use crate::numeric::simd::{self, Isa};

/// Elements of one word of a mask.
pub const WORD: usize = 64;
/// Places after the last value of a list: whole registers are moved.
pub const SLACK: usize = 8;

/// The list that elements are spread from.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Elements of 2 bytes.
    Halves(&'a [u16]),
    /// Elements of 4 bytes, whose lower halves are 0.
    Upper(&'a [u16]),
    /// Elements of 4 bytes: upper and lower halves.
    Both(&'a [u16], &'a [u16]),
}

impl<'a> Values<'a> {
    /// The size of an element in bytes.
    pub fn size(self) -> usize {
        if let Self::Halves(_) = self { 2 } else { 4 }
    }

    /// The list without its first values.
    fn after(self, n: usize) -> Self {
        match self {
            Self::Halves(high) => Self::Halves(&high[n..]),
            Self::Upper(high) => Self::Upper(&high[n..]),
            Self::Both(high, low) => Self::Both(&high[n..], &low[n..]),
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Halves(high) | Self::Upper(high) => high.len(),
            Self::Both(high, low) => high.len().min(low.len()),
        }
    }

    /// Writes one value.
    #[inline(always)]
    pub(super) fn put(self, at: usize, out: &mut [u8]) {
        match self {
            Self::Halves(high) => out.copy_from_slice(&high[at].to_le_bytes()),
            Self::Upper(high) => out.copy_from_slice(&(u32::from(high[at]) << 16).to_le_bytes()),
            Self::Both(high, low) => {
                out.copy_from_slice(&(u32::from(high[at]) << 16 | u32::from(low[at])).to_le_bytes());
            }
        }
    }
}

/// Takes float32 apart: `high` gets the upper half of every element, and `mask` a bit for each that is not +0. Returns
/// whether any lower half is not zero.
///
/// # Panics
/// If `high` does not have half of the bytes, or `mask` not exactly the words that these elements need.
pub fn part(isa: Isa, bytes: &[u8], high: &mut [u8], mask: &mut [u64]) -> bool {
    assert_eq!(high.len(), bytes.len() / 2, "a half of each element");
    assert_eq!(mask.len(), (bytes.len() / 4).div_ceil(WORD), "a bit for each element");
    let mut any = false;
    let whole = simd::part(isa, bytes, high, mask, &mut any);
    let words = bytes.chunks(4 * WORD).zip(high.chunks_mut(2 * WORD)).zip(mask).skip(whole);
    for ((bytes, high), word) in words {
        *word = 0;
        for ((&x, high), bit) in bytes.as_chunks::<4>().0.iter().zip(high.as_chunks_mut::<2>().0).zip(0..) {
            *high = [x[2], x[3]];
            *word |= u64::from(x != [0; 4]) << bit;
            any |= x[..2] != [0; 2];
        }
    }
    any
}

/// The number of bits that are set.
pub fn count(isa: Isa, mask: &[u64]) -> usize {
    simd::count_ones(isa, mask)
}

/// Writes the elements of 2 bytes whose bit is set to `values`, in order.
///
/// # Panics
/// If `values` does not have [`SLACK`] more places than bits are set, or `bytes` no element for a bit.
pub fn squeeze(isa: Isa, bytes: &[u8], mask: &[u64], values: &mut [u16]) {
    assert!(values.len() >= count(isa, mask) + SLACK, "room for every value");
    let whole = simd::squeeze(isa, bytes, mask, values);
    let elements = bytes.as_chunks::<2>().0;
    let mut at = count(isa, &mask[..whole]);
    for (place, &word) in mask.iter().enumerate().skip(whole) {
        for bit in bits(word) {
            values[at] = u16::from_le_bytes(elements[place * WORD + bit]);
            at += 1;
        }
    }
}

/// Writes elements `[first, first + n)`, where n is what `out` has room for. `values` are those of all set bits.
///
/// # Panics
/// If the mask has fewer elements, or `values` not [`SLACK`] more places than bits are set.
pub fn spread(isa: Isa, mask: &[u64], first: usize, values: Values, out: &mut [u8]) {
    let size = values.size();
    let elements = out.len() / size;
    assert!(first + elements <= mask.len() * WORD, "a bit for each element");
    assert!(values.len() >= count(isa, mask) + SLACK, "a value for each bit");
    // Elements before the first whole word are written one by one.
    let head = elements.min(first.next_multiple_of(WORD) - first);
    let (cut, out) = out.split_at_mut(head * size);
    let mut at = rank(isa, mask, first);
    for (bit, out) in (first..).zip(cut.chunks_exact_mut(size)) {
        let set = mask[bit / WORD] >> (bit % WORD) & 1 == 1;
        if set {
            values.put(at, out)
        } else {
            out.fill(0)
        }
        at += usize::from(set);
    }
    let mask = &mask[(first + head).div_ceil(WORD)..];
    let values = values.after(at);
    let whole = simd::spread(isa, mask, values, out);
    let mut at = count(isa, &mask[..whole]);
    for (&word, out) in mask.iter().zip(out.chunks_mut(WORD * size)).skip(whole) {
        out.fill(0);
        for bit in bits(word) {
            if let Some(out) = out.get_mut(bit * size..(bit + 1) * size) {
                values.put(at, out);
            }
            at += 1;
        }
    }
}

/// The places of the bits that are set, in order.
pub fn places(mask: &[u64]) -> impl Iterator<Item = usize> {
    mask.iter().zip((0..).step_by(WORD)).flat_map(|(&word, at)| bits(word).map(move |bit| at + bit))
}

/// The same within a word.
#[inline(always)]
pub(super) fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        word &= word.wrapping_sub(1);
        (bit < u64::BITS).then_some(bit as usize)
    })
}

/// How many bits are set before bit `at`.
fn rank(isa: Isa, mask: &[u64], at: usize) -> usize {
    let (whole, rest) = (at / WORD, at % WORD);
    let part = if rest == 0 { 0 } else { (mask[whole] & ((1 << rest) - 1)).count_ones() as usize };
    count(isa, &mask[..whole]) + part
}
