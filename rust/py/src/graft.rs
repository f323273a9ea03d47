//! Tensors of donors, copied into the target.

use std::path::PathBuf;

use pyo3::prelude::*;
use taskvec_core::plan::inputs::Request;

use crate::job;
use crate::options::PyOptions;
use crate::place::PyPlace;

/// A donor, and the patterns of what is taken from it.
type Donor = (PyPlace, Vec<String>);

fn request(target: PyPlace, donors: Vec<Donor>) -> Request {
    let donors = donors.into_iter().map(|(place, patterns)| (place.into(), patterns)).collect();
    Request::Graft { target: target.into(), donors }
}

/// Writes the target with tensors of the donors to the folder `out`.
#[pyfunction]
pub fn graft(
    py: Python<'_>,
    target: PyPlace,
    donors: Vec<Donor>,
    out: PathBuf,
    options: PyOptions,
    card: String,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    job::run(py, request(target, donors), out, options, card, progress)
}

/// What `graft` would do, from headers and configs alone.
#[pyfunction]
pub fn check_graft(
    py: Python<'_>,
    target: PyPlace,
    donors: Vec<Donor>,
    out: Option<PathBuf>,
    options: PyOptions,
) -> PyResult<String> {
    job::check(py, request(target, donors), out, options)
}
