//! The computing part of a writing job: computes the windows that are not in its ledger yet, and writes them to the
//! staged files.

use crate::control::{Control, Phase};
use crate::engine::window::{self, Window, Worker};
use crate::engine::{arrivals, pool};
use crate::error::{Error, Result};
use crate::format::blocks::BLOCK;
use crate::numeric::simd::Isa;
use crate::output::ledger::{Ledger, Ordered};
use crate::output::sidecars;
use crate::output::sink::Sink;
use crate::output::staging::Staging;
use crate::plan::Plan;
use crate::system::os;

/// What a run computed, and how.
pub struct Computed {
    /// Bytes that were kept from an earlier, interrupted run.
    pub resumed: u64,
    /// Whether writes bypassed the page cache.
    pub direct: bool,
    /// False if syncing was requested but the file system does not support it.
    pub synced: bool,
}

/// Computes and writes the windows, records them in the journal in order, and waits until the disk has them.
///
/// # Errors
/// Whatever stops the job. The windows that are in the journal by then need not be computed again.
pub fn run<'p>(
    plan: &'p Plan,
    staging: &Staging,
    ledger: &mut Ledger,
    isa: Isa,
    control: &Control,
) -> Result<Computed> {
    let sync = plan.options.sync;
    let resumed = (ledger.blocks * BLOCK).min(plan.layout.bytes());
    require_space(plan, staging)?;
    let mut sinks = Vec::with_capacity(plan.layout.files.len());
    for file in plan.layout.files.iter().filter(|_| !plan.layout.packed) {
        sinks.push(Sink::open(&staging.path(&file.name), file.len)?);
    }
    let windows = ledger.windows();
    // Only after the output's space is reserved, so that a check for free space before the downloads takes it into
    // account.
    arrivals::begin(plan, &windows)?;
    sidecars::want(plan)?;
    let shared = pool::open(plan, &windows, isa, control)?;
    control.begin(Phase::Writing, plan.layout.bytes());
    control.add(resumed);
    let work = |window: Window, worker: &mut Worker<'p>| {
        let outcome = window::compute(&shared, window, worker, None)?;
        let (begin, end) = window.range(&plan.layout.files[window.file]);
        // Frames are written in order, by the ledger.
        if let Some(sink) = sinks.get(window.file) {
            sink.write(begin, worker.output(), (end - begin) as usize)?;
        }
        control.add(end - begin);
        Ok(outcome)
    };
    pool::run(&shared, &windows, control, work, |outcome| ledger.append(&outcome))?;
    control.begin(Phase::Syncing, 0);
    if let Ordered::Frames(frames) = &mut ledger.ordered {
        let synced = frames.finish(sync)?;
        return Ok(Computed { resumed, direct: frames.is_direct(), synced });
    }
    let mut synced = true;
    for (sink, file) in sinks.iter().zip(&plan.layout.files) {
        synced &= sink.finish(file.len, sync)?;
        control.check()?;
    }
    Ok(Computed { resumed, direct: sinks.iter().all(Sink::is_direct), synced })
}

/// Fails, before anything is computed, if the disk has too little free space for the output. How much a packed output
/// takes is known only in the end.
fn require_space(plan: &Plan, staging: &Staging) -> Result<()> {
    if plan.layout.packed {
        return Ok(());
    }
    let mut missing = 0;
    for file in &plan.layout.files {
        let path = staging.path(&file.name);
        let there = std::fs::File::open(&path).and_then(|file| os::allocated(&file)).unwrap_or(0);
        missing += file.len.saturating_sub(there);
    }
    match os::free_space(staging.scratch()) {
        Some(free) if free < missing => {
            let what = format!(
                "{missing} bytes are still needed but only {free} are free; free some space and run the same command again"
            );
            let full = std::io::Error::new(std::io::ErrorKind::StorageFull, what);
            Err(Error::io(staging.scratch(), "write the output")(full))
        }
        _ => Ok(()),
    }
}
