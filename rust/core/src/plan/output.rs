//! What a job writes, and what depends on it: names of files, schemas, what goes along.

use crate::checkpoint::{Checkpoint, vector};
use crate::plan::layout::TensorPlan;

/// The name of a checkpoint's manifest.
pub const MANIFEST: &str = "taskvec.json";
/// Its schema.
pub const MANIFEST_SCHEMA: &str = "taskvec/manifest/1";

/// What a job writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// The first input with the terms added: a checkpoint, or its values for a consumer in memory.
    #[default]
    Checkpoint,
    /// The difference of two donors; the first input is one of them.
    Vector,
}

impl Output {
    /// The name of the file that says what was written.
    pub const fn manifest(self) -> &'static str {
        match self {
            Self::Checkpoint => MANIFEST,
            Self::Vector => vector::FILE,
        }
    }

    /// The schema of that file.
    pub const fn schema(self) -> &'static str {
        match self {
            Self::Checkpoint => MANIFEST_SCHEMA,
            Self::Vector => vector::SCHEMA,
        }
    }

    /// The name of a weight file that replaces the first input's `shard`; it is number `place` of `count`.
    pub fn file_name(self, shard: &str, place: usize, count: usize) -> String {
        match self {
            Self::Checkpoint => shard.to_owned(),
            Self::Vector if count == 1 => "vector.safetensors".into(),
            Self::Vector => format!("vector-{:05}-of-{count:05}.safetensors", place + 1),
        }
    }

    /// A tensor's shape: the first input's, or, in a vector, with the rows that both donors have.
    pub fn shape(self, base: &Checkpoint, plan: &TensorPlan) -> Vec<u64> {
        let tensor = &base.tensors[plan.tensor as usize];
        let mut shape = tensor.shape.clone();
        if self == Self::Vector
            && let Some(rows) = shape.first().copied().filter(|&rows| rows > 0)
            && let Some(of_row) = tensor.elements().checked_div(rows).filter(|&elements| elements > 0)
        {
            shape[0] = plan.elements / of_row;
        }
        shape
    }
}
