//! The operations that a caller can ask for, one file each: writing, live models, comparing, inspecting, verifying.
//!
//! May import every other wing; no other wing imports this one. A new verb is a new file here.

pub mod advise;
pub mod diff;
pub mod inspect;
pub mod live;
pub(crate) mod part;
pub mod parts;
pub(crate) mod result;
pub mod verify;
pub mod write;
