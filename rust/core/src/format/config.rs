//! What arithmetic on weights needs to know from `config.json`, and the changes that are made to it: dtypes, and no quantisation.

use std::cell::RefCell;
use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::format::config_edits::{self, Edit, string_end};
use crate::numeric::dtype::Float;
use crate::storage::place::Place;
use crate::text::brief;

/// The file's name.
pub const FILE: &str = "config.json";
/// The longest config.json that is read.
const MAX_CONFIG: u64 = 100_000_000;

/// The keys under which quantisation is described.
const QUANTISATION: [&str; 2] = ["quantization_config", "compression_config"];

/// What is needed from config.json. A field is `None` if the file is absent or does not have it. If the top level does
/// not have it, that of the language model inside counts, whatever its name and however deep it is.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `tie_word_embeddings`.
    pub tied: Option<bool>,
    /// `quant_method` of `quantization_config`; `unknown` if that has none.
    pub quantized: Option<String>,
    /// What it says about quantisation: `quantization_config`, or `compression_config`, as older files call it.
    pub quantisation: Option<Value>,
    /// `vocab_size`.
    pub vocab_size: Option<u64>,
    /// Every `model_type`, at the top and in sub-configs.
    pub model_types: Vec<String>,
    /// The file's own bytes.
    pub raw: Option<Vec<u8>>,
}

impl Config {
    /// Reads the `config.json` of a checkpoint.
    pub fn read(place: &Place) -> Result<Self> {
        let path = place.path(FILE);
        let Some(raw) = place.read(FILE, MAX_CONFIG)? else { return Ok(Self::default()) };
        let object: Map<String, Value> = serde_json::from_slice(&plain_numbers(&raw)).map_err(|error| {
            Error::corrupt(&path, format!("is not a JSON object: {}; download it again", brief(&error)))
        })?;
        let mut inner = Vec::new();
        object.values().for_each(|value| sub_objects(value, &mut inner));
        let said =
            |object: &'_ Map<String, Value>, key: &str| object.get(key).filter(|value| !value.is_null()).cloned();
        let field = |key: &str| {
            let text = || object.get("text_config")?.as_object().and_then(|text| said(text, key));
            said(&object, key).or_else(text).or_else(|| agreed(&inner, key))
        };
        // At any depth: if one part is quantised, the checkpoint is.
        let quantisation = QUANTISATION
            .iter()
            .find_map(|key| said(&object, key).or_else(|| inner.iter().find_map(|object| said(object, key))));
        let method = |value: &Value| value.get("quant_method").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        let types = std::iter::once(&object).chain(inner.iter().copied());
        let types = types.filter_map(|object| object.get("model_type")?.as_str());
        Ok(Self {
            model_types: types.map(str::to_owned).collect(),
            tied: field("tie_word_embeddings").and_then(|value| value.as_bool()),
            quantized: quantisation.as_ref().map(method),
            quantisation,
            vocab_size: field("vocab_size").and_then(|value| value.as_u64()),
            raw: Some(raw),
        })
    }

    /// The file with every `dtype` and `torch_dtype` set to `dtype`, at the top level and in sub-configs. All other
    /// bytes stay as they are. `None` if there is no config.
    pub fn with_dtype(&self, dtype: Float) -> Option<Vec<u8>> {
        Some(config_edits::edited(self.raw.as_deref()?, &|path, _| match last(path) {
            "dtype" | "torch_dtype" => Edit::Replace(config_edits::name(dtype)),
            _ => Edit::Keep,
        }))
    }

    /// The file with other values for some members, each with its path (keys with dots between them) and a JSON text; and
    /// the first path that it does not have. `None` if there is no config.
    pub fn with_members<'a>(&self, members: &'a [(String, String)]) -> Option<(Vec<u8>, Option<&'a str>)> {
        let found = RefCell::new(HashSet::new());
        let text = config_edits::edited(self.raw.as_deref()?, &|path, _| {
            let path = path.join(".");
            match members.iter().find(|(wanted, _)| *wanted == path) {
                Some((_, value)) => {
                    found.borrow_mut().insert(path);
                    Edit::Replace(value.clone().into_bytes().into())
                }
                None => Edit::Keep,
            }
        });
        let missing = members.iter().map(|(path, _)| path.as_str()).find(|path| !found.borrow().contains(*path));
        Some((text, missing))
    }

    /// The file without anything that says that weights are quantised, at the top level and in sub-configs. Types are
    /// set to `dtype`; without one, only those that are no types of plain weights become bfloat16. All other bytes stay
    /// as they are. `None` if there is no config.
    pub fn unquantised(&self, dtype: Option<Float>) -> Option<Vec<u8>> {
        Some(config_edits::edited(self.raw.as_deref()?, &|path, value| match last(path) {
            "dtype" | "torch_dtype" => match dtype {
                Some(dtype) => Edit::Replace(config_edits::name(dtype)),
                None if value.starts_with(b"\"float8") => Edit::Replace(config_edits::name(Float::Bf16)),
                None => Edit::Keep,
            },
            "expert_dtype" | "store_dtype" => Edit::Remove,
            key if QUANTISATION.contains(&key) => Edit::Remove,
            _ => Edit::Keep,
        }))
    }
}

/// The key at the end of a path.
fn last(path: &[String]) -> &str {
    path.last().map_or("", String::as_str)
}

/// Collects every object inside a value, including the value itself.
fn sub_objects<'a>(value: &'a Value, found: &mut Vec<&'a Map<String, Value>>) {
    match value {
        Value::Object(object) => {
            found.push(object);
            object.values().for_each(|value| sub_objects(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| sub_objects(value, found)),
        _ => {}
    }
}

/// The value of a key in which all language models inside agree; `None` if they disagree. A language model is told from
/// a vision or audio tower by its `vocab_size`.
fn agreed(inner: &[&Map<String, Value>], key: &str) -> Option<Value> {
    let models = inner.iter().filter(|object| object.contains_key("vocab_size"));
    let mut said = models.filter_map(|object| object.get(key)).filter(|value| !value.is_null());
    let first = said.next()?;
    said.all(|other| other == first).then(|| first.clone())
}

/// A copy with 0 in place of `NaN` and `Infinity`. Python writes them (Mamba's `time_step_limit`), but JSON forbids
/// them.
fn plain_numbers(raw: &[u8]) -> Vec<u8> {
    let mut text = raw.to_vec();
    let mut at = 0;
    while at < text.len() {
        if text[at] == b'"' {
            at = string_end(&text, at);
            continue;
        }
        for word in [b"NaN".as_slice(), b"Infinity"] {
            if text[at..].starts_with(word) {
                text[at..at + word.len()].fill(b' ');
                text[at] = b'0';
            }
        }
        at += 1;
    }
    text
}
