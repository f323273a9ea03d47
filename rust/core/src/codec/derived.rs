//! Tensors that stand in no file but are made of two that do: the ΔW of an adapter, from its factors A and B.

use crate::numeric::dtype::Float;

/// A matrix in a file, row by row.
#[derive(Clone, Copy, Debug)]
pub struct Factor {
    /// Place of its file among the checkpoint's shards.
    pub shard: u32,
    /// Its first byte in the file.
    pub begin: u64,
    /// The type of its elements.
    pub float: Float,
}

/// `scale · B·A`, or its transpose.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// `rank × columns` elements; `rank × rows` where the product is transposed.
    pub a: Factor,
    /// `rows × rank` elements; `columns × rank` where the product is transposed.
    pub b: Factor,
    /// The dimension that is summed over; at least 1.
    pub rank: u64,
    /// First dimension of the tensor; at least 1.
    pub rows: u64,
    /// Second dimension of the tensor; at least 1.
    pub columns: u64,
    /// The factor of the whole.
    pub scale: f64,
    /// Whether the tensor is `(B·A)ᵀ`.
    pub transposed: bool,
}

/// What a tensor is made of.
#[derive(Clone, Copy, Debug)]
pub enum Made {
    /// Zero everywhere: the adapter leaves it as its base has it.
    Zero,
    /// A product of factors.
    Product(Product),
}

/// A range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Place of the file among the checkpoint's shards.
    pub shard: u32,
    /// The first byte.
    pub begin: u64,
    /// How many.
    pub len: u64,
}

impl Made {
    /// What elements `[start, stop)` are made of, in the order in which [`crate::codec::lora_product::multiply`] takes it.
    pub fn reads(&self, start: u64, stop: u64) -> Vec<Read> {
        match self {
            Self::Zero => Vec::new(),
            Self::Product(product) => product.reads(start, stop),
        }
    }
}

impl Product {
    /// The rows that elements `[start, stop)` stand in, first and one past the last.
    pub fn rows_of(&self, start: u64, stop: u64) -> (u64, u64) {
        (start / self.columns, stop.div_ceil(self.columns))
    }

    /// How many reads it takes to make any elements of it.
    pub fn parts(&self) -> usize {
        if self.transposed { self.rank as usize + 1 } else { 2 }
    }

    /// The rows' share of one factor (all of it that lies together, or a piece for each rank), and the other as a whole.
    fn reads(&self, start: u64, stop: u64) -> Vec<Read> {
        let read = |factor: Factor, first: u64, elements: u64| {
            let size = factor.float.size() as u64;
            Read { shard: factor.shard, begin: factor.begin + first * size, len: elements * size }
        };
        let (first, last) = self.rows_of(start, stop);
        let whole = self.rank * self.columns;
        if self.transposed {
            let pieces = (0..self.rank).map(|k| read(self.a, k * self.rows + first, last - first));
            pieces.chain([read(self.b, 0, whole)]).collect()
        } else {
            vec![read(self.b, first * self.rank, (last - first) * self.rank), read(self.a, 0, whole)]
        }
    }
}
