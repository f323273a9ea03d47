//! The folder in the making: staged files, journal, manifest, and what goes along with the weights.
//!
//! May import `engine` and what is below it. What an output says about itself goes here.

pub(crate) mod effect;
pub(crate) mod journal;
pub(crate) mod ledger;
pub mod manifest;
pub(crate) mod seal;
pub(crate) mod sidecars;
pub(crate) mod sink;
pub(crate) mod spool;
pub(crate) mod staging;
