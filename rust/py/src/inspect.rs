//! What is in a checkpoint or vector.

use std::io::{self, BufWriter, Write};

use pyo3::prelude::*;
use taskvec_core::checkpoint::open::Kind;
use taskvec_core::plan::document;
use taskvec_core::verbs::inspect as verb;

use crate::blocking;
use crate::errors::raise;
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
