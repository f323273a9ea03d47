//! How two checkpoints differ.

use std::path::PathBuf;

use pyo3::prelude::*;

use crate::blocking;
use crate::options::PyOptions;

/// Compares two folders tensor by tensor.
#[pyfunction]
pub fn diff(
    py: Python<'_>,
    a: PathBuf,
    b: PathBuf,
    options: PyOptions,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let options = options.parse()?;
    blocking::run_json(py, progress.as_ref(), |control| taskvec_core::diff::diff(&a, &b, &options, control))
}
