//! What a job writes, a checkpoint or a vector, and what depends on that: file names, schemas and shapes.

use crate::checkpoint::{Tensor, vector};

/// The name of a checkpoint's manifest.
pub const MANIFEST: &str = "taskvec.json";
/// Its schema.
pub const MANIFEST_SCHEMA: &str = "taskvec/manifest/1";

/// What a job writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// The first input with the terms added: a checkpoint folder, or its values for a consumer in memory.
    #[default]
    Checkpoint,
    /// The difference of two donors. The first input is the minuend.
    Vector,
}

impl Output {
    /// The name of the manifest.
    pub const fn manifest(self) -> &'static str {
        match self {
            Self::Checkpoint => MANIFEST,
            Self::Vector => vector::FILE,
        }
    }

    /// The schema of the manifest.
    pub const fn schema(self) -> &'static str {
        match self {
            Self::Checkpoint => MANIFEST_SCHEMA,
            Self::Vector => vector::SCHEMA,
        }
    }

    /// The name of the weight file for the first input's `shard`. It is file number `place` (from 0) of `count`.
    pub fn file_name(self, shard: &str, place: usize, count: usize) -> String {
        match self {
            Self::Checkpoint => shard.to_owned(),
            Self::Vector if count == 1 => "vector.safetensors".into(),
            Self::Vector => format!("vector-{:05}-of-{count:05}.safetensors", place + 1),
        }
    }

    /// The shape of a tensor in the output: that of the first input, but in a vector with fewer rows if not all inputs
    /// have all of them; `elements` are those in the output.
    pub fn shape(self, tensor: &Tensor, elements: u64) -> Vec<u64> {
        let mut shape = tensor.shape.to_vec();
        if self == Self::Vector
            && let Some(rows) = shape.first().copied().filter(|&rows| rows > 0)
            && let Some(of_row) = tensor.elements().checked_div(rows).filter(|&elements| elements > 0)
        {
            shape[0] = elements / of_row;
        }
        shape
    }
}
