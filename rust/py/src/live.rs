//! The values that `apply` and `transfer` would write, for a live model: a stream of windows that Python pulls.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::{Plan, options};
use taskvec_core::storage::place::Place;
use taskvec_core::verbs::live::{self, Next, Packet, Stream};

use crate::blocking::{self, TICK};
use crate::errors::raise;
use crate::options::{PyOptions, alpha as parse_alpha};
use crate::place::PyPlace;

/// The state of a job: first planned, then running, then finished.
enum State {
    Planned(Box<Plan>),
    Running(Stream),
    Finished(String),
    /// Failed or closed.
    Over,
}

/// A job whose windows Python fetches one by one.
#[pyclass(frozen, module = "taskvec._core")]
pub struct Live {
    /// The tensors of the target in the order of its files, as JSON.
    #[pyo3(get)]
    tensors: String,
    /// A digest of the target's files as they are on the disk. It changes if somebody changes or replaces them.
    #[pyo3(get)]
    target_id: String,
    /// The size of a buffer for a window, in bytes.
    #[pyo3(get)]
    window_bytes: usize,
    state: Mutex<State>,
}

impl Live {
    fn open(py: Python<'_>, request: Request, options: options::Options) -> PyResult<Self> {
        let plan = blocking::run(py, None, |control| {
            let plan = Plan::live(request, options, control)?;
            plan.require_fit()?;
            Ok(plan)
        })?;
        Ok(Self {
            tensors: live::tensors(&plan).to_string(),
            target_id: format!("{:032x}", plan.base_id()),
            window_bytes: Packet::bytes(plan.budget.window_blocks),
            state: Mutex::new(State::Planned(Box::new(plan))),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Index of the tensor, first element, number of elements, and their offset in the buffers in bytes.
type Part = (u32, u64, u64, usize);

#[pymethods]
impl Live {
    /// Starts to compute. `wanted` says for each tensor whether its values are to be delivered.
    fn start(&self, wanted: Vec<bool>) -> PyResult<()> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Over) {
            State::Planned(plan) => {
                *state = State::Running(Stream::start(*plan, &wanted).map_err(raise)?);
                Ok(())
            }
            other => {
                *state = other;
                Err(PyRuntimeError::new_err("this job was started before"))
            }
        }
    }

    /// Puts the bytes of the next window into the buffers and returns its parts. None if all windows were delivered.
    fn next(
        &self,
        py: Python<'_>,
        result: Option<PyBuffer<u8>>,
        original: PyBuffer<u8>,
    ) -> PyResult<Option<Vec<Part>>> {
        loop {
            // The lock is held while waiting, so a second thread that asks for a window of the same job waits for its
            // turn.
            let next = py.detach(|| match &mut *self.state() {
                State::Running(stream) => Some(stream.next(TICK)),
                _ => None,
            });
            match next {
                Some(Ok(Next::Window(mut packet))) => {
                    let taken = take(py, &mut packet, result.as_ref(), &original);
                    if let State::Running(stream) = &*self.state() {
                        stream.give_back(packet);
                    }
                    return taken.map(Some);
                }
                Some(Ok(Next::Waiting)) => py.check_signals()?,
                Some(Ok(Next::End(report))) => {
                    *self.state() = State::Finished(report.to_string());
                    return Ok(None);
                }
                Some(Err(error)) => {
                    self.close(py);
                    return Err(raise(error));
                }
                None => return Err(PyRuntimeError::new_err("this job is not running")),
            }
        }
    }

    /// The report of the job (`taskvec/applied/1`), available after all windows were delivered.
    fn report(&self) -> PyResult<String> {
        match &*self.state() {
            State::Finished(report) => Ok(report.clone()),
            _ => Err(PyRuntimeError::new_err("this job has not ended")),
        }
    }

    /// Stops the job, unless it has ended, and releases its files and buffers.
    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            let mut state = self.state();
            if !matches!(*state, State::Finished(_)) {
                *state = State::Over;
            }
        });
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Dropping waits for the job to end, and the job may need the GIL to call Python. `close` releases it.
        Python::attach(|py| self.close(py));
    }
}

fn take(
    py: Python<'_>,
    packet: &mut Packet,
    result: Option<&PyBuffer<u8>>,
    original: &PyBuffer<u8>,
) -> PyResult<Vec<Part>> {
    // PyO3 copies whole buffers. These have `window_bytes` bytes, like those of the packet.
    if let Some(result) = result {
        result.copy_from_slice(py, packet.result())?;
    }
    original.copy_from_slice(py, packet.original())?;
    Ok(packet.parts.iter().map(|part| (part.tensor, part.first, part.elements, part.offset)).collect())
}

/// `target + Σ αᵢ·vᵢ` from vector folders.
#[pyfunction]
pub fn live_apply(
    py: Python<'_>,
    target: PyPlace,
    vectors: Vec<PyPlace>,
    alphas: Vec<(String, f64)>,
    options: PyOptions,
) -> PyResult<Live> {
    let alphas = alphas.into_iter().map(parse_alpha).collect::<PyResult<Vec<_>>>()?;
    Live::open(
        py,
        Request::Apply { target: target.into(), vectors: vectors.into_iter().map(Place::from).zip(alphas).collect() },
        options.parse()?,
    )
}

/// `target + α·(minuend − subtrahend)`.
#[pyfunction]
pub fn live_transfer(
    py: Python<'_>,
    target: PyPlace,
    minuend: PyPlace,
    subtrahend: PyPlace,
    alpha: (String, f64),
    options: PyOptions,
) -> PyResult<Live> {
    let [target, minuend, subtrahend] = [target, minuend, subtrahend].map(Place::from);
    let request = Request::Transfer { target, minuend, subtrahend, alpha: parse_alpha(alpha)? };
    Live::open(py, request, options.parse()?)
}

/// The target's own values.
#[pyfunction]
pub fn live_read(py: Python<'_>, target: PyPlace, options: PyOptions) -> PyResult<Live> {
    Live::open(py, Request::Read { target: target.into() }, options.parse()?)
}
