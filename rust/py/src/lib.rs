//! The Python module `taskvec._core`: a thin layer over `taskvec_core`, without arithmetic of its own.
//!
//! There is one file for each verb that writes. Results are passed to Python as JSON text; `python/taskvec/results.py` gives them
//! types.

mod blocking;
mod errors;
mod options;
mod place;

mod advise;
mod apply;
mod graft;
mod job;
mod jobs;
mod live;
mod merge;
mod reading;
mod sweep;
mod transfer;
mod vectors;

use pyo3::prelude::*;

/// The compiled core of taskvec.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::advise::advise;
    #[pymodule_export]
    use super::apply::{apply, check_apply, check_sweep_apply, sweep_apply};
    #[pymodule_export]
    use super::graft::{check_graft, graft};
    #[pymodule_export]
    use super::jobs::{job_already, job_asked, job_commit, job_committed, job_plan, job_run, job_status};
    #[pymodule_export]
    use super::live::{Live, live_apply, live_read, live_transfer};
    #[pymodule_export]
    use super::merge::{check_merge, merge};
    #[pymodule_export]
    use super::reading::{diff, inspect, inspect_to, kind, verify};
    #[pymodule_export]
    use super::transfer::{check_sweep_transfer, check_transfer, sweep_transfer, transfer};
    #[pymodule_export]
    use super::vectors::{check_combine, check_convert, check_extract, combine, convert, extract, randomize};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("version", env!("CARGO_PKG_VERSION"))?;
        module.add("debug_build", cfg!(debug_assertions))
    }

    /// Whether a file of this name holds weights, in whatever format.
    #[pyfunction]
    fn is_weights(name: &str) -> bool {
        taskvec_core::checkpoint::sidecars::is_weights(name)
    }

    /// Whether a file with this path below a folder (with `/`) is a secret or was left behind by a training run.
    #[pyfunction]
    fn is_stray(path: &str) -> bool {
        taskvec_core::checkpoint::clutter::is_stray_path(path)
    }

    /// A tensor's name without wrappers' prefixes, as `--strip-prefix` removes them.
    #[pyfunction]
    fn strip_prefixes(name: &str, prefixes: Vec<String>) -> String {
        taskvec_core::plan::options::strip_prefixes(name, &prefixes).into_owned()
    }

    /// The instruction set in use; TASKVEC_SIMD in the environment lowers it.
    #[pyfunction]
    fn simd() -> PyResult<&'static str> {
        taskvec_core::numeric::simd::Isa::from_env().map(|isa| isa.name()).map_err(super::errors::raise)
    }
}
