//! A writing job, from the plans to the finished folders. `extract`, `apply` and `transfer` are this job with different
//! plans. It has one output, or with several α one for each.
//!
//! The plans are made by the caller. Then `part::run` computes the windows, `seal` completes the staged folders with
//! the other files and the manifests, and `Staging::commit` moves each into place.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use crate::checkpoint::clutter;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::numeric::simd::Isa;
use crate::output::draft::Draft;
use crate::output::journal::Journal;
use crate::output::ledger::Ledger;
use crate::output::seal::{Sealed, seal};
use crate::output::staging::{self, Staging};
use crate::plan::sweep::SWEEP_FOLDER;
use crate::plan::{Plan, document};
use crate::verbs::part::{self, Computed};
use crate::verbs::result::{Sweep, Written};

/// Runs a plan and returns the result as JSON. `card` is the text of the output's `README.md`.
///
/// # Errors
/// Whatever stops the job. If an input is malformed or changed, nothing is left behind. After an interruption or on a
/// full disk, `OUT/.taskvec-partial` stays, and running the same job again continues from it.
pub fn run(plan: &Plan, out: &Path, card: &str, control: &Control) -> Result<Value> {
    let job = Job::new(vec![Output { plan, id: plan.id(), out: out.to_owned(), card }]);
    document::to_value(&job.run(control)?[0])
}

/// Runs the plans of a sweep, which read their inputs once, each with the text of its `README.md`, and returns the
/// results as JSON. The outputs are folders in `out`: see [`Plan::sweep_folder`].
///
/// # Errors
/// As [`run`], and if `out` holds anything but such folders.
pub fn sweep(plans: &[Plan], cards: &[String], out: &Path, control: &Control) -> Result<Value> {
    let Some(first) = plans.first() else { return Err(Error::Usage("there is no plan to run".into())) };
    staging::apart_from_inputs(out, &reads(first))?;
    only_outputs(out)?;
    let outputs = plans.iter().zip(cards).map(|(plan, card)| {
        let out = out.join(plan.sweep_folder());
        Output { plan, id: plan.id(), out, card }
    });
    let job = Job::new(outputs.collect());
    document::to_value(&Sweep::new(first, out, job.run(control)?, job.started))
}

/// One folder that a job writes.
struct Output<'a> {
    plan: &'a Plan,
    id: u128,
    out: PathBuf,
    card: &'a str,
}

/// What is written from one read of the inputs. There is at least one output.
struct Job<'a> {
    outputs: Vec<Output<'a>>,
    id: u128,
    started: Instant,
}

impl<'a> Job<'a> {
    fn new(outputs: Vec<Output<'a>>) -> Self {
        let ids: Vec<u8> = outputs.iter().flat_map(|output| output.id.to_le_bytes()).collect();
        Self { outputs, id: xxh3_128(&ids), started: Instant::now() }
    }

    fn run(&self, control: &Control) -> Result<Vec<Written<'a>>> {
        self.outputs.iter().try_for_each(|output| output.plan.require_fit())?;
        let isa = Isa::from_env()?;
        let in_place = self.in_place();
        let stagings = self.open(&in_place)?;
        let mut drafts = Vec::new();
        for ((output, staging), in_place) in self.outputs.iter().zip(&stagings).zip(in_place) {
            if output.plan.options.resume && staging.interrupted_commit(output.id) {
                staging.resume_commit(output.id)?;
            } else if !in_place {
                drafts.push((output, staging));
            }
        }
        let built = match build(&drafts, isa, control) {
            Ok(built) => built,
            Err(error) => {
                // The staged files are kept only if a second run can use them.
                let sound = matches!(error, Error::Io { .. } | Error::Cancelled | Error::Remote { corrupt: false, .. });
                give_up(stagings, sound);
                return Err(error);
            }
        };
        for ((output, staging), (_, sealed)) in drafts.iter().zip(&built) {
            staging.commit(output.id, self.id, sealed.order.clone())?;
        }
        let mut built: HashMap<u128, _> = drafts.iter().map(|(output, _)| output.id).zip(built).collect();
        stagings.into_iter().try_for_each(Staging::remove)?;
        let written = |Output { plan, id, out, .. }: &Output<'a>| {
            let Some((computed, sealed)) = built.remove(id) else { return Written::ended_commit(plan, out) };
            let strangers = strangers(out, &sealed.order);
            let mut written = Written::new(plan, out, &computed, sealed, self.started, isa);
            written.warnings.extend(strangers);
            Ok(written)
        };
        self.outputs.iter().map(written).collect()
    }

    /// Which outputs an earlier run of this job has finished but for the others. Their staging folders are gone, but not
    /// those of all others, and these are removed only once all outputs are in place.
    fn in_place(&self) -> Vec<bool> {
        let resume = self.outputs[0].plan.options.resume;
        let all = resume && self.outputs.iter().any(|output| staging::is_committed(&output.out, self.id));
        self.outputs.iter().map(|output| all && staging::is_in_place(&output.out)).collect()
    }

    /// Opens a staging folder for every output.
    fn open(&self, in_place: &[bool]) -> Result<Vec<Staging>> {
        let reads = reads(self.outputs[0].plan);
        let mut stagings = Vec::with_capacity(self.outputs.len());
        for (Output { plan, id, out, .. }, in_place) in self.outputs.iter().zip(in_place) {
            let overwrite = plan.options.overwrite || *in_place;
            match Staging::open(out, &reads, overwrite, plan.options.sync, *id) {
                Ok(staging) => stagings.push(staging),
                Err(error) => {
                    give_up(stagings, true);
                    return Err(error);
                }
            }
        }
        Ok(stagings)
    }
}

/// The folders and files on this machine that a plan reads.
pub(super) fn reads(plan: &Plan) -> Vec<&Path> {
    let checkpoints = plan.inputs.list.iter().map(|input| &input.checkpoint);
    let here = || checkpoints.clone().filter(|checkpoint| checkpoint.place.remote.is_none());
    // The shards too: an input folder may consist of links into the output folder.
    let shards = here().flat_map(|checkpoint| &checkpoint.shards).map(|shard| shard.path.as_path());
    here().map(|checkpoint| checkpoint.place.root.as_path()).chain(shards).collect()
}

fn build(drafts: &[(&Output, &Staging)], isa: Isa, control: &Control) -> Result<Vec<(Computed, Sealed)>> {
    let cards: Vec<&str> = drafts.iter().map(|(output, _)| output.card).collect();
    let draft = |&(&Output { plan, id, .. }, staging)| {
        let files = 0..plan.layout.files.len();
        let ledger = Ledger::open((plan, id), files.clone(), staging, control)?;
        Ok(Draft { plan, files, staging, ledger })
    };
    let mut drafts: Vec<Draft> = drafts.iter().map(draft).collect::<Result<_>>()?;
    if drafts.is_empty() {
        return Ok(Vec::new());
    }
    let computed = part::run(&mut drafts, isa, control)?;
    let sealed = seal(&mut drafts, &cards, control)?;
    Ok(computed.into_iter().zip(sealed).collect())
}

/// Closes staging folders after an error, and removes those that a second run cannot use.
fn give_up(stagings: Vec<Staging>, sound: bool) {
    // The first has made the folder that holds the others.
    for staging in stagings.into_iter().rev() {
        if !sound || !Journal::has_records(&staging.journal()) {
            staging.discard();
        }
    }
}

/// Refuses a folder that holds anything but outputs of a sweep.
fn only_outputs(out: &Path) -> Result<()> {
    let names = std::fs::read_dir(out).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let other = |name: &String| !name.starts_with(SWEEP_FOLDER) && !clutter::is_of_the_system(name);
    match names.map(|name| name.to_string_lossy().into_owned()).filter(other).min() {
        Some(name) => Err(Error::Usage(format!(
            "{} contains {name}; with --alphas the output folder holds {SWEEP_FOLDER}… folders only, so choose another",
            out.display()
        ))),
        None => Ok(()),
    }
}

/// A warning about files in an overwritten folder that no manifest of taskvec ever named. They are not removed, because
/// they are not taskvec's, but a loader may take them for part of the new output.
pub(super) fn strangers(out: &Path, order: &[String]) -> Option<String> {
    let top = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    let ours: HashSet<String> = order.iter().map(|name| top(name)).collect();
    let entries = std::fs::read_dir(out).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut others: Vec<String> = entries
        .filter(|name| !ours.contains(name) && name != staging::PARTIAL && !clutter::is_of_the_system(name))
        .collect();
    others.sort_unstable();
    let named = others.join(", ");
    (!others.is_empty()).then(|| format!("{} also contains files that this run did not write: {named}", out.display()))
}
