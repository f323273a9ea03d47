//! Computing the output, window by window: what each window reads, how it is computed, and what it delivers.
//!
//! May import `plan` and what is below it. A new pass over the weights goes here.

pub(crate) mod arrivals;
pub(crate) mod gather;
pub(crate) mod pool;
pub(crate) mod reader;
pub(crate) mod schedule;
pub(crate) mod tied_heads;
pub(crate) mod window;
