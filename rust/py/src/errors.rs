//! Converts errors of the core to Python exceptions; the only place that does.

use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError};
use pyo3::prelude::*;
use taskvec_core::Error;

/// The exception of `taskvec.errors` for an error. An exception that came from Python is returned unchanged.
pub fn raise(error: Error) -> PyErr {
    Python::attach(|py| convert(py, error).unwrap_or_else(|failed| failed))
}

/// The error for an exception that Python raised while it was fetching.
pub fn from_python(raised: PyErr) -> Error {
    let corrupt = Python::attach(|py| {
        let class = py.import("taskvec.errors").and_then(|errors| errors.getattr("CorruptError"));
        class.is_ok_and(|class| raised.is_instance(py, &class))
    });
    Error::Remote { corrupt, source: Box::new(raised) }
}

fn convert(py: Python<'_>, error: Error) -> PyResult<PyErr> {
    let message = error.to_string();
    let class = |name: &str| py.import("taskvec.errors")?.getattr(name);
    let made = match error {
        Error::Usage(_) => class("UsageError")?.call1((message,))?,
        Error::Mismatch(_) => class("MismatchError")?.call1((message,))?,
        Error::Corrupt { .. } => class("CorruptError")?.call1((message,))?,
        Error::Io { path, source, .. } => {
            class("StorageError")?.call1((source.raw_os_error(), message, path.display().to_string()))?
        }
        Error::Remote { source, .. } => {
            return Ok(match source.downcast::<PyErr>() {
                Ok(raised) => *raised,
                Err(other) => internal(other),
            });
        }
        // Reached only if a job was stopped without an exception of Python.
        Error::Cancelled => return Ok(PyKeyboardInterrupt::new_err(message)),
    };
    Ok(PyErr::from_value(made))
}

/// For errors that cannot happen but have to be handled, such as JSON of our own that cannot be encoded.
pub fn internal(error: impl std::fmt::Display) -> PyErr {
    PyOSError::new_err(error.to_string())
}
