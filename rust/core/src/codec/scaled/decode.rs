//! From codes and scales to values.
//!
//! ```text
//! for each row of the wanted elements:
//!     widen the scales of this row to f32, unless it has those of the row before
//!     value = code · scale, from block to block
//! ```

use super::{Format, Global, ScaleType, Scaled};
use crate::numeric::convert::{bf16_to_f32, f16_to_f32};
use crate::numeric::quantised::{e4m3, e8m0};
use crate::numeric::simd::{self, Isa};

/// Rows of codes that are decoded together if the tensor is transposed, and columns of theirs.
const TILE: usize = 32;

impl Scaled {
    /// Decodes elements from `first` on into `out`, as f32, little-endian. `codes` and `scales` are the bytes that
    /// [`Scaled::reads`] asked for, `global` those of the second scale.
    ///
    /// # Panics
    /// If they do not have the lengths for exactly these elements.
    pub fn decode(&self, isa: Isa, first: u64, bytes: [&[u8]; 2], global: Option<&[u8]>, out: &mut [u8]) {
        self.decode_part(isa, (first, first), bytes, global, out);
    }

    /// Whether parts of what was loaded can be decoded without the rest.
    pub fn decodes_in_parts(&self) -> bool {
        !self.format.transposed
    }

    /// As [`Scaled::decode`], for the elements from `first` on of more that were loaded, whose first is `loaded`. Of a
    /// transposed tensor, both are the same.
    pub fn decode_part(
        &self,
        isa: Isa,
        (loaded, first): (u64, u64),
        [codes, scales]: [&[u8]; 2],
        global: Option<&[u8]>,
        out: &mut [u8],
    ) {
        if out.is_empty() {
            return;
        }
        let global = global.and_then(|bytes| bytes.first_chunk()).map(|bytes| f32::from_le_bytes(*bytes));
        let mut source = Source { isa, format: &self.format, codes, scales, global, wide: Vec::new(), row: None };
        if self.format.transposed {
            source.transposed(first, out);
        } else {
            source.straight(loaded, first, out);
        }
    }
}

struct Source<'a> {
    isa: Isa,
    format: &'a Format,
    codes: &'a [u8],
    scales: &'a [u8],
    global: Option<f32>,
    /// The scales of a row of blocks.
    wide: Vec<f32>,
    /// Which row of blocks: its number from the first that was loaded.
    row: Option<u64>,
}

impl Source<'_> {
    /// Widens a row of scales.
    fn widen(&mut self, row: u64) {
        if self.row == Some(row) {
            return;
        }
        self.row = Some(row);
        let count = self.format.scales_of_row() as usize;
        let size = self.format.scale.size() as usize;
        let bytes = &self.scales[row as usize * count * size..][..count * size];
        let global = |scale: f32| match (self.format.global, self.global) {
            (Some(Global::Multiplied), Some(global)) => scale * global,
            (Some(Global::Divided), Some(global)) => scale / global,
            _ => scale,
        };
        let (wide, pairs) = (&mut self.wide, bytes.as_chunks::<2>().0);
        wide.clear();
        match self.format.scale {
            ScaleType::F32 => wide.extend(bytes.as_chunks().0.iter().map(|&x| global(f32::from_le_bytes(x)))),
            ScaleType::Bf16 => wide.extend(pairs.iter().map(|&x| global(bf16_to_f32(u16::from_le_bytes(x))))),
            ScaleType::F16 => wide.extend(pairs.iter().map(|&x| global(f16_to_f32(u16::from_le_bytes(x))))),
            ScaleType::E8m0 => wide.extend(bytes.iter().map(|&x| global(e8m0(x)))),
            ScaleType::E4m3 => wide.extend(bytes.iter().map(|&x| global(e4m3(x)))),
        }
    }

    /// Columns `[from, from + n)` of a row whose first code is the `at`th of those that were loaded. `skip` is where in
    /// its first byte the first loaded code is.
    fn part(&self, at: usize, skip: usize, from: usize, out: &mut [u8]) {
        let [_, width] = self.format.block.map(|side| side as usize);
        let codes = &self.codes[(at + skip) * self.format.codes.bits() as usize / 8..];
        let (group, last) = (from / width, (from + out.len() / 4 - 1) / width);
        simd::dequantise(self.isa, self.format.codes, codes, from % width, width, &self.wide[group..=last], out);
    }

    fn straight(&mut self, loaded: u64, first: u64, out: &mut [u8]) {
        let Format { columns, stride, .. } = *self.format;
        let stored = |element: u64| element / columns * stride + element % columns;
        let begin = stored(loaded);
        let skip = (begin * self.format.codes.bits() % 8 / 4) as usize;
        let top = self.format.scale_row(loaded / columns);
        let end = first + out.len() as u64 / 4;
        let mut at = first;
        while at < end {
            let from = at % columns;
            let n = (columns - from).min(end - at);
            self.widen(self.format.scale_row(at / columns) - top);
            let place = (at - first) as usize * 4;
            self.part((stored(at) - begin) as usize, skip, from as usize, &mut out[place..][..n as usize * 4]);
            at += n;
        }
    }

    /// The tensor's rows are the columns of the codes. They are decoded in tiles, so that what is written stays in the
    /// cache until a row of it is complete.
    fn transposed(&mut self, first: u64, out: &mut [u8]) {
        let Format { rows, columns, stride, .. } = *self.format;
        let (matrix, out) = (rows * columns, out.as_chunks_mut::<4>().0);
        let end = first + out.len() as u64;
        let mut tile = [[0_u8; 4 * TILE]; TILE];
        for number in first / matrix..end.div_ceil(matrix) {
            let loaded = number - first / matrix;
            // The tensor's rows in this matrix that are wanted, and its elements.
            let (start, stop) = (first.max(number * matrix), end.min((number + 1) * matrix));
            let (from, to) = ((start - number * matrix) / rows, (stop - number * matrix).div_ceil(rows));
            for n0 in (0..rows).step_by(TILE) {
                let height = (rows - n0).min(TILE as u64);
                let mut k0 = from;
                while k0 < to {
                    let width = (to - k0).min(TILE as u64 - k0 % TILE as u64);
                    for n in n0..n0 + height {
                        self.widen(self.format.scale_row(loaded * rows + n));
                        let at = ((loaded * rows + n) * stride + k0) as usize;
                        self.part(at, 0, k0 as usize, &mut tile[(n - n0) as usize][..width as usize * 4]);
                    }
                    for k in k0..k0 + width {
                        // Of the first and the last row, only a part may be wanted.
                        let row = number * matrix + k * rows;
                        let (begin, end) = ((row + n0).max(start), (row + n0 + height).min(stop));
                        for element in begin..end {
                            let value = tile[(element - row - n0) as usize].as_chunks::<4>().0[(k - k0) as usize];
                            out[(element - first) as usize] = value;
                        }
                    }
                    k0 += width;
                }
            }
        }
    }
}
