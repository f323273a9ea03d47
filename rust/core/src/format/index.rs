//! The index of a sharded checkpoint: which shard holds which tensor. Its names are used to open files, so they are
//! checked strictly.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::de::{IgnoredAny, MapAccess};

use crate::error::{self, Error};
use crate::format::header::check_name;
use crate::format::json::{Member, Pairs};
use crate::text::{brief, quote};

/// The longest index that is read.
pub const MAX_INDEX: u64 = 100_000_000;

/// The file name of the index, for weight files whose names begin with `stem`.
pub fn index_name(stem: &str) -> String {
    format!("{stem}.safetensors.index.json")
}

/// An index in which every tensor has one shard with a safe name. `total_size` and other metadata are not checked,
/// because they are wrong in many existing indexes.
#[derive(Clone, Debug)]
pub struct Index {
    /// Pairs of tensor and shard, in the order of the file.
    pub weight_map: Vec<(String, String)>,
    /// The file's own bytes.
    pub raw: Vec<u8>,
}

impl Index {
    /// Checks the text of an index; `path` is for messages.
    pub fn parse(raw: Vec<u8>, path: &Path) -> error::Result<Self> {
        let weight_map = parse(&raw).map_err(|what| Error::corrupt(path, what))?;
        Ok(Self { weight_map, raw })
    }
}

fn parse(raw: &[u8]) -> Result<Vec<(String, String)>, String> {
    if raw.len() as u64 > MAX_INDEX {
        return Err(format!("has {} bytes, but at most {MAX_INDEX} are allowed; download it again", raw.len()));
    }
    if raw.starts_with(b"version https://git-lfs") {
        return Err("is a Git LFS pointer, not the file itself; run `git lfs pull`".to_owned());
    }
    // Checked for the whole file, because the parser does not check strings that it skips. The file may be copied to an
    // output, and other readers would refuse it.
    let text = std::str::from_utf8(raw).map_err(|_| "is not a valid index: it is not UTF-8; download it again")?;
    let Pairs(members) = serde_json::from_str::<Pairs<Part>>(text)
        .map_err(|error| format!("is not a valid index: {}; download it again", brief(&error)))?;
    let weight_map = members
        .into_iter()
        .find_map(|(_, part)| match part {
            Part::WeightMap(pairs) => Some(pairs),
            Part::Other => None,
        })
        .ok_or("has no `weight_map`; download it again")?;
    if weight_map.is_empty() {
        return Err("lists no tensors; download it again".to_owned());
    }

    for (tensor, shard) in &weight_map {
        check_name(tensor)?;
        if !safe_shard_name(shard) {
            let (tensor, shard) = (quote(tensor), quote(shard));
            return Err(format!(
                "lists tensor {tensor} in {shard}, which is not the plain name of a .safetensors file beside it; \
                 take the checkpoint from a source you trust"
            ));
        }
    }
    let mut folded = BTreeMap::new();
    for shard in weight_map.iter().map(|(_, shard)| shard).collect::<BTreeSet<_>>() {
        if let Some(other) = folded.insert(shard.to_lowercase(), shard) {
            return Err(format!(
                "lists shards {} and {}, which are the same file on systems that ignore case; rename one of them",
                quote(other),
                quote(shard)
            ));
        }
    }
    Ok(weight_map)
}

/// Whether a name from an index means a file in the same folder on every system. It must not be readable as a path, a
/// drive, a stream, a URL, or an encoded form of one.
pub fn safe_shard_name(name: &str) -> bool {
    name.ends_with(".safetensors")
        && name.len() <= 255
        && !name.starts_with('.')
        && !name.contains(|c: char| matches!(c, '/' | '\\' | ':' | '%') || c.is_control())
}

/// A member of the index's JSON object.
enum Part {
    WeightMap(Vec<(String, String)>),
    Other,
}

impl Member for Part {
    fn read<'de, A: MapAccess<'de>>(key: &str, object: &mut A) -> Result<Self, A::Error> {
        match key {
            "weight_map" => object.next_value().map(|Pairs(pairs)| Self::WeightMap(pairs)),
            // Read as an object so that duplicate keys in it are refused too.
            "metadata" => object.next_value::<Pairs<Any>>().map(|_| Self::Other),
            _ => object.next_value::<IgnoredAny>().map(|_| Self::Other),
        }
    }
}

/// Any value; it is skipped.
struct Any;

impl Member for Any {
    fn read<'de, A: MapAccess<'de>>(_: &str, object: &mut A) -> Result<Self, A::Error> {
        object.next_value::<IgnoredAny>().map(|_| Self)
    }
}
