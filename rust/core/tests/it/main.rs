//! Tests of the core through its public surface: one program, so that it is linked once.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod beside;
mod checkpoint;
mod elsewhere;
mod float;
mod folder;
mod fused;
mod header;
mod header_oracle;
mod index;
mod job;
mod kernel;
mod live;
mod lora;
mod remote;
mod seeded;
mod stream;
