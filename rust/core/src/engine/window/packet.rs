//! A window's values for a consumer in memory. Only whole elements are delivered, each of them once.

use std::sync::Arc;

use super::pieces::Piece;
use crate::error::Result;
use crate::format::blocks::BLOCK;
use crate::plan::Plan;
use crate::system::buffer::Buffer;

/// Consecutive elements of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Index in the layout.
    pub tensor: u32,
    /// The first element.
    pub first: u64,
    /// How many elements (or bytes, if an element has less than one byte).
    pub elements: u64,
    /// Where they begin in the packet's bytes: a multiple of the element size.
    pub offset: usize,
}

/// The wanted values of one window.
#[derive(Debug)]
pub struct Packet {
    /// Which tensors are wanted, by index in the layout.
    wanted: Arc<[bool]>,
    /// Which elements it holds.
    pub parts: Vec<Part>,
    result: Buffer,
    original: Buffer,
}

/// The possible sizes of an element, largest first. With parts in this order, every part is aligned without padding.
const SIZES: [u64; 4] = [8, 4, 2, 1];

impl Packet {
    /// The size of a packet for `blocks` blocks, in bytes. The last element may end in the next block.
    pub fn bytes(blocks: u64) -> usize {
        (blocks * BLOCK + SIZES[0]) as usize
    }

    /// An empty packet for these tensors.
    pub fn new(wanted: Arc<[bool]>, blocks: u64) -> Self {
        let [result, original] = [0; 2].map(|_| Buffer::new(Self::bytes(blocks)));
        Self { wanted, parts: Vec::new(), result, original }
    }

    /// The values that would be written, part after part. Bytes after the last part are undefined, and so are all bytes
    /// if the job only reads.
    pub fn result(&mut self) -> &[u8] {
        self.result.bytes()
    }

    /// The target's own values, with the same parts at the same offsets.
    pub fn original(&mut self) -> &[u8] {
        self.original.bytes()
    }

    /// Takes the wanted values of a window. `computed` gives a piece's results, from its first element on; `own` writes
    /// the target's own values of the elements that begin in the piece's block.
    pub(super) fn fill<'a>(
        &mut self,
        plan: &Plan,
        pieces: &[Piece],
        computed: impl Fn(&Piece) -> &'a [u8],
        mut own: impl FnMut(&Piece, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let Self { wanted, parts, result, original } = self;
        parts.clear();
        let (result, original) = (result.bytes(), original.bytes());
        let mut at = 0;
        for size in SIZES {
            let unit = |piece: &Piece| plan.layout.tensors[piece.tensor].dtype.unit();
            for piece in pieces.iter().filter(|piece| wanted[piece.tensor] && unit(piece) == size) {
                // An element that is cut by the start of the window is delivered with the previous window, which has
                // all of it.
                let elements = piece.end.saturating_sub(piece.counted);
                if elements == 0 {
                    continue;
                }
                let (from, to) = ((piece.counted - piece.first) * size, (piece.end - piece.first) * size);
                let range = from as usize..to as usize;
                let tensor = piece.tensor as u32;
                match parts.last_mut() {
                    // The next piece of the same tensor, from the next block of the window: extend the part.
                    Some(part) if part.tensor == tensor && part.first + part.elements == piece.counted => {
                        part.elements += elements;
                    }
                    _ => parts.push(Part { tensor, first: piece.counted, elements, offset: at }),
                }
                let place = at..at + range.len();
                at = place.end;
                if !plan.inputs.origins.is_empty() {
                    result[place.clone()].copy_from_slice(&computed(piece)[range]);
                }
                own(piece, &mut original[place])?;
            }
        }
        Ok(())
    }
}
