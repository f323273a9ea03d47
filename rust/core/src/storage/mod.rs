//! Where a folder is: on this machine, or on a server from which ranges of bytes are fetched.
//!
//! May import `codec` and what is below it. A new kind of place goes here.

pub mod place;
