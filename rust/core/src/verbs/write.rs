//! A writing job from plan to manifest: `extract`, `apply` and `transfer` are this with different plans.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::checkpoint::clutter;
use crate::checkpoint::shard::Shard;
use crate::control::{Control, Phase};
use crate::engine::window::{self, Shared, Worker};
use crate::engine::{arrivals, schedule, tied_heads};
use crate::error::{Error, Result};
use crate::format::blocks::{self, BLOCK};
use crate::format::header::Header;
use crate::numeric::simd::Isa;
use crate::output::effect::Effect;
use crate::output::journal::Journal;
use crate::output::ledger::Progress;
use crate::output::manifest::{self, FileEntry, Finished};
use crate::output::sidecars;
use crate::output::sink::Sink;
use crate::output::staging::Staging;
use crate::plan::output::Output;
use crate::plan::{Counts, Plan};
use crate::storage::place::Place;
use crate::system::os;
use crate::system::parallel::{Permits, ordered};

/// Runs a plan and returns the result as JSON. `card` is the text of the output's `README.md`.
///
/// # Errors
/// Whatever stops the job. After a malformed or changed input nothing is left behind; after an interruption or a full
/// disk `OUT/.taskvec-partial` is, and the same job goes on from it.
pub fn run(plan: &Plan, out: &Path, card: &str, control: &Control) -> Result<Value> {
    let started = Instant::now();
    plan.require_fit()?;
    let isa = Isa::from_env()?;
    let id = plan.id();
    let checkpoints = plan.inputs.list.iter().map(|input| &input.checkpoint);
    let here = || checkpoints.clone().filter(|checkpoint| checkpoint.place.remote.is_none());
    // The shards too: a folder of links may lead into the output.
    let shards = here().flat_map(|checkpoint| &checkpoint.shards).map(|shard| shard.path.as_path());
    let reads: Vec<&Path> = here().map(|checkpoint| checkpoint.place.root.as_path()).chain(shards).collect();
    let sync = !plan.options.no_sync;
    let staging = Staging::open(out, &reads, plan.options.overwrite, sync, id)?;
    if staging.interrupted_commit(id) && !plan.options.no_resume {
        staging.resume_commit(id)?;
        return ended_commit(plan, out);
    }
    let job = Job { plan, staging: &staging, sync, control, isa };
    match job.build(card) {
        Ok(built) => {
            staging.commit(id, built.order.clone())?;
            let mut result = job_result(plan, out, &built, started, isa);
            if let (Some(warnings), Some(warning)) = (result["warnings"].as_array_mut(), strangers(out, &built.order)) {
                warnings.push(warning.into());
            }
            Ok(result)
        }
        Err(error) => {
            // Only what a second run can use is left behind.
            let sound = matches!(error, Error::Io { .. } | Error::Cancelled | Error::Remote { corrupt: false, .. });
            if !sound || !Journal::has_records(&staging.journal()) {
                staging.discard();
            }
            Err(error)
        }
    }
}

struct Job<'a> {
    plan: &'a Plan,
    staging: &'a Staging,
    sync: bool,
    control: &'a Control,
    isa: Isa,
}

/// What [`Job::build`] leaves to be put in place.
struct Built {
    /// Names in the order of the renames; the manifest is the last.
    order: Vec<String>,
    effect: crate::output::effect::Effect,
    exceptions: u64,
    resumed: u64,
    direct: bool,
    /// Whether the disk has the weights, as far as that was asked for.
    synced: bool,
    written: u64,
}

impl<'p> Job<'p> {
    fn build(&self, card: &str) -> Result<Built> {
        let Self { plan, staging, sync, control, isa } = *self;
        let mut progress = Progress::open(plan, staging, !plan.options.no_resume, control)?;
        let resumed = (progress.blocks * BLOCK).min(plan.layout.bytes());
        self.require_space()?;
        let mut sinks = Vec::with_capacity(plan.layout.files.len());
        for file in &plan.layout.files {
            sinks.push(Sink::open(&staging.path(&file.name), file.len, sync)?);
        }
        let windows = progress.windows();
        // Only now, so that whoever looks for room for the downloads sees what the output has taken.
        arrivals::begin(plan, &windows)?;
        sidecars::want(plan)?;
        let sources = schedule::sources(plan, &windows, control)?;
        tied_heads::compare(plan, &sources, control)?;
        control.begin(Phase::Writing, plan.layout.bytes());
        control.add(resumed);
        let shared = Shared { plan, sources, isa, permits: Permits::new(plan.budget.threads) };
        let work = |item: u64, worker: &mut Worker<'p>| {
            let window = windows[item as usize];
            let outcome = window::compute(&shared, window, worker, None)?;
            let (begin, end) = window.range(&plan.layout.files[window.file]);
            sinks[window.file].write(begin, worker.output(), (end - begin) as usize)?;
            control.add(end - begin);
            Ok(outcome)
        };
        let count = windows.len() as u64;
        let new_worker = || Worker::new(&plan.budget);
        let commit = |_, outcome| progress.append(&outcome);
        shared.sources.serve(|| ordered(control, plan.budget.workers, count, new_worker, work, commit))?;
        let direct = sinks.iter().all(Sink::is_direct);
        control.begin(Phase::Syncing, 0);
        let mut synced = true;
        for sink in &sinks {
            synced &= sink.finish(sync)?;
            control.check()?;
        }
        drop(sinks);
        let mut files = self.weights(&mut progress)?;
        files.extend(sidecars::build(plan, staging, card, sync, control)?);
        let written = files.iter().map(|file| file.size).sum();
        let input_sha256 = if plan.options.sha256 { Some(self.sha256(&mut files)?) } else { None };
        for input in &plan.inputs.list {
            input.checkpoint.unchanged()?;
        }
        let counts = progress.spool.as_ref().map_or(&[][..], |spool| spool.counts());
        let exceptions = progress.spool.as_ref().map_or(0, |spool| spool.total());
        let finished = Finished {
            stats: &progress.stats,
            files: &files,
            input_sha256: input_sha256.as_deref(),
            exceptions: (exceptions, counts),
        };
        let name = plan.inputs.output.manifest();
        let bytes =
            manifest::write(plan, &finished).map_err(|error| Error::io(&staging.path(name), "write")(error.into()))?;
        staging.write(name, &bytes)?;
        let mut order: Vec<String> = files.into_iter().map(|file| file.name).collect();
        order.push(name.to_owned());
        Ok(Built {
            order,
            effect: manifest::total(plan, &progress.stats),
            exceptions,
            resumed,
            direct,
            synced,
            written,
        })
    }

    /// Fails before anything is computed if the disk cannot take the output.
    fn require_space(&self) -> Result<()> {
        let mut missing = 0;
        for file in &self.plan.layout.files {
            let path = self.staging.path(&file.name);
            let there = std::fs::File::open(&path).and_then(|file| os::allocated(&file)).unwrap_or(0);
            missing += file.len.saturating_sub(there);
        }
        match os::free_space(self.staging.scratch()) {
            Some(free) if free < missing => {
                let what = format!(
                    "{missing} bytes are still needed and {free} are free; make room and run the same command again"
                );
                let full = std::io::Error::new(std::io::ErrorKind::StorageFull, what);
                Err(Error::io(self.staging.scratch(), "write the output")(full))
            }
            _ => Ok(()),
        }
    }

    /// The weight files, exceptions included, each checked to be what was planned.
    fn weights(&self, progress: &mut Progress) -> Result<Vec<FileEntry>> {
        let Self { plan, staging, sync, control, .. } = *self;
        let mut files = Vec::new();
        for (file, digest) in plan.layout.files.iter().zip(&progress.digests) {
            let path = staging.path(&file.name);
            let open = std::fs::File::open(&path).map_err(Error::io(&path, "open"))?;
            let (header, _) = Header::read(&open, &path)?;
            if header.tensors.len() != file.tensors.1 - file.tensors.0 {
                return Err(Error::corrupt(
                    &path,
                    "does not hold the tensors that were written; is another program at work in this folder?",
                ));
            }
            files.push(FileEntry { name: file.name.clone(), size: file.len, xxh3_128: digest.hex(), sha256: None });
        }
        let base = plan.inputs.base();
        if let Some(spool) = progress.spool.as_mut().filter(|spool| spool.total() > 0) {
            let name = "vector-exceptions.safetensors";
            let path = staging.path(name);
            let tensor = |place: u32| base.tensors[plan.layout.tensors[place as usize].tensor as usize].name.as_str();
            spool.write(&path, tensor, sync, control)?;
            let (xxh3_128, size) = blocks::of_file(&path, control)?;
            files.push(FileEntry { name: name.into(), size, xxh3_128, sha256: None });
        }
        Ok(files)
    }

    /// SHA-256 of every input shard that is on this machine, unless it was checked against the Hub's when it arrived, and
    /// of every output file into its entry, in a pass of its own.
    fn sha256(&self, files: &mut [FileEntry]) -> Result<Vec<Vec<Option<String>>>> {
        let Self { plan, staging, control, .. } = *self;
        let checkpoints = || plan.inputs.list.iter().map(|input| &input.checkpoint);
        let unknown = |shard: &Shard, place: &Place| {
            let checked = place.remote.is_some() && place.sha256(&shard.name).is_some();
            shard.on_disk().filter(|_| !checked).map(|disk| disk.path.clone())
        };
        let inputs: Vec<Vec<_>> =
            checkpoints().map(|c| c.shards.iter().map(|shard| unknown(shard, &c.place)).collect()).collect();
        let outputs = files.iter().map(|file| staging.path(&file.name));
        let paths: Vec<_> = inputs.iter().flatten().flatten().cloned().chain(outputs).collect();
        let bytes = paths.iter().filter_map(|path| path.metadata().ok()).map(|meta| meta.len()).sum();
        control.begin(Phase::Hashing, bytes);
        let mut sums = Vec::with_capacity(paths.len());
        let hash = |item: u64, (): &mut ()| blocks::sha256(&paths[item as usize], control);
        ordered(
            control,
            plan.budget.threads,
            paths.len() as u64,
            || (),
            hash,
            |_, sum| {
                sums.push(sum);
                Ok(())
            },
        )?;
        let mut sums = sums.into_iter();
        let mut found = |path: Option<PathBuf>| path.and_then(|_| sums.next());
        let inputs = inputs.into_iter().map(|paths| paths.into_iter().map(&mut found).collect()).collect();
        for (file, sum) in files.iter_mut().zip(sums) {
            file.sha256 = Some(sum);
        }
        Ok(inputs)
    }
}

/// An overwritten folder may hold files that no manifest of ours ever named. They are not ours to remove, but a loader
/// may take them for part of the new output.
fn strangers(out: &Path, order: &[String]) -> Option<String> {
    let top = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    let ours: HashSet<String> = order.iter().map(|name| top(name)).collect();
    let entries = std::fs::read_dir(out).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut others: Vec<String> =
        entries.filter(|name| !ours.contains(name) && !clutter::is_of_the_system(name)).collect();
    others.sort_unstable();
    let named = others.join(", ");
    (!others.is_empty()).then(|| format!("{} also holds what this run did not write: {named}", out.display()))
}

fn job_result(plan: &Plan, out: &Path, built: &Built, started: Instant, isa: Isa) -> Value {
    let Counts { combined, copied, converted, elements } = plan.counts;
    let mut warnings = built.effect.warnings(plan);
    if combined == 0 && plan.inputs.output == Output::Checkpoint {
        warnings.push("nothing was combined: the output is the target".into());
    }
    if !built.synced {
        warnings.push(format!(
            "the file system of {} does not tell when a file is on its disk (fsync is not offered); after a power cut, look at the output with `taskvec verify`",
            out.display()
        ));
    }
    json!({
        "schema": "taskvec/result/1",
        "verb": plan.request.verb(),
        "out": out.display().to_string(),
        "files": built.order.len(),
        "tensors": {"combined": combined, "copied": copied, "converted": converted},
        "elements": elements,
        "bytes": {"read": plan.read_bytes, "written": built.written},
        "seconds": started.elapsed().as_secs_f64(),
        "engine": {
            "threads": plan.budget.threads,
            "windows": plan.budget.workers,
            "window_bytes": plan.budget.window_blocks * BLOCK,
            "io": plan.io.to_string(),
            "simd": isa.name(),
            "direct_writes": built.direct,
            "resumed_bytes": built.resumed,
        },
        "effect": built.effect,
        "exceptions": (plan.inputs.output == Output::Vector).then_some(built.exceptions),
        "notes": plan.notes,
        "warnings": warnings,
    })
}

/// The result of a run that had only renames left to do; its figures are those of its manifest.
fn ended_commit(plan: &Plan, out: &Path) -> Result<Value> {
    let path = out.join(plan.inputs.output.manifest());
    let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    let document: Value = serde_json::from_slice(&bytes).map_err(|error| Error::corrupt(&path, error.to_string()))?;
    let files = document["files"].as_array().map_or(&[][..], |files| &files[..]);
    let Counts { combined, copied, converted, elements } = plan.counts;
    let effect = Effect::deserialize(&document["effect"]).map_err(|error| Error::corrupt(&path, error.to_string()))?;
    Ok(json!({
        "schema": "taskvec/result/1",
        "verb": plan.request.verb(),
        "out": out.display().to_string(),
        "files": files.len() + 1,
        "tensors": {"combined": combined, "copied": copied, "converted": converted},
        "elements": elements,
        "bytes": {"read": 0, "written": files.iter().filter_map(|file| file["size"].as_u64()).sum::<u64>()},
        "seconds": 0.0,
        "engine": {
            "threads": plan.budget.threads, "windows": 0, "window_bytes": 0, "io": plan.io.to_string(),
            "simd": Isa::from_env()?.name(), "direct_writes": false, "resumed_bytes": plan.layout.bytes(),
        },
        "effect": document["effect"],
        "exceptions": document["vector"]["exceptions"],
        "notes": plan.notes,
        "warnings": effect.warnings(plan),
    }))
}
