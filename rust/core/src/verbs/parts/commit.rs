//! Makes the output of a job from its parts, once all of them are done.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::control::{Control, Phase};
use crate::error::{Error, Result};
use crate::format::blocks;
use crate::numeric::simd::Isa;
use crate::output::manifest::{FileEntry, Finished};
use crate::output::parts::folder::Job;
use crate::output::parts::record::{self, Record};
use crate::output::seal::{self, Sealed};
use crate::output::sidecars;
use crate::output::staging::Staging;
use crate::plan::Plan;
use crate::plan::document::to_value;
use crate::system::parallel::ordered;
use crate::verbs::part::Computed;
use crate::verbs::parts::{array, look};
use crate::verbs::result::Written;
use crate::verbs::write::{reads, strangers};

/// How long a second commit waits before it looks again whether the first has ended.
const WAIT: Duration = Duration::from_millis(50);

/// What the caller has to say about the inputs.
#[derive(Default)]
pub struct Told {
    /// As notes.
    pub notes: Vec<String>,
    /// As warnings.
    pub warnings: Vec<String>,
}

/// What an earlier commit returned; `None` if there was none.
///
/// # Errors
/// The output is not what was committed, any more.
pub fn already(job: &Job) -> Result<Option<Value>> {
    let done = job.done()?;
    // While the commit has not ended, it has the folder itself.
    if done.is_some()
        && let Some(_lock) = job.lock_commit()?
    {
        Staging::sweep(&job.document.out, &job.reservation())?;
    }
    Ok(done)
}

/// Moves the output into place and returns the result as JSON, or that of an earlier commit. `plan` is the job's plan,
/// made anew on this machine. With `verify`, all weight files are read and compared with their records first. The result
/// also has what the caller has to say, and a later commit says it again.
///
/// # Errors
/// A part is missing, the inputs are not those of the job's plan, or the disk fails. Then the output is not there, and
/// the commit can be tried again.
pub fn commit(job: &Job, plan: &Plan, verify: bool, told: Told, control: &Control) -> Result<Value> {
    let _lock = loop {
        control.check()?;
        match job.lock_commit()? {
            Some(lock) => break lock,
            None => sleep(WAIT),
        }
    };
    if let Some(result) = job.done()? {
        Staging::sweep(&job.document.out, &job.reservation())?;
        return Ok(result);
    }
    plan.require_fit()?;
    job.document.identity.require(plan, &job.plan_path())?;
    match put_together(job, plan, verify, told, control) {
        Ok(result) => Ok(result),
        // Where there are no locks, another commit may have come first and taken the files away.
        Err(error) => job.done().ok().flatten().ok_or(error),
    }
}

fn put_together(job: &Job, plan: &Plan, verify: bool, told: Told, control: &Control) -> Result<Value> {
    let started = Instant::now();
    let (out, options) = (&job.document.out, &plan.options);
    let staging = Staging::join_to_commit(out, &reads(plan), (options.overwrite, options.sync), &job.reservation())?;
    let written = if staging.interrupted_commit(job.id()) {
        staging.resume_commit(job.id())?;
        Written::ended_commit(plan, out)?
    } else {
        let records = complete(job)?;
        if verify {
            compare(job, plan, &staging, &records, control)?;
        }
        let (sealed, computed) = seal(job, plan, &staging, &records, control)?;
        staging.commit(job.id(), job.id(), sealed.order.clone())?;
        let strangers = strangers(out, &sealed.order);
        let mut written = Written::new(plan, out, &computed, sealed, started, Isa::from_env()?);
        written.warnings.extend(strangers);
        written
    };
    let mut result = to_value(&written)?;
    for (member, told) in [("notes", told.notes), ("warnings", told.warnings)] {
        if let Some(said) = result[member].as_array_mut() {
            said.extend(told.into_iter().map(Value::from));
        }
    }
    job.note_done(plan.inputs.output.manifest(), result.clone())?;
    staging.remove()?;
    Ok(result)
}

/// The records of all parts.
fn complete(job: &Job) -> Result<Vec<Record>> {
    let (records, missing) = look(job)?;
    if missing.is_empty() {
        return Ok(records);
    }
    let why: Vec<&str> = missing.iter().filter_map(|missing| missing.why.as_deref()).collect();
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
    let missing = array(&missing);
    Err(Error::Mismatch(format!(
        "{}: parts are missing: {missing}{why}; run them, and commit again",
        job.root.display()
    )))
}

/// Reads all weight files and compares them with the records. A part that differs has to be run again.
fn compare(job: &Job, plan: &Plan, staging: &Staging, records: &[Record], control: &Control) -> Result<()> {
    let numbered =
        (0..).zip(records).flat_map(|(part, record)| record.files.iter().map(move |file| (part, &file.entry)));
    let files: Vec<(usize, &FileEntry)> = numbered.collect();
    control.begin(Phase::Verifying, files.iter().map(|(_, file)| file.size).sum());
    let digest = |item: u64, (): &mut ()| blocks::of_file(&staging.path(&files[item as usize].1.name), control);
    ordered(
        control,
        plan.budget.threads,
        files.len() as u64,
        || (),
        digest,
        |item, (digest, size)| {
            let (part, file) = files[item as usize];
            if (&digest, size) == (&file.xxh3_128, file.size) {
                return Ok(());
            }
            let record = record::path(job, part);
            fs::remove_file(&record).map_err(Error::io(&record, "remove"))?;
            let path = staging.path(&file.name);
            Err(Error::Mismatch(format!("{}: is not what part {part} wrote; run part {part} again", path.display())))
        },
    )
}

/// Writes the other files and the manifest.
fn seal(
    job: &Job,
    plan: &Plan,
    staging: &Staging,
    records: &[Record],
    control: &Control,
) -> Result<(Sealed, Computed)> {
    let mut computed = Computed { resumed: 0, direct: true, synced: true };
    let mut files: Vec<FileEntry> = Vec::new();
    let (mut stats, mut requantised, mut exceptions) = (Vec::new(), Vec::new(), Vec::new());
    let shards = plan.inputs.list.iter().map(|input| vec![None; input.checkpoint.shards.len()]);
    let mut input_sha256: Vec<Vec<Option<String>>> = shards.collect();
    for (part, record) in records.iter().enumerate() {
        let tensors = plan.layout.tensors_of(job.files(part)?);
        let (of_tensors, again) = record.figures(job, &tensors)?;
        stats.extend(of_tensors);
        requantised.extend(again);
        exceptions.extend(&record.exceptions);
        files.extend(record.files.iter().map(|file| file.entry.clone()));
        for (input, shard, digest) in &record.input_sha256 {
            if let Some(place) = input_sha256.get_mut(*input).and_then(|input| input.get_mut(*shard)) {
                *place = Some(digest.clone());
            }
        }
        computed.resumed += record.how.resumed;
        computed.direct &= record.how.direct;
        computed.synced &= record.how.synced;
    }
    sidecars::want(plan)?;
    let mut beside = sidecars::build(plan, staging, &job.document.card, plan.options.sync, control)?;
    let input_sha256 = if plan.options.sha256 {
        seal::sha256(plan, |_| false, &mut [(staging, &mut beside)], control)?;
        Some(&input_sha256[..])
    } else {
        None
    };
    files.extend(beside);
    plan.inputs.list.iter().try_for_each(|input| input.checkpoint.unchanged())?;
    let (stats, requantised, exceptions) = (&stats[..], &requantised[..], &exceptions[..]);
    let finished = Finished { stats, requantised, files: &files, input_sha256, exceptions };
    Ok((seal::finish(plan, staging, &finished)?, computed))
}
