//! `target + Σ αᵢ·vᵢ` from vector folders.

use std::path::PathBuf;

use pyo3::prelude::*;
use taskvec_core::plan::inputs::Request;

use crate::job;
use crate::options::PyOptions;
use crate::place::PyPlace;
use crate::sweep;

fn request(target: PyPlace, vectors: Vec<PyPlace>, alphas: Vec<(String, f64)>) -> PyResult<Request> {
    Ok(Request::Apply { target: target.into(), vectors: job::weighted(vectors, alphas)? })
}

/// Writes target + Σ αᵢ·vᵢ to the folder `out`.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the verb has this many")]
pub fn apply(
    py: Python<'_>,
    target: PyPlace,
    vectors: Vec<PyPlace>,
    out: PathBuf,
    alphas: Vec<(String, f64)>,
    options: PyOptions,
    card: String,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let request = request(target, vectors, alphas)?;
    job::run(py, request, out, options, card, progress)
}

/// What `apply` would do, from headers and configs alone.
#[pyfunction]
pub fn check_apply(
    py: Python<'_>,
    target: PyPlace,
    vectors: Vec<PyPlace>,
    out: Option<PathBuf>,
    alphas: Vec<(String, f64)>,
    options: PyOptions,
) -> PyResult<String> {
    let request = request(target, vectors, alphas)?;
    job::check(py, request, out, options)
}

fn sweep_request(target: PyPlace, vectors: Vec<PyPlace>) -> PyResult<Request> {
    let alpha = sweep::placeholder()?;
    let vectors = vectors.into_iter().map(|vector| (vector.into(), alpha.clone())).collect();
    Ok(Request::Apply { target: target.into(), vectors })
}

/// Writes target + α·v for every α, each to a folder of its own in `out`.
#[pyfunction]
pub fn sweep_apply(
    py: Python<'_>,
    target: PyPlace,
    vectors: Vec<PyPlace>,
    out: PathBuf,
    variants: sweep::Variants,
    options: PyOptions,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    sweep::write(py, &sweep_request(target, vectors)?, variants, out, options, progress)
}

/// What `sweep_apply` would do, from headers and configs alone.
#[pyfunction]
pub fn check_sweep_apply(
    py: Python<'_>,
    target: PyPlace,
    vectors: Vec<PyPlace>,
    out: Option<PathBuf>,
    alphas: Vec<(String, f64)>,
    options: PyOptions,
) -> PyResult<String> {
    sweep::check(py, &sweep_request(target, vectors)?, alphas, out, options)
}
