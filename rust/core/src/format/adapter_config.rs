//! `adapter_config.json`, as PEFT writes it: whether ΔW is `scale · B·A`, and with which rank and scale.
//!
//! Fails closed: an unknown key may change what the factors mean, so it is refused unless its value is empty.

use regex::RegexBuilder;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::json::Pairs;
use crate::storage::place::Place;
use crate::text::{brief, quote};

/// The file's name.
pub const FILE: &str = "adapter_config.json";
/// The longest file that is read. A config that names every module of the largest models has about 100 KB.
const MAX_CONFIG: u64 = 1 << 20;
/// The largest size of a compiled pattern. A larger one has no legitimate use.
const MAX_PATTERN: usize = 256 << 10;

/// The advice for adapters that are not supported.
pub const MERGE: &str = "merge it into its base model (`merge_and_unload` in PEFT) and use the merged checkpoint";

/// Keys that make an adapter more than a low-rank ΔW, each with what it stands for. They are refused unless empty.
const REFUSED: [(&str, &str); 10] = [
    ("use_dora", "DoRA"),
    ("lora_bias", "trained biases"),
    ("modules_to_save", "whole trained modules"),
    ("trainable_token_indices", "whole trained rows"),
    ("layer_replication", "repeated layers"),
    ("target_parameters", "adapted parameters instead of modules"),
    ("alora_invocation_tokens", "aLoRA"),
    ("use_qalora", "QA-LoRA"),
    ("megatron_config", "Megatron's parallel layers"),
    ("ensure_weight_tying", "tied adapters"),
];

/// Keys about how and for what an adapter was trained. Given the factors, ΔW does not depend on them.
const IGNORED: [&str; 18] = [
    "auto_mapping",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "runtime_config",
    "target_modules",
    "task_type",
    "base_model_name_or_path",
    "revision",
];

/// Initialisations of the factors that leave the base's weights unchanged. Others (PiSSA, OLoRA, …) move a part of the
/// base's weights into the factors, so that `scale · B·A` is not what was learnt.
const INITIAL: [&str; 3] = ["gaussian", "orthogonal", "eva"];

/// What an adapter's configuration says.
#[derive(Clone, Debug)]
pub struct AdapterConfig {
    /// The model that it was trained on, if the config names one.
    pub base: Option<String>,
    /// That model's revision, unless it is the default one.
    pub revision: Option<String>,
    /// Whether the adapted weights are stored as `[in, out]`.
    pub fan_in_fan_out: bool,
    /// XXH3-128 of the file.
    pub digest: u128,
    rank: u64,
    alpha: f64,
    rslora: bool,
    /// Regular expressions for the ends of module names, each with the value for these modules, in the file's order.
    ranks: Vec<(String, u64)>,
    alphas: Vec<(String, f64)>,
}

impl AdapterConfig {
    /// Reads and checks the `adapter_config.json` of a folder.
    pub fn read(place: &Place) -> Result<Self> {
        let path = place.path(FILE);
        let corrupt = |what: String| Error::corrupt(&path, format!("{what}; save the adapter again"));
        let Some(raw) = place.read(FILE, MAX_CONFIG)? else { return Err(corrupt("does not exist".into())) };
        let Pairs(pairs) = serde_json::from_slice::<Pairs<Value>>(&raw)
            .map_err(|error| corrupt(format!("is not a JSON object: {}", brief(&error))))?;
        let refuse = |what: String| Err(Error::Mismatch(format!("{}: {what}; {MERGE}", path.display())));
        let get = |key: &str| pairs.iter().find(|(name, _)| name == key).map_or(&Value::Null, |(_, value)| value);
        if get("peft_type").as_str() != Some("LORA") {
            return refuse(format!("`peft_type` is {}, but only LORA is supported", short(get("peft_type"))));
        }
        for (key, value) in &pairs {
            if let Some((_, kind)) = REFUSED.iter().find(|(refused, _)| refused == key).filter(|_| !is_empty(value)) {
                return refuse(format!(
                    "`{key}` is {} ({kind}), so the adapter is more than a low-rank ΔW",
                    short(value)
                ));
            }
            let fits = match key.as_str() {
                "bias" => value == "none" || value.is_null(),
                "init_lora_weights" => {
                    value.is_boolean() || value.is_null() || INITIAL.iter().any(|&initial| value == initial)
                }
                "peft_type" | "r" | "lora_alpha" | "use_rslora" | "fan_in_fan_out" => true,
                "rank_pattern" | "alpha_pattern" => true,
                key => IGNORED.contains(&key) || is_empty(value),
            };
            if !fits {
                let key = quote(key);
                return refuse(format!("{key} is {}, which changes what the factors mean", short(value)));
            }
        }
        let flag = |key: &str| match get(key) {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(*flag),
            value => Err(corrupt(format!("sets `{key}` to {}, which is neither true nor false", short(value)))),
        };
        let text = |key: &str| match get(key) {
            Value::Null => Ok(None),
            Value::String(text) if text.is_empty() => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            value => Err(corrupt(format!("sets `{key}` to {}, which is not a name", short(value)))),
        };
        let rank = |key: &str, value: &Value| match value.as_u64().filter(|&rank| rank > 0) {
            Some(rank) => Ok(rank),
            None => Err(corrupt(format!("sets {} to {}, which is not a rank", quote(key), short(value)))),
        };
        let alpha = |key: &str, value: &Value| match value.as_f64().filter(|alpha| alpha.is_finite()) {
            Some(alpha) => Ok(alpha),
            None => Err(corrupt(format!("sets {} to {}, which is not a number", quote(key), short(value)))),
        };
        Ok(Self {
            base: text("base_model_name_or_path")?,
            // `main` is the default revision.
            revision: text("revision")?.filter(|revision| revision != "main"),
            fan_in_fan_out: flag("fan_in_fan_out")?,
            digest: xxh3_128(&raw),
            rank: rank("r", get("r"))?,
            alpha: alpha("lora_alpha", get("lora_alpha"))?,
            rslora: flag("use_rslora")?,
            ranks: patterns(get("rank_pattern"), "rank_pattern", rank, corrupt)?,
            alphas: patterns(get("alpha_pattern"), "alpha_pattern", alpha, corrupt)?,
        })
    }

    /// Rank and scale of each of these modules.
    ///
    /// # Errors
    /// A pattern is not supported. It cannot be ignored, because the modules that it matches decide the result.
    pub fn scales(&self, place: &Place, modules: &[&str], control: &Control) -> Result<Vec<(u64, f64)>> {
        let ranks = chosen(&self.ranks, self.rank, place, modules, control)?;
        let alphas = chosen(&self.alphas, self.alpha, place, modules, control)?;
        let scale = |(rank, alpha): (u64, f64)| {
            let divisor = if self.rslora { (rank as f64).sqrt() } else { rank as f64 };
            (rank, alpha / divisor)
        };
        Ok(ranks.into_iter().zip(alphas).map(scale).collect())
    }

    /// As manifests and `inspect` show it.
    pub fn to_json(&self) -> Value {
        json!({
            "base_model": self.base,
            "revision": self.revision,
            "rank": self.rank,
            "alpha": self.alpha,
            "rslora": self.rslora,
            "config_xxh3_128": format!("{:032x}", self.digest),
        })
    }
}

/// For each module, the value of the first pattern that matches the end of its name. The match has to begin at the
/// start of the name or after a dot.
fn chosen<T: Copy>(
    patterns: &[(String, T)],
    default: T,
    place: &Place,
    modules: &[&str],
    control: &Control,
) -> Result<Vec<T>> {
    let mut found: Vec<Option<T>> = vec![None; modules.len()];
    for (pattern, value) in patterns {
        control.check()?;
        let regex = RegexBuilder::new(&format!(r"^(.*\.)?({pattern})$")).size_limit(MAX_PATTERN).build();
        let regex = regex.map_err(|_| {
            let what =
                format!("has the pattern {}, which is not a supported regular expression; {MERGE}", quote(pattern));
            Error::Mismatch(format!("{}: {what}", place.path(FILE).display()))
        })?;
        for (module, found) in modules.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
            *found = regex.is_match(module).then_some(*value);
        }
    }
    // A module whose name is itself a pattern, but is not matched by it, is looked up literally.
    let literal = |module: &str| patterns.iter().find(|(pattern, _)| pattern == module).map(|&(_, value)| value);
    Ok(modules.iter().zip(found).map(|(module, found)| found.or_else(|| literal(module)).unwrap_or(default)).collect())
}

fn patterns<T>(
    value: &Value,
    key: &str,
    parse: impl Fn(&str, &Value) -> Result<T>,
    corrupt: impl Fn(String) -> Error,
) -> Result<Vec<(String, T)>> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Object(map) => map.iter().map(|(name, value)| Ok((name.clone(), parse(name, value)?))).collect(),
        _ => Err(corrupt(format!("sets `{key}` to {}, which is not an object", short(value)))),
    }
}

/// Whether a value is null, false or empty, so that it sets nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn short(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text).replace('`', "\""),
        value => quote(&value.to_string()),
    }
}
