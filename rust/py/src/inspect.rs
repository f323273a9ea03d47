//! What is in a checkpoint or vector.

use pyo3::prelude::*;
use taskvec_core::checkpoint::open::Kind;

use crate::blocking;
use crate::errors::raise;
use crate::place::PyPlace;

/// Describes a checkpoint or vector from its headers.
#[pyfunction]
pub fn inspect(py: Python<'_>, place: PyPlace) -> PyResult<String> {
    let place = place.into();
    blocking::run_json(py, None, |control| taskvec_core::verbs::inspect::inspect(&place, control))
}

/// What a folder holds: "checkpoint", "vector" or "adapter". A folder that is none of these counts as a checkpoint.
#[pyfunction]
pub fn kind(place: PyPlace) -> PyResult<&'static str> {
    Kind::of(&place.into()).map(Kind::name).map_err(raise)
}
