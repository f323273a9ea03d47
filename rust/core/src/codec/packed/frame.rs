//! Packs blocks.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::codec::packed::palette::{Histogram, Palette, Ranks};
use crate::codec::packed::section::{Compressor, write_number};
use crate::codec::packed::{gaps, kind};
use crate::numeric::dtype::Float;
use crate::numeric::simd::Isa;
use crate::numeric::sparse::{self, SLACK, WORD, places};

/// A block of dense elements. They are little-endian bfloat16 or float32, and are changed while they are packed.
pub struct Block<'a> {
    /// Their type.
    pub float: Float,
    /// Their bytes; at most 1 MiB.
    pub bytes: &'a mut [u8],
    /// Elements that bfloat16 cannot hold: place in the block, ascending, and exact value.
    pub misfits: &'a [(u32, f32)],
}

/// Packs block after block; one for each thread.
pub struct Packer {
    compressor: Compressor,
    histogram: Histogram,
    mask: Vec<u64>,
    /// Upper halves of the values, and space for whole registers after them.
    high: Vec<u16>,
    /// Lower halves of the values of a float32 block.
    low: Vec<u16>,
    ranks: Vec<u8>,
    plane: Vec<u8>,
    /// Places in the block, or numbers of values.
    places: Vec<u32>,
    gaps: Vec<u8>,
    /// The palette that was used last, and the rank of every value in it.
    last: (Palette, Ranks),
}

/// Bytes of memory that a packer needs, with what zstd needs.
pub const PACKER: u64 = 6 << 20;

/// Of so many values of a frame one may miss its palette before the frame tries one of its own.
const MISSES: usize = 64;
/// Bits that a value outside a palette costs more than one inside, about.
const MISS: usize = 14;

impl Default for Packer {
    fn default() -> Self {
        let last = Palette::default();
        let ranks = Ranks::of(&last);
        Self {
            compressor: Compressor::new(1 << 20),
            histogram: Histogram::default(),
            mask: Vec::new(),
            high: Vec::new(),
            low: Vec::new(),
            ranks: Vec::new(),
            plane: Vec::new(),
            places: Vec::new(),
            gaps: Vec::new(),
            last: (last, ranks),
        }
    }
}

impl Packer {
    /// The palette for a tensor of `frames` frames, of which this block is one.
    pub fn palette(&mut self, isa: Isa, block: Block, frames: u64) -> Palette {
        let changed = self.split(isa, block);
        self.histogram.count(&self.high[..changed]);
        // A magnitude takes about three bytes of the header. A value costs about two if it is not in the palette.
        self.histogram.palette(if frames > 1 { 1 } else { 2 })
    }

    /// Appends the frame of a block to `out`: nothing at all if every element is +0.
    pub fn pack(&mut self, isa: Isa, block: Block, palette: &Palette, seed: u64, out: &mut Vec<u8>) {
        let Block { float, bytes, misfits } = block;
        let elements = bytes.len() / float.size();
        let start = out.len();
        let changed = self.split(isa, Block { float, bytes: &mut *bytes, misfits });
        if changed == 0 {
            return;
        }
        out.push(0);
        let mut kind = kind::EVERY;
        if changed < elements {
            write_number(changed, out);
            kind = self.positions(elements, changed, out);
        }
        kind |= self.values(changed, palette, out);
        kind |= self.low_halves(float, changed, misfits, out);
        out[start] = kind;
        let dense_size = if misfits.is_empty() { float.size() } else { 4 };
        if out.len() - start > elements * dense_size {
            out.truncate(start);
            self.dense(float, bytes, misfits, out);
        }
        let sum = xxh3_64_with_seed(&out[start..], seed);
        out.extend_from_slice(&sum.to_le_bytes());
    }

    /// Fills the mask and the lists of the values; returns how many there are.
    fn split(&mut self, isa: Isa, Block { float, bytes, misfits }: Block) -> usize {
        let elements = bytes.len() / float.size();
        self.mask.resize(elements.div_ceil(WORD), 0);
        sparse::mark(isa, float.size(), bytes, &mut self.mask);
        for &(place, value) in misfits {
            let place = place as usize;
            // Cut off, not rounded: the rest of the value goes to the lower halves.
            let high = (value.to_bits() >> 16) as u16;
            bytes[2 * place..2 * place + 2].copy_from_slice(&high.to_le_bytes());
            self.mask[place / WORD] |= 1 << (place % WORD);
        }
        let changed = sparse::count(&self.mask);
        self.high.resize(changed + SLACK, 0);
        if float.size() == 2 {
            sparse::squeeze(isa, bytes, &self.mask, &mut self.high);
        } else {
            self.low.resize(changed, 0);
            let words = bytes.as_chunks::<4>().0;
            for ((place, high), low) in places(&self.mask).zip(&mut self.high).zip(&mut self.low) {
                let [a, b, c, d] = words[place];
                (*low, *high) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
            }
        }
        changed
    }

    /// Appends where the changed elements are, in the shorter of two ways.
    fn positions(&mut self, elements: usize, changed: usize, out: &mut Vec<u8>) -> u8 {
        let Self { mask, plane, places: list, gaps, compressor, .. } = self;
        plane.resize(8 * mask.len(), 0);
        for (bytes, word) in plane.as_chunks_mut::<8>().0.iter_mut().zip(mask.iter()) {
            *bytes = word.to_le_bytes();
        }
        plane.truncate(elements.div_ceil(8));
        let stored = compressor.compress(plane);
        gaps.clear();
        // Where more is changed, gaps are not shorter.
        if 6 * changed < elements {
            list.clear();
            places(mask).for_each(|place| list.push(place as u32));
            gaps::write(list, gaps);
            // Gaps take longer to read: they have to be shorter by more than a few bytes.
            if gaps.len() + gaps.len() / 32 < stored.len() {
                write_number(gaps.len(), out);
                out.extend_from_slice(gaps);
                return kind::GAPS;
            }
        }
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

    /// Appends the lower halves.
    fn low_halves(&mut self, float: Float, changed: usize, misfits: &[(u32, f32)], out: &mut Vec<u8>) -> u8 {
        let Self { compressor, plane, places: list, gaps, mask, low, .. } = self;
        if float == Float::F32 {
            planes(compressor, plane, || low.iter().copied(), out);
            return kind::LOW_ALL;
        }
        if misfits.is_empty() {
            return kind::LOW_NONE;
        }
        let low = |&(_, value): &(u32, f32)| value.to_bits() as u16;
        if 4 * misfits.len() > changed {
            let mut misfits = misfits.iter().peekable();
            let halves: Vec<u16> = places(mask)
                .map(|place| misfits.next_if(|(misfit, _)| *misfit as usize == place).map_or(0, low))
                .collect();
            planes(compressor, plane, || halves.iter().copied(), out);
            return kind::LOW_ALL;
        }
        write_number(misfits.len(), out);
        list.clear();
        list.extend(misfits.iter().map(|(place, _)| place));
        gaps.clear();
        gaps::write(list, gaps);
        write_number(gaps.len(), out);
        out.extend_from_slice(gaps);
        planes(compressor, plane, || misfits.iter().map(low), out);
        kind::LOW_SOME
    }

    /// Appends the elements as they are.
    fn dense(&mut self, float: Float, bytes: &[u8], misfits: &[(u32, f32)], out: &mut Vec<u8>) {
        if misfits.is_empty() {
            out.push(kind::DENSE | if float == Float::F32 { kind::LOW_ALL } else { kind::LOW_NONE });
            out.extend_from_slice(bytes);
            return;
        }
        out.push(kind::DENSE | kind::LOW_ALL);
        let start = out.len();
        out.extend(bytes.as_chunks::<2>().0.iter().flat_map(|&[a, b]| [0, 0, a, b]));
        for &(place, value) in misfits {
            let at = start + 4 * place as usize;
            out[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
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
