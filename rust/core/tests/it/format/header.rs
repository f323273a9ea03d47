//! Header parsing: one case for every class of bad input.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use safetensors::SafeTensors;
use taskvec_core::Error;
use taskvec_core::format::header::{Header, MAX_HEADER};
use taskvec_core::numeric::dtype::Dtype;

fn parse(json: impl AsRef<[u8]>, data: u64) -> Result<Header, Error> {
    let json = json.as_ref();
    Header::parse(json, 8 + json.len() as u64 + data, Path::new("x.safetensors"))
}

/// The message of a refusal, which must be of a malformed input and name the file.
#[track_caller]
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>, named: &str) -> String {
    let error = result.expect_err("should be refused");
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(named), "{message}");
    assert!(message.len() < 800, "{message}");
    assert!(!message.contains(char::is_control), "{message:?}");
    message
}

#[track_caller]
fn refused(json: impl AsRef<[u8]>, data: u64, parts: &[&str]) {
    let message = refusal(parse(json, data), "x.safetensors: ");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

fn on_disk(bytes: &[u8]) -> Result<(Header, u128), Error> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Header::read(&file, Path::new("x.safetensors"))
}

fn with_length(json: &[u8], data: usize) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes(), json, &vec![0; data]].concat()
}

const A: &str = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;

#[test]
fn sound_headers_pass() {
    let header = parse(A, 16).unwrap();
    assert_eq!(header.data_start, 8 + A.len() as u64);
    let a = &header.tensors[0];
    assert_eq!((a.name.as_str(), a.dtype, &a.shape[..], a.begin, a.end), ("a", Dtype::F32, &[2, 2][..], 0, 16));
    // Odd lengths, padding, rank 0, nothing at all, null and empty metadata, odd names.
    for (json, data) in [
        (format!("{A} "), 16),
        (format!("{A}       "), 16),
        (r#"{"a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}"#.into(), 2),
        ("{}".into(), 0),
        (r#"{"__metadata__":null}"#.into(), 0),
        (r#"{"__metadata__":{}}"#.into(), 0),
        (r#"{"../../etc/passwd":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#.into(), 1),
        (r#"{"wеight — \\ 名":{"shape":[1],"data_offsets":[0,1],"dtype":"U8"}}"#.into(), 1),
        (r#"{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}"#.into(), 1),
        (r#"{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}"#.into(), 3),
    ] {
        parse(&json, data).unwrap_or_else(|error| panic!("{json}: {error}"));
        SafeTensors::read_metadata(&with_length(json.as_bytes(), data as usize)).unwrap();
    }
}

#[test]
fn zero_size_tensors_share_an_offset() {
    let json = r#"{"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"z":{"dtype":"F32","shape":[0,3],"data_offsets":[4,4]},
        "a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"y":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}}"#;
    let header = parse(json, 4).unwrap();
    let names: Vec<_> = header.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    // By begin, end, and place in the header.
    assert_eq!(names, ["a", "b", "z", "y"]);
}

#[test]
fn data_may_be_misaligned() {
    let json =
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}"#;
    assert_eq!(parse(json, 5).unwrap().tensors[1].begin, 1);
}

#[test]
fn metadata_keeps_its_order() {
    let json = r#"{"__metadata__":{"z":"1","a":"é\n","m":""}}"#;
    let want = [("z", "1"), ("a", "é\n"), ("m", "")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(parse(json, 0).unwrap().metadata, want);
}

#[test]
fn not_the_file_itself() {
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let torch = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
    for (bytes, part) in [
        (&b""[..], "is empty"),
        (b"1234567", "7 bytes, too few"),
        (&[0; 8], "length 0"),
        (&[0; 4096], "length 0"),
        (lfs, "run `git lfs pull`"),
        (b"<!DOCTYPE html>\n<title>404</title>", "web page"),
        (b"\n <HTML><body>sign in</body></HTML>", "web page"),
        (b"<?xml version=\"1.0\"?><Error/>", "web page"),
        (b"PK\x03\x04\0\0\0\0\0\0archive/data.pkl", "convert it to safetensors"),
        (torch, "convert it to safetensors"),
        (b"GGUF\x03\0\0\0\0\0\0\0", "GGUF"),
    ] {
        let message = refusal(on_disk(bytes), "x.safetensors: ");
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn header_lengths() {
    let claims = |length: u64| [&length.to_le_bytes()[..], A.as_bytes(), &[0; 16]].concat();
    for (length, part) in [
        (u64::MAX, "claims a header of 18446744073709551615 bytes"),
        (MAX_HEADER + 1, "claims a header of 100000001 bytes, but at most 100000000 are allowed"),
        (MAX_HEADER, "but only 73 bytes follow"),
        (74, "but only 73 bytes follow"),
        (A.len() as u64 - 1, "malformed header"),
        (A.len() as u64 + 1, "malformed header"),
    ] {
        let message = refusal(on_disk(&claims(length)), "x.safetensors: ");
        assert!(message.contains(part), "{message}");
    }
    on_disk(&claims(A.len() as u64)).unwrap();
    // A length of 640 looks like a pickle: cut short, this is still a safetensors file.
    let message = refusal(on_disk(&[&640_u64.to_le_bytes()[..], b"{\"a"].concat()), "x.safetensors: ");
    assert!(message.contains("claims a header of 640 bytes, but only 3 bytes follow"), "{message}");
}

#[test]
fn sparse_file_of_huge_apparent_size() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&with_length(A.as_bytes(), 0)).unwrap();
    file.set_len(1 << 40).unwrap();
    let message = refusal(Header::read(&file, Path::new("x.safetensors")), "x.safetensors: ");
    assert!(message.contains("belong to no tensor"), "{message}");
}

#[test]
fn a_header_longer_than_the_hubs_limit_is_legal() {
    // 25 MB is where huggingface_hub stops; the format allows 100 MB.
    let json = format!("{A}{}", " ".repeat(26_000_000));
    let (header, _) = on_disk(&with_length(json.as_bytes(), 16)).unwrap();
    assert_eq!(header.data_start, 8 + json.len() as u64);
}

#[test]
fn the_digest_covers_length_and_text() {
    let bytes = with_length(A.as_bytes(), 16);
    let (_, digest) = on_disk(&bytes).unwrap();
    assert_eq!(digest, xxhash_rust::xxh3::xxh3_128(&bytes[..8 + A.len()]));
    let (_, spaced) = on_disk(&with_length(format!("{A} ").as_bytes(), 16)).unwrap();
    assert_ne!(digest, spaced);
}

#[test]
fn a_write_only_handle_is_an_io_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    std::fs::write(&path, with_length(A.as_bytes(), 16)).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    assert!(matches!(Header::read(&file, &path), Err(Error::Io { .. })));
}

#[test]
fn malformed_text() {
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    let long = format!(r#"{{"{}":1}}"#, "n".repeat(1_000_000));
    let long_type = format!(r#"{{"a":{{"dtype":"{}","shape":[],"data_offsets":[0,1]}}}}"#, "F".repeat(1_000_000));
    for json in [
        &b"\xef\xbb\xbf{}"[..],
        b" {}",
        b"\n{}",
        b"",
        b"[]",
        b"null",
        b"\"{}\"",
        b"{",
        b"{}{}",
        b"{}\0\0",
        b"{\"a\0\":1}",
        b"{\"\xff\":1}",
        b"{}\xff",
        b"{'a':1}",
        b"{\"a\":1}",
        b"{\"a\":null}",
        b"{\"a\":[\"U8\",[1],[0,1]]}",
        deep.as_bytes(),
        long.as_bytes(),
        long_type.as_bytes(),
    ] {
        refusal(parse(json, 1), "x.safetensors: ");
    }
}

#[test]
fn entries() {
    let entry = |fields: &str| format!("{{\"blk.0\":{{{fields}}}}}");
    for fields in [
        r#""dtype":"f32","shape":[1],"data_offsets":[0,4]"#,
        r#""dtype":"FLOAT","shape":[1],"data_offsets":[0,4]"#,
        r#""dtype":7,"shape":[1],"data_offsets":[0,4]"#,
        r#""dtype":{"F32":null},"shape":[1],"data_offsets":[0,4]"#,
        r#""shape":[1],"data_offsets":[0,4]"#,
        r#""dtype":"F32","data_offsets":[0,4]"#,
        r#""dtype":"F32","shape":[1]"#,
        r#""dtype":"F32","shape":[1],"data_offsets":[0,4],"extra":0"#,
        r#""dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]"#,
        r#""dtype":"F32","d\u0074ype":"F32","shape":[1],"data_offsets":[0,4]"#,
        r#""dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]"#,
        r#""dtype":"F32","shape":[1],"data_offsets":[0,4],"data_offsets":[0,4]"#,
        r#""dtype":"F32","shape":[1.0],"data_offsets":[0,4]"#,
        r#""dtype":"F32","shape":[1e0],"data_offsets":[0,4]"#,
        r#""dtype":"F32","shape":[-1],"data_offsets":[0,4]"#,
        r#""dtype":"F32","shape":["1"],"data_offsets":[0,4]"#,
        r#""dtype":"F32","shape":[null],"data_offsets":[0,4]"#,
        r#""dtype":"F32","shape":1,"data_offsets":[0,4]"#,
        r#""dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4]"#,
        r#""dtype":"F32","shape":[1],"data_offsets":[0]"#,
        r#""dtype":"F32","shape":[1],"data_offsets":[0,4,4]"#,
        r#""dtype":"F32","shape":[1],"data_offsets":[0,"4"]"#,
        r#""dtype":"F32","shape":[1],"data_offsets":[0,4.0]"#,
        r#""dtype":"F32","shape":[1],"data_offsets":[-0,4]"#,
        r#""dtype":"F32","shape":[1],"data_offsets":[0,1e999]"#,
        r#""dtype":"F32","shape":[1],"data_offsets":{"begin":0,"end":4}"#,
    ] {
        refused(entry(fields), 4, &["`blk.0`", "download or save it again"]);
    }
    parse(entry(r#""dtype":"F32","shape":[1],"data_offsets":[0,4]"#), 4).unwrap();
}

#[test]
fn names() {
    let u8 = |name: &str, at: u64| format!(r#""{name}":{{"dtype":"U8","shape":[1],"data_offsets":[{at},{}]}}"#, at + 1);
    let two = |a: &str, b: &str| format!("{{{},{}}}", u8(a, 0), u8(b, 1));
    parse(two("a", "b"), 2).unwrap();
    refused(two("a", "a"), 2, &["`a` occurs twice"]);
    refused(two("a", r"\u0061"), 2, &["`a` occurs twice"]);
    refused(two("", "b"), 2, &["without a name"]);
    refused(two(r"a\nb", "b"), 2, &["control characters", r"a\nb"]);
    refused(two("a\u{7f}", "b"), 2, &["control characters"]);
    refused(two("a\u{9b}2J", "b"), 2, &["control characters"]);
    let long = "x".repeat(100_000);
    refused(two(&long, &long), 2, &["occurs twice"]);
    assert_eq!(parse(two(&long, "b"), 2).unwrap().tensors[0].name, long);
}

#[test]
fn metadata() {
    for json in [
        r#"{"__metadata__":{"format":1}}"#,
        r#"{"__metadata__":{"format":null}}"#,
        r#"{"__metadata__":{"format":["pt"]}}"#,
        r#"{"__metadata__":[]}"#,
        r#"{"__metadata__":"pt"}"#,
        r#"{"__metadata__":{},"__metadata__":{}}"#,
        r#"{"__metadata__":{},"__meta\u0064ata__":{}}"#,
        r#"{"__metadata__":{"a":"1","a":"2"}}"#,
        r#"{"__metadata__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
    ] {
        refused(json, u64::from(json.contains("U8")), &["metadata__`"]);
    }
}

#[test]
fn layouts() {
    let one = |dtype: &str, shape: &str, at: &str| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{at}}}}}"#)
    };
    let two = |a: [u64; 2], b: [u64; 2]| {
        let entry = |[begin, end]: [u64; 2]| {
            format!(r#"{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#, end.abs_diff(begin))
        };
        format!(r#"{{"a":{},"b":{}}}"#, entry(a), entry(b))
    };
    refused(
        one("U8", "[20]", "[0,20]"),
        16,
        &["tensor `a` ends at byte 20 but the file holds 16 bytes of data; download"],
    );
    refused(one("U8", "[4]", "[4,0]"), 4, &["`a` ends at byte 0, before it begins"]);
    refused(one("U8", "[4]", "[4,8]"), 8, &["`a` leaves a gap"]);
    refused(two([0, 4], [5, 8]), 8, &["`b` leaves a gap"]);
    refused(two([0, 4], [3, 8]), 8, &["`b` overlaps"]);
    refused(two([0, 4], [0, 4]), 4, &["`b` overlaps"]);
    // A tensor of no bytes inside another one.
    refused(two([0, 4], [2, 2]), 4, &["`b` overlaps"]);
    refused(two([0, 4], [4, 8]), 9, &["1 bytes that belong to no tensor"]);
    refused("{}", 22, &["22 bytes that belong to no tensor"]);
    refused(one("F32", "[2,2]", "[0,15]"), 15, &["`a` needs 16 bytes for F32 [2, 2] but has 15"]);
    refused(one("F32", "[]", "[0,0]"), 0, &["`a` needs 4 bytes"]);
    refused(one("U8", "[0]", "[0,1]"), 1, &["`a` needs 0 bytes"]);
    refused(one("U8", "[4294967296,4294967296]", "[0,0]"), 0, &["`a` has a shape too large"]);
    refused(one("U8", "[9223372036854775808,2,0]", "[0,0]"), 0, &["`a` has a shape too large"]);
    refused(one("F64", "[288230376151711744]", "[0,0]"), 0, &["`a` has a shape too large"]);
    refused(
        one("F64", "[18446744073709551615]", "[0,18446744073709551615]"),
        8,
        &["`a` ends at byte 18446744073709551615"],
    );
    refused(one("F4", "[3]", "[0,1]"), 1, &["`a` of type F4 does not fill whole bytes"]);
    refused(one("F6_E3M2", "[2]", "[0,1]"), 1, &["`a` of type F6_E3M2 does not fill whole bytes"]);
    let ones = |rank: usize| format!("[{}]", vec!["1"; rank].join(","));
    parse(one("U8", &ones(64), "[0,1]"), 1).unwrap();
    refused(one("U8", &ones(65), "[0,1]"), 1, &["`a`", "more than 64 dimensions"]);
    // A file shorter than its own header, as when it shrinks meanwhile.
    refusal(Header::parse(A.as_bytes(), 20, Path::new("x.safetensors")), "fewer than its header");
}

#[test]
fn many_tensors() {
    let entries: Vec<_> = (0..40_000)
        .map(|i| {
            let at = [2 * i, 2 * i + 2];
            format!(r#""model.layers.{i}.mlp.weight":{{"dtype":"BF16","shape":[1,1],"data_offsets":{at:?}}}"#)
        })
        .collect();
    let header = parse(format!("{{{}}}", entries.join(",")), 80_000).unwrap();
    assert_eq!(header.tensors.len(), 40_000);
    assert_eq!(header.tensors[39_999].name, "model.layers.39999.mlp.weight");
}
