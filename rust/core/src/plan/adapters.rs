//! Adapters as donors: checks that both sides of a pair have the same base model, and gives both the same tensors.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::checkpoint::lora::tensor;
use crate::checkpoint::{Checkpoint, Tensor, tied};
use crate::codec::derived::Made;
use crate::error::{Error, Result};
use crate::format::adapter_config::{self, AdapterConfig};
use crate::plan::options::Options;
use crate::storage::place::Place;
use crate::text::quote;

/// Gives both sides of a pair the same tensors if one of them, or both, is an adapter.
///
/// # Errors
/// The base models of the two differ, or nothing shows that they are the same.
pub fn pair(minuend: &mut Checkpoint, subtrahend: &mut Checkpoint, options: &Options) -> Result<()> {
    match (minuend.adapter.is_some(), subtrahend.adapter.is_some()) {
        (false, false) => Ok(()),
        (true, true) => {
            // With --base the user states the base of both.
            if options.base.is_none() {
                same_base(minuend, subtrahend)?;
            }
            complete(minuend, subtrahend, "subtrahend");
            complete(subtrahend, minuend, "minuend");
            Ok(())
        }
        (true, false) => against_base(minuend, subtrahend, options),
        (false, true) => against_base(subtrahend, minuend, options),
    }
}

/// Adds the tensors that only `other` adapts to `this`, as zeros.
fn complete(other: &Checkpoint, this: &mut Checkpoint, role: &str) {
    let (mut tensors, mut made) = (this.tensors.clone(), this.made.clone().unwrap_or_default());
    let added: Vec<&Tensor> = other.tensors.iter().filter(|tensor| this.get(&tensor.name).is_none()).collect();
    if added.is_empty() {
        return;
    }
    let shown: Vec<&str> = added.iter().take(3).map(|tensor| tensor.name.as_str()).collect();
    let more = if added.len() > 3 { format!(" and {} more", added.len() - 3) } else { String::new() };
    let note = format!(
        "{} tensor(s) that the {role} does not adapt, so taken as zero there: {}{more}",
        added.len(),
        shown.join(", ")
    );
    tensors.extend(added.iter().map(|added| tensor(added.name.clone(), added.shape.clone(), 0)));
    made.resize(tensors.len(), Made::Zero);
    this.compute(tensors, made, vec![note]);
}

fn same_base(minuend: &Checkpoint, subtrahend: &Checkpoint) -> Result<()> {
    let (Some(a), Some(b)) = (&minuend.adapter, &subtrahend.adapter) else { return Ok(()) };
    if let (Some(one), Some(two)) = (&a.base, &b.base)
        && (one == two || same_folder(Path::new(one), Path::new(two)))
        && a.revision == b.revision
    {
        return Ok(());
    }
    let named = |config: &AdapterConfig| match (&config.base, &config.revision) {
        (Some(base), Some(revision)) => quote(&format!("{base}@{revision}")),
        (Some(base), None) => quote(base),
        (None, _) => "not named in it".into(),
    };
    let (root, other) = (minuend.place.root.display(), subtrahend.place.root.display());
    let (a, b) = (named(a), named(b));
    Err(Error::Mismatch(format!(
        "{root}: this adapter's base is {a}, and that of {other} is {b}; use adapters that were trained on the same base, or name it with --base if both names mean the same model"
    )))
}

/// Handles the pair of an adapter and its base. The adapter's tensors are ΔW, so the base counts as zeros: then the
/// difference is ±ΔW, and none of the base's weights are read.
fn against_base(adapted: &Checkpoint, base: &mut Checkpoint, options: &Options) -> Result<()> {
    let Some(config) = &adapted.adapter else { return Ok(()) };
    let (root, shown) = (adapted.place.root.display(), base.place.root.display());
    match &options.base {
        Some(named) if !is_named(named, &base.place) => {
            return Err(Error::Mismatch(format!(
                "--base {named}: the other donor of the pair with the adapter {root} is {shown}, which is not that model; use the base as the other donor"
            )));
        }
        None if !is_base(config, &base.place) => {
            let named = match &config.base {
                Some(base) => {
                    format!("this adapter's base is {}, and nothing shows that {shown} is that model", quote(base))
                }
                None => format!(
                    "{} does not name the base model (base_model_name_or_path), so nothing shows that {shown} is it",
                    adapter_config::FILE
                ),
            };
            return Err(Error::Mismatch(format!("{root}: {named}; give --base {shown} if it is")));
        }
        _ => {}
    }
    let stored: HashMap<Cow<'_, str>, u32> =
        (0..).zip(&base.tensors).map(|(at, tensor)| (options.strip(&tensor.name), at)).collect();
    let mut by_place = BTreeMap::new();
    for tensor in &adapted.tensors {
        let name = options.strip(&tensor.name);
        let found = stored.get(&name).copied().filter(|&at| base.tensors[at as usize].shape == tensor.shape);
        let Some(at) = found else {
            if !options.selects(&name) {
                continue;
            }
            return Err(Error::Mismatch(format!("{root}: {}", lacks(base, tensor))));
        };
        by_place.insert(at, tensor);
    }
    // In the order of the base, because a vector has the layout of its minuend, which may be the base.
    let zero = |(&at, other): (&u32, &&Tensor)| {
        let own = &base.tensors[at as usize];
        tensor(own.name.clone(), other.shape.clone(), own.shard)
    };
    let tensors: Vec<Tensor> = by_place.iter().map(zero).collect();
    let made = vec![Made::Zero; tensors.len()];
    let note =
        format!("{} is the adapter's base: the difference is ΔW itself, so its weights are not read", base.label);
    base.compute(tensors, made, vec![note]);
    // If the adapter adapts the output head, the head is separate from the embedding.
    base.config.tied = Some(false);
    Ok(())
}

/// The message for an adapter that adapts a tensor which its base does not have, or has in another shape.
fn lacks(base: &Checkpoint, tensor: &Tensor) -> String {
    let (name, shape, shown) = (quote(&tensor.name), &tensor.shape, base.place.root.display());
    if tied::is_head(&tensor.name) && base.config.tied == Some(true) {
        return format!(
            "it adapts {name}, which {shown} ties to its embedding and does not store; leave it out with --exclude '{}', or train on an untied model",
            regex::escape(&tensor.name)
        );
    }
    match base.get(&tensor.name) {
        Some(stored) => format!(
            "it adapts {name} with shape {shape:?}, which has shape {:?} in {shown}; use the checkpoint that it was trained on",
            stored.shape
        ),
        None => format!(
            "it adapts {name}, which {shown} does not have; if the names differ only by a prefix, give --strip-prefix; otherwise use the checkpoint that it was trained on"
        ),
    }
}

/// Whether `--base` means this checkpoint: it has the same text, is the same folder, or is the same model on the Hub.
fn is_named(base: &str, place: &Place) -> bool {
    place.root.as_os_str().to_str() == Some(base)
        || place.origin.as_ref().is_some_and(|origin| origin.repo == base && origin.subfolder.is_none())
        || (place.remote.is_none() && same_folder(Path::new(base), &place.root))
}

/// Whether a checkpoint can be recognised as the base that an adapter names.
fn is_base(config: &AdapterConfig, place: &Place) -> bool {
    let Some(base) = &config.base else { return false };
    let on_hub = place.origin.as_ref().is_some_and(|origin| {
        let named = format!("{base}@{}", config.revision.as_deref().unwrap_or_default());
        let revision = config.revision.as_ref().is_none_or(|revision| {
            *revision == origin.commit || place.root.as_os_str().to_str() == Some(named.as_str())
        });
        origin.repo == *base && origin.subfolder.is_none() && revision
    });
    // A local folder has no revisions.
    let here = place.remote.is_none() && config.revision.is_none() && same_folder(Path::new(base), &place.root);
    on_hub || here
}

/// Whether both are the same local folder.
fn same_folder(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
