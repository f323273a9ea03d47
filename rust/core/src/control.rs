//! What a running job shares with the thread that waits for it: a request to stop, and the progress so far.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::error::{Error, Result};

/// The parts of a job, as progress shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Headers are read and matched.
    #[default]
    Planning,
    /// Tensors that must be equal are compared.
    Comparing,
    /// The output of an interrupted run is read again and checked.
    Resuming,
    /// Windows are computed and written.
    Writing,
    /// Inputs are read, and nothing is written.
    Reading,
    /// The job waits until the disk has what was written.
    Syncing,
    /// SHA-256 digests are computed in a separate pass.
    Hashing,
    /// Files are compared with their manifest.
    Verifying,
}

impl Phase {
    const ALL: [Self; 8] = [
        Self::Planning,
        Self::Comparing,
        Self::Resuming,
        Self::Writing,
        Self::Reading,
        Self::Syncing,
        Self::Hashing,
        Self::Verifying,
    ];

    /// What progress calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Planning => "planning",
            Self::Comparing => "comparing",
            Self::Resuming => "resuming",
            Self::Writing => "writing",
            Self::Reading => "reading",
            Self::Syncing => "syncing",
            Self::Hashing => "hashing",
            Self::Verifying => "verifying",
        }
    }
}

/// Shared by all threads of a job and its caller.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
}

impl Control {
    /// Asks the job to stop at the next window.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Fails if the job was asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Starts a phase of `total` bytes.
    pub fn begin(&self, phase: Phase, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Counts bytes done in this phase.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The current phase, the bytes done in it, and its total bytes.
    pub fn progress(&self) -> (Phase, u64, u64) {
        // Only `begin` stores here, so the number is always that of a phase.
        let phase = Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed))];
        (phase, self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_that_begins_is_the_one_that_is_shown() {
        let control = Control::default();
        assert_eq!(control.progress().0, Phase::Planning);
        for phase in Phase::ALL {
            control.begin(phase, 7);
            assert_eq!(control.progress(), (phase, 0, 7));
        }
    }
}
