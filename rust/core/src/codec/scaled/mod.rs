//! Quantised tensors: codes of few bits, and a scale for each block of them. The value of an element is its code times
//! its scale, as f32, rounded once.
//!
//! A tensor has one or more matrices of codes, one after the other. The matrix and its blocks:
//!
//! ```text
//! rows × columns codes, each row `stride` codes long in the file
//! ⌈rows / block.0⌉ × ⌈columns / block.1⌉ scales; the last blocks of a row or a column may be smaller
//! ```

mod decode;
pub mod encode;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::codec::ranges::Read;
use crate::numeric::dtype::Dtype;
pub use crate::numeric::quantised::Codes;

/// The type of stored scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleType {
    /// Single precision.
    F32,
    /// bfloat16.
    Bf16,
    /// Half precision.
    F16,
    /// The exponent of a power of two.
    E8m0,
    /// 8-bit floats, which have a second scale.
    E4m3,
}

impl ScaleType {
    /// Bytes of one scale.
    pub const fn size(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::E8m0 | Self::E4m3 => 1,
        }
    }

    /// The type that a header names, for scales. Exponents are also stored as plain bytes.
    pub const fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::F16 => Some(Self::F16),
            Dtype::F8_E8M0 | Dtype::U8 => Some(Self::E8m0),
            Dtype::F8_E4M3 => Some(Self::E4m3),
            _ => None,
        }
    }
}

/// How the second scale of a whole tensor is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Global {
    /// Scales are multiplied by it (ModelOpt).
    Multiplied,
    /// Scales are divided by it (compressed-tensors).
    Divided,
}

/// How the weights of a tensor are quantised. Many tensors share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    /// The codes.
    pub codes: Codes,
    /// Their scales.
    pub scale: ScaleType,
    /// The second scale, if there is one: an F32 for the whole tensor.
    pub global: Option<Global>,
    /// Rows of one matrix.
    pub rows: u64,
    /// Columns of a matrix.
    pub columns: u64,
    /// Codes of a row as it is stored, at least `columns`.
    pub stride: u64,
    /// Rows and columns of a block.
    pub block: [u64; 2],
    /// Whether the scale is that of the tensor as such, and not of a block that happens to be as large.
    pub whole: bool,
    /// Whether the tensor has each matrix transposed: `columns × rows`.
    pub transposed: bool,
}

/// Where something begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Index of the file among the checkpoint's shards.
    pub shard: u32,
    /// The first byte.
    pub begin: u64,
}

/// A quantised tensor.
#[derive(Clone, Debug)]
pub struct Scaled {
    /// How it is quantised.
    pub format: Arc<Format>,
    /// Its codes.
    pub codes: Start,
    /// Their scales.
    pub scales: Start,
    /// The second scale.
    pub global: Option<Start>,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes = match (self.codes, self.scale) {
            (Codes::E4m3, ScaleType::E8m0) if self.block == [1, 32] => "MXFP8",
            (Codes::E4m3, _) => "FP8",
            (Codes::E2m1, ScaleType::E8m0) => "MXFP4",
            (Codes::E2m1, _) => "NVFP4",
            (Codes::Int4, _) => "INT4",
        };
        let scale = match self.scale {
            ScaleType::F32 => "F32",
            ScaleType::Bf16 => "BF16",
            ScaleType::F16 => "F16",
            ScaleType::E8m0 => "E8M0",
            ScaleType::E4m3 => "E4M3",
        };
        let [rows, columns] = self.block;
        match (rows >= self.rows, columns >= self.columns) {
            (true, true) => write!(f, "{codes} with one scale ({scale})"),
            (false, true) if rows == 1 => write!(f, "{codes} with a scale ({scale}) for each row"),
            _ if rows == 1 => write!(f, "{codes} with a scale ({scale}) for each {columns} codes of a row"),
            _ => write!(f, "{codes} with a scale ({scale}) for each block of {rows}×{columns}"),
        }
    }
}

impl Format {
    /// Scales of one row of blocks.
    fn scales_of_row(&self) -> u64 {
        self.columns.div_ceil(self.block[1])
    }

    /// Scales of one matrix.
    fn scales_of_matrix(&self) -> u64 {
        self.rows.div_ceil(self.block[0]) * self.scales_of_row()
    }

    /// The row of scales that a row of codes has, both counted over all matrices.
    fn scale_row(&self, row: u64) -> u64 {
        row / self.rows * self.rows.div_ceil(self.block[0]) + row % self.rows / self.block[0]
    }
}

impl Scaled {
    /// What elements `[first, end)` are decoded from, at least one element: codes and scales. Of a transposed tensor,
    /// whole matrices.
    pub fn reads(&self, first: u64, end: u64) -> [Read; 2] {
        let format = &*self.format;
        let bits = format.codes.bits();
        let (codes, scales) = if format.transposed {
            let matrix = format.rows * format.columns;
            let (from, to) = (first / matrix, end.div_ceil(matrix));
            let codes = format.rows * format.stride * bits / 8;
            ((from * codes, to * codes), (from * format.scales_of_matrix(), to * format.scales_of_matrix()))
        } else {
            let (row, last) = (first / format.columns, (end - 1) / format.columns);
            let stored = |element: u64| element / format.columns * format.stride + element % format.columns;
            let codes = (stored(first) * bits / 8, ((stored(end - 1) + 1) * bits).div_ceil(8));
            let each = format.scales_of_row();
            (codes, (format.scale_row(row) * each, (format.scale_row(last) + 1) * each))
        };
        let size = format.scale.size();
        let read = |Start { shard, begin }, from: u64, to: u64| Read { shard, begin: begin + from, len: to - from };
        [read(self.codes, codes.0, codes.1), read(self.scales, scales.0 * size, scales.1 * size)]
    }

    /// The tensor that has `count` of its rows from row `first` on, both counted over all matrices. `formats` has those
    /// that are known already. `None` if the rows do not lie together, or if no row of blocks begins with them.
    pub fn rows(&self, first: u64, count: u64, formats: &mut HashSet<Arc<Format>>) -> Option<Self> {
        let format = &*self.format;
        let within = first % format.rows;
        let [height, _] = format.block;
        let begins = within.is_multiple_of(height) || within / height == (within + count - 1) / height;
        let bits = first * format.stride * format.codes.bits();
        if format.transposed || within + count > format.rows || !begins || !bits.is_multiple_of(8) {
            return None;
        }
        let scales = format.scale_row(first) * format.scales_of_row() * format.scale.size();
        let from = |start: Start, bytes: u64| Start { begin: start.begin + bytes, ..start };
        let new = Format { rows: count, ..format.clone() };
        let known = formats.get(&new).cloned();
        let format = known.unwrap_or_else(|| {
            let new = Arc::new(new);
            formats.insert(Arc::clone(&new));
            new
        });
        let (codes, scales) = (from(self.codes, bits / 8), from(self.scales, scales));
        Some(Self { format, codes, scales, global: self.global })
    }

    /// Where the second scale is.
    pub fn global_read(&self) -> Option<Read> {
        self.global.map(|Start { shard, begin }| Read { shard, begin, len: 4 })
    }
}
