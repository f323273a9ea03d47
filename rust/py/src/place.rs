//! Where an input is, as given by Python: a path, or a `Ref` (`taskvec.inputs.refs`), read attribute by attribute.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use taskvec_core::Result;
use taskvec_core::storage::place::{Origin, Place, Remote};

use crate::errors::from_python;

/// An input as Python passes it.
#[derive(FromPyObject)]
pub enum PyPlace {
    /// A `Ref`. Tried first: nothing else has these attributes.
    Ref(PyRef),
    /// A local folder.
    Path(PathBuf),
}

#[derive(FromPyObject)]
pub struct PyRef {
    path: PathBuf,
    // For a local folder this is its own name, which may not be valid text.
    name: OsString,
    origin: Option<PyOrigin>,
    remote: Option<PyRemote>,
}

#[derive(FromPyObject)]
struct PyOrigin {
    repo: String,
    commit: String,
    subfolder: Option<String>,
    sha256: BTreeMap<String, String>,
}

impl From<PyPlace> for Place {
    fn from(place: PyPlace) -> Self {
        match place {
            PyPlace::Path(root) => root.into(),
            PyPlace::Ref(PyRef { path, name, origin, remote }) => Self {
                root: path,
                name: Some(name.to_string_lossy().into_owned()),
                origin: origin.map(|PyOrigin { repo, commit, subfolder, sha256 }| Origin {
                    repo,
                    commit,
                    subfolder,
                    sha256,
                }),
                remote: remote.map(|remote| Arc::new(remote) as Arc<dyn Remote>),
            },
        }
    }
}

/// A remote folder from which Python fetches, on the thread that asks.
struct PyRemote {
    files: Vec<(String, u64)>,
    streams: bool,
    object: Py<PyAny>,
}

impl<'a, 'py> FromPyObject<'a, 'py> for PyRemote {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self {
            files: object.getattr("files")?.extract()?,
            streams: object.getattr("streams")?.extract()?,
            object: object.to_owned().unbind(),
        })
    }
}

impl fmt::Debug for PyRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PyRemote").field("files", &self.files).field("streams", &self.streams).finish_non_exhaustive()
    }
}

impl Remote for PyRemote {
    fn files(&self) -> &[(String, u64)] {
        &self.files
    }

    fn streams(&self) -> bool {
        self.streams
    }

    fn fetch(&self, file: usize, range: Range<u64>, take: &mut (dyn FnMut(&[u8]) -> Result<()> + Send)) -> Result<()> {
        let pieces = Python::attach(|py| {
            let made = self.object.bind(py).call_method1("fetch", (file, range.start, range.end))?;
            Ok(made.try_iter()?.unbind())
        })
        .map_err(from_python)?;
        loop {
            let next = Python::attach(|py| {
                pieces
                    .bind(py)
                    .clone()
                    .next()
                    .map(|piece| piece?.extract::<PyBackedBytes>().map_err(PyErr::from))
                    .transpose()
            });
            let Some(piece) = next.map_err(from_python)? else { return Ok(()) };
            // Called without the GIL, because it may wait until there is room.
            if let Err(stopped) = take(&piece) {
                // Best effort: closes the connection now, and not only when the iterator is garbage-collected.
                Python::attach(|py| drop(pieces.bind(py).call_method0("close")));
                return Err(stopped);
            }
        }
    }

    fn want(&self, file: usize) -> Result<()> {
        Python::attach(|py| self.object.bind(py).call_method1("want", (file,)).map(drop)).map_err(from_python)
    }

    fn local(&self, file: usize) -> Result<Option<PathBuf>> {
        Python::attach(|py| self.object.bind(py).call_method1("local", (file,))?.extract::<Option<PathBuf>>())
            .map_err(from_python)
    }
}
