//! The folder of a job that several machines share: its plan, and what each part has done.
//!
//! ```text
//! plan.json                  what the job is; written once, and never changed
//! parts/part-00017.json      the record of a part that is done
//! attempts/part-00017.…      the journal of each attempt at a part, and the part's lock
//! commit.lock, done.json     of the commit
//! ```
//!
//! A file appears here whole or not at all, and each has a checksum of its own.

pub mod folder;
pub mod record;
