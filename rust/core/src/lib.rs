//! Streamed task arithmetic on safetensors checkpoints: `target + α·(minuend − subtrahend)`, exactly, in bounded memory.
//!
//! Data flows one way: checkpoint (headers) → plan → engine (read → combine → round → write) → manifest.
//!
//! The wings, from the top. Each may import those below it and nothing above; `error`, `control` and `text` are for everybody.
//!
//! - `verbs`: what a caller asks for
//! - `output`: the folder in the making
//! - `engine`: windows at work
//! - `plan`: what meets what, and where it goes
//! - `source`: bytes of inputs, by position
//! - `checkpoint`: a folder, opened
//! - `format`: files that strangers wrote, parsed
//! - `storage`: where a folder is
//! - `codec`: stored bytes to values
//! - `system`: what the machine gives
//! - `numeric`: the specification of numbers

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

/// The version of the arithmetic; it changes when the same inputs would give other bytes.
pub const NUMERIC_SPEC: u32 = 1;
