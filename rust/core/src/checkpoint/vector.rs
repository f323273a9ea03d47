//! The description of a vector folder, `vector.json`: the parts that are needed to read the vector.

use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::checkpoint::{Checkpoint, Tensor, missing};
use crate::codec::derived::Made;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::header::TensorInfo;
use crate::format::packed_table;
use crate::numeric::dtype::Dtype;
use crate::storage::place::Place;
use crate::text::{brief, quote};

/// The schema of `vector.json` that this version writes and reads.
pub const SCHEMA: &str = "taskvec/vector/1";
/// The file's name.
pub const FILE: &str = "vector.json";
/// The weights' file name without its ending.
pub const STEM: &str = "vector";

/// How a vector's values are stored (`--encoding`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Packed frames.
    #[default]
    Packed,
    /// bf16 (with exceptions) or f32 values, in plain safetensors files.
    Dense,
}

impl Encoding {
    /// Its name in options and descriptions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packed => "packed",
            Self::Dense => "dense",
        }
    }
}

impl FromStr for Encoding {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "packed" => Ok(Self::Packed),
            "dense" => Ok(Self::Dense),
            _ => Err(Error::Usage(format!("--encoding is packed or dense, not `{text}`"))),
        }
    }
}

/// The advice at the end of errors about a damaged vector.
const AGAIN: &str = "extract the vector again";
/// The longest `vector.json` that is read. It has a few lines for each tensor.
pub const MAX_DESCRIPTION: u64 = 1 << 30;

/// The parts of `vector.json` that a job needs.
#[derive(Debug)]
pub struct VectorInfo {
    /// The number of elements whose exact difference is in the exceptions file.
    pub exceptions: u64,
    /// Whether the donors tied their output head to the embedding; `None` if unknown.
    pub tied: Option<bool>,
    /// Whether its manifest says that it is 0 everywhere.
    pub nothing: bool,
    /// How its values are stored.
    pub encoding: Encoding,
    /// The configuration of the model that it belongs to.
    pub config: Option<Value>,
    /// How it was made: verb, recipe and inputs.
    pub made: Value,
    path: PathBuf,
}

#[derive(Deserialize)]
struct Document {
    schema: String,
    vector: Body,
    #[serde(default)]
    effect: Value,
    config: Option<Value>,
    #[serde(default)]
    verb: Value,
    #[serde(default)]
    recipe: Value,
    #[serde(default)]
    inputs: Value,
}

#[derive(Deserialize)]
struct Body {
    encoding: String,
    exceptions: u64,
    tied: Option<bool>,
}

impl VectorInfo {
    /// Reads and checks `vector.json` of a vector folder.
    pub fn read(place: &Place) -> Result<Self> {
        let path = place.path(FILE);
        let Some(bytes) = place.read(FILE, MAX_DESCRIPTION)? else {
            // Fails first if it is not a folder at all.
            place.label()?;
            return Err(missing::no_vector(place, FILE));
        };
        let document: Document = serde_json::from_slice(&bytes).map_err(|error| {
            Error::corrupt(&path, format!("is not a vector description ({}); {AGAIN}", brief(&error)))
        })?;
        let (schema, encoding) = (&document.schema, &document.vector.encoding);
        let known = encoding.parse().ok().filter(|_| schema == SCHEMA);
        let Some(encoding) = known else {
            let found = format!("{} with {} encoding", quote(schema), quote(encoding));
            return Err(Error::corrupt(&path, format!("is {found}, which this version does not read; update taskvec")));
        };
        // The norm counts only finite elements, so there must be no others.
        let nothing = document.effect["norm_v"] == 0.0 && document.effect["nonfinite_inputs"] == 0;
        let Body { exceptions, tied, .. } = document.vector;
        let Document { config, verb, recipe, inputs, .. } = document;
        let made = json!({"verb": verb, "recipe": recipe, "inputs": inputs});
        Ok(Self { exceptions, tied, nothing, encoding, config, made, path })
    }

    /// The error for weights that are stored in another way than the description says.
    pub fn not_as_described(&self) -> Error {
        let what =
            format!("says that the values are {}, but the files beside it are not; {AGAIN}", self.encoding.name());
        Error::corrupt(&self.path, what)
    }

    /// Checks that the exceptions file holds what the description promises: indices and values for tensors of `dense`.
    pub fn check_exceptions(&self, file: &Checkpoint, dense: &Checkpoint) -> Result<()> {
        let (mut found, mut used) = (0, 0);
        for index in &file.tensors {
            let Some(name) = index.name.strip_suffix(".index") else { continue };
            let shown = quote(name);
            let path = &file.shard(index).path;
            let value = file.get(&format!("{name}.value"));
            let fits = index.dtype == Dtype::I64
                && index.shape.len() == 1
                && value.is_some_and(|value| value.dtype == Dtype::F32 && value.shape == index.shape);
            if !fits {
                let what =
                    format!("the exceptions of tensor {shown} are not I64 indices with as many F32 values; {AGAIN}");
                return Err(Error::corrupt(path, what));
            }
            let has_room = |tensor: &Tensor| tensor.dtype == Dtype::BF16 && index.elements() <= tensor.elements();
            if !dense.get(name).is_some_and(has_room) {
                let what = format!("has exceptions that do not fit tensor {shown} of the vector; {AGAIN}");
                return Err(Error::corrupt(path, what));
            }
            found += index.elements();
            used += 2;
        }
        if let Some(first) = file.tensors.first().filter(|_| used != file.tensors.len()) {
            let what = format!("holds tensors that are not pairs of indices and values; {AGAIN}");
            return Err(Error::corrupt(&file.shard(first).path, what));
        }
        if found != self.exceptions {
            let what =
                format!("promises {} exceptions but the exceptions file holds {found}; {AGAIN}", self.exceptions);
            return Err(Error::corrupt(&self.path, what));
        }
        Ok(())
    }
}

/// Opens a vector's values. Packed tensors have the type and the shape of their dense form.
///
/// # Errors
/// As [`Checkpoint::open_weights`], or a table of packed tensors is damaged.
pub fn open(place: &Place, control: &Control) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::open_weights(place, STEM, control)?;
    let (mut tensors, mut made) = (Vec::new(), Vec::new());
    for (number, shard) in (0..).zip(&mut checkpoint.shards) {
        let mine: Vec<&Tensor> = checkpoint.tensors.iter().filter(|tensor| tensor.shard == number).collect();
        let infos: Vec<TensorInfo> = mine
            .iter()
            .map(|tensor| {
                let begin = tensor.begin - shard.data_start;
                let (name, shape, end) = (tensor.name.to_string(), tensor.shape.to_vec(), begin + tensor.bytes);
                TensorInfo { name, dtype: tensor.dtype, shape, begin, end }
            })
            .collect();
        let entries = packed_table::read(&infos, &shard.metadata).map_err(|what| Error::corrupt(&shard.path, what))?;
        let Some(entries) = entries else { continue };
        // The table is not needed any more, and long.
        shard.metadata.retain(|(key, _)| !packed_table::is_ours(key));
        for (tensor, entry) in mine.into_iter().zip(entries) {
            let (dtype, shape) = (entry.float.dtype(), entry.shape.clone().into());
            made.push(Made::Packed(entry.packed(&tensor.name, number, tensor.begin).into()));
            tensors.push(Tensor { dtype, shape, ..tensor.clone() });
        }
    }
    match tensors.len() {
        0 => {}
        some if some == checkpoint.tensors.len() => checkpoint.compute(tensors, made, Vec::new()),
        _ => {
            let what = "has files of which some are packed and some are not; download or extract the vector again";
            return Err(Error::corrupt(&checkpoint.place.root, what));
        }
    }
    Ok(checkpoint)
}

/// Whether indices (i64, little-endian) are in strictly ascending order and within `[start, stop)`.
pub fn ascend(indices: &[u8], start: u64, stop: u64) -> bool {
    let mut least = start;
    indices.as_chunks::<8>().0.iter().all(|&index| {
        let index = u64::from_le_bytes(index);
        let good = (least..stop).contains(&index);
        least = index.saturating_add(1);
        good
    })
}
