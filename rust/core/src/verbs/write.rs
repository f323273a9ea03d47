//! A writing job, from the plan to the finished folder. `extract`, `apply` and `transfer` are this job with different
//! plans.
//!
//! The plan is made by the caller. Then `part::run` computes the windows, `seal` completes the staged folder with
//! the other files and the manifest, and `Staging::commit` moves it into place.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use crate::checkpoint::clutter;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::numeric::simd::Isa;
use crate::output::journal::Journal;
use crate::output::ledger::Ledger;
use crate::output::seal::{Sealed, seal};
use crate::output::staging::Staging;
use crate::plan::{Plan, document};
use crate::verbs::part::{self, Computed};
use crate::verbs::result::Written;

/// Runs a plan and returns the result as JSON. `card` is the text of the output's `README.md`.
///
/// # Errors
/// Whatever stops the job. If an input is malformed or changed, nothing is left behind. After an interruption or on a
/// full disk, `OUT/.taskvec-partial` stays, and running the same job again continues from it.
pub fn run(plan: &Plan, out: &Path, card: &str, control: &Control) -> Result<Value> {
    let started = Instant::now();
    plan.require_fit()?;
    let isa = Isa::from_env()?;
    let id = plan.id();
    let checkpoints = plan.inputs.list.iter().map(|input| &input.checkpoint);
    let here = || checkpoints.clone().filter(|checkpoint| checkpoint.place.remote.is_none());
    // The shards too: an input folder may consist of links into the output folder.
    let shards = here().flat_map(|checkpoint| &checkpoint.shards).map(|shard| shard.path.as_path());
    let reads: Vec<&Path> = here().map(|checkpoint| checkpoint.place.root.as_path()).chain(shards).collect();
    let staging = Staging::open(out, &reads, plan.options.overwrite, plan.options.sync, id)?;
    if staging.interrupted_commit(id) && plan.options.resume {
        staging.resume_commit(id)?;
        return document::to_value(&Written::ended_commit(plan, out)?);
    }
    match build(plan, &staging, card, isa, control) {
        Ok((computed, sealed)) => {
            staging.commit(id, sealed.order.clone())?;
            let strangers = strangers(out, &sealed.order);
            let mut written = Written::new(plan, out, &computed, sealed, started, isa);
            written.warnings.extend(strangers);
            document::to_value(&written)
        }
        Err(error) => {
            // The staged files are kept only if a second run can use them.
            let sound = matches!(error, Error::Io { .. } | Error::Cancelled | Error::Remote { corrupt: false, .. });
            if !sound || !Journal::has_records(&staging.journal()) {
                staging.discard();
            }
            Err(error)
        }
    }
}

fn build(plan: &Plan, staging: &Staging, card: &str, isa: Isa, control: &Control) -> Result<(Computed, Sealed)> {
    let mut ledger = Ledger::open(plan, staging, plan.options.resume, control)?;
    let computed = part::run(plan, staging, &mut ledger, isa, control)?;
    let sealed = seal(plan, staging, &mut ledger, card, control)?;
    Ok((computed, sealed))
}

/// A warning about files in an overwritten folder that no manifest of taskvec ever named. They are not removed, because
/// they are not taskvec's, but a loader may take them for part of the new output.
fn strangers(out: &Path, order: &[String]) -> Option<String> {
    let top = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    let ours: HashSet<String> = order.iter().map(|name| top(name)).collect();
    let entries = std::fs::read_dir(out).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut others: Vec<String> =
        entries.filter(|name| !ours.contains(name) && !clutter::is_of_the_system(name)).collect();
    others.sort_unstable();
    let named = others.join(", ");
    (!others.is_empty()).then(|| format!("{} also contains files that this run did not write: {named}", out.display()))
}
