//! The lanes of a job, one for each streamed input, and the threads that serve them while its windows are worked on.

use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::checkpoint::{Checkpoint, MOST_REQUESTS};
use crate::error::{Error, Result};
use crate::source::lane::Lane;

/// Requests at the same time for one input.
const MOST_OF_LANE: usize = 4;

/// The lanes of all streamed inputs of a job.
pub struct Lanes<'a> {
    lanes: Vec<Option<(Lane<'a>, &'a Checkpoint)>>,
    /// The error of the first fetch that failed.
    failed: Mutex<Option<Error>>,
}

impl<'a> Lanes<'a> {
    /// Takes a lane and the checkpoint that it fetches from, for each input; `None` for inputs that are not streamed.
    pub fn new(lanes: Vec<Option<(Lane<'a>, &'a Checkpoint)>>) -> Self {
        Self { lanes, failed: Mutex::new(None) }
    }

    /// The lane of an input, if it is streamed.
    pub fn get(&self, input: usize) -> Option<&Lane<'a>> {
        self.lanes[input].as_ref().map(|(lane, _)| lane)
    }

    /// Runs the threads that fetch for the lanes while `job` computes the windows. If a fetch fails, the job is
    /// stopped, and the other way round.
    pub fn serve<R>(&self, job: impl FnOnce() -> Result<R>) -> Result<R> {
        let lanes = || self.lanes.iter().flatten();
        let threads = MOST_OF_LANE.min(MOST_REQUESTS / lanes().count().max(1)).max(1);
        let done = thread::scope(|scope| {
            let _ended = Ended(self);
            for (lane, checkpoint) in lanes() {
                for _ in 0..threads {
                    scope.spawn(move || {
                        let watch = Panicked(self);
                        let served = lane.serve(|shard, range, take| checkpoint.shards[shard].fetch(range, take));
                        if let Err(error) = served {
                            self.fail(error);
                        }
                        drop(watch);
                    });
                }
            }
            job()
        });
        match self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The job's own error only says that it was stopped; the error of the fetch says why.
            Some(error) if done.is_err() => Err(error),
            _ => done,
        }
    }

    /// Keeps the first error other than `Cancelled`, and stops all lanes.
    fn fail(&self, error: Error) {
        if !matches!(error, Error::Cancelled) {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
        self.stop();
    }

    fn stop(&self) {
        self.lanes.iter().flatten().for_each(|(lane, _)| lane.stop());
    }
}

/// Stops the lanes when the job ends, however it ends: their threads may still be waiting for readers.
struct Ended<'l, 'a>(&'l Lanes<'a>);

impl Drop for Ended<'_, '_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Lets the job end when a thread that serves a lane panics; the scope then passes the panic on.
struct Panicked<'l, 'a>(&'l Lanes<'a>);

impl Drop for Panicked<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
    }
}
