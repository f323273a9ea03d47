//! The wrapper for every long call. It releases the GIL, checks for signals, and reports progress.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;
use serde_json::Value;
use taskvec_core::control::Control;
use taskvec_core::{Error, Result};

use crate::errors::{internal, raise};

/// How often signals are checked and progress is reported.
pub const TICK: Duration = Duration::from_millis(100);

/// Runs `job` on its own thread and waits for it. Ten times a second Python gets a chance to raise `KeyboardInterrupt`,
/// or whatever a signal handler or the progress callback raises. Then the job stops at its next window, and the
/// exception is passed on after that.
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
        // The job may have finished before it noticed the request to stop. The exception is raised anyway.
        (Some(raised), Ok(Err(Error::Cancelled) | Ok(_))) => Err(raised),
        (_, Ok(outcome)) => {
            let value = outcome.map_err(raise)?;
            tell(progress, &control)?;
            Ok(value)
        }
    }
}

/// [`run`] for jobs whose result is JSON.
pub fn run_json(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    job: impl FnOnce(&Control) -> Result<Value> + Send,
) -> PyResult<String> {
    serde_json::to_string(&run(py, progress, job)?).map_err(internal)
}

/// Whether the job has ended, successfully or not.
#[derive(Default)]
struct Ended(Mutex<bool>, Condvar);

impl Ended {
    /// Waits until the job ends, but not longer than one tick; returns whether it has ended.
    fn wait(&self) -> bool {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (ended, _) =
            self.1.wait_timeout_while(ended, TICK, |ended| !*ended).unwrap_or_else(PoisonError::into_inner);
        *ended
    }
}

/// Notifies the waiting thread when it is dropped, also after a panic.
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
