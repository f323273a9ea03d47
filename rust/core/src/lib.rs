//! Streamed task arithmetic on safetensors checkpoints: `target + α·(minuend − subtrahend)`, exactly, in bounded memory.
//!
//! Data flows one way: checkpoint (headers) → plan → engine (read → combine → round → write) → manifest.

pub mod dtype;
pub mod error;
pub mod float;
pub mod kernel;
mod pass;
pub mod philox;
pub mod simd;
pub mod stats;

pub use error::{Error, Result};
