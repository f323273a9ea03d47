//! The one place where an error of the core becomes a Python exception.

use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError};
use pyo3::prelude::*;
use taskvec_core::Error;

/// The exception of `taskvec.errors` for an error.
pub fn raise(error: Error) -> PyErr {
    Python::attach(|py| convert(py, &error).unwrap_or_else(|failed| failed))
}

fn convert(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let message = error.to_string();
    let class = |name: &str| py.import("taskvec.errors")?.getattr(name);
    let made = match error {
        Error::Usage(_) => class("UsageError")?.call1((message,))?,
        Error::Mismatch(_) => class("MismatchError")?.call1((message,))?,
        Error::Corrupt { .. } => class("CorruptError")?.call1((message,))?,
        Error::Io { path, source, .. } => {
            class("StorageError")?.call1((source.raw_os_error(), message, path.display().to_string()))?
        }
        // Reached only if a caller stopped a job without an exception of its own on the way.
        Error::Cancelled => return Ok(PyKeyboardInterrupt::new_err(message)),
    };
    Ok(PyErr::from_value(made))
}

/// For what cannot go wrong but has to be handled: JSON of our own that does not encode.
pub fn internal(error: impl std::fmt::Display) -> PyErr {
    PyOSError::new_err(error.to_string())
}
