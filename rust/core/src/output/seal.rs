//! Completes the staged folders of a job once all windows are computed: checks the weights, builds the other files,
//! writes the manifests.

use std::path::PathBuf;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::shard::Shard;
use crate::control::{Control, Phase};
use crate::error::{Error, Result};
use crate::format::blocks;
use crate::format::header::Header;
use crate::output::draft::Draft;
use crate::output::effect::{Again, Effect};
use crate::output::ledger::Ordered;
use crate::output::manifest::{self, FileEntry, Finished};
use crate::output::sidecars;
use crate::output::staging::Staging;
use crate::output::tally::Tally;
use crate::plan::Plan;
use crate::plan::inputs::Input;
use crate::storage::place::Place;
use crate::system::parallel::ordered;

/// A staged folder that is complete and only has to be moved into place.
pub struct Sealed {
    /// File names in the order of the renames; the manifest is the last.
    pub order: Vec<String>,
    /// Figures of the whole run.
    pub effect: Effect,
    /// What quantising again did.
    pub requantised: Option<Again>,
    /// The number of exceptions of a vector.
    pub exceptions: u64,
    /// Bytes of all files except the manifest.
    pub written: u64,
}

/// Seals the folders of a job, whose weights are all written. `cards` are the texts of their `README.md`.
///
/// # Errors
/// A weight file is not what was planned, an input changed while it was read, or the disk fails.
pub fn seal(drafts: &mut [Draft], cards: &[&str], control: &Control) -> Result<Vec<Sealed>> {
    let mut files = Vec::with_capacity(drafts.len());
    for (draft, card) in drafts.iter_mut().zip(cards) {
        let mut mine = weights(draft, control)?;
        mine.extend(sidecars::build(draft.plan, draft.staging, card, draft.plan.options.sync, control)?);
        files.push(mine);
    }
    let plan = drafts[0].plan;
    let input_sha256 = if plan.options.sha256 {
        let mut outputs: Vec<_> = drafts.iter().map(|draft| draft.staging).zip(&mut files).collect();
        Some(sha256(plan, |_| true, &mut outputs, control)?)
    } else {
        None
    };
    for input in &plan.inputs.list {
        input.checkpoint.unchanged()?;
    }
    let finish = |(draft, files): (&Draft, Vec<FileEntry>)| {
        let Draft { plan, staging, ledger, .. } = draft;
        let exceptions = ledger.ordered.exceptions().map_or(&[][..], Tally::counts);
        let (stats, requantised, input_sha256) = (&ledger.stats, &ledger.requantised, input_sha256.as_deref());
        finish(plan, staging, &Finished { stats, requantised, files: &files, input_sha256, exceptions })
    };
    drafts.iter().zip(files).map(finish).collect()
}

/// Writes the manifest of a staged folder that has all its other files.
///
/// # Errors
/// The disk fails.
pub fn finish(plan: &Plan, staging: &Staging, finished: &Finished) -> Result<Sealed> {
    let name = plan.inputs.output.manifest();
    staging.write_with(name, |out| manifest::write(plan, finished, out))?;
    let mut order: Vec<String> = finished.files.iter().map(|file| file.name.clone()).collect();
    order.push(name.to_owned());
    Ok(Sealed {
        order,
        effect: manifest::total(plan, finished.stats),
        requantised: manifest::again(plan, finished.stats, finished.requantised),
        exceptions: finished.all_exceptions(),
        written: finished.files.iter().map(|file| file.size).sum(),
    })
}

/// The entries of a draft's weight files, exceptions included. Each header is read again and its tensors are counted.
///
/// # Errors
/// A file is not what was planned, or the disk fails.
pub fn weights(draft: &mut Draft, control: &Control) -> Result<Vec<FileEntry>> {
    let Draft { plan, files: range, staging, ledger } = draft;
    let mut files = Vec::new();
    for (file, digest) in plan.layout.files[range.clone()].iter().zip(&ledger.digests[range.clone()]) {
        let path = staging.path(&file.name);
        let open = std::fs::File::open(&path).map_err(Error::io(&path, "open"))?;
        let (header, _) = Header::read(&open, &path)?;
        if header.tensors.len() != file.tensors.1 - file.tensors.0 {
            return Err(Error::corrupt(
                &path,
                "does not hold the tensors that were written; make sure that no other program writes to this folder, and run again",
            ));
        }
        let (xxh3_128, size) = match &ledger.ordered {
            // Its blocks have no digests of their own: frames do not end where blocks of the file do.
            Ordered::Frames(_) => blocks::of_file(&path, control)?,
            _ => (digest.hex(), file.len),
        };
        files.push(FileEntry { name: file.name.clone(), size, xxh3_128, sha256: None });
    }
    let base = plan.inputs.base();
    if let Ordered::Exceptions(spool) = &mut ledger.ordered
        && spool.tally.total() > 0
    {
        let name = "vector-exceptions.safetensors";
        let path = staging.path(name);
        let tensor = |place: u32| base.tensors[plan.layout.tensors[place as usize].tensor as usize].name.as_str();
        spool.write(&path, tensor, plan.options.sync, control)?;
        let (xxh3_128, size) = blocks::of_file(&path, control)?;
        files.push(FileEntry { name: name.into(), size, xxh3_128, sha256: None });
    }
    Ok(files)
}

/// Computes SHA-256 in a separate pass: of every file of the outputs, into its entry, and of the wanted ones among the
/// input shards on this machine, which are counted over all inputs. A downloaded shard is skipped if it was checked
/// against the Hub's SHA-256 when it arrived.
///
/// # Errors
/// A file cannot be read.
pub fn sha256(
    plan: &Plan,
    wanted: impl Fn(usize) -> bool,
    outputs: &mut [(&Staging, &mut Vec<FileEntry>)],
    control: &Control,
) -> Result<Vec<Vec<Option<String>>>> {
    let mut number = 0;
    let mut unknown = |shard: &Shard, place: &Place| {
        number += 1;
        let checked = place.remote.is_some() && place.sha256(&shard.name).is_some();
        shard.on_disk().filter(|_| !checked && wanted(number - 1)).map(|disk| disk.path.clone())
    };
    let mut of_input = |input: &Input| -> Vec<Option<PathBuf>> {
        let Checkpoint { place, shards, .. } = &*input.checkpoint;
        shards.iter().map(|shard| unknown(shard, place)).collect()
    };
    let inputs: Vec<Vec<_>> = plan.inputs.list.iter().map(&mut of_input).collect();
    let of_output = |(staging, files): &(&Staging, &mut Vec<FileEntry>)| -> Vec<PathBuf> {
        files.iter().map(|file| staging.path(&file.name)).collect()
    };
    let paths: Vec<_> = inputs.iter().flatten().flatten().cloned().chain(outputs.iter().flat_map(of_output)).collect();
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
    for (file, sum) in outputs.iter_mut().flat_map(|(_, files)| files.iter_mut()).zip(sums) {
        file.sha256 = Some(sum);
    }
    Ok(inputs)
}
