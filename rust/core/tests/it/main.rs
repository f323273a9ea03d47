//! Tests of the core through its public surface: one program, so that it is linked once.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod checkpoint;
mod codec;
mod format;
mod numeric;
mod source;
mod support;
mod verbs;
