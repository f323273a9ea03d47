//! The verbs that only read: `inspect`, `diff` and `verify`.

use std::path::PathBuf;

use pyo3::prelude::*;
use taskvec_core::checkpoint::open::Kind;

use crate::blocking;
use crate::errors::raise;
use crate::options::PyOptions;
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
