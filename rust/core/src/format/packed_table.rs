//! The table of a file of packed tensors, in the metadata of its safetensors header: type and shape of each tensor, the
//! length of its palette and of each of its frames. `docs/packed.md` describes it.
//!
//! ```text
//! "taskvec.packed":   "1"
//! "taskvec.digest":   XXH3-128 of all tensors' names, positions and entries
//! "taskvec.tensors":  an entry for each tensor, in the order of the file, with semicolons between them:
//!                     BF16 [1536,1536] exact 70 <lengths of frames>
//! ```

use std::collections::HashMap;
use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD as BASE64;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::codec::packed::Packed;
use crate::codec::packed::palette::MOST;
use crate::format::header::TensorInfo;
use crate::numeric::dtype::{Dtype, Float};

/// The metadata key that says that a file holds packed tensors; its value is the version of the format.
pub const KEY: &str = "taskvec.packed";
const VERSION: &str = "1";
const DIGEST: &str = "taskvec.digest";
const TENSORS: &str = "taskvec.tensors";
/// Bytes of the length of a frame.
const LENGTH: usize = 3;

/// What the table says about a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The type of its dense form: bfloat16 or float32.
    pub float: Float,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Whether some of its values are not bfloat16, although the dense form is.
    pub wide: bool,
    /// How many magnitudes its palette has.
    pub magnitudes: u8,
    /// The length of each frame in bytes.
    pub lengths: Vec<u32>,
}

impl Entry {
    /// The number of elements; `None` if there are too many to count.
    fn elements(&self) -> Option<u64> {
        self.shape.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim))
    }

    /// The entry, as [`Entry::parse`] reads it.
    pub fn to_text(&self) -> String {
        let shape: Vec<String> = self.shape.iter().map(u64::to_string).collect();
        let wide = if self.wide { "wide" } else { "exact" };
        let lengths: Vec<u8> =
            self.lengths.iter().flat_map(|length| length.to_le_bytes().into_iter().take(LENGTH)).collect();
        let (dtype, magnitudes) = (self.float.dtype(), self.magnitudes);
        format!("{dtype} [{}] {wide} {magnitudes} {}", shape.join(","), BASE64.encode(lengths))
    }

    /// Reads an entry; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(' ');
        let mut next = || fields.next();
        let float = Dtype::parse(next()?)?.float().filter(|&float| float != Float::F16)?;
        let shape = next()?.strip_prefix('[')?.strip_suffix(']')?;
        let dims = shape.split(',').filter(|_| !shape.is_empty());
        // Digits alone: a sign or a leading zero would be another way to write the same number.
        let number = |text: &str| text.parse().ok().filter(|number: &u64| number.to_string() == text);
        let shape = dims.map(number).collect::<Option<_>>()?;
        let wide = match next()? {
            "exact" => false,
            "wide" if float == Float::Bf16 => true,
            _ => return None,
        };
        let magnitudes = number(next()?).filter(|&count| count <= MOST as u64)? as u8;
        let bytes = BASE64.decode(next()?).ok()?;
        let (lengths, rest) = bytes.as_chunks::<LENGTH>();
        let lengths = lengths.iter().map(|&[a, b, c]| u32::from_le_bytes([a, b, c, 0])).collect();
        let entry = Self { float, shape, wide, magnitudes, lengths };
        let frames = entry.elements()?.div_ceil(Packed::frame_elements(float));
        (rest.is_empty() && fields.next().is_none() && frames == entry.lengths.len() as u64).then_some(entry)
    }

    /// The bytes of palette and frames together.
    pub fn bytes(&self) -> u64 {
        2 * u64::from(self.magnitudes) + self.lengths.iter().map(|&length| u64::from(length)).sum::<u64>()
    }

    /// The tensor that this entry describes. It begins at byte `begin` of the shard's file.
    pub fn packed(self, name: &str, shard: u32, begin: u64) -> Packed {
        let mut end = 0;
        let ends = self.lengths.iter().map(|&length| {
            end += u64::from(length);
            end
        });
        Packed {
            shard,
            begin: begin + 2 * u64::from(self.magnitudes),
            float: self.float,
            wide: self.wide,
            elements: self.shape.iter().product(),
            ends: ends.collect(),
            skip: 0,
            magnitudes: self.magnitudes,
            seed: seed(name),
        }
    }
}

/// What the checksums of a tensor's frames start from.
pub fn seed(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// The metadata for tensors in the order of the file: name, begin and end in the data section, entry. `others` are
/// entries of the header that the dense form of the file would have.
pub fn metadata(tensors: &[(&str, [u64; 2], &Entry)], others: &[(String, String)]) -> Vec<(String, String)> {
    let texts: Vec<String> = tensors.iter().map(|(_, _, entry)| entry.to_text()).collect();
    let positions = tensors.iter().zip(&texts).map(|(&(name, position, _), text)| (name, position, text.as_str()));
    let digest = digest(positions);
    let ours = [(KEY, VERSION), (DIGEST, &digest), (TENSORS, &texts.join(";"))];
    let ours = ours.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    ours.chain(others.iter().filter(|(key, _)| !is_ours(key)).cloned()).collect()
}

/// Whether a metadata entry belongs to the table.
pub fn is_ours(key: &str) -> bool {
    [KEY, DIGEST, TENSORS].contains(&key)
}

/// Reads the table of a file: an entry for each of its tensors, in their order. `None` if the file is not packed.
///
/// # Errors
/// The table is not one that [`metadata`] could give for these tensors.
pub fn read(tensors: &[TensorInfo], metadata: &[(String, String)]) -> Result<Option<Vec<Entry>>, String> {
    let values: HashMap<&str, &str> = metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    match values.get(KEY) {
        None => return Ok(None),
        Some(&VERSION) => {}
        Some(_) => return Err("is packed in a way that this version does not read; update taskvec".to_owned()),
    }
    let damaged = || "has a damaged table of packed tensors; download or extract the vector again".to_owned();
    let texts: Vec<&str> = match values.get(TENSORS) {
        Some(&"") => Vec::new(),
        Some(texts) => texts.split(';').collect(),
        None => return Err(damaged()),
    };
    let positions =
        tensors.iter().zip(&texts).map(|(tensor, text)| (tensor.name.as_str(), [tensor.begin, tensor.end], *text));
    if texts.len() != tensors.len() || values.get(DIGEST).copied() != Some(digest(positions).as_str()) {
        return Err(damaged());
    }
    let entry = |(tensor, text): (&TensorInfo, &&str)| {
        let entry = Entry::parse(text)?;
        let bytes = tensor.end - tensor.begin == entry.bytes();
        (bytes && tensor.dtype == Dtype::U8 && tensor.shape.len() == 1).then_some(entry)
    };
    tensors.iter().zip(&texts).map(entry).collect::<Option<_>>().ok_or_else(damaged).map(Some)
}

fn digest<'a>(tensors: impl Iterator<Item = (&'a str, [u64; 2], &'a str)>) -> String {
    let mut digest = Xxh3::new();
    let mut line = String::new();
    for (name, [begin, end], text) in tensors {
        line.clear();
        // Writing to a string does not fail. No name has a line break: it would have been refused.
        let _ = writeln!(line, "{name}\n{begin} {end} {text}");
        digest.update(line.as_bytes());
    }
    format!("{:032x}", digest.digest128())
}
