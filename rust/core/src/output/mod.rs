//! The output folder while it is being written: staged files, journal, manifest, and the files copied beside the
//! weights.
//!
//! May import `engine` and what is below it. Anything that an output says about itself goes here.

pub(crate) mod draft;
pub(crate) mod effect;
pub(crate) mod frames;
pub(crate) mod index;
pub(crate) mod journal;
pub(crate) mod ledger;
pub mod manifest;
pub(crate) mod parts;
pub(crate) mod rescale;
pub(crate) mod seal;
pub(crate) mod sidecars;
pub(crate) mod sink;
pub(crate) mod spool;
pub(crate) mod staging;
pub(crate) mod tally;
mod tensor_entries;
