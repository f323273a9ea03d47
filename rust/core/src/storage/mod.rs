//! Where a folder is: on this machine, or somewhere that answers requests for ranges of bytes.
//!
//! May import `codec` and what is below it. A new kind of place goes here.

pub mod place;
