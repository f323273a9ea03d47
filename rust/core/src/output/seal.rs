//! Completes the staged folders of a job once all windows are computed: checks the weights, builds the other files,
//! writes the manifests.

use std::path::PathBuf;

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

/// Seals the folders of a job, whose weights are all written.
///
/// # Errors
/// A weight file is not what was planned, an input changed while it was read, or the disk fails.
pub fn seal(drafts: &mut [Draft], control: &Control) -> Result<Vec<Sealed>> {
    let mut files = Vec::with_capacity(drafts.len());
    for draft in &mut *drafts {
        let mut mine = weights(draft, control)?;
        let Draft { plan, staging, card, .. } = *draft;
        mine.extend(sidecars::build(plan, staging, card, plan.options.sync, control)?);
        files.push(mine);
    }
    let plan = drafts[0].plan;
    let input_sha256 = if plan.options.sha256 { Some(sha256(drafts, &mut files, control)?) } else { None };
    for input in &plan.inputs.list {
        input.checkpoint.unchanged()?;
    }
    drafts.iter().zip(files).map(|(draft, files)| finish(draft, files, input_sha256.as_deref())).collect()
}

/// Writes the manifest.
fn finish(draft: &Draft, files: Vec<FileEntry>, input_sha256: Option<&[Vec<Option<String>>]>) -> Result<Sealed> {
    let Draft { plan, staging, ledger, .. } = draft;
    let written = files.iter().map(|file| file.size).sum();
    let (exceptions, counts) = match ledger.ordered.exceptions() {
        Some(tally) => (tally.total(), tally.counts()),
        None => (0, &[][..]),
    };
    let finished = Finished {
        stats: &ledger.stats,
        requantised: &ledger.requantised,
        files: &files,
        input_sha256,
        exceptions: (exceptions, counts),
    };
    let name = plan.inputs.output.manifest();
    staging.write_with(name, |out| manifest::write(plan, &finished, out))?;
    let mut order: Vec<String> = files.into_iter().map(|file| file.name).collect();
    order.push(name.to_owned());
    let requantised = manifest::again(plan, &ledger.stats, &ledger.requantised);
    Ok(Sealed { order, effect: manifest::total(plan, &ledger.stats), requantised, exceptions, written })
}

/// The entries of the weight files, exceptions included. Each header is read again and its tensors are counted.
fn weights(draft: &mut Draft, control: &Control) -> Result<Vec<FileEntry>> {
    let Draft { plan, staging, ledger, .. } = draft;
    let mut files = Vec::new();
    for (file, digest) in plan.layout.files.iter().zip(&ledger.digests) {
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

/// Computes SHA-256 in a separate pass: of every file of all outputs, into its entry, and of every input shard on this
/// machine. A downloaded shard is skipped if it was checked against the Hub's SHA-256 when it arrived.
fn sha256(drafts: &[Draft], files: &mut [Vec<FileEntry>], control: &Control) -> Result<Vec<Vec<Option<String>>>> {
    let plan = drafts[0].plan;
    let checkpoints = || plan.inputs.list.iter().map(|input| &input.checkpoint);
    let unknown = |shard: &Shard, place: &Place| {
        let checked = place.remote.is_some() && place.sha256(&shard.name).is_some();
        shard.on_disk().filter(|_| !checked).map(|disk| disk.path.clone())
    };
    let inputs: Vec<Vec<_>> =
        checkpoints().map(|c| c.shards.iter().map(|shard| unknown(shard, &c.place)).collect()).collect();
    let of_draft = |(draft, files): (&Draft, &Vec<FileEntry>)| -> Vec<PathBuf> {
        files.iter().map(|file| draft.staging.path(&file.name)).collect()
    };
    let outputs = drafts.iter().zip(&*files).flat_map(of_draft);
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
    for (file, sum) in files.iter_mut().flatten().zip(sums) {
        file.sha256 = Some(sum);
    }
    Ok(inputs)
}
