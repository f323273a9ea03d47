//! Compares an output with its manifest.

use std::path::PathBuf;

use pyo3::prelude::*;

use crate::blocking;
use crate::options::PyOptions;

/// Reads every file of an output again and compares digests and tensors with its manifest.
#[pyfunction]
pub fn verify(
    py: Python<'_>,
    out: PathBuf,
    options: PyOptions,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let options = options.parse()?;
    blocking::run_json(py, progress.as_ref(), |control| {
        taskvec_core::verbs::verify::verify(&out, options.threads()?, control)
    })
}
