//! Streamed task arithmetic on safetensors checkpoints: `target + α·(minuend − subtrahend)`, exactly, in bounded memory.
//!
//! Data flows one way: checkpoint (headers) → plan → engine (read → combine → round → write) → manifest.

#![allow(clippy::cast_possible_truncation, reason = "lengths inside one window fit every platform's usize")]

// Ground: errors, element types, the operating system, threads.
pub mod control;
pub mod dtype;
pub mod error;
mod ordered;
pub mod os;
// Reading: headers, indexes, folders here and elsewhere.
pub mod adapter;
pub mod checkpoint;
pub mod claims;
pub mod clutter;
pub mod config;
mod descriptions;
pub mod factors;
pub mod files;
pub mod folder;
pub mod header;
pub mod index;
pub mod json;
pub mod lora;
mod missing;
pub mod place;
pub mod shard;
// Arithmetic: the numeric specification and its kernels.
pub mod float;
pub mod kernel;
pub mod lowrank;
mod pass;
pub mod philox;
pub mod simd;
pub mod stats;
// Bytes in: mapped, buffered, direct, streamed.
mod buffer;
#[cfg(target_os = "linux")]
mod mapping;
#[cfg(target_os = "linux")]
mod sigbus;
pub mod source;
pub mod stream;
// Planning: what meets what, and where it goes.
pub mod budget;
pub mod inputs;
pub mod layout;
pub mod matching;
pub mod options;
pub mod plan;
mod tie;
pub mod vector;
// Doing: windows, in order, into a staged output.
mod ahead;
mod arrivals;
pub mod digest;
mod effect;
mod gather;
mod journal;
mod lanes;
pub mod manifest;
mod progress;
mod same;
mod sidecars;
mod sink;
mod spool;
mod staging;
mod window;
// Verbs.
pub mod diff;
pub mod inspect;
pub mod job;
pub mod live;
pub mod verify;

pub use error::{Error, Result};

/// The version of the arithmetic; it changes when the same inputs would give other bytes.
pub const NUMERIC_SPEC: u32 = 1;
