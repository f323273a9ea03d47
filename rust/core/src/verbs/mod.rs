//! What a caller asks for, one file each: writing, live models, comparing, inspecting, verifying.
//!
//! May import every other wing; nothing imports this one. A new verb is a file here.

pub mod diff;
pub mod inspect;
pub mod live;
pub(crate) mod part;
pub(crate) mod result;
pub mod verify;
pub mod write;
