//! `taskvec.json` (for a vector `vector.json`): what an output was made from and how, so that it can be verified and
//! made again. The same run gives the same bytes, so it contains no times, thread counts, memory budgets or absolute
//! paths.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use crate::NUMERIC_SPEC;
use crate::checkpoint::Checkpoint;
use crate::codec::scaled::encode::Requantised;
use crate::numeric::stats::Stats;
use crate::output::effect::{Again, Effect, Sum};
use crate::plan::Plan;
use crate::plan::layout::TensorPlan;
use crate::plan::output::Output;

/// One file of the output.
#[derive(Clone, Debug, Serialize)]
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
struct TensorEntry<'a> {
    name: &'a str,
    dtype: &'static str,
    /// `combined`, `converted` or `copied`.
    action: &'static str,
    /// The role of the input that a grafted tensor comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alpha: Vec<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<Effect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requantised: Option<Again>,
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
    vector: Option<Value>,
    /// See [`crate::plan::inputs::Description`].
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Value>,
    files: &'a [FileEntry],
    notes: &'a [String],
    effect: Effect,
    #[serde(skip_serializing_if = "Option::is_none")]
    requantised: Option<Again>,
    tensors: Vec<TensorEntry<'a>>,
}

/// What is known after a run, in addition to its plan.
#[derive(Debug)]
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
    /// The total number of exceptions, and the number for each tensor that has any (`extract` only).
    pub exceptions: (u64, &'a [(u32, u64)]),
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
fn of_requantised(plan: &Plan, tensor: &TensorPlan, found: &Requantised) -> Again {
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
        [] => Some(1.0),
        [term] => Some(term.alpha),
        _ => None,
    }
}

/// The manifest's bytes.
pub fn write(plan: &Plan, finished: &Finished) -> serde_json::Result<Vec<u8>> {
    let base = plan.inputs.base();
    let of_vector = plan.inputs.output == Output::Vector;
    let described = plan.inputs.described();
    let scaled = plan.inputs.origins.iter().any(|(_, alpha)| alpha.is_some());
    let requantised = finished.requantised.iter().map(Some).chain(std::iter::repeat(None));
    let tensors = plan.layout.tensors.iter().zip(finished.stats).zip(requantised).map(|((tensor, stats), again)| {
        let converted = !plan.inputs.is_kept(tensor);
        TensorEntry {
            name: &base.tensors[tensor.tensor as usize].name,
            dtype: if tensor.requantised { base.dtype_name(tensor.tensor) } else { tensor.dtype.name() },
            action: match (tensor.terms.is_empty(), converted) {
                _ if tensor.from.input != 0 => "grafted",
                (false, _) => "combined",
                (true, true) => "converted",
                (true, false) => "copied",
            },
            from: (tensor.from.input != 0).then(|| &*plan.inputs.list[tensor.from.input as usize].role),
            alpha: if scaled { tensor.terms.iter().map(|term| term.alpha).collect() } else { Vec::new() },
            effect: (stats.elements > 0).then(|| of_tensor(plan, tensor, stats)),
            requantised: again
                .filter(|found| found.plain.elements > 0)
                .map(|found| of_requantised(plan, tensor, found)),
        }
    });
    let document = Document {
        schema: plan.inputs.output.schema(),
        tool: json!({"name": "taskvec", "version": env!("CARGO_PKG_VERSION")}),
        numeric_spec: NUMERIC_SPEC,
        verb: plan.request.verb(),
        inputs: inputs(plan, finished.input_sha256),
        recipe: plan.recipe(),
        vector: of_vector.then(|| {
            let tied = described.tied;
            let (exceptions, counts) = finished.exceptions;
            let name = |place: u32| &base.tensors[plan.layout.tensors[place as usize].tensor as usize].name;
            let by_tensor: serde_json::Map<String, Value> = counts.iter().map(|&(place, count)| (name(place).clone(), count.into())).collect();
            json!({"encoding": plan.options.encoding.name(), "tied": tied, "exceptions": exceptions, "exceptions_by_tensor": by_tensor})
        }),
        config: described.config.filter(|_| of_vector),
        files: finished.files,
        notes: &plan.notes,
        effect: total(plan, finished.stats),
        requantised: again(plan, finished.stats, finished.requantised),
        tensors: tensors.collect(),
    };
    let mut bytes = if plan.layout.packed { short(&document)? } else { serde_json::to_vec_pretty(&document)? };
    bytes.push(b'\n');
    Ok(bytes)
}

/// The document without white space, and without figures that no vector has: beside few changes, the description of many
/// tensors would be long.
fn short(document: &Document) -> serde_json::Result<Vec<u8>> {
    let mut document = serde_json::to_value(document)?;
    for tensor in document["tensors"].as_array_mut().into_iter().flatten() {
        if let Some(effect) = tensor["effect"].as_object_mut() {
            OF_CHECKPOINTS.iter().for_each(|&figure| drop(effect.remove(figure)));
        }
    }
    serde_json::to_vec(&document)
}

/// What only a target's rounding decides.
const OF_CHECKPOINTS: [&str; 5] = ["norm_requested", "norm_effective", "gain", "cosine", "survival"];

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
    let Some(document) = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()) else {
        return Vec::new();
    };
    let files = document["files"].as_array().into_iter().flatten();
    files.filter_map(|file| file["name"].as_str()).filter(|name| stays_inside(name)).map(String::from).collect()
}

/// Whether a name is a relative path that stays inside its folder: no `..`, no root, no drive.
pub fn stays_inside(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)))
}
