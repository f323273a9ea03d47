//! The product of an adapter's factors, for numeric spec 1:
//!
//! `ΔW[i, j] = f32(scale · Σₖ B[i, k]·A[k, j])`, in f64, k ascending from a sum of +0, every operation rounded once,
//! nothing fused; then one rounding to f32. (The product of two f32 is exact in f64, so that only the sums, the scale
//! and the last step ever round.)
//!
//! No element depends on which others are computed with it: windows may cut the tensor anywhere.

use crate::codec::ranges::Read;
use crate::numeric::dtype::Float;
use crate::numeric::loops::{COLUMNS, DEPTH};
use crate::numeric::simd::{self, Isa};

/// A matrix in a file, row by row.
#[derive(Clone, Copy, Debug)]
pub struct Factor {
    /// Place of its file among the checkpoint's shards.
    pub shard: u32,
    /// Its first byte in the file.
    pub begin: u64,
    /// The type of its elements.
    pub float: Float,
}

/// `scale · B·A`, or its transpose.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// `rank × columns` elements; `rank × rows` where the product is transposed.
    pub a: Factor,
    /// `rows × rank` elements; `columns × rank` where the product is transposed.
    pub b: Factor,
    /// The dimension that is summed over; at least 1.
    pub rank: u64,
    /// First dimension of the tensor; at least 1.
    pub rows: u64,
    /// Second dimension of the tensor; at least 1.
    pub columns: u64,
    /// The factor of the whole.
    pub scale: f64,
    /// Whether the tensor is `(B·A)ᵀ`.
    pub transposed: bool,
}

impl Product {
    /// The rows that elements `[start, stop)` stand in, first and one past the last.
    pub fn rows_of(&self, start: u64, stop: u64) -> (u64, u64) {
        (start / self.columns, stop.div_ceil(self.columns))
    }

    /// What elements `[start, stop)` are made from: the rows' share of one factor (all of it that lies together, or a
    /// piece for each rank), and the other factor as a whole.
    pub fn reads(&self, start: u64, stop: u64) -> (Vec<Read>, Read) {
        let read = |factor: Factor, first: u64, elements: u64| {
            let size = factor.float.size() as u64;
            Read { shard: factor.shard, begin: factor.begin + first * size, len: elements * size }
        };
        let (first, last) = self.rows_of(start, stop);
        let whole = self.rank * self.columns;
        if self.transposed {
            let pieces = (0..self.rank).map(|k| read(self.a, k * self.rows + first, last - first));
            (pieces.collect(), read(self.b, 0, whole))
        } else {
            (vec![read(self.b, first * self.rank, (last - first) * self.rank)], read(self.a, 0, whole))
        }
    }
}

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

/// Writes elements from `start` on, as f32, little-endian. `rows` and `whole` are the bytes of [`Product::reads`].
///
/// # Panics
/// If they are not those of just these elements.
pub fn multiply(isa: Isa, product: &Product, rows: &[&[u8]], whole: &[u8], start: u64, out: &mut [u8]) {
    let out = out.as_chunks_mut::<4>().0;
    if out.is_empty() {
        return;
    }
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
