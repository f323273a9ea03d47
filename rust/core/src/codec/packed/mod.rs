//! Packed tensors: for each block of a tensor, where it is not zero and what stands there. `docs/packed.md` describes
//! every byte.
//!
//! ```text
//! block     1 MiB of dense elements: mask of the changed elements, list of their values
//! frame     one packed block:   where    mask, or gaps in Golomb-Rice code, whichever is shorter
//!                               what     a rank in a palette for each value; values that are not in it as they are
//!                               low      lower halves, for values that bfloat16 cannot hold
//! ```
//!
//! The sections of a frame go through zstd. A block that would not get smaller is stored as it is.

pub mod frame;
mod gaps;
pub mod palette;
mod section;
pub mod unpack;

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::codec::ranges::Read;
use crate::numeric::dtype::Float;

/// The bytes of a block in its dense form.
pub const FRAME: u64 = 1 << 20;

/// A tensor that is stored in frames.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Index of its file among the checkpoint's shards.
    pub shard: u32,
    /// The first byte of its first frame in the file.
    pub begin: u64,
    /// The type of its dense form: bfloat16 or float32. It decides how many elements a frame has.
    pub float: Float,
    /// Whether some values are not bfloat16, although the dense form is.
    pub wide: bool,
    /// The number of all elements in the frames.
    pub elements: u64,
    /// Where each frame ends, counted from `begin`. Tensors that are parts of one share it.
    pub ends: Arc<[u64]>,
    /// How many of its elements come before the first one that is used, where only a part of it is a tensor.
    pub skip: u64,
    /// How many magnitudes the palette has that stands before the first frame, for frames that have none of their own.
    pub magnitudes: u8,
    /// Stands for its name in the checksums of its frames.
    pub seed: u64,
}

impl Packed {
    /// The elements of a frame, except perhaps the last, if the dense form has this type.
    pub const fn frame_elements(float: Float) -> u64 {
        FRAME / float.size() as u64
    }

    /// The type in which its elements are unpacked.
    pub const fn unpacked(&self) -> Float {
        if self.wide { Float::F32 } else { self.float }
    }

    /// The frames that hold elements `[first, end)`: the first, and one past the last.
    fn frames(&self, first: u64, end: u64) -> (usize, usize) {
        let each = Self::frame_elements(self.float);
        ((first / each) as usize, end.div_ceil(each) as usize)
    }

    /// The bytes of a frame, counted from the first frame's first byte: begin and end.
    fn range(&self, frame: usize) -> (u64, u64) {
        (if frame == 0 { 0 } else { self.ends[frame - 1] }, self.ends[frame])
    }

    /// What elements `[first, end)` are unpacked from, at least one element: the palette, and the frames.
    pub fn reads(&self, first: u64, end: u64) -> [Read; 2] {
        let (from, to) = self.frames(self.skip + first, self.skip + end);
        let (begin, end) = (self.range(from).0, self.range(to - 1).1);
        let palette = 2 * u64::from(self.magnitudes);
        let read = |begin, len| Read { shard: self.shard, begin, len };
        [read(self.begin - palette, palette), read(self.begin + begin, end - begin)]
    }
}

/// What the checksum of a frame starts from: the name's seed, the palette and the number of the frame, so that neither
/// can be exchanged.
pub fn frame_seed(seed: u64, palette: &[u8], frame: u64) -> u64 {
    xxh3_64_with_seed(palette, seed).wrapping_add(frame)
}

/// What is stored of a frame, in its first byte.
mod kind {
    /// The mask of two bits that says where the values are.
    pub const WHERE: u8 = 0b11;
    /// Every element has a value.
    pub const EVERY: u8 = 0;
    /// A bit for each element.
    pub const MASK: u8 = 1;
    /// The distances between elements with a value.
    pub const GAPS: u8 = 2;
    /// The elements themselves, not packed.
    pub const DENSE: u8 = 3;
    /// The frame has a palette of its own.
    pub const PALETTE: u8 = 1 << 2;
    /// The mask of two bits that says which values have a lower half that is not zero.
    pub const LOW: u8 = 0b11 << 3;
    /// None.
    pub const LOW_NONE: u8 = 0;
    /// Those of a list. (Of dense elements: none has 4 bytes.)
    pub const LOW_SOME: u8 = 1 << 3;
    /// Every value has a lower half. (Of dense elements: each has 4 bytes.)
    pub const LOW_ALL: u8 = 2 << 3;
    /// Bits that mean nothing so far.
    pub const UNKNOWN: u8 = 0b111 << 5;
}
