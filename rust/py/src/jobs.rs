//! Jobs in parts, on several machines.

use std::path::PathBuf;

use pyo3::prelude::*;
use taskvec_core::plan::Plan;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::options::Alpha;
use taskvec_core::storage::place::Place;
use taskvec_core::verbs::parts::{Job, commit, plan, run, status};
use taskvec_core::{Error, Result};

use crate::blocking;
use crate::errors::{internal, raise};
use crate::options::{PyOptions, alpha};
use crate::place::PyPlace;

/// A request of any verb that a job can be planned for, read attribute by attribute.
#[derive(FromPyObject)]
pub struct PyRequest {
    verb: String,
    places: Vec<PyPlace>,
    /// One, or for `apply` one for each vector.
    alphas: Vec<(String, f64)>,
    /// The patterns of each donor of a graft.
    takes: Vec<Vec<String>>,
}

impl PyRequest {
    fn parse(self) -> PyResult<Request> {
        let mut alphas = self.alphas.into_iter().map(alpha).collect::<PyResult<Vec<Alpha>>>()?;
        let mut places: Vec<Place> = self.places.into_iter().map(Place::from).collect();
        let request = match (self.verb.as_str(), places.len()) {
            ("extract", 2) => {
                places.pop().zip(places.pop()).map(|(subtrahend, minuend)| Request::Extract { minuend, subtrahend })
            }
            ("transfer", 3) => {
                let rest = places.split_off(1);
                let [minuend, subtrahend] = <[Place; 2]>::try_from(rest).map_err(|_| internal("places"))?;
                places.pop().zip(alphas.pop()).map(|(target, alpha)| Request::Transfer {
                    target,
                    minuend,
                    subtrahend,
                    alpha,
                })
            }
            ("apply", 2..) => {
                let vectors = places.split_off(1).into_iter().zip(alphas).collect();
                places.pop().map(|target| Request::Apply { target, vectors })
            }
            ("graft", 2..) => {
                let donors = places.split_off(1).into_iter().zip(self.takes).collect();
                places.pop().map(|target| Request::Graft { target, donors })
            }
            _ => None,
        };
        request.ok_or_else(|| raise(Error::Usage(format!("a job cannot be planned for {}", self.verb))))
    }
}

/// Plans a job that writes the folder `out`: `asked` is JSON text that comes back from `job_asked`.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "a plan has this many")]
pub fn job_plan(
    py: Python<'_>,
    job: PathBuf,
    request: PyRequest,
    out: PathBuf,
    parts: usize,
    options: PyOptions,
    card: String,
    asked: &str,
) -> PyResult<String> {
    let (request, options) = (request.parse()?, options.parse()?);
    let asked = serde_json::from_str(asked).map_err(internal)?;
    blocking::run_json(py, None, |control| {
        plan::plan(&Plan::new(request, options, control)?, &job, &out, parts, &card, asked)
    })
}

/// What `job_plan` was given to keep, and how many parts there are.
#[pyfunction]
pub fn job_asked(py: Python<'_>, job: PathBuf) -> PyResult<(String, usize)> {
    let job = blocking::run(py, None, |_| Job::open(&job))?;
    Ok((job.document.asked.to_string(), job.parts()))
}

/// What is done of a job, and what is missing.
#[pyfunction]
pub fn job_status(py: Python<'_>, job: PathBuf) -> PyResult<String> {
    blocking::run_json(py, None, |_| status::status(&Job::open(&job)?))
}

/// The result of a part that is done already; `None` if it has to be run.
#[pyfunction]
pub fn job_already(py: Python<'_>, job: PathBuf, part: usize) -> PyResult<Option<String>> {
    let found = blocking::run(py, None, |_| run::already(&Job::open(&job)?, part))?;
    Ok(found.map(|value| value.to_string()))
}

/// Runs one part.
#[pyfunction]
pub fn job_run(
    py: Python<'_>,
    job: PathBuf,
    part: usize,
    request: PyRequest,
    options: PyOptions,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let (request, options) = (request.parse()?, options.parse()?);
    blocking::run_json(py, progress.as_ref(), |control| -> Result<_> {
        run::run(&Job::open(&job)?, Plan::new(request, options, control)?, part, control)
    })
}

/// What the commit returned; `None` if the job is not committed.
#[pyfunction]
pub fn job_committed(py: Python<'_>, job: PathBuf) -> PyResult<Option<String>> {
    let found = blocking::run(py, None, |_| commit::already(&Job::open(&job)?))?;
    Ok(found.map(|value| value.to_string()))
}

/// Makes the output from all parts. `told` are notes and warnings for the result.
#[pyfunction]
pub fn job_commit(
    py: Python<'_>,
    job: PathBuf,
    verify: bool,
    request: PyRequest,
    options: PyOptions,
    told: (Vec<String>, Vec<String>),
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let (request, options) = (request.parse()?, options.parse()?);
    let told = commit::Told { notes: told.0, warnings: told.1 };
    blocking::run_json(py, progress.as_ref(), |control| {
        commit::commit(&Job::open(&job)?, &Plan::new(request, options, control)?, verify, told, control)
    })
}
