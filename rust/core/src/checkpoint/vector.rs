//! The description of a vector folder, `vector.json`: the parts that are needed to read the vector.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint::{Checkpoint, Tensor, missing};
use crate::error::{Error, Result};
use crate::numeric::dtype::Dtype;
use crate::storage::place::Place;
use crate::text::{brief, quote};

/// The schema of `vector.json` that this version writes and reads.
pub const SCHEMA: &str = "taskvec/vector/1";
/// The file's name.
pub const FILE: &str = "vector.json";
/// The weights' file name without its ending.
pub const STEM: &str = "vector";
/// The one encoding so far: bf16 (with exceptions) or f32 values in plain safetensors files.
pub const DENSE: &str = "dense";

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
    path: PathBuf,
}

#[derive(Deserialize)]
struct Document {
    schema: String,
    vector: Body,
    #[serde(default)]
    effect: Value,
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
        if document.schema != SCHEMA || document.vector.encoding != DENSE {
            let found = format!("{} with {} encoding", quote(&document.schema), quote(&document.vector.encoding));
            return Err(Error::corrupt(&path, format!("is {found}, which this version does not read; update taskvec")));
        }
        // The norm counts only finite elements, so there must be no others.
        let nothing = document.effect["norm_v"] == 0.0 && document.effect["nonfinite_inputs"] == 0;
        Ok(Self { exceptions: document.vector.exceptions, tied: document.vector.tied, nothing, path })
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
