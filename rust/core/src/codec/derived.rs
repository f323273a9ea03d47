//! How the bytes of files become the values of a tensor. There is one variant for each way in which a tensor can be
//! stored.
//!
//! A new way is a variant of [`Encoded`], with an arm in each of its methods, and a line where `plan/operands.rs`
//! chooses it.

use crate::codec::joined::{Joined, List, Piece, join};
use crate::codec::lora_product::{self, Product};
use crate::codec::packed::Packed;
use crate::codec::packed::unpack::{Unpacker, unpacker_bytes};
use crate::codec::ranges::Read;
use crate::codec::scaled::Scaled;
use crate::numeric::dtype::Float;
use crate::numeric::operand::Operand;
use crate::numeric::simd::Isa;

/// How many elements of a quantised tensor are decoded at a time while a window is computed: so few that the values of
/// three operands stay in the second-level cache. It is a multiple of the chunks in which figures are summed up.
pub const TILE: u64 = 16 << 10;

/// What a tensor is computed from, in a checkpoint in which not every tensor is stored as it is.
#[derive(Clone, Debug)]
pub enum Made {
    /// Nothing else: its values are in the file.
    Stored,
    /// Nothing else, but it only belongs to a quantised weight: its scales, say.
    Part,
    /// Zero everywhere: the ΔW of a weight that the adapter does not adapt.
    Zero,
    /// The product of two factors.
    Product(Box<Product>),
    /// Frames.
    Packed(Box<Packed>),
    /// Codes and scales.
    Scaled(Scaled),
    /// Other tensors, one after the other.
    Joined(Joined),
    /// Lists of indices of a tensor's elements, in other tensors.
    Lists(Box<[List]>),
}

impl Made {
    /// Bytes of memory that it takes beside its own.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Stored | Self::Part | Self::Zero | Self::Scaled(_) => 0,
            Self::Product(_) => size_of::<Product>() as u64,
            Self::Lists(lists) => size_of_val(&**lists) as u64,
            // Parts of one packed tensor share its table.
            Self::Packed(packed) => {
                let table = if packed.skip == 0 { 8 * packed.ends.len() } else { 0 };
                (size_of::<Packed>() + table) as u64
            }
            Self::Joined(joined) => joined.bytes(),
        }
    }
}

/// Some elements of a tensor, and what their values are decoded from.
///
/// `B` stands for the bytes. First it is a range of a file, then the slot into which the range is loaded, and finally
/// the loaded bytes. So what is decoded is always exactly what was asked for.
#[derive(Clone, Debug)]
pub enum Encoded<'a, B> {
    /// The stored values themselves.
    Plain {
        /// The type.
        float: Float,
        /// All of the elements.
        bytes: B,
    },
    /// Zeros.
    Zero,
    /// Elements of a product of two factors.
    Product {
        /// The product.
        product: &'a Product,
        /// The part of one factor that the rows of these elements need.
        rows: Vec<B>,
        /// The other factor.
        whole: B,
    },
    /// Elements of packed frames.
    Packed {
        /// The tensor.
        packed: &'a Packed,
        /// The palette, and the frames that hold these elements.
        bytes: [B; 2],
    },
    /// Elements of a quantised tensor.
    Scaled {
        /// The tensor.
        scaled: &'a Scaled,
        /// Codes, and their scales.
        bytes: [B; 2],
        /// The second scale.
        global: Option<B>,
    },
    /// Elements of several tensors.
    Joined {
        /// The type of the values, one after the other.
        float: Float,
        /// What each part of them is decoded from.
        parts: Vec<Piece<'a, B>>,
    },
}

impl<'a> Encoded<'a, Read> {
    /// Elements `[first, end)` of a tensor that is not stored itself; `None` if it is.
    pub fn of_made(made: &'a Made, first: u64, end: u64) -> Option<Self> {
        Some(match made {
            Made::Stored | Made::Part | Made::Lists(_) => return None,
            Made::Zero => Self::Zero,
            Made::Product(product) => {
                let (rows, whole) = product.reads(first, end);
                Self::Product { product, rows, whole }
            }
            Made::Packed(packed) => Self::Packed { packed, bytes: packed.reads(first, end) },
            Made::Scaled(scaled) => {
                Self::Scaled { scaled, bytes: scaled.reads(first, end), global: scaled.global_read() }
            }
            Made::Joined(joined) => {
                let mut parts = joined.pieces(first, end);
                match parts.pop() {
                    // Values that lie in one place are used as they are.
                    Some(Piece { encoded: only @ Self::Plain { .. }, .. }) if parts.is_empty() => only,
                    last => {
                        parts.extend(last);
                        Self::Joined { float: joined.float, parts }
                    }
                }
            }
        })
    }

    /// How many bytes are read.
    pub fn read_bytes(&self) -> u64 {
        match self {
            Self::Plain { bytes, .. } => bytes.len,
            Self::Packed { bytes: [palette, frames], .. } => palette.len + frames.len,
            Self::Scaled { bytes: [codes, scales], global, .. } => {
                codes.len + scales.len + global.as_ref().map_or(0, |global| global.len)
            }
            Self::Zero => 0,
            Self::Joined { parts, .. } => parts.iter().map(|part| part.encoded.read_bytes()).sum(),
            Self::Product { rows, whole, .. } => rows.iter().map(|read| read.len).sum::<u64>() + whole.len,
        }
    }
}

impl<'a, B> Encoded<'a, B> {
    /// The same elements, with `part` applied to each of the parts that they are decoded from.
    pub fn map<C>(&self, mut part: impl FnMut(&B) -> C) -> Encoded<'a, C> {
        self.map_each(&mut part)
    }

    fn map_each<C>(&self, mut part: &mut dyn FnMut(&B) -> C) -> Encoded<'a, C> {
        match self {
            Self::Plain { float, bytes } => Encoded::Plain { float: *float, bytes: part(bytes) },
            Self::Zero => Encoded::Zero,
            Self::Product { product, rows, whole } => {
                let rows = rows.iter().map(&mut part).collect();
                Encoded::Product { product, rows, whole: part(whole) }
            }
            Self::Packed { packed, bytes } => Encoded::Packed { packed, bytes: bytes.each_ref().map(part) },
            Self::Scaled { scaled, bytes, global } => {
                let bytes = bytes.each_ref().map(&mut part);
                Encoded::Scaled { scaled, bytes, global: global.as_ref().map(part) }
            }
            Self::Joined { float, parts } => {
                let of = |piece: &Piece<'a, B>| Piece {
                    first: piece.first,
                    elements: piece.elements,
                    encoded: piece.encoded.map_each(part),
                };
                Encoded::Joined { float: *float, parts: parts.iter().map(of).collect() }
            }
        }
    }

    /// Bytes of memory that so many decoded values need; 0 if the values can be used as they were read.
    pub const fn room(&self, elements: u64) -> u64 {
        match self {
            Self::Plain { .. } => 0,
            Self::Zero | Self::Product { .. } | Self::Scaled { .. } => elements * Float::F32.size() as u64,
            Self::Packed { packed, .. } => elements * packed.unpacked().size() as u64,
            Self::Joined { float, .. } => elements * float.size() as u64,
        }
    }

    /// Bytes of memory that unpacking needs, beside the values.
    pub fn unpacking(&self) -> u64 {
        match self {
            Self::Packed { packed, .. } => unpacker_bytes(packed.unpacked() == Float::F32),
            Self::Joined { parts, .. } => parts.iter().map(|part| part.encoded.unpacking()).max().unwrap_or(0),
            Self::Plain { .. } | Self::Zero | Self::Product { .. } | Self::Scaled { .. } => 0,
        }
    }
}

impl<B> Encoded<'_, B> {
    /// Bytes of memory for so many decoded values of a window. Some are decoded in tiles.
    pub fn window_room(&self, elements: u64) -> u64 {
        match self {
            Self::Scaled { scaled, .. } if scaled.decodes_in_parts() => self.room(elements.min(TILE)),
            _ => self.room(elements),
        }
    }
}

impl<'v> Encoded<'_, &'v [u8]> {
    /// Decodes the values, whose first is element `first` of the tensor. `room` has the length that [`Encoded::room`]
    /// gives for these elements. `None` if the bytes are not what they should be.
    pub fn decode(&self, isa: Isa, first: u64, room: &'v mut [u8], unpacker: &mut Unpacker) -> Option<Operand<'v>> {
        let mut float = Float::F32;
        match self {
            Self::Plain { float, bytes } => return Some(Operand { float: *float, bytes }),
            Self::Zero => room.fill(0),
            Self::Product { product, rows, whole } => lora_product::multiply(isa, product, rows, whole, first, room),
            Self::Packed { packed, bytes } => {
                float = packed.unpacked();
                unpacker.unpack(isa, packed, first, *bytes, room)?;
            }
            Self::Scaled { scaled, bytes, global } => scaled.decode(isa, first, *bytes, *global, room),
            Self::Joined { float: to, parts } => {
                float = *to;
                join(parts, float, isa, room, unpacker)?;
            }
        }
        Some(Operand { float, bytes: room })
    }
}
