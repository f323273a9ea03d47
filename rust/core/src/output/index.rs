//! The index of the output. It names every tensor, so it is written from the plan, and the target's own is read again
//! where it is needed.

use serde::ser::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::format::index::{Index, index_name};
use crate::format::json::{Member, Pairs};
use crate::plan::Plan;
use crate::plan::layout::{Layout, OutFile, TensorPlan};
use crate::plan::output::Output;
use crate::storage::place::Place;

/// Whether the output has the target's own index.
pub fn is_kept(plan: &Plan) -> bool {
    let Layout { unquantised, converted, .. } = plan.layout;
    plan.inputs.output == Output::Checkpoint && !unquantised && !converted && plan.inputs.base().index.is_some()
}

/// The name and the bytes of the index, if the output has one. It has the target's own bytes unless sizes changed; a
/// vector in several files gets a new one.
///
/// # Errors
/// The target's index changed since the target was opened.
pub fn build(plan: &Plan) -> Result<Option<(String, Vec<u8>)>> {
    let base = plan.inputs.base();
    let total: u64 = plan.layout.tensors.iter().map(TensorPlan::bytes).sum();
    if plan.inputs.output == Output::Vector {
        if plan.layout.files.len() < 2 {
            return Ok(None);
        }
        // What packed tensors take is known only when they are written.
        let metadata = if plan.layout.packed { json!({}) } else { json!({"total_size": total}) };
        return encoded("vector", &base.place, &new(plan, metadata)).map(Some);
    }
    // Other tensors than those of the target's own index, or other sizes.
    let anew = plan.layout.unquantised || plan.inputs.outline.is_some();
    if anew && (base.index.is_some() || plan.layout.files.len() > 1) {
        return encoded("model", &base.place, &new(plan, json!({"total_size": total}))).map(Some);
    }
    if anew {
        return Ok(None);
    }
    let Some(raw) = base.index_again("model")? else { return Ok(None) };
    if !plan.layout.converted {
        return Ok(Some((index_name("model"), raw)));
    }
    // The parts of the index that taskvec does not use may be more than this parser takes, such as the number 1e999.
    // Then they are left out.
    let mut members = match serde_json::from_slice(&raw) {
        Ok(Pairs(members)) => members,
        Err(_) => {
            let index = Index::parse(&raw, &base.place.path(&index_name("model")))?;
            vec![("metadata".into(), Part::Other(json!({}))), ("weight_map".into(), Part::Map(index))]
        }
    };
    let metadata = members.iter().position(|(key, _)| key == "metadata").unwrap_or(members.len());
    if metadata == members.len() {
        members.push(("metadata".into(), Part::Other(Value::Null)));
    }
    match &mut members[metadata].1 {
        Part::Other(Value::Object(metadata)) => drop(metadata.insert("total_size".into(), total.into())),
        other => *other = Part::Other(json!({"total_size": total})),
    }
    encoded("model", &base.place, &Members(members)).map(Some)
}

fn encoded(stem: &str, place: &Place, document: &impl Serialize) -> Result<(String, Vec<u8>)> {
    let name = index_name(stem);
    let encoded = serde_json::to_vec_pretty(document);
    let mut bytes = encoded.map_err(|error| Error::io(&place.path(&name), "write")(error.into()))?;
    bytes.push(b'\n');
    Ok((name, bytes))
}

/// A new index.
#[derive(serde::Serialize)]
struct Document<'a> {
    metadata: Value,
    weight_map: Tensors<'a>,
}

fn new(plan: &Plan, metadata: Value) -> Document<'_> {
    Document { metadata, weight_map: Tensors(plan) }
}

/// The tensors of the output, each with its file.
struct Tensors<'a>(&'a Plan);

impl Serialize for Tensors<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let Self(plan) = *self;
        let name = |tensor: &TensorPlan| &plan.inputs.outlined(tensor.tensor).name;
        let of_file = |file: &'_ OutFile| plan.layout.tensors[file.tensors.0..file.tensors.1].iter().map(name);
        let files = plan.layout.files.iter();
        serializer.collect_map(files.flat_map(|file| of_file(file).map(|tensor| (tensor, &file.name))))
    }
}

/// A member of the target's index.
enum Part<'a> {
    Map(Index<'a>),
    Other(Value),
}

impl<'de> Member<'de> for Part<'de> {
    fn read<A: serde::de::MapAccess<'de>>(key: &str, object: &mut A) -> std::result::Result<Self, A::Error> {
        match key {
            "weight_map" => object.next_value().map(Self::Map),
            _ => object.next_value().map(Self::Other),
        }
    }
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Map(index) => serializer.collect_map(index.pairs()),
            Self::Other(value) => value.serialize(serializer),
        }
    }
}

struct Members<'a>(Vec<(String, Part<'a>)>);

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, part)| (key, part)))
    }
}
