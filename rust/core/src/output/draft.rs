//! One output of a job while it is being written. A job has one, or with several α one for each.

use std::ops::Range;

use crate::output::ledger::Ledger;
use crate::output::staging::Staging;
use crate::plan::Plan;

/// An output that is not finished yet.
pub struct Draft<'a> {
    /// What is written.
    pub plan: &'a Plan,
    /// The files of the layout that are written: all of them, or those of one part.
    pub files: Range<usize>,
    /// Where its files are built.
    pub staging: &'a Staging,
    /// What of it is done.
    pub ledger: Ledger<'a>,
}
