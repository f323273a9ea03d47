//! Checkpoint folders: what belongs together, what lies beside, and every way in which they can be wrong.

use std::fs::{self, File};

use taskvec_core::Error;
use taskvec_core::checkpoint::{Checkpoint, Tensor};
use taskvec_core::control::Control;
use taskvec_core::format::config::Config;
use taskvec_core::numeric::dtype::{Dtype, Float};

use crate::support::folder::{Folder, open};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

#[test]
fn a_single_file() {
    let folder = Folder::new();
    folder.shard(SINGLE, &["w"]);
    let checkpoint = folder.open().unwrap();
    let bytes = fs::read(folder.path().join(SINGLE)).unwrap();
    let shard = &checkpoint.shards[0];
    assert_eq!(checkpoint.place.root, folder.path());
    assert_eq!(checkpoint.label, folder.path().file_name().unwrap().to_str().unwrap());
    assert_eq!(shard.data_start, bytes.len() as u64 - 8);
    assert_eq!(shard.header_digest, xxhash_rust::xxh3::xxh3_128(&bytes[..bytes.len() - 8]));
    assert_eq!(shard.size, bytes.len() as u64);
    let begin = shard.data_start;
    let want = Tensor { name: "w".into(), dtype: Dtype::F32, shape: vec![2].into(), shard: 0, begin, bytes: 8 };
    assert_eq!(checkpoint.tensors, [want]);
    assert_eq!(checkpoint.tensors[0].elements(), 2);
    assert!(checkpoint.index.is_none() && checkpoint.config.raw.is_none());
    checkpoint.unchanged().unwrap();
}

#[test]
fn shards_and_their_index() {
    let checkpoint = Folder::sharded().open().unwrap();
    let shards: Vec<_> = checkpoint.shards.iter().map(|shard| shard.name.as_str()).collect();
    assert_eq!(shards, ["m-1.safetensors", "m-2.safetensors"]);
    for (place, tensor) in (0..).zip(&checkpoint.tensors) {
        assert_eq!(checkpoint.find(&tensor.name), Some(place));
        assert_eq!(checkpoint.get(&tensor.name), Some(tensor));
    }
    assert_eq!(checkpoint.shard(checkpoint.get("c").unwrap()).name, "m-2.safetensors");
    assert_eq!(checkpoint.find("d"), None);
    assert!(checkpoint.tensors.is_sorted_by_key(|tensor| (tensor.shard, tensor.begin)));
    assert!(checkpoint.sidecars.is_empty() && checkpoint.left_out.is_empty());
}

#[test]
fn an_index_that_changes_after_opening_is_noticed() {
    let folder = Folder::sharded();
    let checkpoint = folder.open().unwrap();
    let path = folder.path().join("model.safetensors.index.json");
    let bytes = fs::read(&path).unwrap();
    assert_eq!(checkpoint.index_again("model").unwrap(), Some(bytes.clone()));
    checkpoint.require_index(&path).unwrap();
    fs::write(&path, [&bytes[..], b" "].concat()).unwrap();
    for error in [checkpoint.index_again("model").unwrap_err(), checkpoint.require_index(&path).unwrap_err()] {
        assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains("changed while it was read"));
    }
    fs::remove_file(path).unwrap();
    assert!(matches!(checkpoint.index_again("model"), Err(Error::Corrupt { .. })));
}

#[test]
fn names_and_shapes_are_shared() {
    let (mut one, other) = (Folder::sharded().open().unwrap(), Folder::sharded().open().unwrap());
    let alone = one.memory();
    one.share(&other);
    assert!(one.memory() < alone && one.memory() == other.memory());
    assert!(
        one.tensors
            .iter()
            .zip(&other.tensors)
            .all(|(a, b)| { std::ptr::eq(a.name.as_str(), b.name.as_str()) && std::ptr::eq(&*a.shape, &*b.shape) })
    );
}

#[test]
fn the_shard_count_in_a_name_means_nothing() {
    let folder = Folder::new();
    folder.shard("model-00001-of-00009.safetensors", &["a"]);
    folder.index(&[("a", "model-00001-of-00009.safetensors")]);
    folder.open().unwrap();
}

#[test]
fn index_and_single_file() {
    let folder = Folder::sharded();
    folder.shard(SINGLE, &["a", "b", "c"]);
    folder.refused(&[INDEX, "does not list model.safetensors"]);
    folder.index(&[("a", SINGLE), ("b", SINGLE), ("c", SINGLE)]);
    let checkpoint = folder.open().unwrap();
    assert_eq!(checkpoint.shards.len(), 1);
    // The shards that no index lists any more are named, not copied.
    assert_eq!(checkpoint.left_out, ["m-1.safetensors", "m-2.safetensors"]);
}

#[test]
fn index_against_shards() {
    let folder = Folder::sharded();
    let (one, two) = ("m-1.safetensors", "m-2.safetensors");
    folder.index(&[("a", one), ("b", two), ("c", two)]);
    folder.refused(&[INDEX, "lists tensor `b` in m-2.safetensors but m-1.safetensors has it"]);
    folder.index(&[("a", one), ("b", one), ("c", two), ("d", two)]);
    folder.refused(&[INDEX, "lists tensor `d` in m-2.safetensors, which does not have it"]);
    folder.index(&[("a", one), ("c", two)]);
    folder.refused(&[INDEX, "does not list tensor `b` that m-1.safetensors has"]);
    folder.index(&[("a", one), ("b", one), ("c", two), ("z", "m-3.safetensors")]);
    folder.refused(&[INDEX, "lists tensor `z` in m-3.safetensors, which is missing"]);
    // Shards of another model.
    folder.index(&[("x", one), ("y", two)]);
    folder.refused(&[INDEX, "lists tensor `x` in m-1.safetensors, which does not have it"]);
    folder.index(&[("a", "../m-1.safetensors")]);
    folder.refused(&[INDEX, "tensor `a`", "`../m-1.safetensors`"]);
}

#[test]
fn a_tensor_in_two_shards() {
    let folder = Folder::sharded();
    folder.shard("m-2.safetensors", &["a", "c"]);
    folder.refused(&["m-1.safetensors: holds tensor `a`, and so does m-2.safetensors"]);
}

#[test]
fn damaged_shards_are_named() {
    let folder = Folder::sharded();
    let path = folder.path().join("m-2.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    folder.refused(&["m-2.safetensors: tensor `c` ends at byte 8 but the file holds 7 bytes of data"]);
    fs::write(&path, b"version https://git-lfs.github.com/spec/v1\n").unwrap();
    folder.refused(&["m-2.safetensors: is a Git LFS pointer"]);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    folder.refused(&["m-2.safetensors: is a directory"]);
}

#[test]
fn no_weights() {
    let folder = Folder::new();
    folder.refused(&["holds no model.safetensors and no model.safetensors.index.json; name the folder"]);
    folder.shard("sft/model.safetensors", &["a"]);
    folder.refused(&["its subfolders do", "`sft`"]);
    fs::remove_dir_all(folder.path().join("sft")).unwrap();
    for n in 1..=5 {
        folder.put(&format!("pytorch_model-{n}.bin"), "");
    }
    folder.refused(&["only `pytorch_model-1.bin`", "and 2 more; convert it to safetensors first"]);
    folder.shard("weights.safetensors", &["a"]);
    folder.refused(&["give the weights the name model.safetensors"]);
    folder.shard("adapter_model.safetensors", &["a"]);
    folder.refused(&["only an adapter without its adapter_config.json"]);
    folder.put("adapter_config.json", "{}");
    folder.refused(&["only an adapter, which can be used only as a donor; merge it"]);
}

#[test]
fn not_a_folder() {
    let folder = Folder::new();
    let file = folder.put("model.gguf", "");
    let error = open(&file).unwrap_err();
    assert!(matches!(error, Error::Usage(_)) && error.to_string().contains("name the folder"), "{error}");
    match open(&folder.path().join("gone")).unwrap_err() {
        Error::Io { source, .. } => assert_eq!(source.kind(), std::io::ErrorKind::NotFound),
        error => panic!("{error:?}"),
    }
}

#[test]
fn a_vector_folder() {
    let folder = Folder::new();
    folder.shard("vector.safetensors", &["a"]);
    folder.put("vector.json", "{}");
    let vector = Checkpoint::open_weights(&folder.path().into(), "vector", &Control::default()).unwrap();
    assert_eq!(vector.shards[0].name, "vector.safetensors");
    assert!(vector.sidecars.is_empty() && vector.left_out.is_empty());
    folder.refused(&["holds no model.safetensors"]);
}

#[test]
fn changes_are_seen() {
    let folder = Folder::new();
    let path = folder.shard(SINGLE, &["a"]);
    let length = fs::metadata(&path).unwrap().len();
    let (grown, touched) = (folder.open().unwrap(), folder.open().unwrap());
    File::options().write(true).open(&path).unwrap().set_len(length + 1).unwrap();
    let error = grown.unchanged().unwrap_err();
    assert!(matches!(&error, Error::Corrupt { .. }) && error.to_string().contains("changed while it was read"));

    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(length).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert!(touched.unchanged().is_err());
    folder.open().unwrap().unchanged().unwrap();
}

#[cfg(target_os = "linux")]
mod links {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn shards_may_be_links_as_in_the_hubs_cache() {
        let folder = Folder::new();
        folder.shard("blobs/4d7a", &["a"]);
        folder.put("blobs/c0f1", "{}");
        let snapshot = folder.path().join("snapshots/main");
        fs::create_dir_all(&snapshot).unwrap();
        symlink("../../blobs/4d7a", snapshot.join(SINGLE)).unwrap();
        symlink("../../blobs/c0f1", snapshot.join("config.json")).unwrap();
        let checkpoint = open(&snapshot).unwrap();
        assert_eq!(checkpoint.label, "main");
        assert_eq!(checkpoint.sidecars, ["config.json"]);
        fs::remove_file(folder.path().join("blobs/4d7a")).unwrap();
        let error = open(&snapshot).unwrap_err();
        assert!(
            matches!(&error, Error::Corrupt { .. }) && error.to_string().contains("link to a file that is not there")
        );
    }

    #[test]
    fn shards_that_are_no_files() {
        let folder = Folder::sharded();
        let path = folder.path().join("m-2.safetensors");
        let pipe = rustix::fs::FileType::Fifo;
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, pipe, rustix::fs::Mode::RWXU, 0).unwrap();
        folder.refused(&["m-2.safetensors: is a pipe, socket or device"]);
        fs::remove_file(&path).unwrap();
        symlink("/dev/zero", &path).unwrap();
        folder.refused(&["m-2.safetensors: is a pipe, socket or device"]);
        // The other files that are read.
        for name in [INDEX, "config.json"] {
            let folder = Folder::sharded();
            let path = folder.path().join(name);
            let _ = fs::remove_file(&path);
            rustix::fs::mknodat(rustix::fs::CWD, &path, pipe, rustix::fs::Mode::RWXU, 0).unwrap();
            folder.refused(&[name, "is a pipe, socket or device"]);
        }
    }

    #[test]
    fn odd_things_beside_the_weights() {
        let folder = Folder::sharded();
        let other = Folder::new();
        other.put("x.py", "");
        other.put("deep/y.py", "");
        let at = |name: &str| folder.path().join(name);
        folder.put("code/z.py", "");
        symlink(other.path(), at("linked")).unwrap();
        symlink(other.path(), at("linked-again")).unwrap();
        symlink(".", at("loop")).unwrap();
        symlink("..", at("code/up")).unwrap();
        symlink("/", at("everything")).unwrap();
        symlink("code", at("a-second-name")).unwrap();
        symlink("nowhere", at("dangling.txt")).unwrap();
        symlink(other.path().join("x.py"), at("x.py")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();
        let checkpoint = folder.open().unwrap();
        assert_eq!(checkpoint.sidecars, ["code/z.py", "linked/deep/y.py", "linked/x.py", "x.py"]);
        let left_out = ["a-second-name", "code/up", "dangling.txt", "everything", "linked-again", "loop", "pipe"];
        assert_eq!(checkpoint.left_out, left_out);
    }

    #[test]
    fn names_that_are_not_text() {
        use std::os::unix::ffi::OsStrExt;
        let folder = Folder::sharded();
        fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.txt")), "").unwrap();
        let checkpoint = folder.open().unwrap();
        assert!(checkpoint.sidecars.is_empty());
        assert_eq!(checkpoint.left_out, ["caf\u{fffd}.txt"]);
    }
}

fn config(text: &str) -> Config {
    let folder = Folder::new();
    folder.put("config.json", text);
    Config::read(&folder.path().into()).unwrap()
}

#[test]
fn config_fields() {
    let absent = Config::read(&Folder::new().path().into()).unwrap();
    assert!(absent.raw.is_none() && absent.tied.is_none() && absent.with_dtype(Float::F32).is_none());
    let plain = config(r#"{"tie_word_embeddings": true, "vocab_size": 151936}"#);
    assert_eq!((plain.tied, plain.vocab_size, plain.quantized), (Some(true), Some(151_936), None));
    let nested = config(
        r#"{"vocab_size": null, "tie_word_embeddings": false,
            "text_config": {"tie_word_embeddings": true, "vocab_size": 7, "quantization_config": {"bits": 4}}}"#,
    );
    assert_eq!((nested.tied, nested.vocab_size, nested.quantized.as_deref()), (Some(false), Some(7), Some("unknown")));
    let deep = r#"{"vision": {"tie_word_embeddings": true}, "a": {"lm": {"vocab_size": 7, "tie_word_embeddings": false}},
        "b": [{"quantization_config": {"quant_method": "awq"}}]}"#;
    let deep = config(deep);
    assert_eq!((deep.tied, deep.vocab_size, deep.quantized.as_deref()), (Some(false), Some(7), Some("awq")));
    let torn = r#"{"a": {"vocab_size": 7, "tie_word_embeddings": false}, "b": {"vocab_size": 7, "tie_word_embeddings": true}}"#;
    assert_eq!((config(torn).tied, config(torn).vocab_size), (None, Some(7)));
    assert_eq!(config(r#"{"quantization_config": {"quant_method": "fp8"}}"#).quantized.as_deref(), Some("fp8"));
    assert_eq!(config(r#"{"quantization_config": null, "tie_word_embeddings": "yes"}"#).tied, None);
    // As Python writes it, for example for Mamba 2.
    assert_eq!(config(r#"{"time_step_limit": [0.0, Infinity, -Infinity, NaN], "vocab_size": 5}"#).vocab_size, Some(5));
}

#[test]
fn malformed_configs() {
    for text in ["", "[]", "{", "{\"a\": Infinit}", "<html>", "\u{feff}{}", "{} {}", "\"Infinity"] {
        let folder = Folder::sharded();
        folder.put("config.json", text);
        folder.refused(&["config.json: is not a JSON object", "download it again"]);
    }
}

#[test]
fn another_dtype_changes_nothing_else() {
    let text = r#"{
  "z": 1e-06, "dtype": "bfloat16", "a\"b": [{"dtype": "x"}, "dtype"],
  "limit": [0.1000000000000000055511151231257827, Infinity],
  "quantization_config": {"dtype": "int8"},
  "text_config": {"torch_dtype" : null, "inner_config": {"d\u0074ype":"float16"}, "rope": {"dtype": "y"}},
  "vision_config": {},
  "torch_dtype": {"text_config": "bfloat16"},
  "name": "dtype\\"
}
"#;
    let want = text
        .replace(r#""dtype": "bfloat16""#, r#""dtype": "float32""#)
        .replace(r#""torch_dtype" : null"#, r#""torch_dtype" : "float32""#)
        .replace(r#""d\u0074ype":"float16""#, r#""d\u0074ype":"float32""#)
        .replace(r#"{"text_config": "bfloat16"}"#, r#""float32""#);
    let written = config(text).with_dtype(Float::F32).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), want);
    for (dtype, name) in [(Float::Bf16, "bfloat16"), (Float::F16, "float16")] {
        let written = config("{\"dtype\":\"float32\"}").with_dtype(dtype).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), format!("{{\"dtype\":\"{name}\"}}"));
    }
    assert_eq!(config("{}\n").with_dtype(Float::F32).unwrap(), b"{}\n");
}
