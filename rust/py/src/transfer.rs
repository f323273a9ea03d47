//! `target + α·(minuend − subtrahend)` in one pass.

use std::path::PathBuf;

use pyo3::prelude::*;
use taskvec_core::inputs::Request;
use taskvec_core::job;
use taskvec_core::plan::Plan;

use crate::blocking;
use crate::options::{PyOptions, alpha as parse_alpha};

/// Writes target + α·(minuend − subtrahend) to the folder `out`.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the verb has this many")]
pub fn transfer(
    py: Python<'_>,
    target: PathBuf,
    minuend: PathBuf,
    subtrahend: PathBuf,
    out: PathBuf,
    alpha: (String, f64),
    options: PyOptions,
    card: String,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let request = Request::Transfer { target, minuend, subtrahend, alpha: parse_alpha(alpha)? };
    let options = options.parse()?;
    blocking::run_json(py, progress.as_ref(), |control| job::run(&Plan::new(request, options)?, &out, &card, control))
}

/// What `transfer` would do, from headers and configs alone.
#[pyfunction]
pub fn check_transfer(
    py: Python<'_>,
    target: PathBuf,
    minuend: PathBuf,
    subtrahend: PathBuf,
    out: Option<PathBuf>,
    alpha: (String, f64),
    options: PyOptions,
) -> PyResult<String> {
    let request = Request::Transfer { target, minuend, subtrahend, alpha: parse_alpha(alpha)? };
    let options = options.parse()?;
    blocking::run_json(py, None, |_| Ok(Plan::new(request, options)?.to_json(out.as_deref())))
}
