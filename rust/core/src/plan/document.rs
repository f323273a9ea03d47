//! A plan as `check` and `--dry-run` show it (`taskvec/plan/1`); `python/taskvec/check_result.py` reads it.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::format::blocks::BLOCK;
use crate::plan::budget::Budget;
use crate::plan::layers::LayerFactor;
use crate::plan::matching::problems::{self, Problem};
use crate::plan::options::AlphaRule;
use crate::plan::{Counts, Plan, inputs};
use crate::system::os;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    verb: &'static str,
    compatible: bool,
    problems: &'a [Problem],
    notes: &'a [String],
    warnings: &'a [String],
    inputs: Vec<Input<'a>>,
    tensors: Tensors,
    bytes: Bytes,
    memory: Memory,
    disk: Disk,
    io: String,
    io_reason: &'a str,
    alpha_rules: Vec<Rule<'a>>,
    layers: &'a [LayerFactor],
}

#[derive(Serialize)]
struct Input<'a> {
    role: &'a str,
    name: &'a str,
    files: usize,
    tensors: usize,
    /// Of its weight files.
    bytes: u64,
    remote: bool,
}

/// How many tensors get which treatment, as documents count them.
#[derive(Serialize)]
pub struct Tensors {
    combined: u64,
    copied: u64,
    converted: u64,
    grafted: u64,
}

impl From<Counts> for Tensors {
    fn from(Counts { combined, copied, converted, grafted, .. }: Counts) -> Self {
        Self { combined, copied, converted, grafted }
    }
}

#[derive(Serialize)]
struct Bytes {
    read: u64,
    write: u64,
}

#[derive(Serialize)]
struct Memory {
    budget: u64,
    planned: u64,
    least: u64,
    threads: usize,
    windows: usize,
    window_bytes: u64,
    streaming: u64,
}

#[derive(Serialize)]
struct Disk {
    needed: u64,
    /// `None` where the system does not say.
    free: Option<u64>,
}

#[derive(Serialize)]
struct Rule<'a> {
    pattern: &'a str,
    alpha: &'a str,
    /// Whose factor it decides.
    tensors: u64,
}

impl Plan {
    /// The document. The free space is that on the disk of `out`, or of the current folder.
    ///
    /// # Errors
    /// None that can happen: all keys are text.
    pub fn to_json<'a>(&'a self, out: Option<&Path>) -> Result<String> {
        let input = |input: &'a inputs::Input| {
            let Checkpoint { label, shards, tensors, place, .. } = &*input.checkpoint;
            let bytes = shards.iter().map(|shard| shard.size).sum();
            let (files, tensors, remote) = (shards.len(), tensors.len(), place.remote.is_some());
            Input { role: &input.role, name: label, files, tensors, bytes, remote }
        };
        let rules = self.options.alpha_rules.iter().zip(&self.rule_counts);
        let rule = |(rule, &tensors): (&'a AlphaRule, &u64)| Rule {
            pattern: rule.pattern.as_str(),
            alpha: &rule.alpha.text,
            tensors,
        };
        let Budget { bytes: budget, planned, least, threads, workers, window_blocks, streaming, .. } = self.budget;
        // What packed frames take is known only in the end: hardly ever more than the dense form.
        let of_one = if self.layout.packed { self.layout.dense_bytes() } else { self.layout.bytes() };
        let needed = of_one * self.budget.outputs as u64;
        let told = if self.options.kinds { problems::told(&self.problems) } else { Vec::new() };
        let document = Document {
            schema: "taskvec/plan/1",
            verb: self.request.verb(),
            compatible: self.problems.is_empty(),
            problems: if self.options.kinds { &told } else { &self.problems },
            notes: &self.notes,
            warnings: &self.warnings,
            inputs: self.inputs.list.iter().map(input).collect(),
            tensors: self.counts.into(),
            bytes: Bytes { read: self.read_bytes, write: needed },
            memory: Memory {
                budget,
                planned,
                least,
                threads,
                windows: workers,
                window_bytes: window_blocks * BLOCK,
                streaming,
            },
            disk: Disk { needed, free: existing(out.unwrap_or(Path::new("."))).and_then(os::free_space) },
            io: self.io.to_string(),
            io_reason: &self.io_reason,
            alpha_rules: rules.map(rule).collect(),
            layers: &self.layers,
        };
        to_text(&document)
    }
}

/// The folder itself, or the nearest one above it that exists.
fn existing(path: &Path) -> Option<&Path> {
    path.ancestors().map(|a| if a.as_os_str().is_empty() { Path::new(".") } else { a }).find(|a| a.exists())
}

/// A document of ours as JSON text. It may be long, so there is no value of it before.
pub fn to_text(document: &impl Serialize) -> Result<String> {
    serde_json::to_string(document).map_err(|error| Error::Usage(format!("this has no form in JSON: {error}")))
}

/// A document of ours as a JSON value. It cannot fail for documents whose keys are text, as all of them are.
pub fn to_value(document: &impl Serialize) -> Result<Value> {
    serde_json::to_value(document).map_err(|error| Error::Usage(format!("this has no form in JSON: {error}")))
}
