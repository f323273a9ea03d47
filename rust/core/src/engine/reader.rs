//! Reads parts of single tensors, outside the windows of an output.

use crate::codec::packed::unpack::{Unpacker, unpacker_bytes};
use crate::engine::gather::{Gather, Sources};
use crate::engine::window::damaged;
use crate::error::Result;
use crate::numeric::operand::Operand;
use crate::numeric::simd::Isa;
use crate::plan::inputs::{At, Inputs};
use crate::system::buffer::Buffer;
use crate::system::os::DIRECT_ALIGNMENT;

/// The most elements that are read at a time: at most 1 MiB of stored bytes, if they are not packed.
pub const PART: u64 = 128 << 10;
/// The most bytes that these elements take: of elements of 8 bytes, or of the two frames that packed ones may be in.
const ROOM: usize = 4 << 20;

/// Reads and decodes; each thread has its own.
pub struct Reader {
    gather: Gather,
    buffer: Buffer,
    made: Buffer,
    unpacker: Unpacker,
}

impl Reader {
    /// Bytes of memory that a reader needs.
    pub const BYTES: u64 = (ROOM + 8 * DIRECT_ALIGNMENT + 4 * PART as usize) as u64 + unpacker_bytes(true);

    /// Reserves the buffers.
    pub fn new() -> Self {
        Self {
            gather: Gather::default(),
            buffer: Buffer::new(ROOM + 8 * DIRECT_ALIGNMENT),
            made: Buffer::new(4 * PART as usize),
            unpacker: Unpacker::default(),
        }
    }

    /// Elements `[first, end)` of a tensor, at most [`PART`], for `take`. The type of an operand that is no float is of
    /// no meaning.
    pub fn read<R>(
        &mut self,
        (inputs, sources, isa): (&Inputs, &Sources, Isa),
        at: At,
        (first, end): (u64, u64),
        take: impl FnOnce(Operand) -> Result<R>,
    ) -> Result<R> {
        let Self { gather, buffer, made, unpacker } = self;
        gather.clear(None);
        let operand = gather.operand(inputs, at, first, end);
        // A tensor of matrices that are stored transposed is read by whole matrices.
        let most = gather.room(sources);
        if most > buffer.view().len() {
            *buffer = Buffer::new(most);
        }
        let room = &mut made.bytes()[..operand.room(end - first) as usize];
        let loaded = gather.load(sources, buffer.bytes())?;
        let operand = operand.map(|&slot| loaded.bytes(slot)).decode(isa, first, room, unpacker);
        let taken = take(operand.ok_or_else(|| damaged(inputs, at))?)?;
        gather.release(sources)?;
        Ok(taken)
    }
}
