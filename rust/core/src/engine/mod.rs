//! Windows at work: what each one reads, waits for, computes and hands on.
//!
//! May import `plan` and what is below it. Another pass over the weights goes here.

pub(crate) mod arrivals;
pub(crate) mod gather;
pub(crate) mod schedule;
pub(crate) mod tied_heads;
pub(crate) mod window;
