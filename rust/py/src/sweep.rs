//! Several α in one read: what the verbs share that write such a sweep.

use std::path::PathBuf;

use pyo3::prelude::*;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::options::Alpha;
use taskvec_core::plan::{Plan, sweep};
use taskvec_core::verbs::write;

use crate::blocking;
use crate::errors::raise;
use crate::options::{PyOptions, alpha};

/// Each α as its text and its number, with the text of its card.
pub type Variants = Vec<((String, f64), String)>;

/// The factor in the request of a sweep; the factors of the sweep take its place.
pub fn placeholder() -> PyResult<Alpha> {
    Alpha::new("1", 1.0).map_err(raise)
}

/// Writes an output for each variant below the folder `out`.
pub fn write(
    py: Python<'_>,
    request: &Request,
    variants: Variants,
    out: PathBuf,
    options: PyOptions,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let (alphas, cards): (Vec<_>, Vec<_>) = variants.into_iter().unzip();
    let alphas = alphas.into_iter().map(alpha).collect::<PyResult<Vec<_>>>()?;
    let options = options.parse()?;
    blocking::run_json(py, progress.as_ref(), |control| {
        write::sweep(&Plan::sweep(request, &alphas, &options, control)?, &cards, &out, control)
    })
}

/// What [`write`] would do, from headers and configs alone.
pub fn check(
    py: Python<'_>,
    request: &Request,
    alphas: Vec<(String, f64)>,
    out: Option<PathBuf>,
    options: PyOptions,
) -> PyResult<String> {
    let alphas = alphas.into_iter().map(alpha).collect::<PyResult<Vec<_>>>()?;
    let options = options.parse()?;
    blocking::run(py, None, |control| {
        sweep::to_json(&Plan::sweep(request, &alphas, &options, control)?, out.as_deref())
    })
}
