//! `minuend − subtrahend` as a vector folder.

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
