//! What the operating system offers: files and their flags, aligned buffers, memory maps, and threads.
//!
//! May import `numeric`. Whatever differs from one operating system to another belongs here.

pub(crate) mod allocator;
pub(crate) mod buffer;
pub mod files;
#[cfg(target_os = "linux")]
pub(crate) mod mapping;
pub mod os;
pub(crate) mod parallel;
#[cfg(target_os = "linux")]
pub(crate) mod sigbus;
