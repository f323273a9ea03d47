//! Plans a job in parts, and writes the plan to the job's folder.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::output::parts::folder::{Document, Job};
use crate::output::staging::{Staging, apart_from_inputs, job_apart};
use crate::plan::document::{Tensors, to_value};
use crate::plan::output::Output;
use crate::plan::parts::identity::Identity;
use crate::plan::{Plan, parts};
use crate::verbs::write::reads;

/// What `plan` returns (`taskvec/job-plan/1`).
#[derive(Serialize)]
struct Planned<'a> {
    schema: &'static str,
    verb: &'static str,
    /// The job's folder.
    job: String,
    out: String,
    id: &'a str,
    parts: usize,
    files: usize,
    /// Of all weight files; of a packed vector, those of its values in bf16 or f32.
    bytes: u64,
    /// Of the part with the most.
    largest_part: u64,
    tensors: Tensors,
    /// Whether the job had been planned before.
    already: bool,
    notes: &'a [String],
    warnings: &'a [String],
}

/// Plans a job that writes `out` in so many parts. `card` is the text of the output's `README.md`, and `asked` is what
/// the caller needs to open the inputs again.
///
/// # Errors
/// The inputs do not fit together, the output cannot be written in so many parts, or one of the folders cannot be used.
pub fn plan(plan: &Plan, root: &Path, out: &Path, count: usize, card: &str, asked: Value) -> Result<Value> {
    plan.require_fit()?;
    if plan.inputs.output == Output::Vector && !plan.layout.packed {
        return Err(Error::Usage(
            "a dense vector has its exceptions in one file and is not written in parts; leave --encoding dense out, and use `taskvec convert` afterwards if it has to be dense".into(),
        ));
    }
    let inputs = reads(plan);
    apart_from_inputs(out, &inputs)?;
    job_apart(root, &inputs, out)?;
    let parts = parts::cut(plan, count)?;
    let document = Document::new(Identity::of(plan)?, &parts, out, card, asked)?;
    let (job, already) = match Job::existing(root)? {
        Some(job) if job.id_text() == document.id() => (job, true),
        Some(_) => {
            let root = root.display();
            return Err(Error::Usage(format!(
                "{root} holds the plan of another job; choose another folder for this one"
            )));
        }
        None => (Job::create(root, document)?, false),
    };
    // A job that is committed has no more need of its staging folder.
    if job.done()?.is_none() {
        let reserved = Staging::reserve(out, plan.options.overwrite, plan.options.sync, &job.reservation());
        if let Err(error) = reserved {
            if !already {
                job.discard();
            }
            return Err(error);
        }
        if !already {
            job.publish()?;
        }
    }
    let size = |files: &std::ops::Range<usize>| plan.layout.bytes_of(files.clone());
    to_value(&Planned {
        schema: "taskvec/job-plan/1",
        verb: plan.request.verb(),
        job: root.display().to_string(),
        out: out.display().to_string(),
        id: job.id_text(),
        parts: parts.len(),
        files: plan.layout.files.len(),
        bytes: plan.layout.bytes(),
        largest_part: parts.iter().map(size).max().unwrap_or(0),
        tensors: plan.counts.into(),
        already,
        notes: &plan.notes,
        warnings: &plan.warnings,
    })
}
