//! Header parsing against the `safetensors` crate: more may be refused here than there, never more accepted.

use std::path::Path;

use proptest::prelude::*;
use safetensors::SafeTensors;
use taskvec_core::format::header::Header;
use taskvec_core::numeric::dtype::Dtype;

/// Name, element type, shape, begin, end.
type Place = (String, String, Vec<u64>, u64, u64);

fn with_length(json: &[u8], data: usize) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes(), json, &vec![0; data]].concat()
}

/// What the reference makes of a file, in an order that does not depend on its hash map.
fn reference(file: &[u8]) -> Option<Vec<Place>> {
    let (_, metadata) = SafeTensors::read_metadata(file).ok()?;
    let mut all: Vec<_> = metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let shape = info.shape.iter().map(|&dim| dim as u64).collect();
            (name, format!("{:?}", info.dtype), shape, info.data_offsets.0 as u64, info.data_offsets.1 as u64)
        })
        .collect();
    all.sort();
    Some(all)
}

fn ours(json: &[u8], data: usize) -> Option<Vec<Place>> {
    let mut all: Vec<_> = Header::parse(json, (8 + json.len() + data) as u64, Path::new("x.safetensors"))
        .ok()?
        .tensors
        .into_iter()
        .map(|tensor| (tensor.name, format!("{:?}", tensor.dtype), tensor.shape, tensor.begin, tensor.end))
        .collect();
    all.sort();
    Some(all)
}

/// Tensors with unique names, and their metadata.
type Content = (Vec<(String, Dtype, Vec<u64>)>, Vec<(String, String)>);

fn content() -> impl Strategy<Value = Content> {
    let dims = prop::collection::vec(prop_oneof![4 => 1..5_u64, 1 => Just(0)], 0..4);
    let dtype = prop::sample::select(Dtype::ALL).prop_filter("whole bytes", |dtype| dtype.bits() % 8 == 0);
    let tensors = prop::collection::btree_map("[a-zé\"\\\\/.]{1,6}", (dtype, dims), 0..6);
    let metadata = prop::collection::btree_map(any::<String>(), any::<String>(), 0..3);
    (tensors, metadata).prop_map(|(tensors, metadata)| {
        let tensors = tensors.into_iter().map(|(name, (dtype, shape))| (name, dtype, shape)).collect();
        (tensors, metadata.into_iter().collect())
    })
}

fn write(tensors: &[(String, Dtype, Vec<u64>)], metadata: &[(String, String)]) -> (Vec<u8>, usize) {
    let borrowed: Vec<_> = tensors.iter().map(|(name, dtype, shape)| (name.as_str(), *dtype, &shape[..])).collect();
    let bytes = tensors.iter().map(|(_, dtype, shape)| shape.iter().product::<u64>() * dtype.bits() / 8);
    (Header::write(&borrowed, metadata), bytes.sum::<u64>() as usize)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn written_headers_read_back((tensors, metadata) in content()) {
        let (bytes, data) = write(&tensors, &metadata);
        prop_assert_eq!(bytes.len() % 8, 0);
        let file = [&bytes[..], &vec![0; data]].concat();
        let (_, theirs) = SafeTensors::read_metadata(&file).unwrap();
        for (name, dtype, shape) in &tensors {
            let info = theirs.info(name).unwrap();
            prop_assert_eq!(format!("{:?}", info.dtype), dtype.name());
            prop_assert!(info.shape.iter().map(|&dim| dim as u64).eq(shape.iter().copied()));
        }
        prop_assert_eq!(theirs.tensors().len(), tensors.len());
        let their_metadata = theirs.metadata().clone().unwrap_or_default();
        prop_assert_eq!(their_metadata.len(), metadata.len());
        prop_assert!(metadata.iter().all(|(key, value)| their_metadata.get(key) == Some(value)));
        let header = Header::parse(&bytes[8..], file.len() as u64, Path::new("x.safetensors")).unwrap();
        prop_assert_eq!(&header.metadata, &metadata);
        prop_assert_eq!(ours(&bytes[8..], data), reference(&file));
    }

    /// A sound header, then bytes of it replaced, taken out or doubled, and the data's length shifted.
    #[test]
    fn what_passes_here_passes_there(
        (tensors, metadata) in content(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3, prop::sample::select(&b"0123456789[]{},:\"\\ -eaU8.\0\x80"[..])), 0..3),
        shift in prop_oneof![3 => Just(0_i64), 1 => -3..4_i64],
    ) {
        let (bytes, data) = write(&tensors, &metadata);
        let mut json = bytes[8..].to_vec();
        for (at, how, byte) in edits {
            let at = at.index(json.len());
            match how {
                0 => json[at] = byte,
                1 => json.insert(at, byte),
                _ => { json.remove(at); }
            }
        }
        let data = data.saturating_add_signed(shift as isize);
        if let Some(ours) = ours(&json, data) {
            prop_assert_eq!(Some(ours), reference(&with_length(&json, data)));
        }
    }

    /// Headers put together from parts that are right or wrong by chance.
    #[test]
    fn assembled_headers_agree(
        entries in prop::collection::vec(
            (
                prop::sample::select(&["a", "b", "c", "d", r"\u0061", "", "__metadata__", r"\n", "é"][..]),
                prop::sample::select(PARTS),
                // Where the tensor begins, mostly where the last one ended.
                prop_oneof![4 => Just(0_i64), 1 => -2..3_i64],
            ),
            0..4,
        ),
        rest in prop_oneof![4 => Just(0_i64), 1 => -2..3_i64],
    ) {
        let mut end = 0_u64;
        let members: Vec<_> = entries.iter().map(|(name, (dtype, shape, bytes), shift)| {
            let begin = end.saturating_add_signed(*shift);
            end = begin + bytes;
            format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
        }).collect();
        let json = format!("{{{}}}", members.join(","));
        let data = end.saturating_add_signed(rest) as usize;
        if let Some(ours) = ours(json.as_bytes(), data) {
            prop_assert_eq!(Some(ours), reference(&with_length(json.as_bytes(), data)));
        }
    }
}

/// Types, shapes and lengths: most of them go together.
const PARTS: &[(&str, &str, u64)] = &[
    ("U8", "[]", 1),
    ("U8", "[2,2]", 4),
    ("F16", "[2]", 4),
    ("BF16", "[0,7]", 0),
    ("F4", "[2]", 1),
    ("F4", "[3]", 1),
    ("F6_E2M3", "[4]", 3),
    ("F32", "[1]", 3),
    ("u8", "[1]", 1),
    ("U8", "[1.0]", 1),
    ("U8", "[-1]", 1),
    ("U8", "[4294967296,4294967296]", 0),
];
