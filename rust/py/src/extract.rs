//! `minuend − subtrahend` as a vector folder.

use std::path::PathBuf;

use pyo3::prelude::*;
use taskvec_core::inputs::Request;
use taskvec_core::job;
use taskvec_core::plan::Plan;

use crate::blocking;
use crate::options::PyOptions;

/// Writes the vector minuend − subtrahend to the folder `out`.
#[pyfunction]
pub fn extract(
    py: Python<'_>,
    minuend: PathBuf,
    subtrahend: PathBuf,
    out: PathBuf,
    options: PyOptions,
    card: String,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let request = Request::Extract { minuend, subtrahend };
    let options = options.parse()?;
    blocking::run_json(py, progress.as_ref(), |control| job::run(&Plan::new(request, options)?, &out, &card, control))
}

/// What `extract` would do, from headers and configs alone.
#[pyfunction]
pub fn check_extract(
    py: Python<'_>,
    minuend: PathBuf,
    subtrahend: PathBuf,
    out: Option<PathBuf>,
    options: PyOptions,
) -> PyResult<String> {
    let request = Request::Extract { minuend, subtrahend };
    let options = options.parse()?;
    blocking::run_json(py, None, |_| Ok(Plan::new(request, options)?.to_json(out.as_deref())))
}
