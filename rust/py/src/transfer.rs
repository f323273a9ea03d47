//! `target + α·(minuend − subtrahend)` in one pass.

use std::path::PathBuf;

use pyo3::prelude::*;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::options::Alpha;
use taskvec_core::storage::place::Place;

use crate::job;
use crate::options::{PyOptions, alpha as parse_alpha};
use crate::place::PyPlace;
use crate::sweep;

fn request(target: PyPlace, minuend: PyPlace, subtrahend: PyPlace, alpha: Alpha) -> Request {
    let [target, minuend, subtrahend] = [target, minuend, subtrahend].map(Place::from);
    Request::Transfer { target, minuend, subtrahend, alpha }
}

/// Writes target + α·(minuend − subtrahend) to the folder `out`.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the verb has this many")]
pub fn transfer(
    py: Python<'_>,
    target: PyPlace,
    minuend: PyPlace,
    subtrahend: PyPlace,
    out: PathBuf,
    alpha: (String, f64),
    options: PyOptions,
    card: String,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let request = request(target, minuend, subtrahend, parse_alpha(alpha)?);
    job::run(py, request, out, options, card, progress)
}

/// What `transfer` would do, from headers and configs alone.
#[pyfunction]
pub fn check_transfer(
    py: Python<'_>,
    target: PyPlace,
    minuend: PyPlace,
    subtrahend: PyPlace,
    out: Option<PathBuf>,
    alpha: (String, f64),
    options: PyOptions,
) -> PyResult<String> {
    let request = request(target, minuend, subtrahend, parse_alpha(alpha)?);
    job::check(py, request, out, options)
}

/// Writes target + α·(minuend − subtrahend) for every α, each to a folder of its own in `out`.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the verb has this many")]
pub fn sweep_transfer(
    py: Python<'_>,
    target: PyPlace,
    minuend: PyPlace,
    subtrahend: PyPlace,
    out: PathBuf,
    variants: sweep::Variants,
    options: PyOptions,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let request = request(target, minuend, subtrahend, sweep::placeholder()?);
    sweep::write(py, &request, variants, out, options, progress)
}

/// What `sweep_transfer` would do, from headers and configs alone.
#[pyfunction]
pub fn check_sweep_transfer(
    py: Python<'_>,
    target: PyPlace,
    minuend: PyPlace,
    subtrahend: PyPlace,
    out: Option<PathBuf>,
    alphas: Vec<(String, f64)>,
    options: PyOptions,
) -> PyResult<String> {
    let request = request(target, minuend, subtrahend, sweep::placeholder()?);
    sweep::check(py, &request, alphas, out, options)
}
