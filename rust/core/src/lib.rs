//! Streamed task arithmetic on safetensors checkpoints: `target + α·(minuend − subtrahend)`, exactly, in bounded memory.
//!
//! Data flows one way: checkpoint (headers) → plan → engine (read → combine → round → write) → manifest.

pub mod checkpoint;
pub mod config;
pub mod dtype;
pub mod error;
pub mod files;
pub mod header;
pub mod index;
pub mod json;
pub mod sidecars;

pub use error::{Error, Result};
