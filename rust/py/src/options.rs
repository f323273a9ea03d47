//! The options of a call: what `taskvec.options.Options.to_json` gives, read by the core.

use pyo3::prelude::*;
use taskvec_core::plan::options::{Alpha, Options};

use crate::errors::raise;

/// The JSON document of the options.
pub struct PyOptions(String);

impl<'a, 'py> FromPyObject<'a, 'py> for PyOptions {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        object.call_method0("to_json")?.extract().map(Self)
    }
}

impl PyOptions {
    /// The options as the core takes them, checked.
    pub fn parse(&self) -> PyResult<Options> {
        Options::from_json(&self.0).map_err(raise)
    }
}

/// Converts a factor from Python: its text and its number.
pub fn alpha((text, value): (String, f64)) -> PyResult<Alpha> {
    Alpha::new(&text, value).map_err(raise)
}
