//! Parsers for files that strangers wrote: strict, with limits on size, and run before anything relies on the content.
//!
//! May import `storage` and what is below it. A new file format is a new file here, and a fuzz target in `fuzz/`.

pub mod adapter_config;
pub mod blocks;
pub mod config;
pub mod config_edits;
pub mod header;
pub mod index;
pub mod json;
pub mod packed_table;
