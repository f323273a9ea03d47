//! What is done of a job, and what is missing. Reads no inputs.

use serde::Serialize;
use serde_json::Value;

use crate::error::Result;
use crate::output::parts::folder::Job;
use crate::plan::document::to_value;
use crate::verbs::parts::{Missing, array, look};

/// What `status` returns (`taskvec/job-status/1`).
#[derive(Serialize)]
struct Status<'a> {
    schema: &'static str,
    verb: &'a str,
    /// The job's folder.
    job: String,
    out: String,
    parts: usize,
    /// How many parts are done.
    done: usize,
    /// Those that are not, as the array of a job scheduler: `3,17-19`.
    missing: String,
    /// Of these, those of which there is more to say than that they were not run.
    problems: Vec<Missing>,
    /// As planned, of all weight files.
    bytes: u64,
    /// As planned, of the parts that are done.
    bytes_done: u64,
    /// Whether the output is complete.
    committed: bool,
    /// What the commit returned.
    result: Option<Value>,
}

/// What is done of a job.
///
/// # Errors
/// A record is not of this job, or the output is not what was committed.
pub fn status(job: &Job) -> Result<Value> {
    let result = job.done()?;
    let missing = if result.is_some() { Vec::new() } else { look(job)?.1 };
    let planned = |part: usize| job.planned(part).map(|files| files.iter().map(|(_, len)| len).sum::<u64>());
    let bytes = (0..job.parts()).map(planned).sum::<Result<u64>>()?;
    let left = missing.iter().map(|missing| planned(missing.part)).sum::<Result<u64>>()?;
    to_value(&Status {
        schema: "taskvec/job-status/1",
        verb: &job.document.identity.verb,
        job: job.root.display().to_string(),
        out: job.document.out.display().to_string(),
        parts: job.parts(),
        done: job.parts() - missing.len(),
        missing: array(&missing),
        problems: missing.into_iter().filter(|missing| missing.why.is_some()).collect(),
        bytes,
        bytes_done: bytes - left,
        committed: result.is_some(),
        result,
    })
}
