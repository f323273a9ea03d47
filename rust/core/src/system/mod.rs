//! What the machine gives: files and their flags, aligned buffers, maps, threads that keep an order.
//!
//! May import `numeric`. Whatever differs from one operating system to another belongs here.

pub(crate) mod buffer;
pub mod files;
#[cfg(target_os = "linux")]
pub(crate) mod mapping;
pub mod os;
pub(crate) mod parallel;
#[cfg(target_os = "linux")]
pub(crate) mod sigbus;
