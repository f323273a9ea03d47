//! What of a request decides the output's bytes: for the manifest, and for a digest that tells whether a run may continue
//! another one.

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

use crate::NUMERIC_SPEC;
use crate::checkpoint::shard::{OnDisk, Store};
use crate::codec::scaled::encode::Scales;
use crate::plan::Plan;
use crate::plan::inputs::{Input, Origin, Request};
use crate::plan::merge::Document;
use crate::plan::options::{Alpha, RoundingMode, Vocab};

impl Plan {
    /// A digest of everything that decides the output's bytes. A run continues an interrupted one only if both have the
    /// same.
    pub fn id(&self) -> u128 {
        let inputs: Vec<Value> = self.inputs.list.iter().map(identity).collect();
        let tied: Vec<_> = self.inputs.origins.iter().map(|(origin, _)| vector_tied(origin)).collect();
        let spec = (env!("CARGO_PKG_VERSION"), NUMERIC_SPEC);
        // The document of a merge may be long.
        let document = self.request.document().map(Document::digest);
        let recipe = if document.is_some() { self.rounding() } else { self.recipe() };
        let mut id = json!([spec, self.request.verb(), recipe, inputs, tied, self.layout.packed]);
        if let (Some(document), Some(list)) = (document, id.as_array_mut()) {
            list.push(document.into());
        }
        xxh3_128(id.to_string().as_bytes())
    }

    /// A digest of the first input's files as they are on the disk. It changes if somebody changes or replaces them.
    pub fn base_id(&self) -> u128 {
        xxh3_128(identity(&self.inputs.list[0]).to_string().as_bytes())
    }

    /// How results are rounded, for the manifest of a merge.
    fn rounding(&self) -> Value {
        match self.options.rounding {
            RoundingMode::Stochastic => json!({"rounding": "stochastic", "seed": self.options.seed}),
            RoundingMode::Nearest => json!({"rounding": "nearest", "seed": null}),
        }
    }

    /// The options that decide the output's bytes, for the manifest.
    pub fn recipe(&self) -> Value {
        let options = &self.options;
        if let Some(document) = self.request.document() {
            let mut recipe = self.rounding();
            recipe["document"] = document.recipe();
            return recipe;
        }
        let alpha = |alpha: &Alpha| json!({"text": alpha.text, "bits": format!("0x{:08x}", alpha.value.to_bits())});
        let alphas: Vec<Value> = self.inputs.origins.iter().filter_map(|(_, a)| a.as_ref().map(alpha)).collect();
        let rules: Vec<Value> = options
            .alpha_rules
            .iter()
            .map(|rule| json!({"pattern": rule.pattern.as_str(), "alpha": alpha(&rule.alpha)}))
            .collect();
        let patterns = |list: &[regex::Regex]| list.iter().map(|p| p.as_str().to_owned()).collect::<Vec<_>>();
        let stochastic = options.rounding == RoundingMode::Stochastic;
        let mut recipe = json!({
            "alpha": alphas,
            "alpha_rules": rules,
            "dtype": options.dtype.map(|float| float.dtype().name()),
            "rounding": if stochastic { "stochastic" } else { "nearest" },
            "seed": stochastic.then_some(options.seed),
            "vocab": if options.vocab == Vocab::Common { "common" } else { "strict" },
            "include": patterns(&options.include),
            "exclude": patterns(&options.exclude),
            "strip_prefix": options.prefixes,
        });
        // Only if given, so that the manifests of runs without it stay as they were.
        if let Some(base) = &options.base {
            recipe["base"] = base.as_str().into();
        }
        if !options.maps.is_empty() {
            recipe["map"] = options.maps.iter().map(|pair| pair.text.as_str()).collect();
        }
        if let Some(scales) = options.requantise {
            recipe["requantise"] = if scales == Scales::Keep { "keep" } else { "fresh" }.into();
        }
        if let Some(schedule) = &options.schedule {
            recipe["schedule"] = schedule.text.as_str().into();
        }
        if !self.inputs.grafts.is_empty() {
            let take = |(input, list): &(u32, Vec<regex::Regex>)| json!({"donor": self.inputs.list[*input as usize].role, "take": patterns(list)});
            return json!({"grafts": self.inputs.grafts.iter().map(take).collect::<Vec<_>>()});
        }
        if let Request::Randomize { seed, .. } = self.request {
            recipe["seed"] = seed.into();
        }
        recipe
    }
}

/// Whether the donors of a vector tied their output head, as far as its description says.
pub(in crate::plan) fn vector_tied(origin: &Origin) -> Option<bool> {
    match origin {
        Origin::Pair { .. } => None,
        Origin::Vector { tied, .. } => *tied,
    }
}

/// What distinguishes one state of an input from another: its files and its configuration.
fn identity(input: &Input) -> Value {
    let place = &input.checkpoint.place;
    let shards: Vec<Value> = input
        .checkpoint
        .shards
        .iter()
        .map(|shard| {
            let digest = format!("{:032x}", shard.header_digest);
            match &shard.store {
                Store::Disk(OnDisk { identity: i, .. }) => {
                    json!([
                        shard.name,
                        i.device,
                        i.inode,
                        i.size,
                        i.mtime_ns.to_string(),
                        i.ctime_ns.to_string(),
                        digest
                    ])
                }
                // Also whether it is streamed: then its SHA-256 was not checked, and the manifest says so.
                Store::Remote { remote, .. } => {
                    let commit = place.origin.as_ref().map(|origin| &origin.commit);
                    json!([shard.name, shard.size, commit, place.sha256(&shard.name), remote.streams(), digest])
                }
            }
        })
        .collect();
    // The configuration says whether the output head is tied, and that decides bytes too.
    let config = input.checkpoint.config.raw.as_deref().map(|raw| format!("{:032x}", xxh3_128(raw)));
    // And the scale of an adapter's factors.
    let adapter = input.checkpoint.adapter.as_ref().map(|adapter| format!("{:032x}", adapter.digest));
    json!([input.role, shards, config, adapter])
}
