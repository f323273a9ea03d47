//! What a writing verb returns (`taskvec/result/1`), and with several α (`taskvec/sweep/1`).

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::format::blocks::BLOCK;
use crate::numeric::simd::Isa;
use crate::output::effect::{Again, Effect};
use crate::output::seal::Sealed;
use crate::plan::Plan;
use crate::plan::document::Tensors;
use crate::plan::output::Output;
use crate::verbs::part::Computed;

/// The result document; its members are in the order of the JSON. `python/taskvec/results.py` reads it.
#[derive(Serialize)]
pub struct Written<'a> {
    schema: &'static str,
    verb: &'static str,
    out: String,
    /// All files of the output, the manifest included.
    files: usize,
    tensors: Tensors,
    elements: u64,
    bytes: Bytes,
    seconds: f64,
    engine: Engine,
    effect: Effect,
    /// `None` unless a quantised target was quantised again.
    requantised: Option<Again>,
    /// `None` unless the output is a vector.
    exceptions: Option<u64>,
    notes: &'a [String],
    /// What should make the user stop and look.
    pub warnings: Vec<String>,
}

/// The result of a sweep: the results of its outputs, and what they share.
#[derive(Serialize)]
pub struct Sweep<'a> {
    schema: &'static str,
    verb: &'static str,
    out: String,
    bytes: Bytes,
    seconds: f64,
    results: Vec<Written<'a>>,
}

impl<'a> Sweep<'a> {
    /// The results of outputs in the folder `out`.
    pub fn new(plan: &Plan, out: &Path, results: Vec<Written<'a>>, started: Instant) -> Self {
        // Each tells what it takes; one that takes the most takes all that the others do.
        let read = results.iter().map(|written| written.bytes.read).max().unwrap_or(0);
        let bytes = Bytes { read, written: results.iter().map(|written| written.bytes.written).sum() };
        let (verb, out, seconds) = (plan.request.verb(), out.display().to_string(), started.elapsed().as_secs_f64());
        Self { schema: "taskvec/sweep/1", verb, out, bytes, seconds, results }
    }
}

#[derive(Serialize)]
struct Bytes {
    read: u64,
    written: u64,
}

#[derive(Serialize)]
struct Engine {
    threads: usize,
    windows: usize,
    window_bytes: u64,
    io: String,
    simd: &'static str,
    direct_writes: bool,
    resumed_bytes: u64,
}

impl<'a> Written<'a> {
    /// The result of a run that computed and sealed a folder.
    pub fn new(plan: &'a Plan, out: &Path, computed: &Computed, sealed: Sealed, started: Instant, isa: Isa) -> Self {
        let mut warnings = sealed.effect.warnings(plan);
        warnings.extend(sealed.requantised.map(|again| again.warning(&sealed.effect)));
        let nothing = plan.counts.combined == 0 && plan.counts.grafted == 0;
        let merged = plan.inputs.outline.is_some();
        if nothing && plan.inputs.output == Output::Checkpoint && !merged {
            warnings.push("no tensor was combined: the output is the target without any vector".into());
        }
        if !computed.synced {
            warnings.push(format!(
                "the file system of {} does not support fsync, so nothing confirms that the files are on the disk; after a power cut, check the output with `taskvec verify`",
                out.display()
            ));
        }
        let engine = Engine {
            windows: plan.budget.workers,
            window_bytes: plan.budget.window_blocks * BLOCK,
            direct_writes: computed.direct,
            resumed_bytes: computed.resumed,
            ..Engine::idle(plan, isa)
        };
        Self {
            files: sealed.order.len(),
            bytes: Bytes { read: plan.read_bytes, written: sealed.written },
            seconds: started.elapsed().as_secs_f64(),
            engine,
            requantised: sealed.requantised,
            exceptions: (plan.inputs.output == Output::Vector).then_some(sealed.exceptions),
            ..Self::of(plan, out, isa, sealed.effect, warnings)
        }
    }

    /// The result of a run that only had to finish the renames of an earlier run. The figures come from the manifest.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn ended_commit(plan: &'a Plan, out: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct File {
            size: u64,
        }
        #[derive(Deserialize)]
        struct Vector {
            exceptions: u64,
        }
        #[derive(Deserialize)]
        struct Manifest {
            files: Vec<File>,
            effect: Effect,
            requantised: Option<Again>,
            vector: Option<Vector>,
        }
        let path = out.join(plan.inputs.output.manifest());
        let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|error| Error::corrupt(&path, error.to_string()))?;
        let mut warnings = manifest.effect.warnings(plan);
        warnings.extend(manifest.requantised.map(|again| again.warning(&manifest.effect)));
        let isa = Isa::from_env()?;
        Ok(Self {
            files: manifest.files.len() + 1,
            bytes: Bytes { read: 0, written: manifest.files.iter().map(|file| file.size).sum() },
            engine: Engine { resumed_bytes: plan.layout.bytes(), ..Engine::idle(plan, isa) },
            requantised: manifest.requantised,
            exceptions: manifest.vector.map(|vector| vector.exceptions),
            ..Self::of(plan, out, isa, manifest.effect, warnings)
        })
    }

    fn of(plan: &'a Plan, out: &Path, isa: Isa, effect: Effect, warnings: Vec<String>) -> Self {
        Self {
            schema: "taskvec/result/1",
            verb: plan.request.verb(),
            out: out.display().to_string(),
            files: 0,
            tensors: plan.counts.into(),
            elements: plan.counts.elements,
            bytes: Bytes { read: 0, written: 0 },
            seconds: 0.0,
            engine: Engine::idle(plan, isa),
            effect,
            requantised: None,
            exceptions: None,
            notes: &plan.notes,
            warnings,
        }
    }
}

impl Engine {
    /// The figures of a run that computes nothing.
    fn idle(plan: &Plan, isa: Isa) -> Self {
        Self {
            threads: plan.budget.threads,
            windows: 0,
            window_bytes: 0,
            io: plan.io.to_string(),
            simd: isa.name(),
            direct_writes: false,
            resumed_bytes: 0,
        }
    }
}
