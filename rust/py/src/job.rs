//! What the verbs share that write one folder.

use std::path::PathBuf;

use pyo3::prelude::*;
use taskvec_core::plan::Plan;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::options::Alpha;
use taskvec_core::storage::place::Place;
use taskvec_core::verbs::write;

use crate::blocking;
use crate::options::{PyOptions, alpha};
use crate::place::PyPlace;

/// Vectors and their factors. The Python layer gives one factor for each vector.
pub fn weighted(vectors: Vec<PyPlace>, alphas: Vec<(String, f64)>) -> PyResult<Vec<(Place, Alpha)>> {
    let alphas = alphas.into_iter().map(alpha).collect::<PyResult<Vec<_>>>()?;
    Ok(vectors.into_iter().map(Place::from).zip(alphas).collect())
}

/// Does what is requested, and writes the result to the folder `out`.
pub fn run(
    py: Python<'_>,
    request: Request,
    out: PathBuf,
    options: PyOptions,
    card: String,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let options = options.parse()?;
    blocking::run_json(py, progress.as_ref(), |control| {
        write::run(&Plan::new(request, options, control)?, &out, &card, control)
    })
}

/// What [`run`] would do, from headers and configs alone.
pub fn check(py: Python<'_>, request: Request, out: Option<PathBuf>, options: PyOptions) -> PyResult<String> {
    let options = options.parse()?;
    blocking::run(py, None, |control| Plan::new(request, options, control)?.to_json(out.as_deref()))
}
