//! Ranges of an input's files.

/// A range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Index of the file among the checkpoint's shards.
    pub shard: u32,
    /// The first byte.
    pub begin: u64,
    /// How many bytes.
    pub len: u64,
}
