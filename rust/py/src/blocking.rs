//! The one wrapper of every long call: the GIL is released, signals are looked at, progress is told.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;
use serde_json::Value;
use taskvec_core::control::Control;
use taskvec_core::{Error, Result};

use crate::errors::{internal, raise};

/// How often signals are looked at and progress is told.
pub const TICK: Duration = Duration::from_millis(100);

/// Runs `job` on a thread of its own and waits for it, ten times a second giving Python a chance to raise
/// (`KeyboardInterrupt`, or whatever a signal handler or the progress callback raises): the job then stops at its next
/// window, and the exception is passed on once it has.
pub fn run<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    job: impl FnOnce(&Control) -> Result<T> + Send,
) -> PyResult<T> {
    let control = Control::default();
    let mut raised = None;
    let ended = Ended::default();
    let outcome = thread::scope(|scope| {
        let (control, ended) = (&control, &ended);
        let worker = scope.spawn(move || {
            let _end = End(ended);
            job(control)
        });
        while !py.detach(|| ended.wait()) {
            if raised.is_none() {
                raised = py.check_signals().and_then(|()| tell(progress, control)).err();
                if raised.is_some() {
                    control.stop();
                }
            }
        }
        py.detach(|| worker.join())
    });
    match (raised, outcome) {
        (_, Err(panic)) => std::panic::resume_unwind(panic),
        // A job that ended before it saw the wish to stop is done all the same, but the caller asked to be interrupted.
        (Some(raised), Ok(Err(Error::Cancelled) | Ok(_))) => Err(raised),
        (_, Ok(outcome)) => {
            let value = outcome.map_err(raise)?;
            tell(progress, &control)?;
            Ok(value)
        }
    }
}

/// [`run`] for jobs whose answer is JSON.
pub fn run_json(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    job: impl FnOnce(&Control) -> Result<Value> + Send,
) -> PyResult<String> {
    serde_json::to_string(&run(py, progress, job)?).map_err(internal)
}

/// Whether the job has ended, well or not.
#[derive(Default)]
struct Ended(Mutex<bool>, Condvar);

impl Ended {
    /// Waits for the end, or for one tick.
    fn wait(&self) -> bool {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (ended, _) =
            self.1.wait_timeout_while(ended, TICK, |ended| !*ended).unwrap_or_else(PoisonError::into_inner);
        *ended
    }
}

/// Tells the waiting thread when it goes out of scope, also by a panic.
struct End<'a>(&'a Ended);

impl Drop for End<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}

fn tell(progress: Option<&Bound<'_, PyAny>>, control: &Control) -> PyResult<()> {
    match progress {
        Some(callback) => {
            let (phase, done, total) = control.progress();
            callback.call1((phase.name(), done, total)).map(drop)
        }
        None => Ok(()),
    }
}
