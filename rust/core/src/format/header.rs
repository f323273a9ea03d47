//! The header of a safetensors file: 8 bytes of length, then JSON that says where every tensor is.
//!
//! Its bytes come from strangers. It is read more strictly than by the `safetensors` crate, and never more leniently. A
//! header that passes has tensors without overlaps or gaps up to the end of the file, so that any two readers agree on
//! it.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{self, Error};
use crate::format::json::{self, Pairs};
use crate::numeric::dtype::Dtype;
use crate::system::files::{Identity, read_exact_at};
use crate::text::{brief, quote};

/// One tensor of a file: its name, type and shape, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name: not empty and without control characters, but otherwise arbitrary.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions; empty for a scalar.
    pub shape: Vec<u64>,
    /// The first byte, counted from the start of the data section.
    pub begin: u64,
    /// One past the last byte.
    pub end: u64,
}

/// A header that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Sorted by begin, then end, then position in the header. They cover the data section without gaps or overlaps.
    pub tensors: Vec<TensorInfo>,
    /// Where the data section begins: 8 plus the length of the JSON text.
    pub data_start: u64,
    /// The `__metadata__` entries in their order.
    pub metadata: Vec<(String, String)>,
}

/// The longest JSON text that any reader takes.
pub const MAX_HEADER: u64 = 100_000_000;

/// The first bytes of a file. They tell how long the header is, or that the file has another format.
const START: u64 = 64;

/// The most dimensions of a tensor: numpy's limit, and that of most of torch's operations.
const MAX_RANK: usize = 64;

/// The advice at the end of most errors about a damaged file.
const AGAIN: &str = "download or save it again";

impl Header {
    /// Reads and checks the header of an open file. Returns it and the XXH3-128 (seed 0) of bytes `[0, data_start)`.
    pub fn read(file: &File, path: &Path) -> error::Result<(Self, u128)> {
        let file_len = Identity::of(file, path)?.size;
        Self::read_parts(file_len, path, START, |range, bytes| {
            let begin = bytes.len();
            bytes.resize(begin + (range.end - range.start) as usize, 0);
            read_exact_at(file, &mut bytes[begin..], range.start).map_err(Error::io(path, "read the header"))
        })
    }

    /// As [`Header::read`], for any source of bytes. `read` appends a range of the file to a buffer: it is called for
    /// the first `guess` bytes, and then for the rest of the header if that is longer.
    pub fn read_parts(
        file_len: u64,
        path: &Path,
        guess: u64,
        mut read: impl FnMut(Range<u64>, &mut Vec<u8>) -> error::Result<()>,
    ) -> error::Result<(Self, u128)> {
        let guess = guess.clamp(START, 8 + MAX_HEADER).min(file_len);
        let mut bytes = Vec::new();
        read(0..guess, &mut bytes)?;
        let start = &bytes[..bytes.len().min(START as usize)];
        let length = json_length(start, file_len).map_err(|what| Error::corrupt(path, what))?;
        // The length was checked: it is at most MAX_HEADER, and at most what the file holds.
        let end = 8 + length;
        if end > guess {
            bytes.reserve_exact((end - guess) as usize);
            read(guess..end, &mut bytes)?;
        }
        bytes.truncate(end as usize);
        let header = Self::parse(&bytes[8..], file_len, path)?;
        Ok((header, xxh3_128(&bytes)))
    }

    /// Checks the JSON text of a header against the length of the whole file; `path` is for messages.
    pub fn parse(json: &[u8], file_len: u64, path: &Path) -> error::Result<Self> {
        parse(json, file_len).map_err(|what| Error::corrupt(path, what))
    }

    /// The bytes of a header (length and compact JSON, padded with spaces to a multiple of 8) for tensors in the given
    /// order, without gaps. Their sizes must be such that [`Header::parse`] accepts them.
    pub fn write(tensors: &[(&str, Dtype, &[u64])], metadata: &[(String, String)]) -> Vec<u8> {
        let string = |text: &str| serde_json::Value::from(text).to_string();
        let mut members = Vec::with_capacity(tensors.len() + 1);
        if !metadata.is_empty() {
            let pairs: Vec<_> =
                metadata.iter().map(|(key, value)| format!("{}:{}", string(key), string(value))).collect();
            members.push(format!("\"__metadata__\":{{{}}}", pairs.join(",")));
        }
        let mut begin = 0;
        for &(name, dtype, shape) in tensors {
            let end = begin + shape.iter().product::<u64>() * dtype.bits() / 8;
            let dims: Vec<_> = shape.iter().map(u64::to_string).collect();
            members.push(format!(
                "{}:{{\"dtype\":\"{dtype}\",\"shape\":[{}],\"data_offsets\":[{begin},{end}]}}",
                string(name),
                dims.join(",")
            ));
            begin = end;
        }
        let mut json = format!("{{{}}}", members.join(","));
        json.push_str(&" ".repeat(json.len().next_multiple_of(8) - json.len()));
        [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()
    }
}

/// The length of the JSON text, from the first bytes of a file. Fails if the file has another format.
fn json_length(start: &[u8], file_len: u64) -> Result<u64, String> {
    if file_len == 0 {
        return Err(format!("is empty; {AGAIN}"));
    }
    // Checked only if no JSON begins here, because the length of a header may look like the first bytes of another
    // format.
    if start.get(8) != Some(&b'{')
        && let Some(what) = other_format(start)
    {
        return Err(what.to_owned());
    }
    let Some(length) = start.first_chunk() else {
        return Err(format!("has {file_len} bytes, too few for a safetensors file; {AGAIN}"));
    };
    let length = u64::from_le_bytes(*length);
    if length == 0 {
        return Err(format!("has a header of length 0; {AGAIN}"));
    }
    if length > MAX_HEADER {
        return Err(format!("claims a header of {length} bytes, but at most {MAX_HEADER} are allowed; {AGAIN}"));
    }
    if length > file_len - 8 {
        return Err(format!("claims a header of {length} bytes, but only {} bytes follow; {AGAIN}", file_len - 8));
    }
    match start.get(8) {
        Some(b'{') => Ok(length),
        _ => Err(no_brace()),
    }
}

fn no_brace() -> String {
    format!("has a header that does not begin with `{{`; {AGAIN}")
}

fn other_format(start: &[u8]) -> Option<&'static str> {
    let text = start.trim_ascii_start();
    if start.starts_with(b"version https://git-lfs") {
        return Some("is a Git LFS pointer, not the file itself; run `git lfs pull`");
    }
    if text.starts_with(b"<!") || text.starts_with(b"<?") || text.to_ascii_lowercase().starts_with(b"<html") {
        return Some("is a web page, not the file itself; download it again");
    }
    if start.starts_with(b"PK\x03\x04") || matches!(start, [0x80, 2..=5, ..]) {
        return Some("is a zip or pickle file such as torch.save writes; convert it to safetensors first");
    }
    start.starts_with(b"GGUF").then_some("is a GGUF file; use the safetensors release of the model")
}

fn parse(json: &[u8], file_len: u64) -> Result<Header, String> {
    let data_start = 8 + json.len() as u64;
    let Some(data_len) = file_len.checked_sub(data_start) else {
        return Err(format!("has {file_len} bytes, fewer than its header; {AGAIN}"));
    };
    // The format requires this; JSON alone would allow white space first.
    if json.first() != Some(&b'{') {
        return Err(no_brace());
    }
    let text = std::str::from_utf8(json).map_err(|_| format!("has a header that is not UTF-8; {AGAIN}"))?;
    let Pairs(members) = serde_json::from_str::<Pairs<Entry>>(text)
        .map_err(|error| format!("has a malformed header: {}; {AGAIN}", brief(&error)))?;

    let mut metadata = Vec::new();
    let mut tensors = Vec::with_capacity(members.len());
    for (name, entry) in members {
        match entry {
            Entry::Metadata(pairs) => metadata = pairs,
            Entry::Tensor(Place { dtype, shape, begin, end }) => {
                check_name(&name)?;
                tensors.push(TensorInfo { name, dtype, shape, begin, end });
            }
        }
    }
    tensors.sort_by_key(|tensor| (tensor.begin, tensor.end));
    check_layout(&tensors, data_len)?;
    Ok(Header { tensors, data_start, metadata })
}

/// Refuses names that cannot be shown in a report. All other names are allowed.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("has a tensor without a name; save it again with a name for each tensor".to_owned());
    }
    if name.chars().any(char::is_control) {
        let name = quote(name);
        return Err(format!("has a tensor with control characters in its name, {name}; save it again without them"));
    }
    Ok(())
}

fn check_layout(tensors: &[TensorInfo], data_len: u64) -> Result<(), String> {
    let mut expected = 0;
    for TensorInfo { name, dtype, shape, begin, end } in tensors {
        let tensor = || format!("tensor {}", quote(name));
        if end < begin {
            return Err(format!("{} ends at byte {end}, before it begins at byte {begin}; {AGAIN}", tensor()));
        }
        if *begin != expected {
            let how = if *begin < expected { "overlaps another" } else { "leaves a gap" };
            return Err(format!("{} {how}: it begins at byte {begin}, not {expected}; {AGAIN}", tensor()));
        }
        if *end > data_len {
            return Err(format!(
                "{} ends at byte {end} but the file holds {data_len} bytes of data; {AGAIN}",
                tensor()
            ));
        }
        let bits = shape
            .iter()
            .try_fold(1_u64, |product, &dim| product.checked_mul(dim))
            .and_then(|elements| elements.checked_mul(dtype.bits()))
            .ok_or_else(|| format!("{} has a shape too large to count; {AGAIN}", tensor()))?;
        if bits % 8 != 0 {
            return Err(format!("{} of type {dtype} does not fill whole bytes; {AGAIN}", tensor()));
        }
        if bits / 8 != end - begin {
            let held = end - begin;
            return Err(format!("{} needs {} bytes for {dtype} {shape:?} but has {held}; {AGAIN}", tensor(), bits / 8));
        }
        expected = *end;
    }
    if expected != data_len {
        return Err(format!("has {} bytes that belong to no tensor; {AGAIN}", data_len - expected));
    }
    Ok(())
}

/// A member of the header's JSON object.
enum Entry {
    Metadata(Vec<(String, String)>),
    Tensor(Place),
}

impl<'de> json::Member<'de> for Entry {
    fn read<A: MapAccess<'de>>(key: &str, object: &mut A) -> Result<Self, A::Error> {
        if key == "__metadata__" {
            // The reference implementation treats null as absent.
            let pairs: Option<Pairs<String>> = object.next_value()?;
            return Ok(Self::Metadata(pairs.map_or_else(Vec::new, |Pairs(pairs)| pairs)));
        }
        object.next_value().map(Self::Tensor)
    }
}

/// A tensor's entry, not checked yet. Deserialisation is written by hand, because derived code would also accept an
/// array.
struct Place {
    dtype: Dtype,
    shape: Vec<u64>,
    begin: u64,
    end: u64,
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Dtype,
    Shape,
    DataOffsets,
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PlaceVisitor)
    }
}

struct PlaceVisitor;

impl<'de> Visitor<'de> for PlaceVisitor {
    type Value = Place;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Place, A::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(field) = object.next_key()? {
            let twice = match field {
                Field::Dtype => {
                    let text: String = object.next_value()?;
                    let parsed = Dtype::parse(&text)
                        .ok_or_else(|| A::Error::custom(format_args!("unknown element type {}", quote(&text))))?;
                    dtype.replace(parsed).map(|_| "dtype")
                }
                Field::Shape => shape.replace(object.next_value::<Shape>()?.0).map(|_| "shape"),
                Field::DataOffsets => offsets.replace(object.next_value::<[u64; 2]>()?).map(|_| "data_offsets"),
            };
            if let Some(field) = twice {
                return Err(A::Error::duplicate_field(field));
            }
        }
        let missing = A::Error::missing_field;
        let [begin, end] = offsets.ok_or_else(|| missing("data_offsets"))?;
        Ok(Place {
            dtype: dtype.ok_or_else(|| missing("dtype"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
            begin,
            end,
        })
    }
}

/// Dimensions. More than [`MAX_RANK`] are refused while reading, before they take memory.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ShapeVisitor).map(Self)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Vec<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of dimensions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut dims: A) -> Result<Vec<u64>, A::Error> {
        let mut shape = Vec::new();
        while let Some(dim) = dims.next_element()? {
            if shape.len() == MAX_RANK {
                return Err(A::Error::custom(format_args!("more than {MAX_RANK} dimensions")));
            }
            shape.push(dim);
        }
        Ok(shape)
    }
}
