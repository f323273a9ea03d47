//! The ways in which tensors are stored.

mod packed;
