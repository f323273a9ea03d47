//! Streamed task arithmetic on safetensors checkpoints: `target + α·(minuend − subtrahend)`, exactly, in bounded
//! memory.
//!
//! Data flows one way: checkpoint (headers) → plan → engine (read → combine → round → write) → manifest.
//!
//! The wings, from the top. Each may import those below it and nothing above; `error`, `control` and `text` are for
//! everybody.
//!
//! - `verbs`: the operations that a caller can ask for
//! - `output`: the output folder while it is being written
//! - `engine`: computing the output, window by window
//! - `plan`: which tensors are combined, and where the result goes
//! - `source`: reading byte ranges of the inputs
//! - `checkpoint`: an opened input folder
//! - `format`: parsers for files that strangers wrote
//! - `storage`: where a folder is, on this machine or on the Hub
//! - `codec`: from stored bytes to values
//! - `system`: what the operating system offers
//! - `numeric`: the specification of the arithmetic
//!
//! The output is one list of files, cut into blocks of 1 MiB. A window is a few consecutive blocks of one file: it is
//! the unit that a worker reads, computes and writes.

#![allow(clippy::cast_possible_truncation, reason = "lengths inside one window fit every platform's usize")]

pub mod checkpoint;
pub mod codec;
pub mod control;
pub mod engine;
pub mod error;
pub mod format;
pub mod numeric;
pub mod output;
pub mod plan;
pub mod source;
pub mod storage;
pub mod system;
pub mod text;
pub mod verbs;

pub use error::{Error, Result};

/// The version of the arithmetic. It changes whenever the same inputs would give different bytes.
pub const NUMERIC_SPEC: u32 = 1;
