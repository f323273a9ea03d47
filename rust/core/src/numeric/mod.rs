//! The specification of the arithmetic: element types, conversions, rounding, random bits, and the loops over them.
//!
//! Imports no other wing. A new operation on elements is a new file here, beside `combine`.

pub mod add;
pub mod combine;
pub mod compare;
pub mod convert;
pub mod dtype;
#[cfg(target_arch = "x86_64")]
mod fused;
pub(crate) mod loops;
pub mod methods;
pub mod operand;
pub mod philox;
pub mod quantised;
pub mod select;
pub mod simd;
pub mod sparse;
#[cfg(target_arch = "x86_64")]
mod sparse_avx2;
pub mod stats;
