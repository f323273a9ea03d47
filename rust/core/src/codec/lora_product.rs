//! The product of an adapter's factors, for numeric spec 1:
//!
//! `ΔW[i, j] = f32(scale · Σₖ B[i, k]·A[k, j])`, in f64, k ascending from a sum of +0, every operation rounded once,
//! nothing fused; then one rounding to f32. (The product of two f32 is exact in f64, so that only the sums, the scale
//! and the last step ever round.)
//!
//! No element depends on which others are computed with it, so windows may cut the tensor anywhere.
//!
//! The product is computed in tiles, so that the parts of both factors in use stay in the cache:
//!
//! ```text
//! left, right = the factor that gives the rows, the factor that gives the columns
//! for each tile of columns:
//!     for each tile of rows:
//!         sums = 0                                 (f64)
//!         for each tile of the rank, ascending:
//!             widen this part of left and of right to f64
//!             sums += left · right                 (for each k ascending)
//!         write f32(scale · sums)                  (only the elements that are wanted)
//! ```

use crate::codec::ranges::Read;
use crate::numeric::dtype::Float;
use crate::numeric::loops::{COLUMNS, DEPTH};
use crate::numeric::simd::{self, Isa};

/// A matrix in a file, row by row.
#[derive(Clone, Copy, Debug)]
pub struct Factor {
    /// Index of its file among the checkpoint's shards.
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
    /// The scale of the product.
    pub scale: f64,
    /// Whether the tensor is `(B·A)ᵀ`.
    pub transposed: bool,
}

impl Product {
    /// The rows of elements `[start, stop)`: the first, and one past the last.
    pub fn rows_of(&self, start: u64, stop: u64) -> (u64, u64) {
        (start / self.columns, stop.div_ceil(self.columns))
    }

    /// What elements `[start, stop)` are computed from: the part of one factor that belongs to their rows, and the
    /// whole other factor. The part is one range, or one range for each rank if the product is transposed.
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

/// Rows of a tile. As many as columns, so that widening one factor costs no more than widening the other.
const ROWS: usize = 64;

/// The tiles in use; together they fit in the cache.
struct Tiles {
    left: [[f64; DEPTH]; ROWS],
    right: [[f64; COLUMNS]; DEPTH],
    sums: [[f64; COLUMNS]; ROWS],
    wide: [f32; COLUMNS],
}

/// Elements of a factor as they are stored.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    float: Float,
    bytes: &'a [u8],
    /// The number of elements in a row.
    stride: usize,
}

impl Matrix<'_> {
    /// Widens some elements of a row, and calls `take` with the index and value of each.
    fn row(&self, isa: Isa, row: usize, from: usize, wide: &mut [f32], mut take: impl FnMut(usize, f64)) {
        let (size, begin) = (self.float.size(), row * self.stride + from);
        simd::widen(isa, self.float, &self.bytes[begin * size..(begin + wide.len()) * size], wide);
        wide.iter().enumerate().for_each(|(place, &value)| take(place, f64::from(value)));
    }
}

/// Computes elements from `start` on, and writes them to `out` as f32, little-endian. `rows` and `whole` are the bytes
/// that [`Product::reads`] asked for.
///
/// # Panics
/// If `rows` and `whole` do not have the lengths for exactly these elements.
pub fn multiply(isa: Isa, product: &Product, rows: &[&[u8]], whole: &[u8], start: u64, out: &mut [u8]) {
    let out = out.as_chunks_mut::<4>().0;
    if out.is_empty() {
        return;
    }
    let (columns, rank) = (product.columns as usize, product.rank as usize);
    let (first, last) = product.rows_of(start, start + out.len() as u64);
    let (height, skip) = ((last - first) as usize, (start % product.columns) as usize);
    // If all elements are in one row, only the wanted columns are computed.
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
                // Of the first and the last row, only a part may be wanted.
                let (begin, end) = (at.max(skip), (at + width).min(skip + out.len()));
                for place in begin..end {
                    out[place - skip] = ((product.scale * sums[place - at]) as f32).to_le_bytes();
                }
            }
        }
    }
}
