//! Unpacks frames. Their bytes come from strangers: whatever they are, the answer is the block that was packed, or an
//! error.

use xxhash_rust::xxh3::xxh3_64_with_seed;
use zstd_safe::DCtx;

use crate::codec::packed::palette::{ESCAPE, Palette, each_escape};
use crate::codec::packed::section::Rest;
use crate::codec::packed::{FRAME, Packed, frame_seed, gaps, kind};
use crate::numeric::dtype::Float;
use crate::numeric::simd::Isa;
use crate::numeric::sparse::{self, SLACK, Values, WORD, places};

/// Bytes of memory that an unpacker needs: for each element of a frame two bytes of its value and one of its rank, one
/// byte more while a section is read, and two of its lower half if the tensor is wide; two masks; and what zstd needs.
pub const fn unpacker_bytes(wide: bool) -> u64 {
    (if wide { 3 << 20 } else { 2 << 20 }) + (512 << 10)
}

/// Bytes of the checksum at the end of a frame.
const CHECKSUM: usize = 8;

/// Unpacks frame after frame; one for each thread. It keeps the last frame, because neighbouring pieces of a tensor end
/// in the middle of one.
#[derive(Default)]
pub struct Unpacker {
    /// Made with the first frame.
    context: Option<DCtx<'static>>,
    /// The frame that the rest belongs to: the address of its tensor, and its number.
    key: Option<(usize, usize)>,
    form: Form,
    mask: Vec<u64>,
    /// The elements that `low` belongs to, if not every value has one.
    with_low: Vec<u64>,
    high: Vec<u16>,
    low: Vec<u16>,
    ranks: Vec<u8>,
    plane: Vec<u8>,
}

/// What the last frame holds.
#[derive(Clone, Copy, Default, PartialEq)]
enum Form {
    #[default]
    Zero,
    /// Elements of this type, in the frame itself.
    Dense(Float),
    /// Mask and values; which of these have lower halves is in the first byte of the frame.
    Sparse(u8),
}

impl Unpacker {
    /// Writes elements of a tensor from element `first` on to `out`, in the type [`Packed::unpacked`]. `bytes` are those
    /// of [`Packed::reads`] for these elements. `None` if a frame is not what a packer writes.
    pub fn unpack(
        &mut self,
        isa: Isa,
        tensor: &Packed,
        first: u64,
        [palette, bytes]: [&[u8]; 2],
        out: &mut [u8],
    ) -> Option<()> {
        let size = tensor.unpacked().size();
        let first = tensor.skip + first;
        let end = first + (out.len() / size) as u64;
        let each = Packed::frame_elements(tensor.float);
        let (from, to) = tensor.frames(first, end);
        let origin = tensor.range(from).0;
        let mut out = out;
        for frame in from..to {
            let (begin, stop) = tensor.range(frame);
            let bytes = &bytes[(begin - origin) as usize..(stop - origin) as usize];
            let start = frame as u64 * each;
            let elements = each.min(tensor.elements - start) as usize;
            let (begin, stop) = (first.max(start), end.min(start + each));
            let (mine, rest) = std::mem::take(&mut out).split_at_mut((stop - begin) as usize * size);
            out = rest;
            let key = (std::ptr::from_ref(tensor).addr(), frame);
            if self.key != Some(key) {
                self.key = None;
                self.open(isa, tensor, palette, (frame, elements), bytes)?;
                self.key = Some(key);
            }
            self.write(isa, tensor, (begin - start) as usize, bytes, mine);
        }
        Some(())
    }

    /// Writes elements of the current frame, from element `first` of it on.
    fn write(&self, isa: Isa, tensor: &Packed, first: usize, bytes: &[u8], out: &mut [u8]) {
        let wide = tensor.unpacked() == Float::F32;
        let elements = out.len() / tensor.unpacked().size();
        match self.form {
            Form::Zero => out.fill(0),
            Form::Dense(Float::F32) => out.copy_from_slice(&bytes[1 + 4 * first..][..4 * elements]),
            Form::Dense(_) if wide => {
                let halves = bytes[1 + 2 * first..].as_chunks::<2>().0;
                for (out, &[a, b]) in out.as_chunks_mut::<4>().0.iter_mut().zip(halves) {
                    *out = [0, 0, a, b];
                }
            }
            Form::Dense(_) => out.copy_from_slice(&bytes[1 + 2 * first..][..2 * elements]),
            Form::Sparse(low) => {
                let values = match (wide, low) {
                    (false, _) => Values::Halves(&self.high),
                    (true, kind::LOW_ALL) => Values::Both(&self.high, &self.low),
                    (true, _) => Values::Upper(&self.high),
                };
                sparse::spread(isa, &self.mask, first, values, out);
                if low == kind::LOW_SOME {
                    let with_low = places(&self.with_low).zip(&self.low);
                    let elements = out.as_chunks_mut::<4>().0;
                    for (place, low) in with_low.skip_while(|&(place, _)| place < first) {
                        let Some(element) = elements.get_mut(place - first) else { break };
                        element[..2].copy_from_slice(&low.to_le_bytes());
                    }
                }
            }
        }
    }

    /// Reads the frame of this number and with so many elements, up to mask and values.
    fn open(
        &mut self,
        isa: Isa,
        tensor: &Packed,
        palette: &[u8],
        (frame, elements): (usize, usize),
        bytes: &[u8],
    ) -> Option<()> {
        if bytes.is_empty() {
            self.form = Form::Zero;
            return Some(());
        }
        // All the space that any frame of this tensor needs, so that lists do not grow beyond what the budget counts on.
        let most = (FRAME as usize / tensor.float.size()).min(tensor.elements as usize);
        self.high.reserve_exact((most + SLACK).saturating_sub(self.high.len()));
        self.ranks.reserve_exact(most.saturating_sub(self.ranks.len()));
        self.plane.reserve_exact(most.saturating_sub(self.plane.len()));
        if tensor.unpacked() == Float::F32 {
            self.low.reserve_exact((most + SLACK).saturating_sub(self.low.len()));
        }
        let (content, sum) = bytes.split_last_chunk::<CHECKSUM>()?;
        if xxh3_64_with_seed(content, frame_seed(tensor.seed, palette, frame as u64)).to_le_bytes() != *sum {
            return None;
        }
        let wide = tensor.unpacked() == Float::F32;
        let mut rest = Rest(content);
        let kind = rest.byte()?;
        let low = kind & kind::LOW;
        if kind & kind::UNKNOWN != 0 || low == kind::LOW || (low != kind::LOW_NONE && !wide) {
            return None;
        }
        if kind & kind::WHERE == kind::DENSE {
            let float = if low == kind::LOW_ALL { Float::F32 } else { Float::Bf16 };
            self.form = Form::Dense(float);
            let good = kind & kind::PALETTE == 0 && low != kind::LOW_SOME && rest.0.len() == elements * float.size();
            return good.then_some(());
        }
        self.form = Form::Sparse(low);
        let changed = self.positions(isa, kind & kind::WHERE, elements, &mut rest)?;
        self.values(palette, kind & kind::PALETTE != 0, changed, &mut rest)?;
        self.low_halves(low, elements, changed, &mut rest)?;
        rest.0.is_empty().then_some(())
    }

    /// Reads the mask; returns how many elements have a value.
    fn positions(&mut self, isa: Isa, place: u8, elements: usize, rest: &mut Rest) -> Option<usize> {
        let context = self.context.get_or_insert_with(DCtx::create);
        self.mask.clear();
        self.mask.resize(elements.div_ceil(WORD), 0);
        if place == kind::EVERY {
            self.mask.fill(u64::MAX);
            if let Some(last) = self.mask.last_mut().filter(|_| !elements.is_multiple_of(WORD)) {
                *last = (1 << (elements % WORD)) - 1;
            }
            return Some(elements);
        }
        let changed = rest.number(elements - 1).filter(|&changed| changed > 0)?;
        if place == kind::MASK {
            self.plane.resize(elements.div_ceil(8), 0);
            rest.section(context, &mut self.plane)?;
            self.plane.resize(8 * self.mask.len(), 0);
            for (word, bytes) in self.mask.iter_mut().zip(self.plane.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            let past = !elements.is_multiple_of(WORD) && self.mask[elements / WORD] >> (elements % WORD) != 0;
            return (!past && sparse::count(isa, &self.mask) == changed).then_some(changed);
        }
        let len = rest.number(usize::MAX)?;
        gaps::read(rest.bytes(len)?, changed, elements, &mut self.mask)?;
        Some(changed)
    }

    /// Reads the upper halves of the values.
    fn values(&mut self, palette: &[u8], own: bool, changed: usize, rest: &mut Rest) -> Option<()> {
        let context = self.context.get_or_insert_with(DCtx::create);
        let palette = if own {
            let magnitudes = usize::from(rest.byte()?);
            rest.bytes(2 * magnitudes)?
        } else {
            palette
        };
        let palette = Palette::from_bytes(palette)?;
        let Self { ranks, high, plane, .. } = self;
        ranks.resize(changed, 0);
        rest.section(context, ranks)?;
        let known = palette.ranks();
        let strange = ranks.iter().fold(false, |strange, &rank| strange | (rank >= known) & (rank != ESCAPE));
        let mut missed = 0;
        each_escape(ranks, |_| missed += 1);
        if strange || rest.number(changed)? != missed {
            return None;
        }
        let values = palette.values();
        high.clear();
        high.extend(ranks.iter().map(|&rank| values[usize::from(rank)]));
        high.resize(changed + SLACK, 0);
        if missed > 0 {
            for shift in [8, 0] {
                plane.resize(missed, 0);
                rest.section(context, plane)?;
                let mut bytes = plane.iter();
                each_escape(ranks, |at| high[at] |= bytes.next().map_or(0, |&byte| u16::from(byte)) << shift);
            }
        }
        Some(())
    }

    /// Reads the lower halves.
    fn low_halves(&mut self, low: u8, elements: usize, changed: usize, rest: &mut Rest) -> Option<()> {
        let context = self.context.get_or_insert_with(DCtx::create);
        let mut count = changed;
        match low {
            kind::LOW_ALL => {}
            kind::LOW_SOME => {
                count = rest.number(changed).filter(|&count| count > 0)?;
                self.with_low.clear();
                self.with_low.resize(self.mask.len(), 0);
                let len = rest.number(usize::MAX)?;
                gaps::read(rest.bytes(len)?, count, elements, &mut self.with_low)?;
                // Only an element with a value has a lower half.
                if self.with_low.iter().zip(&self.mask).any(|(with_low, mask)| with_low & !mask != 0) {
                    return None;
                }
            }
            _ => return Some(()),
        }
        self.low.clear();
        self.low.resize(count + SLACK, 0);
        for shift in [8, 0] {
            self.plane.resize(count, 0);
            rest.section(context, &mut self.plane)?;
            for (low, &byte) in self.low.iter_mut().zip(&self.plane) {
                *low |= u16::from(byte) << shift;
            }
        }
        Some(())
    }
}
