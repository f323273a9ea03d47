//! Folders elsewhere: what arrives gives the bytes of local folders, and nothing is made of what is not what was planned.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::support::elsewhere::{Elsewhere, Family, Tensor, checkpoint, manifest, place, places, same_output};
use crate::support::seeded::MAPPED;
use taskvec_core::Error;
use taskvec_core::checkpoint::vector::Encoding;
use taskvec_core::control::Control;
use taskvec_core::plan::Plan;
use taskvec_core::plan::document::to_value;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::options::{Alpha, Options};
use taskvec_core::source::Io;
use taskvec_core::storage::place::Place;
use taskvec_core::verbs::{diff, inspect, write};
use tempfile::TempDir;

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
    let inspected = |place: &Place| to_value(&inspect::inspect(place, true, &control).unwrap()).unwrap();
    let found = inspected(&target);
    let mut expected = inspected(&family.path("target").as_path().into());
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
    // Vectors elsewhere; a dense one with its exceptions.
    let request = Request::Extract { minuend: minuend.clone(), subtrahend: family.path("minuend").into() };
    let plan = Plan::new(request, Options::default(), &control).unwrap();
    write::run(&plan, &family.path("zero"), "card", &control).unwrap();
    let bf16 = checkpoint_of_bf16(&family);
    let exclude = vec![regex::Regex::new("lm_head").unwrap()];
    let apply = |vector: Place, out: &str| {
        let vectors = vec![(vector, Alpha::new("1", 1.0).unwrap())];
        let request = Request::Apply { target: family.path("target").into(), vectors };
        let plan = Plan::new(request, Options::default(), &control).unwrap();
        write::run(&plan, &family.path(out), "card", &control).unwrap();
        family.path(out)
    };
    for encoding in [Encoding::Packed, Encoding::Dense] {
        let [here, a, b] = ["vector", "a", "b"].map(|name| format!("{}-{name}", encoding.name()));
        let request = Request::Extract { minuend: family.path("target").into(), subtrahend: bf16.clone() };
        let options = Options { exclude: exclude.clone(), encoding, ..Options::default() };
        let plan = Plan::new(request, options, &control).unwrap();
        let written = write::run(&plan, &family.path(&here), "card", &control).unwrap();
        assert!(written["exceptions"].as_u64().unwrap() > 1000);
        let vector = Arc::new(Elsewhere::of(&family.path(&here), false));
        same_output(&apply(family.path(&here).into(), &a), &apply(place(&vector, &[]), &b));
        let beside = vector.log().wanted.contains(&"vector-exceptions.safetensors".to_owned());
        assert_eq!(beside, encoding == Encoding::Dense);
    }
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
