//! `taskvec.json` (for a vector `vector.json`): what an output was made from and how, so that it can be verified and
//! made again. The same run gives the same bytes, so it contains no times, thread counts, memory budgets or absolute
//! paths.

use std::io::{BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::NUMERIC_SPEC;
use crate::checkpoint::Checkpoint;
use crate::codec::scaled::encode::Requantised;
use crate::numeric::stats::Stats;
use crate::output::effect::{Again, Effect, Sum};
use crate::output::tensor_entries::{ByTensor, Tensors};
use crate::plan::Plan;
use crate::plan::layout::TensorPlan;
use crate::plan::output::Output;

/// One file of the output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path below the output, with `/`.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// XXH3-128 of its block digests.
    pub xxh3_128: String,
    /// SHA-256, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    tool: Value,
    numeric_spec: u32,
    verb: &'static str,
    inputs: Vec<Value>,
    recipe: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<Vector<'a>>,
    /// See [`crate::plan::inputs::Description`].
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Value>,
    files: &'a [FileEntry],
    notes: &'a [String],
    effect: Effect,
    #[serde(skip_serializing_if = "Option::is_none")]
    requantised: Option<Again>,
    tensors: Tensors<'a>,
}

#[derive(Serialize)]
struct Vector<'a> {
    encoding: &'static str,
    tied: Option<bool>,
    exceptions: u64,
    exceptions_by_tensor: ByTensor<'a>,
}

/// What is known after a run, in addition to its plan.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    /// Figures of every tensor of the layout.
    pub stats: &'a [Stats],
    /// What quantising again did to every tensor of the layout; empty if the plan does not.
    pub requantised: &'a [Requantised],
    /// Every file of the output except the manifest.
    pub files: &'a [FileEntry],
    /// SHA-256 of the inputs' shards, by input and shard. `None` if not requested; an entry is `None` if it was not
    /// computed.
    pub input_sha256: Option<&'a [Vec<Option<String>>]>,
    /// The number of exceptions of each tensor that has any (of a vector only).
    pub exceptions: &'a [(u32, u64)],
}

impl Finished<'_> {
    /// The number of exceptions of all tensors.
    pub fn all_exceptions(&self) -> u64 {
        self.exceptions.iter().map(|(_, count)| count).sum()
    }
}

/// Figures of a whole run.
pub fn total(plan: &Plan, stats: &[Stats]) -> Effect {
    let mut sum = Sum::default();
    for (tensor, stats) in plan.layout.tensors.iter().zip(stats).filter(|(_, stats)| stats.elements > 0) {
        sum.add(stats, alpha(tensor));
    }
    figures(plan, &sum)
}

/// What quantising again did to a whole run; `None` if the plan does not. The figures of bf16 output are those of all
/// tensors, as the figures of the output are: what is not quantised would be the same there.
pub fn again(plan: &Plan, stats: &[Stats], found: &[Requantised]) -> Option<Again> {
    let (mut sum, mut total) = (Sum::default(), Requantised::default());
    for ((tensor, found), stats) in plan.layout.tensors.iter().zip(found).zip(stats) {
        if found.plain.elements > 0 {
            sum.add(&found.plain, alpha(tensor));
            total.add(&by_block(plan, tensor, found));
        } else if stats.elements > 0 {
            sum.add(stats, alpha(tensor));
        }
    }
    (!found.is_empty()).then(|| Again::new(&total, &sum))
}

/// What quantising again did to one tensor.
pub(super) fn of_requantised(plan: &Plan, tensor: &TensorPlan, found: &Requantised) -> Again {
    let mut sum = Sum::default();
    sum.add(&found.plain, alpha(tensor));
    Again::new(&by_block(plan, tensor, found), &sum)
}

/// The same figures, where a tensor under one scale is one block: it was worked on in parts.
fn by_block(plan: &Plan, tensor: &TensorPlan, found: &Requantised) -> Requantised {
    let scaled = plan.inputs.scaled(tensor.from);
    if scaled.is_none_or(|scaled| !scaled.format.whole) {
        return *found;
    }
    let kept = u64::from(found.kept > 0);
    Requantised { copied: 1 - kept, kept, ..*found }
}

/// Figures of one tensor.
pub fn of_tensor(plan: &Plan, tensor: &TensorPlan, stats: &Stats) -> Effect {
    let mut sum = Sum::default();
    sum.add(stats, alpha(tensor));
    figures(plan, &sum)
}

fn figures(plan: &Plan, sum: &Sum) -> Effect {
    match plan.inputs.output {
        Output::Checkpoint => sum.effect(),
        Output::Vector => sum.of_vector(),
    }
}

/// The factor of a tensor to which at most one vector was applied; `None` if there were several.
fn alpha(tensor: &TensorPlan) -> Option<f32> {
    match tensor.terms[..] {
        // The request of a merge is the change that it computed.
        _ if tensor.recipe.is_some() => None,
        [] => Some(1.0),
        [term] => Some(term.alpha),
        _ => None,
    }
}

/// Writes the manifest. It has an entry for every tensor, so none of it is held in memory.
///
/// # Errors
/// Those of `out`.
pub fn write(plan: &Plan, finished: &Finished, mut out: impl Write) -> std::io::Result<()> {
    let of_vector = plan.inputs.output == Output::Vector;
    let described = plan.inputs.described();
    let document = Document {
        schema: plan.inputs.output.schema(),
        tool: json!({"name": "taskvec", "version": env!("CARGO_PKG_VERSION")}),
        numeric_spec: NUMERIC_SPEC,
        verb: plan.request.verb(),
        inputs: inputs(plan, finished.input_sha256),
        recipe: plan.recipe(),
        vector: of_vector.then(|| Vector {
            encoding: plan.options.encoding.name(),
            tied: described.tied,
            exceptions: finished.all_exceptions(),
            exceptions_by_tensor: ByTensor { plan, counts: finished.exceptions },
        }),
        config: described.config.filter(|_| of_vector),
        files: finished.files,
        notes: &plan.notes,
        effect: total(plan, finished.stats),
        requantised: again(plan, finished.stats, finished.requantised),
        tensors: Tensors { plan, finished },
    };
    if plan.layout.packed {
        serde_json::to_writer(&mut out, &document)?;
    } else {
        serde_json::to_writer_pretty(&mut out, &document)?;
    }
    out.write_all(b"\n")
}

fn inputs(plan: &Plan, hashed: Option<&[Vec<Option<String>>]>) -> Vec<Value> {
    let file = |input: usize, number: usize| {
        let Checkpoint { place, shards, .. } = &*plan.inputs.list[input].checkpoint;
        let shard = &shards[number];
        let mut entry =
            json!({"name": shard.name, "size": shard.size, "header_xxh3_128": format!("{:032x}", shard.header_digest)});
        // A digest that was computed from the bytes is preferred to the one that a cache or the Hub states.
        let hashed = hashed.and_then(|hashed| hashed[input][number].as_deref());
        if let Some(sha256) = hashed.or_else(|| place.sha256(&shard.name)) {
            entry["sha256"] = sha256.into();
        }
        entry
    };
    let entry = |(input, this): (usize, &crate::plan::inputs::Input)| {
        let Checkpoint { place, shards, label, adapter, .. } = &*this.checkpoint;
        let mut entry = json!({"role": this.role, "name": label});
        if let Some(origin) = &place.origin {
            entry["repo"] = origin.repo.as_str().into();
            entry["commit"] = origin.commit.as_str().into();
            if let Some(subfolder) = &origin.subfolder {
                entry["subfolder"] = subfolder.as_str().into();
            }
        }
        if place.streams() {
            entry["streamed"] = true.into();
        }
        if let Some(adapter) = adapter {
            entry["adapter"] = adapter.to_json();
        }
        // A vector that is written from others says how these were made: nothing else would.
        if let Some(vector) = this.vector.as_ref().filter(|_| plan.inputs.output == Output::Vector) {
            entry["made"] = vector.made.clone();
        }
        entry["files"] = (0..shards.len()).map(|number| file(input, number)).collect();
        entry
    };
    plan.inputs.list.iter().enumerate().map(entry).collect()
}

/// The names of the files that a manifest lists. Empty if the manifest cannot be read. Names that would lead out of the
/// folder are skipped.
pub fn file_names(path: &Path) -> Vec<String> {
    // What it says about tensors is long, and skipped.
    #[derive(Deserialize)]
    struct Files {
        files: Vec<Value>,
    }
    let read = |file| serde_json::from_reader::<_, Files>(BufReader::new(file)).ok();
    let files = std::fs::File::open(path).ok().and_then(read).map_or_else(Vec::new, |read| read.files);
    let names = files.iter().filter_map(|file| file["name"].as_str());
    names.filter(|name| stays_inside(name)).map(String::from).collect()
}

/// Whether a name is a relative path that stays inside its folder: no `..`, no root, no drive.
pub fn stays_inside(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)))
}
