//! Files in a checkpoint folder that describe weights which an output will not have, such as an adapter's config. They
//! are not copied: a loader that believed them would look for missing files, or would misread the weights.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::sidecars::{Found, is_weights, own_name};
use crate::error::{Error, Result};
use crate::format::adapter_config;
use crate::format::config::Config;
use crate::storage::place::Place;

/// Files that describe how weights were quantised.
const QUANTISED: [&str; 5] = [
    "hf_quant_config.json",
    "quant_config.json",
    "quantization_config.json",
    "quantize_config.json",
    "quant_model_description.json",
];
/// Files that list the parts of a model, each in its own folder: of Sentence Transformers and of Diffusers.
const PARTS: [&str; 2] = ["modules.json", "model_index.json"];
/// The longest such list that is read.
const MAX_LIST: u64 = 1 << 20;

/// Moves descriptions of weights that are left out from the sidecars to the files that are left out. `codes` says
/// whether the checkpoint's own weights are, or may be, codes of a quantised format.
pub fn leave_out(found: &mut Found, place: &Place, codes: bool) -> Result<()> {
    let mut moved = BTreeSet::new();
    for name in &found.sidecars {
        let own = own_name(name);
        let folder = &name[..name.len() - own.len()];
        // The weights in the same folder that are left out.
        let weights =
            || found.left_out.iter().filter_map(|left| left.strip_prefix(folder)).filter(|left| is_weights(left));
        let beside = |test: &dyn Fn(&str) -> bool| weights().any(|left| !left.contains('/') && test(left));
        let describes = match own {
            // If it is there, PEFT and transformers look for the adapter's weights.
            adapter_config::FILE => true,
            // Of Mistral's and Meta's own checkpoint formats.
            "params.json" => beside(&|left| left.starts_with("consolidated")),
            // Of a distributed checkpoint of torch.
            ".metadata" => beside(&|left| left.ends_with(".distcp")),
            // Of Ollama.
            "Modelfile" => match read(place, name)? {
                Some(text) => beside(&|left| String::from_utf8_lossy(&text).contains(left)),
                None => false,
            },
            own if QUANTISED.contains(&own) => !codes,
            own if PARTS.contains(&own) => {
                let lost: HashSet<&str> = weights().filter_map(|left| Some(left.split_once('/')?.0)).collect();
                !lost.is_empty() && parts(place, name)?.iter().any(|part| lost.contains(part.as_str()))
            }
            // OpenVINO's graph, without the weights of the same name.
            own => own.strip_suffix(".xml").is_some_and(|stem| beside(&|left| left.strip_suffix(".bin") == Some(stem))),
        };
        if describes {
            moved.insert(name.clone());
        }
    }
    found.sidecars.retain(|name| !moved.contains(name));
    found.left_out.extend(moved);
    found.left_out.sort();
    Ok(())
}

/// Moves the descriptions of quantised weights to the files that are left out, of a checkpoint whose weights are read as
/// if they were not quantised. vLLM goes by the mere presence of some of them.
pub fn leave_out_quantised(checkpoint: &mut Checkpoint) {
    let described = |name: &String| QUANTISED.contains(&own_name(name));
    checkpoint.left_out.extend(checkpoint.sidecars.extract_if(.., |name| described(name)));
    checkpoint.left_out.sort();
}

/// Reads a file in which only names are looked for. A file that is too long counts as absent.
fn read(place: &Place, name: &str) -> Result<Option<Vec<u8>>> {
    match place.read(name, MAX_LIST) {
        Err(Error::Corrupt { .. }) => Ok(None),
        read => read,
    }
}

/// The folders that a list of a model's parts names; empty if the list cannot be understood.
fn parts(place: &Place, name: &str) -> Result<Vec<String>> {
    let Some(text) = read(place, name)? else { return Ok(Vec::new()) };
    let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    Ok(match serde_json::from_slice(&text) {
        Ok(Value::Array(modules)) => {
            modules.iter().filter_map(|module| module.get("path")?.as_str()).map(first).collect()
        }
        Ok(Value::Object(components)) => components.keys().cloned().collect(),
        _ => Vec::new(),
    })
}

/// A note about an adapter beside the weights of a checkpoint, because only one of the two is read.
pub fn unread_adapter(label: &str, found: &Found) -> Option<String> {
    let of_adapter = |name: &&String| *name == adapter_config::FILE || name.starts_with("adapter_model.");
    let files: Vec<&str> = found.left_out.iter().filter(of_adapter).map(String::as_str).collect();
    (!files.is_empty()).then(|| {
        format!(
            "{label} holds full weights and an adapter: the full weights are read, the adapter ({}) is not; to use the adapter, name a folder that holds only the adapter",
            files.join(", ")
        )
    })
}

/// A note about code that the configuration of a target names but that is not among the files to copy.
pub fn missing_code(label: &str, sidecars: &[String], config: &Config) -> Option<String> {
    let missing: Vec<String> = code(config).into_iter().filter(|file| !sidecars.contains(file)).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "config.json of {label} names code that is not in its folder (auto_map): {}; the output can be loaded only if transformers supports the model without that code",
            missing.join(", ")
        )
    })
}

/// The Python files that `auto_map` names in the checkpoint's own folder.
fn code(config: &Config) -> BTreeSet<String> {
    let document = config.raw.as_deref().and_then(|raw| serde_json::from_slice::<Value>(raw).ok());
    let map = document.as_ref().and_then(|document| document.get("auto_map")?.as_object());
    let classes = map.into_iter().flat_map(|map| map.values()).flat_map(|value| match value {
        Value::Array(several) => several.iter().collect(),
        one => vec![one],
    });
    // `org/name--file.Class` means code in another repository.
    let here = classes.filter_map(Value::as_str).filter(|class| !class.contains("--"));
    here.filter_map(|class| Some(format!("{}.py", class.rsplit_once('.')?.0.replace('.', "/")))).collect()
}
