//! Text and headers that strangers wrote: parsed strictly, within limits, before anything relies on them.
//!
//! May import `storage` and what is below it. A new file format is a file here, and a target in `fuzz/`.

pub mod adapter_config;
pub mod blocks;
pub mod config;
pub mod header;
pub mod index;
pub mod json;
