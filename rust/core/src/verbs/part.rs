//! The computing part of a writing job: computes the windows that are not in its ledgers yet, and writes them to the
//! staged files.

use crate::control::{Control, Phase};
use crate::engine::window::{self, Outcome, Window, Worker};
use crate::engine::{arrivals, pool};
use crate::error::{Error, Result};
use crate::format::blocks::BLOCK;
use crate::numeric::simd::Isa;
use crate::output::draft::Draft;
use crate::output::ledger::Ordered;
use crate::output::sidecars;
use crate::output::sink::Sink;
use crate::plan::Plan;
use crate::system::os;

/// What a run computed of one output, and how.
pub struct Computed {
    /// Bytes that were kept from an earlier, interrupted run.
    pub resumed: u64,
    /// Whether writes bypassed the page cache.
    pub direct: bool,
    /// False if syncing was requested but the file system does not support it.
    pub synced: bool,
}

/// Computes and writes the windows that a draft still needs, records them in the journals in order, and waits until the
/// disk has them. The drafts have the same inputs and files, and what a window reads is loaded once for all of them.
///
/// # Errors
/// Whatever stops the job. The windows that are in the journals by then need not be computed again.
pub fn run<'p>(drafts: &mut [Draft<'p>], isa: Isa, control: &Control) -> Result<Vec<Computed>> {
    let plans: Vec<&'p Plan> = drafts.iter().map(|draft| draft.plan).collect();
    let plan = plans[0];
    let files = drafts[0].files.clone();
    let (first, all) = (plan.layout.first_block(files.start), plan.layout.bytes_of(files.clone()));
    let done: Vec<u64> = drafts.iter().map(|draft| draft.ledger.blocks).collect();
    let resumed: Vec<u64> = done.iter().map(|blocks| ((blocks - first) * BLOCK).min(all)).collect();
    require_space(drafts)?;
    let sinks = drafts.iter().map(sinks).collect::<Result<Vec<_>>>()?;
    let windows = Window::from(plan, files.clone(), &done);
    // Only after the output's space is reserved, so that a check for free space before the downloads takes it into
    // account.
    arrivals::begin(&plans, &windows)?;
    if files.len() == plan.layout.files.len() {
        sidecars::want(plan)?;
    }
    let shared = pool::open(&plans, &windows, isa, control)?;
    drafts.iter().for_each(|draft| shared.measuring.recall(&draft.ledger.measured));
    control.begin(Phase::Writing, all * plans.len() as u64);
    control.add(resumed.iter().sum());
    let work = |window: Window, worker: &mut Worker<'p>| {
        let wanted: Vec<usize> = (0..done.len()).filter(|&draft| done[draft] <= window.block).collect();
        let outcomes = window::compute(&shared, window, worker, &wanted, None)?;
        let (begin, end) = window.range(&plan.layout.files[window.file]);
        for &draft in &wanted {
            // Frames are written in order, by the ledger.
            if let Some(sink) = sinks[draft].get(window.file - files.start) {
                sink.write(begin, worker.output(draft), (end - begin) as usize)?;
            }
            control.add(end - begin);
        }
        Ok((wanted, outcomes))
    };
    let commit = |(wanted, outcomes): (Vec<usize>, Vec<Outcome>)| {
        wanted.into_iter().zip(outcomes).try_for_each(|(draft, outcome)| drafts[draft].ledger.append(&outcome))
    };
    pool::run(&shared, &windows, control, work, commit)?;
    control.begin(Phase::Syncing, 0);
    let finish = |((draft, sinks), resumed): ((&mut Draft, &Vec<Sink>), u64)| {
        draft.ledger.rescale(draft.staging, sinks, control)?;
        let Ordered::Frames(frames) = &mut draft.ledger.ordered else {
            let mut synced = true;
            for (sink, file) in sinks.iter().zip(&plan.layout.files[files.clone()]) {
                synced &= sink.finish(file.len, plan.options.sync)?;
                control.check()?;
            }
            return Ok(Computed { resumed, direct: sinks.iter().all(Sink::is_direct), synced });
        };
        let synced = frames.finish(plan.options.sync)?;
        Ok(Computed { resumed, direct: frames.is_direct(), synced })
    };
    drafts.iter_mut().zip(&sinks).zip(resumed).map(finish).collect()
}

/// Opens the files of a draft whose windows are written as they come.
fn sinks(draft: &Draft) -> Result<Vec<Sink>> {
    let Draft { plan, staging, files, .. } = draft;
    let files = plan.layout.files[files.clone()].iter().filter(|_| !plan.layout.packed);
    files.map(|file| Sink::open(&staging.path(&file.name), file.len)).collect()
}

/// Fails, before anything is computed, if the disk has too little free space for the drafts. How much a packed output
/// takes is known only in the end.
fn require_space(drafts: &[Draft]) -> Result<()> {
    if drafts[0].plan.layout.packed {
        return Ok(());
    }
    let mut missing = 0;
    for Draft { plan, staging, files, .. } in drafts {
        for file in &plan.layout.files[files.clone()] {
            let path = staging.path(&file.name);
            let there = std::fs::File::open(&path).and_then(|file| os::allocated(&file)).unwrap_or(0);
            missing += file.len.saturating_sub(there);
        }
    }
    // The drafts are on one disk.
    let scratch = drafts[0].staging.scratch();
    match os::free_space(scratch) {
        Some(free) if free < missing => {
            let what = format!(
                "{missing} bytes are still needed but only {free} are free; free some space and run the same command again"
            );
            let full = std::io::Error::new(std::io::ErrorKind::StorageFull, what);
            Err(Error::io(scratch, "write the output")(full))
        }
        _ => Ok(()),
    }
}
