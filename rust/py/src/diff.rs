//! How two checkpoints differ.

use pyo3::prelude::*;

use crate::blocking;
use crate::options::PyOptions;
use crate::place::PyPlace;

/// Compares two folders tensor by tensor.
#[pyfunction]
pub fn diff(
    py: Python<'_>,
    a: PyPlace,
    b: PyPlace,
    options: PyOptions,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let options = options.parse()?;
    let (a, b) = (a.into(), b.into());
    blocking::run_json(py, progress.as_ref(), |control| taskvec_core::verbs::diff::diff(&a, &b, &options, control))
}
