//! What is in a checkpoint or vector.

use pyo3::prelude::*;

use crate::blocking;
use crate::place::PyPlace;

/// Describes a checkpoint or vector from its headers.
#[pyfunction]
pub fn inspect(py: Python<'_>, place: PyPlace) -> PyResult<String> {
    let place = place.into();
    blocking::run_json(py, None, |control| taskvec_core::verbs::inspect::inspect(&place, control))
}
