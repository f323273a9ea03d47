//! What arithmetic on weights needs to know from `config.json`, and the only change that is ever made to it: the dtype.

use std::ops::Range;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::numeric::dtype::Float;
use crate::storage::place::Place;
use crate::text::brief;

/// The file's name.
pub const FILE: &str = "config.json";
/// The longest config.json that is read.
const MAX_CONFIG: u64 = 100_000_000;

/// What is needed from config.json. A field is `None` if the file is absent or does not have it. If the top level does
/// not have it, that of the language model inside counts, whatever its name and however deep it is.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `tie_word_embeddings`.
    pub tied: Option<bool>,
    /// `quant_method` of `quantization_config`; `unknown` if that has none.
    pub quantized: Option<String>,
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
        // At any depth: if one part is quantised, the checkpoint must not be combined.
        let quantized = said(&object, "quantization_config")
            .or_else(|| inner.iter().find_map(|object| said(object, "quantization_config")));
        let method = |value: &Value| value.get("quant_method").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        let types = std::iter::once(&object).chain(inner.iter().copied());
        let types = types.filter_map(|object| object.get("model_type")?.as_str());
        Ok(Self {
            model_types: types.map(str::to_owned).collect(),
            tied: field("tie_word_embeddings").and_then(|value| value.as_bool()),
            quantized: quantized.as_ref().map(method),
            vocab_size: field("vocab_size").and_then(|value| value.as_u64()),
            raw: Some(raw),
        })
    }

    /// The file with every `dtype` and `torch_dtype` set to `dtype`, at the top level and in sub-configs. All other
    /// bytes stay as they are. `None` if there is no config.
    pub fn with_dtype(&self, dtype: Float) -> Option<Vec<u8>> {
        let raw = self.raw.as_deref()?;
        let name: &[u8] = match dtype {
            Float::Bf16 => b"\"bfloat16\"",
            Float::F16 => b"\"float16\"",
            Float::F32 => b"\"float32\"",
        };
        let mut spans = Vec::new();
        find_dtypes(raw, skip_space(raw, 0), true, &mut spans);
        let mut out = Vec::with_capacity(raw.len() + 16 * spans.len());
        let mut done = 0;
        for span in spans {
            out.extend_from_slice(&raw[done..span.start]);
            out.extend_from_slice(name);
            done = span.end;
        }
        out.extend_from_slice(&raw[done..]);
        Some(out)
    }
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

/// Finds the values of dtype keys inside the JSON value that begins at `at`, and returns where that value ends. The
/// text has been parsed before, so it is valid JSON and its depth is bounded.
fn find_dtypes(text: &[u8], at: usize, in_config: bool, spans: &mut Vec<Range<usize>>) -> usize {
    let (close, object) = match text.get(at) {
        Some(b'{') => (b'}', true),
        Some(b'[') => (b']', false),
        Some(b'"') => return string_end(text, at),
        _ => {
            let ends = |byte: &u8| b",]} \t\r\n".contains(byte);
            return text.iter().skip(at).position(ends).map_or(text.len(), |length| at + length);
        }
    };
    let mut at = skip_space(text, at + 1);
    while text.get(at).is_some_and(|&byte| byte != close) {
        let mut key = String::new();
        if object {
            let end = string_end(text, at);
            key = serde_json::from_slice(&text[at..end]).unwrap_or_default();
            // Past the colon.
            at = skip_space(text, skip_space(text, end) + 1);
        }
        let sub_config = in_config && key.ends_with("_config") && key != "quantization_config";
        let begin = at;
        at = find_dtypes(text, begin, sub_config, spans);
        if in_config && (key == "dtype" || key == "torch_dtype") {
            spans.push(begin..at);
        }
        at = skip_space(text, at);
        if text.get(at) != Some(&b',') {
            break;
        }
        at = skip_space(text, at + 1);
    }
    (at + 1).min(text.len())
}

/// The position after the quote that closes the string which opens at `at`.
fn string_end(text: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => break,
            b'\\' => at += 1,
            _ => {}
        }
    }
    at.min(text.len())
}

fn skip_space(text: &[u8], at: usize) -> usize {
    text.iter().skip(at).position(|byte| !b" \t\r\n".contains(byte)).map_or(text.len(), |length| at + length)
}
