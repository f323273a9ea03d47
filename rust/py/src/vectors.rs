//! Verbs that write a vector: from two donors, or from other vectors.

use std::path::PathBuf;

use pyo3::prelude::*;
use taskvec_core::plan::inputs::Request;

use crate::job;
use crate::options::PyOptions;
use crate::place::PyPlace;

/// Writes the vector minuend − subtrahend to the folder `out`.
#[pyfunction]
pub fn extract(
    py: Python<'_>,
    minuend: PyPlace,
    subtrahend: PyPlace,
    out: PathBuf,
    options: PyOptions,
    card: String,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let request = Request::Extract { minuend: minuend.into(), subtrahend: subtrahend.into() };
    job::run(py, request, out, options, card, progress)
}

/// What `extract` would do, from headers and configs alone.
#[pyfunction]
pub fn check_extract(
    py: Python<'_>,
    minuend: PyPlace,
    subtrahend: PyPlace,
    out: Option<PathBuf>,
    options: PyOptions,
) -> PyResult<String> {
    let request = Request::Extract { minuend: minuend.into(), subtrahend: subtrahend.into() };
    job::check(py, request, out, options)
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
    job::run(py, Request::Convert { vector: vector.into() }, out, options, card, progress)
}

/// What `convert` would do, from headers alone.
#[pyfunction]
pub fn check_convert(py: Python<'_>, vector: PyPlace, out: Option<PathBuf>, options: PyOptions) -> PyResult<String> {
    job::check(py, Request::Convert { vector: vector.into() }, out, options)
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
    job::run(py, Request::Combine { vectors: job::weighted(vectors, alphas)? }, out, options, card, progress)
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
    job::check(py, Request::Combine { vectors: job::weighted(vectors, alphas)? }, out, options)
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
    job::run(py, request, out, options, card, progress)
}
