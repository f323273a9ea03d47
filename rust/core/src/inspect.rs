//! What is in a checkpoint or vector, from headers alone.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Result};
use crate::{manifest, vector};

/// Opens a checkpoint or a vector folder, whichever it is.
pub fn open_any(path: &Path) -> Result<Checkpoint> {
    if path.join(vector::FILE).exists() { Checkpoint::open_weights(path, "vector") } else { Checkpoint::open(path) }
}

/// Describes a folder as JSON (`taskvec/inspect/1`).
pub fn inspect(path: &Path) -> Result<Value> {
    let checkpoint = open_any(path)?;
    let is_vector = path.join(vector::FILE).exists();
    let vector = if is_vector {
        vector::VectorInfo::read(path)?;
        document(&path.join(vector::FILE))?
    } else {
        Value::Null
    };
    let manifest = document(&path.join(manifest::FILE))?;
    let shard = |tensor: &Tensor| checkpoint.shard(tensor).name.as_str();
    let mut dtypes: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut per_file = vec![0_u64; checkpoint.shards.len()];
    for tensor in &checkpoint.tensors {
        let entry = dtypes.entry(tensor.dtype.name()).or_default();
        entry.0 += 1;
        entry.1 += tensor.elements();
        per_file[tensor.shard as usize] += 1;
    }
    let dtypes: BTreeMap<&str, Value> = dtypes
        .into_iter()
        .map(|(name, (tensors, elements))| (name, json!({"tensors": tensors, "elements": elements})))
        .collect();
    let files: Vec<Value> = checkpoint
        .shards
        .iter()
        .zip(per_file)
        .map(|(shard, tensors)| json!({"name": shard.name, "size": shard.identity.size, "tensors": tensors}))
        .collect();
    let tensors: Vec<Value> = checkpoint
        .tensors
        .iter()
        .map(|tensor| json!({"name": tensor.name, "dtype": tensor.dtype.name(), "shape": tensor.shape, "file": shard(tensor)}))
        .collect();
    Ok(json!({
        "schema": "taskvec/inspect/1",
        "kind": if is_vector { "vector" } else { "checkpoint" },
        "name": checkpoint.label,
        "files": files,
        "parameters": checkpoint.tensors.iter().map(Tensor::elements).sum::<u64>(),
        "bytes": checkpoint.tensors.iter().map(|tensor| tensor.bytes).sum::<u64>(),
        "dtypes": dtypes,
        "tied": checkpoint.config.tied,
        "quantized": checkpoint.config.quantized,
        "sidecars": checkpoint.sidecars,
        "left_out": checkpoint.left_out,
        "tensors": tensors,
        "vector": without_tensors(vector),
        "manifest": without_tensors(manifest),
    }))
}

/// A manifest, if there is one.
fn document(path: &Path) -> Result<Value> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| Error::corrupt(path, format!("is not a manifest ({error}); write the output again"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(Error::io(path, "read")(error)),
    }
}

/// The per-tensor figures stay in the file: they would drown the rest.
fn without_tensors(mut document: Value) -> Value {
    if let Some(object) = document.as_object_mut() {
        object.remove("tensors");
    }
    document
}
