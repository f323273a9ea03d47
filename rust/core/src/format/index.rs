//! The index of a sharded checkpoint: which shard holds which tensor. Its names are used to open files, so they are
//! checked strictly.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::error::{self, Error};
use crate::format::header::check_name;
use crate::format::json::{Member, Pairs, twice, within};
use crate::text::{brief, quote};

/// The longest index that is read.
pub const MAX_INDEX: u64 = 100_000_000;

/// The file name of the index, for weight files whose names begin with `stem`.
pub fn index_name(stem: &str) -> String {
    format!("{stem}.safetensors.index.json")
}

/// An index in which every tensor has one shard with a safe name. `total_size` and other metadata are not checked,
/// because they are wrong in many existing indexes.
///
/// It has as many names as the checkpoint has tensors, so it borrows them from the text of the file, and neither of the
/// two is kept once the checkpoint is open.
#[derive(Clone, Debug)]
pub struct Index<'a> {
    /// The names of the shards, each once.
    pub shards: Vec<Cow<'a, str>>,
    /// Each tensor with the number of its shard, in the order of the file.
    tensors: Vec<(Cow<'a, str>, u32)>,
    /// Numbers in `tensors`, sorted by name.
    by_name: Vec<u32>,
}

impl<'a> Index<'a> {
    /// Checks the text of an index; `path` is for messages.
    pub fn parse(raw: &'a [u8], path: &Path) -> error::Result<Self> {
        parse(raw).map_err(|what| Error::corrupt(path, what))
    }

    /// Pairs of tensor and shard, in the order of the file.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.tensors.iter().map(|pair| self.named(pair))
    }

    /// The same pairs, sorted by the tensor's name.
    pub fn by_name(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.by_name.iter().map(|&at| self.named(&self.tensors[at as usize]))
    }

    fn named<'s>(&'s self, (tensor, shard): &'s (Cow<'a, str>, u32)) -> (&'s str, &'s str) {
        (tensor, &self.shards[*shard as usize])
    }
}

fn parse(raw: &[u8]) -> Result<Index<'_>, String> {
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
    let index = members
        .into_iter()
        .find_map(|(_, part)| match part {
            Part::WeightMap(index) => Some(index),
            Part::Other => None,
        })
        .ok_or("has no `weight_map`; download it again")?;
    if index.tensors.is_empty() {
        return Err("lists no tensors; download it again".to_owned());
    }

    for (tensor, shard) in index.pairs() {
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
    let mut shards: Vec<&str> = index.shards.iter().map(AsRef::as_ref).collect();
    shards.sort_unstable();
    for shard in shards {
        if let Some(other) = folded.insert(shard.to_lowercase(), shard) {
            return Err(format!(
                "lists shards {} and {}, which are the same file on systems that ignore case; rename one of them",
                quote(other),
                quote(shard)
            ));
        }
    }
    Ok(index)
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
enum Part<'a> {
    WeightMap(Index<'a>),
    Other,
}

impl<'de> Member<'de> for Part<'de> {
    fn read<A: MapAccess<'de>>(key: &str, object: &mut A) -> Result<Self, A::Error> {
        match key {
            "weight_map" => object.next_value().map(Self::WeightMap),
            // Read as an object so that duplicate keys in it are refused too.
            "metadata" => object.next_value::<Pairs<Any>>().map(|_| Self::Other),
            _ => object.next_value::<IgnoredAny>().map(|_| Self::Other),
        }
    }
}

impl<'de> Deserialize<'de> for Index<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WeightMap)
    }
}

struct WeightMap;

impl<'de> Visitor<'de> for WeightMap {
    type Value = Index<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Index<'de>, A::Error> {
        let (mut shards, mut tensors) = (Vec::new(), Vec::new());
        let mut numbers: HashMap<Cow<str>, u32> = HashMap::new();
        while let Some(Text(tensor)) = object.next_key()? {
            let Text(shard) = object.next_value().map_err(|error| within(&tensor, &error))?;
            let number = match numbers.get(&shard) {
                Some(number) => *number,
                None => {
                    let number = shards.len() as u32;
                    numbers.insert(shard.clone(), number);
                    shards.push(shard);
                    number
                }
            };
            tensors.push((tensor, number));
        }
        let name = |at: u32| &*tensors[at as usize].0;
        let mut by_name: Vec<u32> = (0..).take(tensors.len()).collect();
        // Most indexes are sorted already, or consist of sorted parts, and this sort makes use of that.
        by_name.sort_by(|&a, &b| name(a).cmp(name(b)));
        if let Some(pair) = by_name.windows(2).find(|pair| name(pair[0]) == name(pair[1])) {
            return Err(twice(name(pair[0])));
        }
        Ok(Index { shards, tensors, by_name })
    }
}

/// A string, borrowed from the text of the file unless escapes in it mean other characters.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(text.into()))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(text.to_owned().into()))
    }
}

/// Any value; it is skipped.
struct Any;

impl<'de> Member<'de> for Any {
    fn read<A: MapAccess<'de>>(_: &str, object: &mut A) -> Result<Self, A::Error> {
        object.next_value::<IgnoredAny>().map(|_| Self)
    }
}
