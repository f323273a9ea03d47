//! What is in a checkpoint, vector or adapter. Only headers and descriptions are read, no weights.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::checkpoint::open::{self, Kind};
use crate::checkpoint::{Shard, Tensor, lora, vector};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::adapter_config::AdapterConfig;
use crate::plan::NOTHING;
use crate::plan::output::MANIFEST;
use crate::storage::place::Place;

/// Describes a folder as JSON (`taskvec/inspect/1`).
pub fn inspect(place: &Place, control: &Control) -> Result<Value> {
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
    let manifest = document(place, MANIFEST)?;
    let shard = |tensor: &Tensor| checkpoint.shard(tensor).name.as_str();
    let mut dtypes: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut per_file = vec![0_u64; checkpoint.shards.len()];
    let mut formats: BTreeMap<String, u64> = BTreeMap::new();
    for (place, tensor) in (0..).zip(&checkpoint.tensors) {
        let entry = dtypes.entry(checkpoint.dtype_name(place)).or_default();
        if let Some(format) = checkpoint.format(place) {
            *formats.entry(format.to_string()).or_default() += 1;
        }
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
        .map(|(shard, tensors)| json!({"name": shard.name, "size": shard.size, "tensors": tensors}))
        .collect();
    let tensors: Vec<Value> = (0..)
        .zip(&checkpoint.tensors)
        .map(|(place, tensor)| {
            let dtype = checkpoint.dtype_name(place);
            let format = checkpoint.format(place).map(ToString::to_string);
            json!({"name": tensor.name, "dtype": dtype, "shape": tensor.shape, "file": shard(tensor), "format": format})
        })
        .collect();
    let stored = |shard: &Shard| shard.size - shard.data_start;
    let bytes: u64 = if checkpoint.is_quantised() {
        checkpoint.shards.iter().map(stored).sum()
    } else {
        checkpoint.tensors.iter().map(|tensor| tensor.bytes).sum()
    };
    Ok(json!({
        "schema": "taskvec/inspect/1",
        "kind": kind.name(),
        "name": checkpoint.label,
        "files": files,
        "parameters": checkpoint.tensors.iter().map(Tensor::elements).sum::<u64>(),
        "bytes": bytes,
        "dtypes": dtypes,
        "tied": checkpoint.config.tied.filter(|_| kind != Kind::Adapter),
        "quantized": checkpoint.config.quantized,
        "formats": formats,
        "sidecars": checkpoint.sidecars,
        "left_out": checkpoint.left_out,
        "tensors": tensors,
        "vector": without_tensors(vector),
        "adapter": checkpoint.adapter.as_ref().map(AdapterConfig::to_json),
        "manifest": without_tensors(manifest),
        "warnings": if nothing { vec![NOTHING] } else { Vec::new() },
    }))
}

/// A manifest as JSON; null if the folder has none.
fn document(place: &Place, name: &str) -> Result<Value> {
    match place.read(name, vector::MAX_DESCRIPTION)? {
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            let what = format!("is not a manifest ({error}); write the output again");
            Error::corrupt(&place.path(name), what)
        }),
        None => Ok(Value::Null),
    }
}

/// The document without its per-tensor figures, which are long and can be read in the file itself.
fn without_tensors(mut document: Value) -> Value {
    if let Some(object) = document.as_object_mut() {
        object.remove("tensors");
    }
    document
}
