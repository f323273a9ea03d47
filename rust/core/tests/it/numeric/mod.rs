//! The arithmetic of every instruction set, against naive loops and the half crate.

mod float;
mod fused;
mod kernel;
mod methods;
mod others;
mod values;
