//! What is in a checkpoint or vector.

use std::path::PathBuf;

use pyo3::prelude::*;

use crate::blocking;

/// Describes a checkpoint or vector from its headers.
#[pyfunction]
pub fn inspect(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    blocking::run_json(py, None, |_| taskvec_core::inspect::inspect(&path))
}
