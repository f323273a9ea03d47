//! The verbs that only read: `inspect`, `diff` and `verify`.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use pyo3::prelude::*;
use taskvec_core::checkpoint::open::Kind;
use taskvec_core::plan::document;
use taskvec_core::verbs::inspect as verb;

use crate::blocking;
use crate::errors::raise;
use crate::options::PyOptions;
use crate::place::PyPlace;

/// Bytes that are handed to Python at once.
const PIECE: usize = 64 << 10;

/// Describes a checkpoint or vector from its headers; without the list of its tensors if `listed` is false.
#[pyfunction]
#[pyo3(signature = (place, listed=true))]
pub fn inspect(py: Python<'_>, place: PyPlace, listed: bool) -> PyResult<String> {
    let place = place.into();
    blocking::run(py, None, |control| document::to_text(&verb::inspect(&place, listed, control)?))
}

/// Describes a checkpoint or vector with all of its tensors, in the text that is meant for people, and hands it to
/// `write` piece by piece: it may be long. Returns the warnings, among them those of `warnings`, which is
/// called once the headers are read.
#[pyfunction]
pub fn inspect_to(
    py: Python<'_>,
    place: PyPlace,
    warnings: Bound<'_, PyAny>,
    write: Bound<'_, PyAny>,
) -> PyResult<Vec<String>> {
    let place = place.into();
    let mut found = blocking::run(py, None, |control| verb::inspect(&place, true, control))?;
    found.warnings.extend(warnings.call0()?.extract::<Vec<String>>()?);
    let mut out = BufWriter::with_capacity(PIECE, Pieces(write));
    // An exception of Python comes back as it was.
    found.write(&mut out).and_then(|()| out.flush())?;
    Ok(found.warnings)
}

/// A function of Python that takes text, which is ASCII.
struct Pieces<'py>(Bound<'py, PyAny>);

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        self.0.call1((text,))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
