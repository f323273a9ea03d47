//! The product of an adapter's factors, for numeric spec 1:
//!
//! `ΔW[i, j] = f32(scale · Σₖ B[i, k]·A[k, j])`, in f64, k ascending from a sum of +0, every operation rounded once, nothing
//! fused; then one rounding to f32. (The product of two f32 is exact in f64, so that only the sums, the scale and the last
//! step ever round.)
//!
//! No element depends on which others are computed with it: windows may cut the tensor anywhere.

use crate::codec::derived::Product;
use crate::numeric::dtype::Float;
use crate::numeric::loops::{COLUMNS, DEPTH};
use crate::numeric::simd::{self, Isa};

/// As many as columns: then widening the one factor's share costs no more than the other's.
const ROWS: usize = 64;

/// What stays in the cache while it is worked on.
struct Tiles {
    left: [[f64; DEPTH]; ROWS],
    right: [[f64; COLUMNS]; DEPTH],
    sums: [[f64; COLUMNS]; ROWS],
    wide: [f32; COLUMNS],
}

/// Elements of a factor as they lie in a file.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    float: Float,
    bytes: &'a [u8],
    /// Elements of one row.
    stride: usize,
}

impl Matrix<'_> {
    /// Widens some elements of a row and hands on each, with its place among them.
    fn row(&self, isa: Isa, row: usize, from: usize, wide: &mut [f32], mut take: impl FnMut(usize, f64)) {
        let (size, begin) = (self.float.size(), row * self.stride + from);
        simd::widen(isa, self.float, &self.bytes[begin * size..(begin + wide.len()) * size], wide);
        wide.iter().enumerate().for_each(|(place, &value)| take(place, f64::from(value)));
    }
}

/// Writes elements from `start` on, as f32, little-endian. `parts` are the bytes of [`crate::codec::derived::Made::reads`].
///
/// # Panics
/// If the parts are not those of just these elements.
pub fn multiply(isa: Isa, product: &Product, parts: &[&[u8]], start: u64, out: &mut [u8]) {
    let out = out.as_chunks_mut::<4>().0;
    let Some((&whole, rows)) = parts.split_last().filter(|_| !out.is_empty()) else { return };
    let (columns, rank) = (product.columns as usize, product.rank as usize);
    let (first, last) = product.rows_of(start, start + out.len() as u64);
    let (height, skip) = ((last - first) as usize, (start % product.columns) as usize);
    // Of one row, only the columns that are wanted.
    let (from, to) = if height == 1 { (skip, skip + out.len()) } else { (0, columns) };
    let (left, right) = if product.transposed { (product.a, product.b) } else { (product.b, product.a) };
    let right = Matrix { float: right.float, bytes: whole, stride: if product.transposed { rank } else { columns } };
    let left = |part: usize| Matrix { float: left.float, bytes: rows[part], stride: rank };
    let Tiles { left: l, right: r, sums, wide } = &mut Tiles {
        left: [[0.0; DEPTH]; ROWS],
        right: [[0.0; COLUMNS]; DEPTH],
        sums: [[0.0; COLUMNS]; ROWS],
        wide: [0.0; COLUMNS],
    };
    for j0 in (from..to).step_by(COLUMNS) {
        let width = COLUMNS.min(to - j0);
        for i0 in (0..height).step_by(ROWS) {
            let rows = ROWS.min(height - i0);
            sums[..rows].fill([0.0; COLUMNS]);
            for k0 in (0..rank).step_by(DEPTH) {
                let depth = DEPTH.min(rank - k0);
                if product.transposed {
                    (0..width).for_each(|j| right.row(isa, j0 + j, k0, &mut wide[..depth], |k, x| r[k][j] = x));
                    (0..depth).for_each(|k| left(k0 + k).row(isa, 0, i0, &mut wide[..rows], |i, x| l[i][k] = x));
                } else {
                    (0..depth).for_each(|k| right.row(isa, k0 + k, j0, &mut wide[..width], |j, x| r[k][j] = x));
                    (0..rows).for_each(|i| left(0).row(isa, i0 + i, k0, &mut wide[..depth], |k, x| l[i][k] = x));
                }
                simd::multiply_add(isa, &l[..rows], &r[..depth], &mut sums[..rows]);
            }
            for (i, sums) in sums[..rows].iter().enumerate() {
                let at = (i0 + i) * columns + j0;
                // The first and the last row may be cut.
                let (begin, end) = (at.max(skip), (at + width).min(skip + out.len()));
                for place in begin..end {
                    out[place - skip] = ((product.scale * sums[place - at]) as f32).to_le_bytes();
                }
            }
        }
    }
}
