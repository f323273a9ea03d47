//! A tensor whose elements are those of several other tensors, one after the other: the experts of a layer, where they
//! are stored one by one.

use std::ops::Range;

use crate::codec::derived::{Encoded, Made};
use crate::codec::packed::unpack::Unpacker;
use crate::codec::ranges::Read;
use crate::numeric::convert::{bf16_to_f32, f16_to_f32};
use crate::numeric::dtype::Float;
use crate::numeric::simd::Isa;

/// One of the tensors.
#[derive(Clone, Debug)]
pub struct Part {
    /// Index of its file among the checkpoint's shards.
    pub shard: u32,
    /// Its first byte.
    pub begin: u64,
    /// Its type, if it is stored itself.
    pub float: Float,
    /// What it is computed from.
    pub made: Made,
}

/// Tensors with the same number of elements.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The type in which values are joined: that of all parts, or f32.
    pub float: Float,
    /// Elements of each of them.
    pub each: u64,
    /// The tensors.
    pub parts: Vec<Part>,
}

/// A list of elements of a tensor that is a part of the one that the list was made for, or has that one as a part.
#[derive(Clone, Debug)]
pub struct List {
    /// The tensor with the indices, by its own index in the checkpoint.
    pub index: u32,
    /// The tensor with a value for each of them.
    pub value: u32,
    /// The index of the tensor's first element in the list.
    pub skip: i64,
    /// The tensor's elements that the list is about.
    pub elements: Range<u64>,
    /// How many elements the tensor of the list has.
    pub whole: u64,
}

/// Elements of one of the tensors.
#[derive(Clone, Debug)]
pub struct Piece<'a, B> {
    /// The first of them in that tensor.
    pub first: u64,
    /// How many.
    pub elements: u64,
    /// What they are decoded from.
    pub encoded: Encoded<'a, B>,
}

impl Part {
    /// The type in which its values are decoded.
    const fn decoded(&self) -> Float {
        match &self.made {
            Made::Packed(packed) => packed.unpacked(),
            Made::Joined(joined) => joined.float,
            Made::Stored | Made::Part | Made::Lists(_) => self.float,
            Made::Zero | Made::Product(_) | Made::Scaled(_) => Float::F32,
        }
    }

    fn encoded(&self, first: u64, end: u64) -> Encoded<'_, Read> {
        Encoded::of_made(&self.made, first, end).unwrap_or_else(|| {
            let size = self.float.size() as u64;
            let (begin, len) = (self.begin + first * size, (end - first) * size);
            Encoded::Plain { float: self.float, bytes: Read { shard: self.shard, begin, len } }
        })
    }
}

impl Joined {
    /// Joins tensors that have `each` elements.
    pub fn new(each: u64, parts: Vec<Part>) -> Self {
        let mut types = parts.iter().map(Part::decoded);
        let first = types.next().unwrap_or(Float::F32);
        let float = if types.all(|float| float == first) { first } else { Float::F32 };
        Self { float, each, parts }
    }

    /// What elements `[first, end)` are decoded from.
    pub fn pieces(&self, first: u64, end: u64) -> Vec<Piece<'_, Read>> {
        let (from, to) = (first / self.each, end.div_ceil(self.each));
        let piece = |number: u64| {
            let start = number * self.each;
            let (first, end) = (first.max(start) - start, end.min(start + self.each) - start);
            let encoded = self.parts[number as usize].encoded(first, end);
            Piece { first, elements: end - first, encoded }
        };
        (from..to).map(piece).collect()
    }

    /// Bytes of memory that its tables take.
    pub fn bytes(&self) -> u64 {
        let of = |part: &Part| size_of::<Part>() as u64 + part.made.bytes();
        self.parts.iter().map(of).sum()
    }
}

/// Decodes pieces one after the other, as values of one type. `None` if the bytes are not what they should be.
pub fn join(pieces: &[Piece<&[u8]>], to: Float, isa: Isa, mut room: &mut [u8], unpacker: &mut Unpacker) -> Option<()> {
    for piece in pieces {
        let (out, rest) = std::mem::take(&mut room).split_at_mut(piece.elements as usize * to.size());
        room = rest;
        if let Encoded::Plain { float, bytes } = &piece.encoded {
            if *float == to {
                out.copy_from_slice(bytes);
            } else {
                for (out, &half) in out.as_chunks_mut().0.iter_mut().zip(bytes.as_chunks().0) {
                    *out = widened(*float, half);
                }
            }
            continue;
        }
        // Values of a shorter type are decoded to the end of their room. There they are widened from the first on, and
        // none is overwritten before it was read.
        let at = out.len() - piece.encoded.room(piece.elements) as usize;
        let float = piece.encoded.decode(isa, piece.first, &mut out[at..], unpacker)?.float;
        if float != to {
            for (place, half) in (at..out.len()).step_by(float.size()).enumerate() {
                let value = widened(float, [out[half], out[half + 1]]);
                out[4 * place..][..4].copy_from_slice(&value);
            }
        }
    }
    Some(())
}

/// A value of two bytes as f32.
fn widened(float: Float, half: [u8; 2]) -> [u8; 4] {
    let bits = u16::from_le_bytes(half);
    let value = if float == Float::F16 { f16_to_f32(bits) } else { bf16_to_f32(bits) };
    value.to_le_bytes()
}
