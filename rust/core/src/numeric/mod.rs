//! The specification of numbers: element types, conversions, rounding, random bits, and the loops over them.
//!
//! Imports nothing of the other wings. A new operation on elements is a file here, beside `kernel`.

pub mod convert;
pub mod dtype;
pub mod kernel;
pub(crate) mod loops;
pub mod philox;
pub mod simd;
pub mod stats;
