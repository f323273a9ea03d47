//! One error type for the whole core. Every message is one sentence that names the file, the tensor and what to do.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong, grouped by who can fix it. Each variant has one exit code on the command line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request makes no sense, whatever the inputs hold (exit code 2).
    #[error("{0}")]
    Usage(String),
    /// Each input is valid, but they do not fit together, or a check failed (exit code 1).
    #[error("{0}")]
    Mismatch(String),
    /// An input is malformed, or changed while it was read (exit code 3).
    #[error("{}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        what: String,
    },
    /// The operating system refused an operation (exit code 4).
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, as in "cannot {action}".
        action: &'static str,
        /// What the system answered.
        source: io::Error,
    },
    /// A remote folder could not be read. The caller's own code fetches from it, and gets its own error back unchanged.
    #[error("{source}")]
    Remote {
        /// Whether the bytes it delivered are wrong (exit code 3). Then nothing computed from them can be reused.
        corrupt: bool,
        /// The caller's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The caller asked the job to stop (exit code 130).
    #[error("stopped before the end; run the same command again to continue from here")]
    Cancelled,
}

/// Shorthand for results of the core.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A malformed or changed input.
    pub fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), what: what.into() }
    }

    /// For `map_err`: attaches the path and what was tried to an I/O error.
    pub fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}
