//! The arithmetic of every instruction set, against naive loops and the half crate.

mod float;
mod fused;
mod kernel;
mod others;
mod values;
