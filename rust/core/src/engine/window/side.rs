//! One operand of a piece: decoded as a whole, or tile by tile while it is used, so that its values stay in the cache.

use crate::codec::derived::{Encoded, TILE};
use crate::codec::packed::unpack::Unpacker;
use crate::codec::scaled::Scaled;
use crate::numeric::add::difference;
use crate::numeric::dtype::Float;
use crate::numeric::operand::{Exceptions, Operand, Term};
use crate::numeric::quantised::grid_noise;
use crate::numeric::simd::Isa;

/// An operand.
pub(super) enum Side<'v> {
    /// All of its values.
    Whole(Operand<'v>),
    /// Codes and scales, and room for the values of a tile.
    Tiles { scaled: &'v Scaled, bytes: [&'v [u8]; 2], global: Option<&'v [u8]>, room: &'v mut [u8] },
}

impl<'v> Side<'v> {
    /// An operand whose first element is `first`. `room` has the length that [`Encoded::window_room`] gives. `None` if
    /// the bytes are not what they should be.
    pub fn new(
        encoded: Encoded<'v, &'v [u8]>,
        isa: Isa,
        first: u64,
        room: &'v mut [u8],
        unpacker: &mut Unpacker,
    ) -> Option<Self> {
        match encoded {
            Encoded::Scaled { scaled, bytes, global } if scaled.decodes_in_parts() => {
                Some(Self::Tiles { scaled, bytes, global, room })
            }
            encoded => encoded.decode(isa, first, room, unpacker).map(Self::Whole),
        }
    }

    /// Whether no more than [`TILE`] elements can be had at a time.
    pub const fn in_tiles(&self) -> bool {
        matches!(self, Self::Tiles { .. })
    }

    /// Elements `[from, to)` of the tensor, where `first` is the first that is loaded.
    pub fn part(&mut self, isa: Isa, first: u64, from: u64, to: u64) -> Operand<'_> {
        match self {
            Self::Whole(operand) => operand.part((from - first) as usize, (to - first) as usize),
            Self::Tiles { scaled, bytes, global, room } => {
                let room = &mut room[..(to - from) as usize * Float::F32.size()];
                scaled.decode_part(isa, (first, from), *bytes, *global, room);
                Operand { float: Float::F32, bytes: room }
            }
        }
    }

    /// The steps of the grid of elements `[from, to)`, as f32: 0 of values that are not on one, or that are stored
    /// transposed.
    fn steps(&self, isa: Isa, first: u64, from: u64, to: u64) -> Vec<f32> {
        let mut bytes = vec![0; (to - from) as usize * Float::F32.size()];
        if let Self::Tiles { scaled, bytes: stored, global, .. } = self {
            scaled.steps_part(isa, (first, from), *stored, *global, &mut bytes);
        }
        bytes.as_chunks().0.iter().map(|&step| f32::from_le_bytes(step)).collect()
    }

    /// The bytes of all values, if they are of this type and were not decoded in tiles.
    pub fn whole(&self, float: Float) -> Option<&'v [u8]> {
        match self {
            Self::Whole(operand) if operand.float == float => Some(operand.bytes),
            _ => None,
        }
    }
}

/// One term of a piece.
pub(super) struct Sides<'v> {
    pub minuend: Side<'v>,
    pub subtrahend: Option<Side<'v>>,
    pub exceptions: Vec<Exceptions<'v>>,
    pub alpha: f32,
}

impl Sides<'_> {
    /// Elements `[from, to)` of the tensor, where `first` is the first that is loaded.
    pub fn part(&mut self, isa: Isa, first: u64, from: u64, to: u64) -> Term<'_> {
        Term {
            minuend: self.minuend.part(isa, first, from, to),
            subtrahend: self.subtrahend.as_mut().map(|side| side.part(isa, first, from, to)),
            exceptions: &self.exceptions,
            alpha: self.alpha,
        }
    }

    /// How much of the squared difference is noise of the donors' grids: see [`grid_noise`].
    pub fn noise(&mut self, isa: Isa, first: u64, from: u64, to: u64) -> f64 {
        if !self.in_tiles() {
            return 0.0;
        }
        let minuend = self.minuend.steps(isa, first, from, to);
        let subtrahend = match &self.subtrahend {
            Some(side) => side.steps(isa, first, from, to),
            None => vec![0.0; minuend.len()],
        };
        let mut d = vec![0.0; minuend.len()];
        difference(isa, &self.part(isa, first, from, to), from, 0, &mut d);
        grid_noise(&d, [&minuend, &subtrahend])
    }

    /// Whether no more than [`TILE`] elements can be had at a time.
    pub fn in_tiles(&self) -> bool {
        self.minuend.in_tiles() || self.subtrahend.as_ref().is_some_and(Side::in_tiles)
    }
}

/// The parts of elements `[from, to)` in which they can be had.
pub(super) fn tiles(from: u64, to: u64, in_tiles: bool) -> impl Iterator<Item = (u64, u64)> {
    let step = if in_tiles { TILE } else { (to - from).max(1) };
    (from..to).step_by(step as usize).map(move |at| (at, to.min(at + step)))
}
