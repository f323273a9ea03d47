//! What each of a list of α would do.

use pyo3::prelude::*;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::options::Alpha;
use taskvec_core::storage::place::Place;
use taskvec_core::verbs;

use crate::blocking;
use crate::errors::raise;
use crate::options::{PyOptions, alpha};
use crate::place::PyPlace;

/// The figures of every α on a target, for a minuend and a subtrahend, or for one vector.
#[pyfunction]
pub fn advise(
    py: Python<'_>,
    target: PyPlace,
    donors: Vec<PyPlace>,
    alphas: Vec<(String, f64)>,
    options: PyOptions,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let alphas = alphas.into_iter().map(alpha).collect::<PyResult<Vec<_>>>()?;
    let one = Alpha::new("1", 1.0).map_err(raise)?;
    let target = target.into();
    let mut donors = donors.into_iter().map(Place::from);
    let request = match (donors.next(), donors.next()) {
        (Some(minuend), Some(subtrahend)) => Request::Transfer { target, minuend, subtrahend, alpha: one },
        (vector, _) => {
            Request::Apply { target, vectors: vector.into_iter().map(|vector| (vector, one.clone())).collect() }
        }
    };
    let options = options.parse()?;
    blocking::run_json(py, progress.as_ref(), |control| verbs::advise::run(request, options, &alphas, control))
}
