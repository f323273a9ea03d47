//! How bytes of files become the values of a tensor: one variant for each way in which a tensor can be stored.
//!
//! A new way is a variant of [`Encoded`], with an arm in each of its methods, and a line where `plan/operands.rs`
//! chooses it.

use crate::codec::lora_product::{self, Product};
use crate::codec::ranges::Read;
use crate::numeric::dtype::Float;
use crate::numeric::operand::Operand;
use crate::numeric::simd::Isa;

/// What a tensor is made of that is in no file itself.
#[derive(Clone, Copy, Debug)]
pub enum Made {
    /// Zero everywhere: the adapter leaves it as its base has it.
    Zero,
    /// A product of factors.
    Product(Product),
}

/// Some elements of a tensor, and what their values are made from.
///
/// `B` is the range of a file at first, then the place where the range was loaded, and in the end its bytes. So exactly
/// what was asked for is decoded.
#[derive(Clone, Debug)]
pub enum Encoded<'a, B> {
    /// The values themselves, in this type.
    Plain {
        /// The type.
        float: Float,
        /// All of the elements.
        bytes: B,
    },
    /// Zeros.
    Zero,
    /// Rows and columns of a product of factors.
    Product {
        /// The product.
        product: &'a Product,
        /// What the rows take of one factor.
        rows: Vec<B>,
        /// The other factor.
        whole: B,
    },
}

impl<'a> Encoded<'a, Read> {
    /// Elements `[first, end)` of a tensor that is made of something else.
    pub fn of_made(made: &'a Made, first: u64, end: u64) -> Self {
        match made {
            Made::Zero => Self::Zero,
            Made::Product(product) => {
                let (rows, whole) = product.reads(first, end);
                Self::Product { product, rows, whole }
            }
        }
    }

    /// Bytes that are read.
    pub fn read_bytes(&self) -> u64 {
        match self {
            Self::Plain { bytes, .. } => bytes.len,
            Self::Zero => 0,
            Self::Product { rows, whole, .. } => rows.iter().map(|read| read.len).sum::<u64>() + whole.len,
        }
    }
}

impl<'a, B> Encoded<'a, B> {
    /// The same elements, with what each part becomes.
    pub fn map<C>(&self, mut part: impl FnMut(&B) -> C) -> Encoded<'a, C> {
        match self {
            Self::Plain { float, bytes } => Encoded::Plain { float: *float, bytes: part(bytes) },
            Self::Zero => Encoded::Zero,
            Self::Product { product, rows, whole } => {
                let rows = rows.iter().map(&mut part).collect();
                Encoded::Product { product, rows, whole: part(whole) }
            }
        }
    }

    /// Bytes of memory that so many values take once they are decoded; none where they can be used as they were read.
    pub const fn room(&self, elements: u64) -> u64 {
        match self {
            Self::Plain { .. } => 0,
            Self::Zero | Self::Product { .. } => elements * Float::F32.size() as u64,
        }
    }
}

impl<'v> Encoded<'_, &'v [u8]> {
    /// The values, from element `first` on. `room` has as many bytes as [`Encoded::room`] says for these elements.
    pub fn decode(&self, isa: Isa, first: u64, room: &'v mut [u8]) -> Operand<'v> {
        match self {
            Self::Plain { float, bytes } => return Operand { float: *float, bytes },
            Self::Zero => room.fill(0),
            Self::Product { product, rows, whole } => lora_product::multiply(isa, product, rows, whole, first, room),
        }
        Operand { float: Float::F32, bytes: room }
    }
}
