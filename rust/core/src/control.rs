//! What a running job shares with whoever waits for it: a wish to stop, and how far it is.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// The parts of a job, as progress shows them.
const PHASES: [&str; 8] =
    ["planning", "comparing", "resuming", "writing", "reading", "syncing", "hashing", "verifying"];

/// Shared by all threads of a job and its caller.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    phase: AtomicUsize,
    done: AtomicU64,
    total: AtomicU64,
}

impl Control {
    /// Asks the job to stop at the next window.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Fails once the job was asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Starts a phase of `total` bytes.
    pub fn begin(&self, phase: &str, total: u64) {
        let place = PHASES.iter().position(|&known| known == phase).unwrap_or(0);
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.phase.store(place, Ordering::Relaxed);
    }

    /// Counts bytes done in this phase.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The phase, the bytes done in it and its bytes in all.
    pub fn progress(&self) -> (&'static str, u64, u64) {
        let phase = PHASES[self.phase.load(Ordering::Relaxed)];
        (phase, self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}
