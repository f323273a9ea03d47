//! What is in a checkpoint, vector or adapter. Only headers and descriptions are read, no weights.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::checkpoint::open::{self, Kind};
use crate::checkpoint::{Checkpoint, Shape, Shard, Tensor, lora, vector};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::adapter_config::AdapterConfig;
use crate::plan::NOTHING;
use crate::plan::output::MANIFEST;
use crate::storage::place::Place;
use crate::text::Name;

/// A description (`taskvec/inspect/1`), which is JSON when it is written; `python/taskvec/results.py` reads it.
#[derive(serde::Serialize)]
pub struct Inspected {
    schema: &'static str,
    kind: &'static str,
    name: String,
    files: Vec<File>,
    /// Elements of all tensors.
    parameters: u64,
    bytes: u64,
    dtypes: BTreeMap<&'static str, Count>,
    tied: Option<bool>,
    quantized: Option<String>,
    formats: BTreeMap<String, u64>,
    sidecars: Vec<String>,
    left_out: Vec<String>,
    tensors: Tensors,
    vector: Value,
    adapter: Option<Value>,
    manifest: Value,
    /// What the user should look at.
    pub warnings: Vec<String>,
}

#[derive(serde::Serialize)]
struct File {
    name: String,
    size: u64,
    tensors: u64,
}

#[derive(Default, serde::Serialize)]
struct Count {
    tensors: u64,
    elements: u64,
}

/// The tensors of a checkpoint, if they are to be listed. The entries are made while they are written.
struct Tensors {
    checkpoint: Checkpoint,
    listed: bool,
}

#[derive(serde::Serialize)]
struct Entry<'a> {
    name: &'a Name,
    dtype: &'static str,
    shape: &'a Shape,
    file: &'a str,
    format: Option<String>,
}

impl Serialize for Tensors {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let Self { checkpoint, listed } = self;
        let listed = (0..).zip(&checkpoint.tensors).filter(|_| *listed);
        serializer.collect_seq(listed.map(|(place, tensor)| Entry {
            name: &tensor.name,
            dtype: checkpoint.dtype_name(place),
            shape: &tensor.shape,
            file: &checkpoint.shard(tensor).name,
            format: checkpoint.format(place).map(ToString::to_string),
        }))
    }
}

/// Describes a folder. There may be many tensors, so they are listed only if `listed` says so.
///
/// # Errors
/// The folder cannot be opened, or its manifest is not one.
pub fn inspect(place: &Place, listed: bool, control: &Control) -> Result<Inspected> {
    let kind = Kind::of(place)?;
    let checkpoint = match kind {
        Kind::Adapter => lora::open_factors(place, control)?,
        Kind::Checkpoint | Kind::Vector => open::weights(place, control)?,
    };
    let (vector, nothing) = match kind {
        Kind::Vector => {
            let info = vector::VectorInfo::read(place)?;
            (document(place, vector::FILE)?, info.nothing)
        }
        Kind::Checkpoint | Kind::Adapter => (Value::Null, false),
    };
    let mut dtypes: BTreeMap<&str, Count> = BTreeMap::new();
    let mut per_file = vec![0_u64; checkpoint.shards.len()];
    let mut formats: BTreeMap<String, u64> = BTreeMap::new();
    for (place, tensor) in (0..).zip(&checkpoint.tensors) {
        let entry = dtypes.entry(checkpoint.dtype_name(place)).or_default();
        if let Some(format) = checkpoint.format(place) {
            *formats.entry(format.to_string()).or_default() += 1;
        }
        entry.tensors += 1;
        entry.elements += tensor.elements();
        per_file[tensor.shard as usize] += 1;
    }
    let files = checkpoint.shards.iter().zip(per_file);
    let stored = |shard: &Shard| shard.size - shard.data_start;
    Ok(Inspected {
        schema: "taskvec/inspect/1",
        kind: kind.name(),
        name: checkpoint.label.clone(),
        files: files.map(|(shard, tensors)| File { name: shard.name.clone(), size: shard.size, tensors }).collect(),
        parameters: checkpoint.tensors.iter().map(Tensor::elements).sum(),
        bytes: if checkpoint.is_quantised() {
            checkpoint.shards.iter().map(stored).sum()
        } else {
            checkpoint.tensors.iter().map(|tensor| tensor.bytes).sum()
        },
        dtypes,
        tied: checkpoint.config.tied.filter(|_| kind != Kind::Adapter),
        quantized: checkpoint.config.quantized.clone(),
        formats,
        sidecars: checkpoint.sidecars.clone(),
        left_out: checkpoint.left_out.clone(),
        vector,
        adapter: checkpoint.adapter.as_ref().map(AdapterConfig::to_json),
        manifest: document(place, MANIFEST)?,
        warnings: if nothing { vec![NOTHING.into()] } else { Vec::new() },
        tensors: Tensors { checkpoint, listed },
    })
}

impl Inspected {
    /// Writes the document for people, in ASCII, so that every terminal and every pipe can take it.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: impl Write) -> std::io::Result<()> {
        serde_json::to_writer_pretty(Ascii(out), self).map_err(Into::into)
    }
}

/// Writes text with escapes for all characters that are not ASCII. In JSON they are found in strings alone, and the
/// pieces that serde_json writes are whole strings or parts between two escapes.
struct Ascii<W>(W);

impl<W: Write> Write for Ascii<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.is_ascii() {
            self.0.write_all(bytes)?;
            return Ok(bytes.len());
        }
        let text = std::str::from_utf8(bytes).map_err(std::io::Error::other)?;
        for character in text.chars() {
            if character.is_ascii() {
                write!(self.0, "{character}")?;
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(self.0, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// A manifest as JSON; null if the folder has none. Without its figures of every tensor, which are long and can be read
/// in the file itself.
fn document(place: &Place, name: &str) -> Result<Value> {
    let Some(bytes) = place.read(name, vector::MAX_DESCRIPTION)? else { return Ok(Value::Null) };
    let parsed = if bytes.trim_ascii_start().starts_with(b"{") {
        serde_json::from_slice(&bytes).map(|WithoutTensors(members)| Value::Object(members))
    } else {
        serde_json::from_slice(&bytes)
    };
    parsed.map_err(|error| {
        let what = format!("is not a manifest ({error}); write the output again");
        Error::corrupt(&place.path(name), what)
    })
}

struct WithoutTensors(Map<String, Value>);

impl<'de> Deserialize<'de> for WithoutTensors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(WithoutTensors(Map::new()))
    }
}

impl<'de> Visitor<'de> for WithoutTensors {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> std::result::Result<Self, A::Error> {
        while let Some(key) = object.next_key::<String>()? {
            if key == "tensors" {
                object.next_value::<IgnoredAny>()?;
            } else {
                self.0.insert(key, object.next_value()?);
            }
        }
        Ok(self)
    }
}
