//! Packs blocks.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::codec::packed::palette::{Histogram, Palette, Ranks};
use crate::codec::packed::section::{Compressor, write_number};
use crate::codec::packed::{FRAME, gaps, kind};
use crate::numeric::dtype::Float;
use crate::numeric::simd::Isa;
use crate::numeric::sparse::{self, SLACK, WORD, places};

/// A block of exact values: float32, little-endian.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    /// The type of the dense form of its tensor, bfloat16 or float32. It decides how many elements a block has.
    pub float: Float,
    /// The values.
    pub exact: &'a [u8],
}

/// Packs block after block; one for each thread.
pub struct Packer {
    compressor: Compressor,
    histogram: Histogram,
    /// The elements that are not zero.
    mask: Vec<u64>,
    /// The upper half of every element.
    halves: Vec<u8>,
    /// Upper halves of the values, and space for whole registers after them.
    high: Vec<u16>,
    /// Lower halves of the values.
    low: Vec<u16>,
    ranks: Vec<u8>,
    plane: Vec<u8>,
    /// Places in the block, or numbers of values.
    places: Vec<u32>,
    gaps: Vec<u8>,
    /// The palette that was used last, and the rank of every value in it.
    last: (Palette, Ranks),
}

/// Bytes of memory that a packer needs for blocks of so many elements: the exact values and lists of them, what zstd
/// keeps, and two tables.
pub const fn packer_bytes(elements: u64) -> u64 {
    17 * elements + (2 << 20)
}

/// The most bytes of a frame: its elements as they are, its first byte and its checksum.
pub const fn longest(elements: u64) -> u64 {
    4 * elements + 9
}

/// Of so many values of a frame one may miss its palette before the frame tries one of its own.
const MISSES: usize = 64;
/// Bits that a value outside a palette costs more than one inside, about.
const MISS: usize = 14;

impl Default for Packer {
    fn default() -> Self {
        let (mask, halves, high, low, ranks, plane, places, gaps) = Default::default();
        let last = (Palette::default(), Ranks::of(&Palette::default()));
        let (compressor, histogram) = (Compressor::new(FRAME as usize / 2), Histogram::default());
        Self { compressor, histogram, mask, halves, high, low, ranks, plane, places, gaps, last }
    }
}

impl Packer {
    /// The palette for a tensor of several frames, of which this block is one.
    pub fn palette(&mut self, isa: Isa, block: Block) -> Palette {
        let (changed, _) = self.split(isa, block);
        self.histogram.count(&self.high[..changed]);
        // Even a magnitude that occurs once here occurs in other frames too.
        self.histogram.palette(1)
    }

    /// Appends the frame of a block to `out`: nothing at all if every element is +0. `seed` is its
    /// [`frame_seed`](crate::codec::packed::frame_seed). Returns how many elements bfloat16 cannot hold.
    pub fn pack(&mut self, isa: Isa, block: Block, palette: &Palette, seed: u64, out: &mut Vec<u8>) -> u64 {
        let elements = block.exact.len() / 4;
        let start = out.len();
        let (changed, any_low) = self.split(isa, block);
        if changed == 0 {
            return 0;
        }
        out.push(0);
        let mut kind = kind::EVERY;
        if changed < elements {
            write_number(changed, out);
            kind = self.positions(elements, changed, out);
        }
        kind |= self.values(changed, palette, out);
        let (low, wide) = if any_low { self.low_halves(block, out) } else { (kind::LOW_NONE, 0) };
        kind |= low;
        out[start] = kind;
        if out.len() - start > elements * if wide > 0 { 4 } else { 2 } {
            out.truncate(start);
            out.push(kind::DENSE | if wide > 0 { kind::LOW_ALL } else { kind::LOW_NONE });
            out.extend_from_slice(if wide > 0 { block.exact } else { &self.halves });
        }
        let sum = xxh3_64_with_seed(&out[start..], seed);
        out.extend_from_slice(&sum.to_le_bytes());
        wide as u64
    }

    /// Fills the mask and the list of upper halves. Returns how many values there are, and whether any has a lower half.
    fn split(&mut self, isa: Isa, Block { exact, .. }: Block) -> (usize, bool) {
        let elements = exact.len() / 4;
        self.mask.resize(elements.div_ceil(WORD), 0);
        self.halves.resize(2 * elements, 0);
        let any_low = sparse::part(isa, exact, &mut self.halves, &mut self.mask);
        let changed = sparse::count(isa, &self.mask);
        self.high.resize(changed + SLACK, 0);
        sparse::squeeze(isa, &self.halves, &self.mask, &mut self.high);
        (changed, any_low)
    }

    /// Appends where the changed elements are, in the shorter of two ways.
    fn positions(&mut self, elements: usize, changed: usize, out: &mut Vec<u8>) -> u8 {
        let Self { mask, plane, places: list, gaps, compressor, .. } = self;
        plane.resize(8 * mask.len(), 0);
        for (bytes, word) in plane.as_chunks_mut::<8>().0.iter_mut().zip(mask.iter()) {
            *bytes = word.to_le_bytes();
        }
        plane.truncate(elements.div_ceil(8));
        // Where more is changed, gaps are not shorter.
        if 8 * changed < elements {
            gaps.clear();
            list.clear();
            places(mask).for_each(|place| list.push(place as u32));
            gaps::write(list, gaps);
            // Gaps take longer to read: they have to be shorter by more than a few bytes.
            let worth = gaps.len() + gaps.len() / 32;
            if worth < compressor.estimate(plane) || worth < compressor.compress(plane).len() {
                write_number(gaps.len(), out);
                out.extend_from_slice(gaps);
                return kind::GAPS;
            }
        }
        let stored = compressor.compress(plane);
        write_number(stored.len(), out);
        out.extend_from_slice(stored);
        kind::MASK
    }

    /// Appends the upper halves.
    fn values(&mut self, changed: usize, palette: &Palette, out: &mut Vec<u8>) -> u8 {
        let Self { compressor, histogram, high, ranks, places: missed, plane, last, .. } = self;
        let high = &high[..changed];
        let mut kind = 0;
        use_palette(last, palette).write(high, ranks, missed);
        if missed.len() * MISSES > changed {
            histogram.count(high);
            let own = histogram.palette(2);
            let bytes = own.to_bytes();
            let before = missed.len();
            use_palette(last, &own).write(high, ranks, missed);
            if before.saturating_sub(missed.len()) * MISS > 8 * bytes.len() {
                kind = kind::PALETTE;
                out.push(own.ranks() / 2);
                out.extend_from_slice(&bytes);
            } else {
                use_palette(last, palette).write(high, ranks, missed);
            }
        }
        compressor.append(ranks, out);
        write_number(missed.len(), out);
        if !missed.is_empty() {
            planes(compressor, plane, || missed.iter().map(|&at| high[at as usize]), out);
        }
        kind
    }

    /// Appends the lower halves, and returns how many of them are not zero.
    fn low_halves(&mut self, block: Block, out: &mut Vec<u8>) -> (u8, usize) {
        let Self { compressor, plane, places: list, gaps, mask, low, .. } = self;
        low.clear();
        list.clear();
        let elements = block.exact.as_chunks::<4>().0;
        // An element without a value has no lower half.
        places(mask).for_each(|place| {
            let [a, b, ..] = elements[place];
            let half = u16::from_le_bytes([a, b]);
            low.push(half);
            if half != 0 {
                list.push(place as u32);
            }
        });
        let wide = list.len();
        if 4 * wide > low.len() {
            planes(compressor, plane, || low.iter().copied(), out);
            return (kind::LOW_ALL, wide);
        }
        gaps.clear();
        gaps::write(list, gaps);
        write_number(wide, out);
        write_number(gaps.len(), out);
        out.extend_from_slice(gaps);
        planes(compressor, plane, || low.iter().copied().filter(|&half| half != 0), out);
        (kind::LOW_SOME, wide)
    }
}

/// The ranks of a palette, made anew only if it is another one than before.
fn use_palette<'a>(last: &'a mut (Palette, Ranks), palette: &Palette) -> &'a Ranks {
    if last.0 != *palette {
        *last = (palette.clone(), Ranks::of(palette));
    }
    &last.1
}

/// Appends halves as two sections: their upper and their lower bytes.
fn planes<I: Iterator<Item = u16>>(
    compressor: &mut Compressor,
    plane: &mut Vec<u8>,
    halves: impl Fn() -> I,
    out: &mut Vec<u8>,
) {
    for place in [1, 0] {
        plane.clear();
        plane.extend(halves().map(|half| half.to_le_bytes()[place]));
        compressor.append(plane, out);
    }
}
