//! Folders elsewhere: what planning asks of them, and that what arrives gives the bytes of local folders.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::elsewhere::{Elsewhere, Family, Fault, Tensor, checkpoint, manifest, place, places, same_output};
use crate::seeded::MAPPED;
use serde_json::{Value, json};
use taskvec_core::Error;
use taskvec_core::checkpoint::Checkpoint;
use taskvec_core::control::Control;
use taskvec_core::plan::Plan;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::options::{Alpha, Options};
use taskvec_core::source::Io;
use taskvec_core::storage::place::Place;
use taskvec_core::verbs::{diff, inspect, write};
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
    let described = plan.to_json(None);
    assert_eq!(described["inputs"][0]["remote"], true);
    assert_eq!(described["io"], "pread");
    assert!(described["io_reason"].as_str().unwrap().contains("fetched"));
    let local = family.transfer(family.here(), Options::default()).unwrap().to_json(None);
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
    refused(&remote, &["has 1099511627776 bytes, of which 100000000 are allowed"]);
    assert!(remote.log().fetched.is_empty());
}

#[test]
fn what_arrives_gives_the_bytes_of_local_folders() {
    let family = Family::new();
    let local = family.local_run();
    let ways = [(1, 16 << 20, Io::Pread), (4, 64 << 20, MAPPED), (2, 256 << 20, Io::Direct), (3, 24 << 20, Io::Auto)];
    for (number, (threads, memory, io)) in ways.into_iter().enumerate() {
        let remotes = family.remotes([false; 3]);
        let options = Options { threads: Some(threads), memory: Some(memory), io, ..Options::default() };
        let plan = family.transfer(places(&remotes), options).unwrap();
        let out = family.path(&format!("out{number}"));
        write::run(&plan, &out, "card", &Control::default()).unwrap();
        same_output(&local, &out);
        let log = remotes[0].log();
        let shards = ["model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors"];
        // The head is compared with the embedding before anything is written; then come the files beside the weights.
        assert_eq!(log.wanted, [shards[0], shards[1], "config.json", "tokenizer.json"]);
        assert_eq!(log.local.iter().filter(|name| name.ends_with(".safetensors")).count(), 2, "each is asked for once");
        let input = &manifest(&out)["inputs"][0];
        assert_eq!((&input["repo"], &input["commit"]), (&"org/name".into(), &"c".repeat(40).into()));
        assert!(input.get("subfolder").is_none() && input.get("streamed").is_none());
        assert!(input["files"][0].get("sha256").is_none());
    }
}

#[test]
fn downloads_begin_in_the_order_of_the_windows() {
    let folder = TempDir::new().unwrap();
    const SHAPE: &[usize] = &[600_000];
    const T: [Tensor; 4] = [("a", "BF16", SHAPE), ("b", "BF16", SHAPE), ("c", "BF16", SHAPE), ("d", "BF16", SHAPE)];
    checkpoint(&folder.path().join("minuend"), 1, &[&T[2..3], &T[..1], &[T[3], T[1]]]);
    checkpoint(&folder.path().join("subtrahend"), 2, &[&T]);
    let remote = Arc::new(Elsewhere::of(&folder.path().join("minuend"), false));
    let request =
        Request::Extract { minuend: place(&remote, &[]), subtrahend: folder.path().join("subtrahend").into() };
    let exclude = vec![regex::Regex::new("c").unwrap()];
    let options = Options { exclude, ..Options::default() };
    let plan = Plan::new(request, options, &Control::default()).unwrap();
    write::run(&plan, &folder.path().join("out"), "card", &Control::default()).unwrap();
    // The vector keeps the minuend's order; what nobody reads is not downloaded, nor what a vector has no use for.
    assert_eq!(remote.log().wanted, ["model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"]);
}

#[test]
fn sums_that_the_hub_knows_are_not_made_again() {
    let family = Family::new();
    let remotes = family.remotes([false; 3]);
    let mut places = places(&remotes);
    places[1] = place(&remotes[1], &[("model.safetensors", "known"), ("tokenizer.json", "other")]);
    let plan = family.transfer(places.clone(), Options { sha256: true, ..Options::default() }).unwrap();
    let out = family.path("out");
    write::run(&plan, &out, "card", &Control::default()).unwrap();
    let inputs = &manifest(&out)["inputs"];
    assert_eq!(inputs[1]["files"][0]["sha256"], "known");
    for (input, name) in
        [(0, "target/model-00001-of-00002.safetensors"), (2, "subtrahend/model-00001-of-00003.safetensors")]
    {
        let sum = taskvec_core::format::blocks::sha256(&family.path(name), &Control::default()).unwrap();
        assert_eq!(inputs[input]["files"][0]["sha256"], sum);
    }
    // Also where nobody asks for sums.
    let out = family.path("plain");
    let plan = family.transfer(places, Options::default()).unwrap();
    write::run(&plan, &out, "card", &Control::default()).unwrap();
    let inputs = &manifest(&out)["inputs"];
    assert_eq!(inputs[1]["files"][0]["sha256"], "known");
    assert!(inputs[0]["files"][0].get("sha256").is_none());
}

#[test]
fn a_file_that_is_not_the_one_planned_for_leaves_nothing() {
    let family = Family::new();
    let path = family.path("minuend").join("model.safetensors");
    let sound = fs::read(&path).unwrap();
    let mut other = sound.clone();
    // Another letter in a tensor's name: the same length, another header.
    let at = other.windows(8).position(|bytes| bytes == b"d.weight").unwrap();
    other[at] = b'x';
    for bytes in [&other[..], &sound[..sound.len() - 1]] {
        fs::write(&path, &sound).unwrap();
        let plan = family.transfer(places(&family.remotes([false; 3])), Options::default()).unwrap();
        fs::write(&path, bytes).unwrap();
        let out = family.path("out");
        let error = write::run(&plan, &out, "card", &Control::default()).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("is not the file whose header was read before"), "{error}");
        assert!(!out.exists());
    }
}

#[test]
fn what_arrived_is_looked_at_again() {
    let family = Family::new();
    let plan = family.transfer(places(&family.remotes([false; 3])), Options::default()).unwrap();
    plan.inputs.list[1].checkpoint.unchanged().unwrap();
    let shard = &plan.inputs.list[1].checkpoint.shards[0];
    shard.arrive(&Control::default()).unwrap();
    shard.unchanged().unwrap();
    let file = fs::File::options().write(true).open(family.path("minuend/model.safetensors")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert!(shard.unchanged().unwrap_err().to_string().contains("changed while it was read"));
}

#[test]
fn a_job_that_waits_for_a_download_stops() {
    let family = Family::new();
    let remotes = family.remotes([false; 3]);
    let plan = family.transfer(places(&remotes), Options::default()).unwrap();
    remotes[1].stalled.store(true, Ordering::SeqCst);
    let (out, control) = (family.path("out"), Control::default());
    std::thread::scope(|scope| {
        let job = scope.spawn(|| write::run(&plan, &out, "card", &control));
        std::thread::sleep(Duration::from_millis(200));
        let stopped = Instant::now();
        control.stop();
        assert!(matches!(job.join().unwrap().unwrap_err(), Error::Cancelled));
        assert!(stopped.elapsed() < Duration::from_secs(1));
    });
    // The same again, with the windows that were done before.
    remotes[1].stalled.store(false, Ordering::SeqCst);
    let plan = family.transfer(places(&family.remotes([false; 3])), Options::default()).unwrap();
    write::run(&plan, &out, "card", &Control::default()).unwrap();
    same_output(&family.local_run(), &out);
}

#[test]
fn the_same_commit_is_the_same_input() {
    let family = Family::new();
    let id = |places: [Place; 3]| family.transfer(places, Options::default()).unwrap();
    let there = || places(&family.remotes([false; 3]));
    let first = id(there());
    assert_eq!(id(there()).id(), first.id());
    assert_eq!(id(there()).base_id(), first.base_id());
    let mut moved = there();
    moved[0].origin.as_mut().unwrap().commit = "d".repeat(40);
    assert_ne!(id(moved.clone()).id(), first.id());
    assert_ne!(id(moved).base_id(), first.base_id());
    // What a streamed run left was never held against a sum of the whole file.
    let streamed = places(&family.remotes([false, true, true]));
    assert_ne!(id(streamed).id(), first.id());
}

#[test]
fn other_verbs_read_places_too() {
    let family = Family::new();
    let control = Control::default();
    let remotes = family.remotes([false; 3]);
    let [target, minuend, _] = places(&remotes);
    let found = inspect::inspect(&target, &control).unwrap();
    let mut expected = inspect::inspect(&family.path("target").as_path().into(), &control).unwrap();
    expected["name"] = "org/name".into();
    assert_eq!(found, expected);
    assert!(remotes[0].log().wanted.is_empty());
    for streams in [false, true] {
        let remotes = family.remotes([streams; 3]);
        let [a, b, _] = places(&remotes);
        let found = diff::diff(&a, &b, &Options::default(), &control).unwrap();
        let [a, b, _] = family.here();
        let expected = diff::diff(&a, &b, &Options::default(), &control).unwrap();
        assert_eq!(found["tensors"], expected["tensors"]);
    }
    // A vector elsewhere, with its exceptions.
    let request = Request::Extract { minuend: minuend.clone(), subtrahend: family.path("minuend").into() };
    let plan = Plan::new(request, Options::default(), &control).unwrap();
    write::run(&plan, &family.path("zero"), "card", &control).unwrap();
    let bf16 = checkpoint_of_bf16(&family);
    let request = Request::Extract { minuend: family.path("target").into(), subtrahend: bf16 };
    let exclude = vec![regex::Regex::new("lm_head").unwrap()];
    let plan = Plan::new(request, Options { exclude, ..Options::default() }, &control).unwrap();
    let written = write::run(&plan, &family.path("vector"), "card", &control).unwrap();
    assert!(written["exceptions"].as_u64().unwrap() > 1000);
    let vector = Arc::new(Elsewhere::of(&family.path("vector"), false));
    let apply = |vector: Place, out: &str| {
        let vectors = vec![(vector, Alpha::new("1", 1.0).unwrap())];
        let request = Request::Apply { target: family.path("target").into(), vectors };
        let plan = Plan::new(request, Options::default(), &control).unwrap();
        write::run(&plan, &family.path(out), "card", &control).unwrap();
        family.path(out)
    };
    let (a, b) = (apply(family.path("vector").into(), "a"), apply(place(&vector, &[]), "b"));
    same_output(&a, &b);
    assert!(vector.log().wanted.contains(&"vector-exceptions.safetensors".to_owned()));
    let error = Plan::new(
        Request::Apply { target, vectors: vec![(minuend, Alpha::new("1", 1.0).unwrap())] },
        Options::default(),
        &control,
    )
    .unwrap_err();
    assert!(error.to_string().contains("org/name@main: holds no vector.json"), "{error}");
}

/// Another checkpoint of the target's shapes, in one file.
fn checkpoint_of_bf16(family: &Family) -> Place {
    const T: [Tensor; 4] = [
        ("model.embed_tokens.weight", "BF16", &[700, 1001]),
        ("b.weight", "BF16", &[3, 500_001]),
        ("c.bias", "BF16", &[7]),
        ("d.weight", "BF16", &[1_100_000]),
    ];
    checkpoint(&family.path("other"), 9, &[&T]);
    family.path("other").into()
}
