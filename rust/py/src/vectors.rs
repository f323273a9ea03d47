//! Vectors from other vectors.

use std::path::PathBuf;

use pyo3::prelude::*;
use taskvec_core::plan::Plan;
use taskvec_core::plan::inputs::Request;
use taskvec_core::storage::place::Place;
use taskvec_core::verbs::write;

use crate::blocking;
use crate::options::{PyOptions, alpha};
use crate::place::PyPlace;

fn combination(vectors: Vec<PyPlace>, alphas: Vec<(String, f64)>) -> PyResult<Request> {
    let alphas = alphas.into_iter().map(alpha).collect::<PyResult<Vec<_>>>()?;
    // The Python layer pairs them: one factor for each vector.
    Ok(Request::Combine { vectors: vectors.into_iter().map(Place::from).zip(alphas).collect() })
}

fn run(
    py: Python<'_>,
    request: Request,
    out: PathBuf,
    options: PyOptions,
    card: String,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let options = options.parse()?;
    blocking::run_json(py, progress.as_ref(), |control| {
        write::run(&Plan::new(request, options, control)?, &out, &card, control)
    })
}

fn check(py: Python<'_>, request: Request, out: Option<PathBuf>, options: PyOptions) -> PyResult<String> {
    let options = options.parse()?;
    blocking::run_json(py, None, |control| Plan::new(request, options, control)?.to_json(out.as_deref()))
}

/// Writes a vector with another encoding to the folder `out`.
#[pyfunction]
pub fn convert(
    py: Python<'_>,
    vector: PyPlace,
    out: PathBuf,
    options: PyOptions,
    card: String,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    run(py, Request::Convert { vector: vector.into() }, out, options, card, progress)
}

/// What `convert` would do, from headers alone.
#[pyfunction]
pub fn check_convert(py: Python<'_>, vector: PyPlace, out: Option<PathBuf>, options: PyOptions) -> PyResult<String> {
    check(py, Request::Convert { vector: vector.into() }, out, options)
}

/// Writes the vector Σ αᵢ·vᵢ to the folder `out`.
#[pyfunction]
pub fn combine(
    py: Python<'_>,
    vectors: Vec<PyPlace>,
    out: PathBuf,
    alphas: Vec<(String, f64)>,
    options: PyOptions,
    card: String,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    run(py, combination(vectors, alphas)?, out, options, card, progress)
}

/// What `combine` would do, from headers alone.
#[pyfunction]
pub fn check_combine(
    py: Python<'_>,
    vectors: Vec<PyPlace>,
    out: Option<PathBuf>,
    alphas: Vec<(String, f64)>,
    options: PyOptions,
) -> PyResult<String> {
    check(py, combination(vectors, alphas)?, out, options)
}

/// Writes the numbers of the checkpoint `noise` to the folder `out`, as a vector in place of `vector`.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the verb has this many")]
pub fn randomize(
    py: Python<'_>,
    noise: PyPlace,
    vector: PyPlace,
    seed: u64,
    out: PathBuf,
    options: PyOptions,
    card: String,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let request = Request::Randomize { noise: noise.into(), vector: vector.into(), seed };
    run(py, request, out, options, card, progress)
}
