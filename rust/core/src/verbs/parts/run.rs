//! Runs one part of a job: on any machine, in any order, as often as one likes.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::blocks::BLOCK;
use crate::numeric::simd::Isa;
use crate::output::draft::Draft;
use crate::output::journal::Journal;
use crate::output::ledger::Ledger;
use crate::output::manifest::FileEntry;
use crate::output::parts::folder::Job;
use crate::output::parts::record::{self, Found, How, Record};
use crate::output::seal;
use crate::output::staging::Staging;
use crate::plan::Plan;
use crate::plan::document::to_value;
use crate::system::files::create_new;
use crate::verbs::part;
use crate::verbs::write::reads;

/// What `run` returns (`taskvec/part-result/1`).
#[derive(Serialize)]
struct Ran {
    schema: &'static str,
    /// The job's folder.
    job: String,
    part: usize,
    parts: usize,
    files: usize,
    /// Of the part's weight files.
    bytes: u64,
    /// Whether the part, or the whole job, had been done before.
    already: bool,
    /// Bytes that interrupted attempts had finished.
    resumed_bytes: u64,
    seconds: f64,
    threads: usize,
    window_bytes: u64,
    io: String,
    simd: &'static str,
    direct_writes: bool,
    warnings: Vec<String>,
}

/// Whether a part needs no run, because it or the whole job is done; then its result.
///
/// # Errors
/// There is no such part, or its record is not of this job.
pub fn already(job: &Job, part: usize) -> Result<Option<Value>> {
    let files = job.files(part)?;
    let bytes = match record::look(job, part) {
        _ if job.done()?.is_some() => job.planned(part)?.iter().map(|(_, len)| len).sum(),
        Ok(Found::Done(record)) => record.files.iter().map(|file| file.entry.size).sum(),
        Ok(Found::Missing(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let ran = Ran {
        schema: "taskvec/part-result/1",
        job: job.root.display().to_string(),
        part,
        parts: job.parts(),
        files: files.len(),
        bytes,
        already: true,
        resumed_bytes: 0,
        seconds: 0.0,
        threads: 0,
        window_bytes: 0,
        io: String::new(),
        simd: Isa::from_env()?.name(),
        direct_writes: false,
        warnings: Vec::new(),
    };
    to_value(&ran).map(Some)
}

/// Computes a part of a job and records it. `plan` is the job's plan, made anew on this machine.
///
/// # Errors
/// The inputs are not those of the job's plan, another worker has this part, or whatever stops a writing job. After an
/// interruption the next attempt goes on from there.
pub fn run(job: &Job, mut plan: Plan, part: usize, control: &Control) -> Result<Value> {
    let started = Instant::now();
    let files = job.files(part)?;
    plan.require_fit()?;
    job.document.identity.require(&plan, &job.plan_path())?;
    let Some(_lock) = job.lock_part(part)? else {
        let what = "another worker has it; wait for that one, or run the part again later";
        let busy = std::io::Error::new(std::io::ErrorKind::ResourceBusy, what);
        return Err(Error::io(&record::path(job, part), "run the part")(busy));
    };
    // Another worker may have done it since the caller asked.
    if let Some(done) = already(job, part)? {
        return Ok(done);
    }
    if part > 0 {
        // The first part compares the tensors that have to be equal. One part is enough.
        plan.same.clear();
    }
    let isa = Isa::from_env()?;
    let attempt = begin(job, part, plan.options.resume)?;
    let (out, sync) = (&job.document.out, plan.options.sync);
    let staging = Staging::join(out, &reads(&plan), sync, &job.reservation(), attempt.clone());
    // Best effort: the error is what matters.
    let staging = staging.inspect_err(|_| drop(fs::remove_file(&attempt)))?;
    let record = match compute(job, &plan, part, &files, &staging, isa, control) {
        Ok(record) => record,
        Err(error) => {
            // Where the job was committed meanwhile, because another attempt had done this part, files may be gone.
            if let Ok(Some(done)) = already(job, part) {
                forget(job, part);
                return Ok(done);
            }
            let sound = matches!(error, Error::Io { .. } | Error::Cancelled | Error::Remote { corrupt: false, .. });
            if !sound {
                forget(job, part);
            } else if !Journal::has_records(&attempt) {
                // Best effort: the error is what matters.
                let _ = fs::remove_file(&attempt);
            }
            return Err(error);
        }
    };
    record.publish(job)?;
    forget(job, part);
    let mut warnings = Vec::new();
    if !record.how.synced {
        warnings.push(format!(
            "the file system of {} does not support fsync, so nothing confirms that the files are on the disk; after a power cut, check the output with `taskvec verify`",
            job.document.out.display()
        ));
    }
    to_value(&Ran {
        schema: "taskvec/part-result/1",
        job: job.root.display().to_string(),
        part,
        parts: job.parts(),
        files: files.len(),
        bytes: record.files.iter().map(|file| file.entry.size).sum(),
        already: false,
        resumed_bytes: record.how.resumed,
        seconds: started.elapsed().as_secs_f64(),
        threads: plan.budget.threads,
        window_bytes: plan.budget.window_blocks * BLOCK,
        io: plan.io.to_string(),
        simd: isa.name(),
        direct_writes: record.how.direct,
        warnings,
    })
}

fn compute(
    job: &Job,
    plan: &Plan,
    part: usize,
    files: &Range<usize>,
    staging: &Staging,
    isa: Isa,
    control: &Control,
) -> Result<Record> {
    let ledger = Ledger::open((plan, job.id()), files.clone(), staging, control)?;
    let mut drafts = [Draft { plan, files: files.clone(), staging, ledger }];
    let how = match part::run(&mut drafts, isa, control)?.pop() {
        Some(computed) => How { direct: computed.direct, synced: computed.synced, resumed: computed.resumed },
        None => How { direct: false, synced: true, resumed: 0 },
    };
    let [mut draft] = drafts;
    let mut entries = seal::weights(&mut draft, control)?;
    let input_sha256 =
        if plan.options.sha256 { sha256(job, plan, part, staging, &mut entries, control)? } else { Vec::new() };
    plan.inputs.list.iter().try_for_each(|input| input.checkpoint.unchanged())?;
    let tensors = plan.layout.tensors_of(files.clone());
    let exceptions = draft.ledger.ordered.exceptions().map_or(Vec::new(), |tally| tally.counts().to_vec());
    let Ledger { stats, requantised, ordered, .. } = draft.ledger;
    // Closes the files that it wrote: over a network, the time of the last change may come with that.
    drop(ordered);
    let again = if requantised.is_empty() { &[][..] } else { &requantised[tensors.clone()] };
    Record::new(job, part, entries, (&stats[tensors], again), &exceptions, input_sha256, how)
}

/// Adds SHA-256 digests to the part's files, and returns those of the part's share of the inputs' shards.
fn sha256(
    job: &Job,
    plan: &Plan,
    part: usize,
    staging: &Staging,
    entries: &mut Vec<FileEntry>,
    control: &Control,
) -> Result<Vec<(usize, usize, String)>> {
    let shards: usize = plan.inputs.list.iter().map(|input| input.checkpoint.shards.len()).sum();
    let mine = |number: usize| number * job.parts() / shards == part;
    // A shard of which the Hub states no digest may not have been needed for this part.
    let all = plan.inputs.list.iter().flat_map(|input| input.checkpoint.shards.iter().map(move |shard| (input, shard)));
    for (_, (input, shard)) in all.enumerate().filter(|(number, _)| mine(*number)) {
        let place = &input.checkpoint.place;
        if place.remote.is_some() && !place.streams() && place.sha256(&shard.name).is_none() {
            shard.want()?;
            shard.arrive(control)?;
        }
    }
    let found = seal::sha256(plan, mine, &mut [(staging, entries)], control)?;
    let digests = found.into_iter().enumerate().flat_map(|(input, digests)| {
        digests.into_iter().enumerate().filter_map(move |(shard, digest)| digest.map(|digest| (input, shard, digest)))
    });
    Ok(digests.collect())
}

/// The journal of a new attempt, with what the longest of the earlier ones has. Where several workers are on one part,
/// each has its own.
fn begin(job: &Job, part: usize, resume: bool) -> Result<PathBuf> {
    let earlier = journals(job, part).into_iter().filter(|path| resume && Journal::has_records(path));
    let longest = earlier.max_by_key(|path| path.metadata().map_or(0, |meta| meta.len()));
    let (path, _) = create_new(&job.attempts(), &Job::part_name(part), JOURNAL)?;
    if let Some(longest) = longest {
        fs::copy(&longest, &path).map_err(Error::io(&path, "write"))?;
    }
    Ok(path)
}

const JOURNAL: &str = ".journal";

/// The journals of all attempts at a part.
fn journals(job: &Job, part: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(job.attempts()).into_iter().flatten().flatten().map(|entry| entry.path());
    let of_part = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with(&Job::part_name(part)) && name.ends_with(JOURNAL)
    };
    entries.filter(|path| of_part(path)).collect()
}

/// Removes the journals of all attempts at a part: it is done, or what they say cannot be used.
fn forget(job: &Job, part: usize) {
    // Best effort: an attempt that goes on elsewhere keeps its open file.
    journals(job, part).iter().for_each(|path| drop(fs::remove_file(path)));
}
