//! What a window has once it is computed, apart from its bytes.

use crate::codec::scaled::encode::Requantised;
use crate::numeric::stats::Stats;

/// What is known about a block once it is computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockRecord {
    /// XXH3-128 of its bytes, or of its frame.
    pub digest: u128,
    /// Its frame; of no bytes if blocks are not packed.
    pub frame: FrameRecord,
    /// Figures of the tensors that have elements beginning in this block, by index in the layout.
    pub stats: Vec<(u32, Stats)>,
    /// What quantising again did to the parts that begin in this block, by tensor.
    pub requantised: Vec<(u32, Requantised)>,
}

/// A scale that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rescaled {
    /// The weight, by index in the layout.
    pub tensor: u32,
    /// The number of the scale among those of the weight.
    pub index: u64,
    /// Its bytes; as many of them count as its type has.
    pub bytes: [u8; 4],
}

/// What is written of a block that is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameRecord {
    /// The bytes of the frame, and of the palette before it.
    pub bytes: u32,
    /// How many magnitudes that palette has.
    pub magnitudes: u8,
}

/// Differences that a vector's bf16 values cannot hold, in the order of tensor and element.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Tensors by index in the layout, and how many exceptions each has in this window.
    pub counts: Vec<(u32, u64)>,
    /// Element indices, i64 little-endian.
    pub index: Vec<u8>,
    /// Exact differences, f32 little-endian.
    pub value: Vec<u8>,
}

impl Found {
    /// Takes over what was found in one tensor.
    pub(super) fn add(&mut self, tensor: u32, misfits: &mut Vec<(u64, f32)>) {
        if !misfits.is_empty() {
            self.counts.push((tensor, misfits.len() as u64));
            self.index.extend(misfits.iter().flat_map(|(index, _)| index.to_le_bytes()));
            self.value.extend(misfits.iter().flat_map(|(_, value)| value.to_le_bytes()));
            misfits.clear();
        }
    }
}

/// The outcome of one window. Outcomes are taken over in the order of the windows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Its blocks.
    pub blocks: Vec<BlockRecord>,
    /// Its exceptions (of a vector only). If blocks are packed, only their number is here: frames hold all values.
    pub found: Found,
    /// Its frames, if blocks are packed.
    pub frames: Vec<u8>,
    /// Scales that change, of weights that are quantised again.
    pub rescaled: Vec<Rescaled>,
    /// What was measured of tensors of a merge that begin here and go on in the next window.
    pub measured: Vec<(u32, Vec<u8>)>,
}
