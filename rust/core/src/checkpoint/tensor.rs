//! One tensor of a checkpoint. There may be hundreds of thousands, so it is small: names and shapes are shared.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::numeric::dtype::Dtype;
use crate::text::Name;

/// One tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name, unique in the checkpoint.
    pub name: Name,
    /// Its dimensions; empty for a scalar.
    pub shape: Shape,
    /// Its first byte in the shard's file.
    pub begin: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// The index of its shard in [`Checkpoint::shards`](super::Checkpoint::shards).
    pub shard: u32,
    /// Its element type.
    pub dtype: Dtype,
}

impl Tensor {
    /// The number of its elements. It does not overflow: the header was checked.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// The dimensions of a tensor. A checkpoint has few shapes, whatever the number of its tensors, and each tensor only
/// refers to its own.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Shape(Arc<Vec<u64>>);

impl Deref for Shape {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.0
    }
}

impl Borrow<[u64]> for Shape {
    fn borrow(&self) -> &[u64] {
        &self.0
    }
}

impl From<Vec<u64>> for Shape {
    fn from(dims: Vec<u64>) -> Self {
        Self(dims.into())
    }
}

impl PartialEq<[u64]> for Shape {
    fn eq(&self, other: &[u64]) -> bool {
        **self == *other
    }
}

impl<const N: usize> PartialEq<[u64; N]> for Shape {
    fn eq(&self, other: &[u64; N]) -> bool {
        **self == *other
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Shape {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(serializer)
    }
}
