//! From codes and scales to values.
//!
//! ```text
//! for each row of the wanted elements:
//!     widen the scales of this row to f32, unless it has those of the row before
//!     value = code · scale, from block to block
//! ```

use std::ops::Range;

use super::{Codes, Format, Global, ScaleType, Scaled};
use crate::numeric::convert::{bf16_to_f32, f16_to_f32};
use crate::numeric::quantised::{e4m3, e8m0};
use crate::numeric::simd::{self, Isa};

/// Rows of codes that are decoded together if the tensor is transposed, and columns of theirs: their values stay in the
/// first-level cache.
const HEIGHT: usize = 32;
const WIDTH: usize = 256;

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
        self.make(What::Values, isa, (loaded, first), [codes, scales], global, out);
    }

    /// As [`Scaled::decode_part`], but instead of each value the distance between its neighbours: the step of its grid.
    pub fn steps_part(
        &self,
        isa: Isa,
        (loaded, first): (u64, u64),
        bytes: [&[u8]; 2],
        global: Option<&[u8]>,
        out: &mut [u8],
    ) {
        self.make(What::Steps, isa, (loaded, first), bytes, global, out);
    }

    fn make(
        &self,
        what: What,
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
        let mut source = Source { what, isa, format: &self.format, codes, scales, global, wide: Vec::new(), row: None };
        if self.format.transposed {
            source.transposed(first, out);
        } else {
            source.straight(loaded, first, out);
        }
    }
}

/// What is made of a code and its scale.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Values,
    Steps,
}

struct Source<'a> {
    what: What,
    isa: Isa,
    format: &'a Format,
    codes: &'a [u8],
    scales: &'a [u8],
    global: Option<f32>,
    /// The scales of a row of blocks.
    wide: Vec<f32>,
    /// Which of them: the row of blocks, counted from the first that was loaded, and its first block.
    row: Option<(u64, usize)>,
}

impl Source<'_> {
    /// Widens some scales of a row.
    fn widen(&mut self, row: u64, blocks: Range<usize>) {
        if self.row == Some((row, blocks.start)) && self.wide.len() == blocks.len() {
            return;
        }
        self.row = Some((row, blocks.start));
        let count = self.format.scales_of_row() as usize;
        let size = self.format.scale.size() as usize;
        let bytes = &self.scales[(row as usize * count + blocks.start) * size..][..blocks.len() * size];
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
        let first = self.row.map_or(0, |(_, first)| first);
        let (group, last) = (from / width - first, (from + out.len() / 4 - 1) / width - first);
        let (kind, scales) = (self.format.codes, &self.wide[group..=last]);
        if self.what == What::Values {
            simd::dequantise(self.isa, kind, codes, from % width, width, scales, out);
            return;
        }
        let of_byte = |&byte: &u8| match kind {
            Codes::E4m3 => kind.step(byte),
            Codes::E2m1 | Codes::Int4 => kind.step(byte & 15) | kind.step(byte >> 4) << 4,
        };
        let odd = from % width % 2;
        let bytes = if kind.bits() == 8 { out.len() / 4 } else { (odd + out.len() / 4).div_ceil(2) };
        let steps: Vec<u8> = codes[..bytes].iter().map(of_byte).collect();
        simd::dequantise(self.isa, kind, &steps, from % width, width, scales, out);
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
            self.widen(self.format.scale_row(at / columns) - top, 0..self.format.scales_of_row() as usize);
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
        let mut tile = [[[0; 4]; WIDTH]; HEIGHT];
        for number in first / matrix..end.div_ceil(matrix) {
            let loaded = number - first / matrix;
            // The tensor's rows in this matrix that are wanted, and its elements.
            let (start, stop) = (first.max(number * matrix), end.min((number + 1) * matrix));
            let (from, to) = ((start - number * matrix) / rows, (stop - number * matrix).div_ceil(rows));
            for n0 in (0..rows).step_by(HEIGHT) {
                let height = (rows - n0).min(HEIGHT as u64);
                let mut k0 = from;
                while k0 < to {
                    let width = (to - k0).min(WIDTH as u64 - k0 % WIDTH as u64);
                    let [_, side] = self.format.block;
                    let blocks = (k0 / side) as usize..((k0 + width).div_ceil(side)) as usize;
                    for (n, line) in (n0..n0 + height).zip(&mut tile) {
                        self.widen(self.format.scale_row(loaded * rows + n), blocks.clone());
                        let at = ((loaded * rows + n) * stride + k0) as usize;
                        self.part(at, 0, k0 as usize, line[..width as usize].as_flattened_mut());
                    }
                    for k in 0..width {
                        // Of the first and the last row, only a part may be wanted.
                        let row = number * matrix + (k0 + k) * rows + n0;
                        let (begin, end) = (row.max(start).min(stop), (row + height).min(stop).max(start));
                        let lines = &tile[(begin - row).min(height) as usize..];
                        for (out, line) in
                            out[(begin - first) as usize..(end.max(begin) - first) as usize].iter_mut().zip(lines)
                        {
                            *out = line[k as usize];
                        }
                    }
                    k0 += width;
                }
            }
        }
    }
}
