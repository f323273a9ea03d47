//! The tensors of a stored checkpoint that belong together: a weight with its scales, or a tensor alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Role, Roles, Stop, Weight, roles};
use crate::checkpoint::Checkpoint;
use crate::codec::scaled::Format;
use crate::error::Result;

/// Tensors that are only copied together.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The name of the weight. Of weights that are not read, the name of their module.
    pub name: String,
    /// Its tensors, by index in the checkpoint, in the order of their names.
    pub parts: Vec<u32>,
    /// How it is quantised, if it is and this is known.
    pub format: Option<Arc<Format>>,
}

/// The units of a checkpoint whose tensors are as they are stored, in the order of their names.
///
/// # Errors
/// Parts of a weight that do not belong together.
pub fn units(checkpoint: &Checkpoint) -> Result<Vec<Unit>> {
    let (owners, weights) = match roles(checkpoint) {
        Ok(None) => (own(checkpoint), BTreeMap::new()),
        Ok(Some(Roles { roles, weights, .. })) => {
            let owner = |(at, role): (u32, &Role)| if let Role::Part(Some(owner)) = role { *owner } else { at };
            let owners = (0..).zip(&roles).map(owner).collect();
            let weight = |(at, role): (u32, Role)| match role {
                Role::Weight(number) => Some((at, &weights[number as usize])),
                _ => None,
            };
            let named = |(at, weight): (u32, &Weight)| {
                let name = &checkpoint.tensors[at as usize].name[..weight.name];
                (at, (name.to_owned(), Arc::clone(&weight.scaled.format)))
            };
            (owners, (0..).zip(roles).filter_map(weight).map(named).collect())
        }
        Err(Stop::Error(error)) => return Err(error),
        // What the parts of a weight are is not known, but they are all in one module.
        Err(Stop::Unread(_)) => (modules(checkpoint), BTreeMap::new()),
    };
    let mut parts: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (at, owner) in (0..).zip(owners) {
        parts.entry(owner).or_default().push(at);
    }
    let name = |at: u32| &*checkpoint.tensors[at as usize].name;
    let mut found: Vec<Unit> = parts
        .into_iter()
        .map(|(owner, mut parts)| {
            parts.sort_by_key(|&part| name(part));
            match weights.get(&owner) {
                Some((weight, format)) => Unit { name: weight.to_string(), parts, format: Some(Arc::clone(format)) },
                None if parts.len() > 1 => Unit { name: module(name(owner)).into(), parts, format: None },
                None => Unit { name: name(owner).into(), parts, format: None },
            }
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Every tensor alone.
fn own(checkpoint: &Checkpoint) -> Vec<u32> {
    (0..).take(checkpoint.tensors.len()).collect()
}

fn module(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(module, _)| module)
}

/// For each tensor of a module that holds anything but floats, the first tensor of its module; the others alone.
fn modules(checkpoint: &Checkpoint) -> Vec<u32> {
    let mut coded: BTreeMap<&str, Option<u32>> = BTreeMap::new();
    for tensor in checkpoint.tensors.iter().filter(|tensor| tensor.dtype.float().is_none()) {
        coded.insert(module(&tensor.name), None);
    }
    let owner = |(at, tensor)| match coded.get_mut(module(tensor)) {
        Some(first) => *first.get_or_insert(at),
        None => at,
    };
    (0..).zip(checkpoint.tensors.iter().map(|tensor| &*tensor.name)).map(owner).collect()
}
