//! Several checkpoints, merged as a document says.

use std::path::PathBuf;

use pyo3::prelude::*;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::merge::Document;

use crate::errors::raise;
use crate::job;
use crate::options::PyOptions;
use crate::place::PyPlace;

fn request(inputs: Vec<PyPlace>, document: &str) -> PyResult<Request> {
    let document = Document::parse(document, inputs.len()).map_err(raise)?.into();
    Ok(Request::Merge { inputs: inputs.into_iter().map(Into::into).collect(), document })
}

/// Writes what the document makes of the inputs to the folder `out`.
#[pyfunction]
pub fn merge(
    py: Python<'_>,
    inputs: Vec<PyPlace>,
    document: &str,
    out: PathBuf,
    options: PyOptions,
    card: String,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    job::run(py, request(inputs, document)?, out, options, card, progress)
}

/// What `merge` would do, from headers and configs alone.
#[pyfunction]
pub fn check_merge(
    py: Python<'_>,
    inputs: Vec<PyPlace>,
    document: &str,
    out: Option<PathBuf>,
    options: PyOptions,
) -> PyResult<String> {
    job::check(py, request(inputs, document)?, out, options)
}
