//! What is asked for in a merge: a document that says, tensor by tensor, which inputs are merged, how, and under which
//! name. The caller makes it from a configuration; here it is checked and matched with the inputs.

mod layout;
mod matching;
mod operands;
mod parameters;
mod recipe;

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_128;

pub use self::matching::Ways;
pub(super) use self::matching::match_inputs;
pub use self::operands::Method;
use self::parameters::Setting;
use crate::checkpoint::Tensor;
use crate::checkpoint::vector::Encoding;
use crate::error::{Error, Result};
use crate::numeric::dtype::Float;
use crate::plan::options::{Options, Vocab};
use crate::text::quote;

/// The document, checked as far as that is possible without the inputs.
#[derive(Debug)]
pub struct Document {
    /// How tensors are merged.
    pub method: Method,
    /// The base, as an index among the inputs.
    pub base: Option<usize>,
    /// The type in which float tensors are written; `None` for the common type of the inputs of each.
    pub dtype: Option<Float>,
    /// The seed of what is drawn.
    pub seed: u64,
    /// The input whose other files are copied, and whose layout the output has.
    pub sidecars: usize,
    /// Members of `config.json` that get other values: keys and JSON texts.
    pub config_edits: Vec<(String, String)>,
    settings: Vec<Setting>,
    tensors: Vec<Entry>,
    text: String,
}

/// A tensor of the output.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    from: Vec<Option<From>>,
    settings: usize,
}

/// What a tensor is called in an input.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum From {
    /// `true`: as in the output.
    Same(bool),
    /// This.
    Named(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    method: String,
    #[serde(deserialize_with = "Option::deserialize")]
    base: Option<usize>,
    #[serde(deserialize_with = "Option::deserialize")]
    work_dtype: Option<String>,
    #[serde(deserialize_with = "Option::deserialize")]
    out_dtype: Option<String>,
    seed: u64,
    settings: Vec<GivenSetting>,
    tensors: Vec<Entry>,
    sidecars_from: usize,
    #[serde(deserialize_with = "Option::deserialize")]
    config_edits: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenSetting {
    shared: Map<String, Value>,
    each: Vec<Option<Map<String, Value>>>,
}

fn parse_dtype(text: &str) -> Result<Float> {
    match text {
        "bfloat16" => Ok(Float::Bf16),
        "float16" => Ok(Float::F16),
        "float32" => Ok(Float::F32),
        _ => Err(Error::Usage(format!("a merge writes bfloat16, float16 or float32, not {}", quote(text)))),
    }
}

impl Document {
    /// Reads a document for so many inputs.
    ///
    /// # Errors
    /// A document of another form, a method or a parameter that does not exist, or that does not go with these inputs.
    pub fn parse(text: &str, inputs: usize) -> Result<Self> {
        let given: Given = serde_json::from_str(text)
            .map_err(|error| Error::Usage(format!("the document of the merge is not one of this version: {error}")))?;
        let method = Method::parse(&given.method)?;
        for (what, place) in [("base", given.base), ("sidecars_from", Some(given.sidecars_from))] {
            if place.is_some_and(|place| place >= inputs) {
                return Err(Error::Usage(format!("{what} of the merge is no place among its {inputs} input(s)")));
            }
        }
        method.require(inputs, given.base)?;
        let setting = |setting: GivenSetting| {
            if setting.each.len() != inputs {
                let count = setting.each.len();
                return Err(Error::Usage(format!(
                    "a setting of the merge is for {count} inputs, but there are {inputs}"
                )));
            }
            Setting::new(method, given.base, &setting.shared, &setting.each)
        };
        let settings = given.settings.into_iter().map(setting).collect::<Result<Vec<_>>>()?;
        let mut names = HashSet::new();
        for entry in &given.tensors {
            let name = quote(&entry.name);
            if !names.insert(entry.name.as_str()) {
                return Err(Error::Usage(format!("the merge has two tensors {name}")));
            }
            if entry.from.len() != inputs || entry.settings >= settings.len() {
                return Err(Error::Usage(format!(
                    "tensor {name} of the merge does not go with its inputs or settings"
                )));
            }
            if entry.from.iter().flatten().any(|from| matches!(from, From::Same(false))) {
                return Err(Error::Usage(format!("tensor {name} of the merge: `from` takes true, a name or null")));
            }
        }
        let dtype = given.out_dtype.or(given.work_dtype).as_deref().map(parse_dtype).transpose()?;
        let edits = given.config_edits.unwrap_or_default();
        Ok(Self {
            method,
            base: given.base,
            dtype,
            seed: given.seed,
            sidecars: given.sidecars_from,
            config_edits: edits.into_iter().map(|(key, value)| (key, value.to_string())).collect(),
            settings,
            tensors: given.tensors,
            text: text.to_owned(),
        })
    }

    /// For the manifest: everything that decides the output, so that a second run gives the same.
    pub(super) fn recipe(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// A digest of the document.
    pub(super) fn digest(&self) -> String {
        format!("{:032x}", xxh3_128(self.text.as_bytes()))
    }

    /// Bytes of memory that it takes.
    pub(super) fn memory(&self) -> u64 {
        let from = |from: &Option<From>| match from {
            Some(From::Named(name)) => name.capacity() + size_of::<Option<From>>(),
            _ => size_of::<Option<From>>(),
        };
        let entry =
            |entry: &Entry| size_of::<Entry>() + entry.name.capacity() + entry.from.iter().map(from).sum::<usize>();
        (self.text.len() + self.tensors.iter().map(entry).sum::<usize>()) as u64
    }

    /// The role of an input.
    pub(super) fn role(&self, input: usize) -> String {
        match self.base {
            Some(base) if base == input => "base".into(),
            Some(base) if base < input => format!("model {input}"),
            _ => format!("model {}", input + 1),
        }
    }
}

/// The tensors of the output of a merge, which are not those of any input.
#[derive(Debug)]
pub struct Outline {
    /// The input whose other files are copied.
    pub input: u32,
    /// Names, shapes, and the shards of that input in whose place they are written.
    pub tensors: Vec<Tensor>,
}

/// A reference-counted document, as a request holds it.
pub type Shared = Arc<Document>;

/// Refuses options that have no meaning for a merge.
pub(super) fn check_options(options: &Options) -> Result<()> {
    let given = [
        ("--dtype", options.dtype.is_some()),
        ("--encoding", options.encoding != Encoding::default()),
        ("--requantise", options.requantise.is_some()),
        ("--vocab", options.vocab != Vocab::default()),
        ("--include", !options.include.is_empty()),
        ("--exclude", !options.exclude.is_empty()),
        ("--alpha-rule", !options.alpha_rules.is_empty()),
        ("--schedule", options.schedule.is_some()),
        ("--strip-prefix", !options.prefixes.is_empty()),
        ("--map", !options.maps.is_empty()),
        ("--base", options.base.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => {
            Err(Error::Usage(format!("a merge takes no {option}; its document says all that it does")))
        }
        None => Ok(()),
    }
}
