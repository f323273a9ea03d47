//! Folders elsewhere: what planning asks of them, and that what arrives gives the bytes of local folders.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::support::elsewhere::{Elsewhere, Family, Fault, checkpoint, place, places};
use serde_json::{Value, json};
use taskvec_core::Error;
use taskvec_core::checkpoint::Checkpoint;
use taskvec_core::control::Control;
use taskvec_core::plan::Plan;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::options::{Alpha, Options};
use tempfile::TempDir;

fn open(remote: &Arc<Elsewhere>) -> Result<Checkpoint, Error> {
    Checkpoint::open(&place(remote, &[]), &Control::default())
}

fn holding(names: &[&str]) -> Arc<Elsewhere> {
    Arc::new(Elsewhere::holding(names.iter().map(|name| (name.to_string(), b"{}".to_vec())).collect(), false))
}

#[track_caller]
fn refused(remote: &Arc<Elsewhere>, parts: &[&str]) {
    let error = open(remote).expect_err("should be refused");
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part:?} is not in {error}");
    }
}

#[test]
fn planning_takes_one_request_a_shard_and_moves_headers_alone() {
    let family = Family::new();
    let remotes = family.remotes([false; 3]);
    let plan = family.transfer(places(&remotes), Options::default()).unwrap();
    plan.require_fit().unwrap();
    for (remote, shards) in remotes.iter().zip([2, 1, 3]) {
        let log = remote.log();
        assert_eq!(log.of(".safetensors"), shards);
        assert_eq!(log.of(".index.json"), usize::from(shards > 1));
        assert_eq!(log.of("config.json"), 1);
        assert_eq!(log.of("tokenizer.json"), 0);
        assert!(log.moved < 150_000, "{}", log.moved);
        assert!(log.wanted.is_empty() && log.local.is_empty(), "{log:?}");
    }
    let described: Value = serde_json::from_str(&plan.to_json(None).unwrap()).unwrap();
    assert_eq!(described["inputs"][0]["remote"], true);
    assert_eq!(described["io"], "pread");
    assert!(described["io_reason"].as_str().unwrap().contains("fetched"));
    let local = family.transfer(family.here(), Options::default()).unwrap().to_json(None).unwrap();
    let local: Value = serde_json::from_str(&local).unwrap();
    assert_eq!(local["inputs"][0]["remote"], false);
    assert_eq!(local["bytes"], described["bytes"]);
}

#[test]
fn a_header_longer_than_the_first_request_takes_a_second_for_the_rest() {
    let names: Vec<String> = (0..3000).map(|number| format!("{number:060}")).collect();
    let entries: serde_json::Map<String, Value> = names
        .iter()
        .enumerate()
        .map(|(at, name)| (name.clone(), json!({"dtype": "U8", "shape": [1], "data_offsets": [at, at + 1]})))
        .collect();
    let header = Value::Object(entries).to_string();
    let mut bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    let data_start = bytes.len() as u64;
    bytes.extend([0; 3000]);
    let remote = Arc::new(Elsewhere::holding(vec![("model.safetensors".into(), bytes)], false));
    assert_eq!(open(&remote).unwrap().tensors.len(), 3000);
    let ranges: Vec<_> = remote.log().fetched.into_iter().map(|(_, range)| range).collect();
    assert_eq!(ranges, [0..100_000, 100_000..data_start]);
}

/// As many shards, tensors and letters as the largest public checkpoint has.
#[test]
fn the_plan_of_a_huge_checkpoint_moves_little_and_asks_sixteen_things_at_once() {
    let (mut files, mut map, mut sizes) = (Vec::new(), serde_json::Map::new(), Vec::new());
    for number in 1..=163 {
        let name = format!("model-{number:05}-of-000163.safetensors");
        let (mut entries, mut at) = (Vec::new(), 0_u64);
        for tensor in 0..560 {
            let tensor = format!("model.layers.{}.mlp.experts.{tensor}.down_proj.weight_scale_inv", number);
            let end = at + 7168 * 512 * 2;
            entries.push(format!(r#""{tensor}":{{"dtype":"BF16","shape":[7168,512],"data_offsets":[{at},{end}]}}"#));
            map.insert(tensor, name.clone().into());
            at = end;
        }
        let header = format!("{{{}}}", entries.join(","));
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 100_000]].concat();
        sizes.push((name.clone(), 8 + header.len() as u64 + at));
        files.push((name, bytes));
    }
    let index = json!({"metadata": {}, "weight_map": map}).to_string().into_bytes();
    let index_bytes = index.len() as u64;
    files.push(("model.safetensors.index.json".into(), index));
    files.push(("tokenizer.json".into(), vec![b' '; 8 << 20]));
    let remote = sizes.iter().fold(Elsewhere::holding(files, false), |all, (name, size)| all.sized(name, *size));
    let remote = Arc::new(remote);
    remote.stalled.store(true, Ordering::SeqCst);
    let checkpoint = std::thread::scope(|scope| {
        let opening = scope.spawn(|| open(&remote));
        remote.until_waiting(16);
        remote.stalled.store(false, Ordering::SeqCst);
        opening.join().unwrap().unwrap()
    });
    assert_eq!(checkpoint.tensors.len(), 91_280);
    let names: Vec<_> = checkpoint.shards.iter().map(|shard| &shard.name).collect();
    assert!(names.is_sorted(), "in order, whichever came first");
    let log = remote.log();
    assert_eq!(log.of(".safetensors"), 163, "one request a shard");
    assert!(log.moved + (8 << 20) < 50_000_000, "{} bytes, of which {index_bytes} for the index", log.moved);
    assert_eq!(remote.most_at_once(), 16);
}

#[test]
fn planning_stops_within_a_second() {
    let family = Family::new();
    let remotes = family.remotes([false; 3]);
    remotes[2].stalled.store(true, Ordering::SeqCst);
    let control = Control::default();
    std::thread::scope(|scope| {
        let [target, minuend, subtrahend] = places(&remotes);
        let request = Request::Transfer { target, minuend, subtrahend, alpha: Alpha::new("1", 1.0).unwrap() };
        let planning = scope.spawn(|| Plan::new(request, Options::default(), &control));
        remotes[2].until_waiting(3);
        let stopped = Instant::now();
        control.stop();
        assert!(matches!(planning.join().unwrap().unwrap_err(), Error::Cancelled));
        assert!(stopped.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn a_failed_header_ends_the_others() {
    let family = Family::new();
    // Config and index first.
    for request in 0..5 {
        let fault = Fault { request, after: 10, corrupt: false };
        let remote = Arc::new(Elsewhere::of(&family.path("subtrahend"), false).with_fault(Some(fault)));
        match open(&remote).unwrap_err() {
            Error::Remote { corrupt: false, source } => {
                assert_eq!(source.to_string(), format!("request {request} failed"))
            }
            error => panic!("{error:?}"),
        }
    }
}

#[test]
fn listings_are_sorted_as_folders_are() {
    let folder = TempDir::new().unwrap();
    checkpoint(folder.path(), 1, &[&[("a", "BF16", &[4])]]);
    for name in [
        ".gitattributes",
        "README.md",
        "code/modeling.py",
        "code/.git/x",
        "onnx/model.onnx",
        "onnx/config.json",
        "sub/.hidden/x",
        "sub/.hidden/y",
        ".cache/x",
        ".ipynb_checkpoints/x",
        "pytorch_model.bin",
        "taskvec.json",
        "vector.json",
        "code/taskvec.json",
        "sft/model.safetensors",
        "model.safetensors.index.json.bak",
        ".env",
        "runs/1/events.out.tfevents.1",
        "code/__pycache__/x.pyc",
        "lost+found/x",
        "checkpoint-3/config.json",
        "lora/adapter_config.json",
        "params.json",
        "consolidated.00.pth",
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{}").unwrap();
    }
    let here = Checkpoint::open(&folder.path().into(), &Control::default()).unwrap();
    let there = open(&Arc::new(Elsewhere::of(folder.path(), false))).unwrap();
    assert_eq!(there.sidecars, here.sidecars);
    assert_eq!(there.left_out, here.left_out);
    assert!(there.left_out.contains(&"sub/.hidden".to_owned()));
    assert_eq!(there.label, "org/name");
}

#[test]
fn what_is_not_there_is_said_as_of_a_folder() {
    refused(
        &holding(&[]),
        &["org/name@main: holds no model.safetensors and no model.safetensors.index.json; name the"],
    );
    refused(
        &holding(&["sft/model.safetensors", "grpo/model.safetensors.index.json", "a/b/model.safetensors"]),
        &["its subfolders do; name one of them: `org/name@main:grpo`, `org/name@main:sft`"],
    );
    refused(
        &holding(&["run/sft/adapter_config.json", "run/grpo/adapter_config.json"]),
        &[
            "its subfolders hold adapters; as a donor, name one of them: `org/name@main:run/grpo`, `org/name@main:run/sft`",
        ],
    );
    refused(&holding(&["pytorch_model.bin", "x/y.safetensors"]), &["only `pytorch_model.bin`; convert it"]);
    let remote = holding(&["model.safetensors"]);
    refused(&remote, &["org/name@main/model.safetensors: has 2 bytes, too few for a safetensors file"]);
    // In a subfolder, the next one follows a slash.
    let mut place = place(&holding(&["b/model.safetensors"]), &[]);
    place.root = "org/name@main:a".into();
    place.origin.as_mut().unwrap().subfolder = Some("a".into());
    let error = Checkpoint::open(&place, &Control::default()).unwrap_err();
    assert!(error.to_string().contains("`org/name@main:a/b`"), "{error}");
}

#[test]
fn shards_that_the_listing_lacks() {
    let folder = TempDir::new().unwrap();
    checkpoint(folder.path(), 1, &[&[("a", "BF16", &[4])], &[("b", "BF16", &[4])]]);
    fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).unwrap();
    let remote = Arc::new(Elsewhere::of(folder.path(), false));
    refused(&remote, &["index.json: lists tensor `b` in model-00002-of-00002.safetensors, which is missing"]);
    // Names that lead out are refused before anything is asked for.
    fs::write(folder.path().join("model.safetensors.index.json"), r#"{"weight_map": {"a": "../x.safetensors"}}"#)
        .unwrap();
    let remote = Arc::new(Elsewhere::of(folder.path(), false));
    refused(&remote, &["`../x.safetensors`, which is not the plain name"]);
    assert_eq!(remote.log().fetched.len(), 1);
}

#[test]
fn hostile_listings() {
    for name in ["../x", "/etc/passwd", "a//b", "a/../b", "./a", "a/.", "", "a\nb", "a\0b"] {
        refused(&holding(&["model.safetensors", name]), &["org/name@main: lists the file", "do not trust it"]);
    }
    let small = Elsewhere::holding(vec![("model.safetensors.index.json".into(), b"{}".to_vec())], false);
    let remote = Arc::new(small.sized("model.safetensors.index.json", 1 << 40));
    refused(&remote, &["has 1099511627776 bytes, but at most 100000000 are allowed"]);
    assert!(remote.log().fetched.is_empty());
}
