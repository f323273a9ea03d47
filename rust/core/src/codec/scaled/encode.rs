//! From values back to codes, block by block. A block that nothing changes keeps its codes and its scale.
//!
//! ```text
//! no element changes      codes and scale as they are
//! the scale is kept       while the largest value still rounds to the largest code; otherwise it is doubled, once or
//!                         more: then the codes of unchanged elements move by whole exponents
//! the scale is fresh      the largest magnitude / the largest code, in the type of the scales
//! code                    round(value / scale); an element that does not change under the same scale keeps its code
//! ```

use super::{Codes, Format, ScaleType, Scaled};
use crate::numeric::convert::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::numeric::quantised::encode::Extent;
use crate::numeric::quantised::{e4m3, e8m0};
use crate::numeric::simd::{self, Isa};
use crate::numeric::stats::Stats;

/// The most elements of a whole tensor under one scale that are worked on together.
const CHUNK: u64 = 1 << 17;

/// How scales are chosen (`--scales`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scales {
    /// The target's own, doubled only where a value would not fit.
    #[default]
    Keep,
    /// New ones, from the largest value of each block that changes.
    Fresh,
}

/// What quantising a tensor again did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Requantised {
    /// Codes that differ from the target's.
    pub codes: u64,
    /// Blocks in which nothing changed.
    pub copied: u64,
    /// Blocks with changes that kept their scale.
    pub kept: u64,
    /// Blocks with another scale.
    pub rescaled: u64,
    /// Elements whose value was too large for the largest code.
    pub saturated: u64,
    /// The figures that bf16 output would have had.
    pub plain: Stats,
}

impl Requantised {
    /// The length of [`Requantised::to_bytes`].
    pub const BYTES: usize = 5 * 8 + Stats::BYTES;

    /// Appends the figures of the blocks that follow.
    pub fn add(&mut self, other: &Self) {
        self.codes += other.codes;
        self.copied += other.copied;
        self.kept += other.kept;
        self.rescaled += other.rescaled;
        self.saturated += other.saturated;
        self.plain.add(&other.plain);
    }

    /// The fields in their order, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let counts = [self.codes, self.copied, self.kept, self.rescaled, self.saturated];
        [&counts.map(u64::to_le_bytes).concat()[..], &self.plain.to_bytes()].concat()
    }

    /// The inverse of [`Requantised::to_bytes`].
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let words = bytes.as_chunks::<8>().0;
        let word = |at: usize| u64::from_le_bytes(words[at]);
        let mut plain = [0; Stats::BYTES];
        plain.copy_from_slice(&bytes[5 * 8..]);
        let plain = Stats::from_bytes(&plain);
        Self { codes: word(0), copied: word(1), kept: word(2), rescaled: word(3), saturated: word(4), plain }
    }
}

/// Why a block cannot be quantised again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Its scale is not a positive or negative number.
    Scale,
    /// Its type cannot hold the scale that the values need.
    Overflow,
    /// A value is NaN, and the codes have none.
    NaN,
}

/// One block: its elements row by row.
pub struct Block<'a> {
    /// The target's values.
    pub old: &'a [f32],
    /// The new ones.
    pub new: &'a [f32],
    /// What was asked for: the sum of all α·v.
    pub asked: &'a [f32],
    /// The target's codes, one a byte.
    pub codes: &'a [u8],
    /// Random bits for each element, or none to round to nearest.
    pub random: &'a [u32],
}

/// What became of a block.
#[derive(Debug, PartialEq)]
pub struct Encoded {
    /// Its scale.
    pub scale: f32,
    /// The scale as it is stored, if it is another one than before.
    pub stored: Option<[u8; 4]>,
    /// Whether any element was to change.
    pub touched: bool,
    /// How many codes differ from the target's.
    pub codes: u64,
    /// How many values were too large.
    pub saturated: u64,
}

impl Format {
    /// Rows and columns of the parts in which blocks are worked on. They are the same however a tensor is cut into
    /// windows, because figures are summed up in these parts.
    pub fn part(&self) -> [u64; 2] {
        let [rows, columns] = self.block.map(|side| side.max(1));
        let (rows, columns) = if self.whole { (1, 1) } else { (rows.min(self.rows), columns.min(self.columns)) };
        [rows, (CHUNK / (rows * columns)).max(1).saturating_mul(columns).min(self.columns)]
    }

    /// The most blocks that begin in so many elements.
    pub fn blocks_beginning(&self, elements: u64) -> u64 {
        let area = self.block[0].min(self.rows) * self.block[1].min(self.columns);
        elements.div_ceil(area) + self.scales_of_row()
    }

    /// Elements `[first, end)`, extended to whole parts.
    pub fn whole_parts(&self, first: u64, end: u64) -> (u64, u64) {
        let ([height, width], columns, matrix) = (self.part(), self.columns, self.rows * self.columns);
        if height == 1 {
            let from = |element: u64| element / columns * columns + element % columns / width * width;
            let last = end - 1;
            return (from(first), (from(last) + width).min((last / columns + 1) * columns));
        }
        // The first element of a row of blocks.
        let top = |row: u64| (row / self.rows * matrix) + row % self.rows / height * height * columns;
        let last = top((end - 1) / columns);
        (top(first / columns), (last + height * columns).min((last / matrix + 1) * matrix))
    }

    /// The number of an element's scale among those of the tensor.
    pub fn scale_of(&self, element: u64) -> u64 {
        let (row, column) = (element / self.columns, element % self.columns);
        self.scale_row(row) * self.scales_of_row() + column / self.block[1]
    }

    /// The number of the first scale that is loaded for elements from `first` on.
    pub fn first_scale(&self, first: u64) -> u64 {
        self.scale_row(first / self.columns) * self.scales_of_row()
    }

    /// A stored scale, without the second one.
    pub fn read_scale(&self, bytes: &[u8]) -> f32 {
        match (self.scale, bytes) {
            (ScaleType::F32, &[a, b, c, d, ..]) => f32::from_le_bytes([a, b, c, d]),
            (ScaleType::Bf16, &[a, b, ..]) => bf16_to_f32(u16::from_le_bytes([a, b])),
            (ScaleType::F16, &[a, b, ..]) => f16_to_f32(u16::from_le_bytes([a, b])),
            (ScaleType::E8m0, &[a, ..]) => e8m0(a),
            (ScaleType::E4m3, &[a, ..]) => e4m3(a),
            _ => f32::NAN,
        }
    }

    /// A positive scale as it is stored: the nearest of its type, but never zero; of powers of two the next larger one.
    /// `None` if it is too large for its type.
    fn write_scale(&self, scale: f32) -> Option<[u8; 4]> {
        let nonzero = |bits: u16| if bits & 0x7FFF == 0 { bits | 1 } else { bits };
        let half = |bits: u16| [bits.to_le_bytes()[0], bits.to_le_bytes()[1], 0, 0];
        let stored = match self.scale {
            ScaleType::F32 if scale == 0.0 => 1u32.to_le_bytes(),
            ScaleType::F32 => scale.to_le_bytes(),
            ScaleType::Bf16 => half(nonzero(f32_to_bf16(scale))),
            ScaleType::F16 => half(nonzero(f32_to_f16(scale))),
            ScaleType::E8m0 => {
                let bits = scale.to_bits();
                let above = u32::from(bits & 0x7F_FFFF != 0);
                [u8::try_from((bits >> 23) + above).ok()?.max(1), 0, 0, 0]
            }
            ScaleType::E4m3 => return None,
        };
        self.read_scale(&stored).is_finite().then_some(stored)
    }

    /// Quantises a block again. `out` gets its codes, one a byte.
    ///
    /// # Errors
    /// See [`Unfit`].
    pub fn encode(
        &self,
        isa: Isa,
        block: &Block,
        scale: f32,
        scales: Scales,
        out: &mut [u8],
    ) -> Result<Encoded, Unfit> {
        // What has no scale has no values to add to, and so no result that could differ.
        if !scale.is_finite() && block.asked.iter().any(|&asked| asked != 0.0) {
            return Err(Unfit::Scale);
        }
        let extent = simd::extent(isa, block.old, block.new);
        if !extent.changed {
            out.copy_from_slice(block.codes);
            return Ok(Encoded { scale, stored: None, touched: false, codes: 0, saturated: 0 });
        }
        let stored = self.choose(block, scale, scales, extent)?;
        let (old, scale) = (scale, stored.map_or(scale, |stored| self.read_scale(&stored)));
        let under = (scale, scale.to_bits() == old.to_bits());
        let met = simd::encode(isa, self.codes, block.old, block.new, block.codes, under, block.random, out);
        if met.nan && self.codes != Codes::E4m3 {
            return Err(Unfit::NaN);
        }
        Ok(Encoded { scale, stored, touched: true, codes: met.codes.into(), saturated: met.saturated.into() })
    }

    /// The scale of a block whose finite values reach so far, if it is another one than before.
    fn choose(&self, block: &Block, scale: f32, scales: Scales, extent: Extent) -> Result<Option<[u8; 4]>, Unfit> {
        let Extent { low, high, .. } = extent;
        let most = high.max(-low);
        // The scale of a whole tensor would be known only after the last of its elements.
        if self.whole || most == 0.0 {
            return Ok(None);
        }
        let [below, above] = self.codes.limits().map(f64::from);
        // The codes of integers reach one step further down, if the block makes use of it.
        let below = if self.codes == Codes::Int4 && block.codes.contains(&0) { below } else { -above };
        // Under a negative scale, the largest values have the lowest codes.
        let [low, high] = [low, high].map(f64::from);
        let [low, high] = if scale < 0.0 { [-high, -low] } else { [low, high] };
        let fits = |scale: f32| {
            let scale = f64::from(scale.abs());
            high <= above * scale && low >= below * scale
        };
        let fresh = || self.write_scale(most / self.codes.most());
        let signed = |stored: [u8; 4]| if self.read_scale(&stored) == scale { None } else { Some(stored) };
        if scales == Scales::Fresh {
            return fresh().map(signed).ok_or(Unfit::Overflow);
        }
        if fits(scale) {
            return Ok(None);
        }
        if scale == 0.0 {
            return fresh().map(Some).ok_or(Unfit::Overflow);
        }
        if self.codes == Codes::Int4 {
            return self.raised(most / 7.0).map(Some).ok_or(Unfit::Overflow);
        }
        let mut doubled = scale;
        while !fits(doubled) {
            doubled *= 2.0;
        }
        let stored = self.write_scale(doubled).filter(|stored| self.read_scale(stored) == doubled);
        stored.map(Some).ok_or(Unfit::Overflow)
    }

    /// The least scale of its type that is not below this one.
    fn raised(&self, scale: f32) -> Option<[u8; 4]> {
        let stored = self.write_scale(scale)?;
        if self.read_scale(&stored) >= scale {
            return Some(stored);
        }
        let next = match self.scale {
            ScaleType::Bf16 | ScaleType::F16 => u32::from(u16::from_le_bytes([stored[0], stored[1]])) + 1,
            _ => u32::from_le_bytes(stored) + 1,
        };
        let stored = next.to_le_bytes();
        self.read_scale(&stored).is_finite().then_some(stored)
    }
}

impl Scaled {
    /// Whether its values can be quantised again. The error says in words why not.
    pub fn can_be_requantised(&self) -> Result<(), &'static str> {
        match &*self.format {
            format if format.transposed => Err("its matrices are stored transposed"),
            format if format.global.is_some() => Err("it has two scales for each value"),
            format if format.stride != format.columns => Err("its rows are padded"),
            _ => Ok(()),
        }
    }
}
