//! Windows handed to a consumer in memory, against the files that the same request writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::seeded::{MAPPED, numbers};
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use taskvec_core::Error;
use taskvec_core::control::Control;
use taskvec_core::plan::Plan;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::options::{Alpha, Options};
use taskvec_core::source::Io;
use taskvec_core::verbs::live::{self, Next, Stream};
use taskvec_core::verbs::write;
use tempfile::TempDir;

/// An odd number of bytes first, so that everything behind it is cut by the blocks' edges in the middle of an element.
const TENSORS: [(&str, &str, usize); 5] = [
    ("a.mask", "U8", 12_345),
    ("b.weight", "F32", 1_300_001),
    ("c.bias", "BF16", 7),
    ("d.weight", "BF16", 1_500_001),
    ("e.weight", "F64", 400_003),
];

fn size(dtype: &str) -> usize {
    match dtype {
        "U8" => 1,
        "BF16" => 2,
        "F32" => 4,
        _ => 8,
    }
}

/// Finite numbers of every type from bytes of a seed.
fn bytes(seed: u64, dtype: &str, count: usize) -> Vec<u8> {
    let mut next = numbers(seed);
    (0..count)
        .flat_map(|_| match dtype {
            "U8" => vec![(next() * 200.0) as i8 as u8],
            "BF16" => half::bf16::from_f32(next()).to_le_bytes().to_vec(),
            "F32" => next().to_le_bytes().to_vec(),
            _ => f64::from(next()).to_le_bytes().to_vec(),
        })
        .collect()
}

/// Writes a checkpoint in the very order of the tensors: serialisers sort them by the size of their elements.
fn checkpoint(folder: &Path, seed: u64, tensors: &[(&str, &str, usize)]) {
    let (mut entries, mut data) = (Map::new(), Vec::new());
    for (place, &(name, dtype, count)) in tensors.iter().enumerate() {
        let made = bytes(seed * 100 + place as u64, dtype, count);
        let offsets = [data.len(), data.len() + made.len()];
        entries.insert(name.into(), json!({"dtype": dtype, "shape": [count], "data_offsets": offsets}));
        data.extend(made);
    }
    let header = Value::Object(entries).to_string();
    fs::create_dir_all(folder).unwrap();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    fs::write(folder.join("model.safetensors"), file).unwrap();
}

struct Family(TempDir);

impl Family {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for (seed, role) in [(1, "target"), (2, "minuend"), (3, "subtrahend")] {
            // Only the target has a tensor of doubles: it is copied.
            let count = if role == "target" { 5 } else { 4 };
            checkpoint(&folder.path().join(role), seed, &TENSORS[..count]);
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn transfer(&self) -> Request {
        let [target, minuend, subtrahend] = ["target", "minuend", "subtrahend"].map(|role| self.path(role).into());
        Request::Transfer { target, minuend, subtrahend, alpha: Alpha::new("0.7", 0.7).unwrap() }
    }
}

fn options(threads: usize, memory: u64, io: Io) -> Options {
    Options { threads: Some(threads), memory: Some(memory), io, ..Options::default() }
}

fn live_plan(request: Request, options: Options) -> Result<Plan, Error> {
    Plan::live(request, options, &Control::default())
}

/// The values of all tensors, put together from the parts, and the report. Fails if an element comes twice or never.
fn collect(plan: Plan, wanted: &[bool]) -> (Vec<[Vec<u8>; 2]>, Value) {
    let has_result = !plan.inputs.origins.is_empty();
    let mut found: Vec<[Vec<u8>; 2]> = Vec::new();
    let mut seen: Vec<Vec<bool>> = Vec::new();
    for (_, dtype, count) in TENSORS {
        found.push([vec![0; size(dtype) * count], vec![0; size(dtype) * count]]);
        seen.push(vec![false; count]);
    }
    let mut stream = Stream::start(plan, wanted).unwrap();
    loop {
        match stream.next(Duration::from_secs(10)).unwrap() {
            Next::Window(mut packet) => {
                for part in &packet.parts.clone() {
                    let place = part.tensor as usize;
                    let size = size(TENSORS[place].1);
                    assert_eq!(part.offset % size, 0, "parts are aligned");
                    let (first, count) = (part.first as usize, part.elements as usize);
                    let to = first * size..(first + count) * size;
                    let from = part.offset..part.offset + count * size;
                    if has_result {
                        found[place][0][to.clone()].copy_from_slice(&packet.result()[from.clone()]);
                    }
                    found[place][1][to].copy_from_slice(&packet.original()[from]);
                    for seen in &mut seen[place][first..first + count] {
                        assert!(!std::mem::replace(seen, true), "no element comes twice");
                    }
                }
                stream.give_back(packet);
            }
            Next::Waiting => panic!("ten seconds without a window"),
            Next::End(report) => {
                for (place, seen) in seen.iter().enumerate() {
                    assert!(seen.iter().all(|&seen| seen == wanted[place]), "all that is wanted, nothing else");
                }
                return (found, report);
            }
        }
    }
}

#[test]
fn a_consumer_gets_what_a_file_would_get() {
    let family = Family::new();
    let out = family.path("out");
    let plan = Plan::new(family.transfer(), Options::default(), &Control::default()).unwrap();
    let written = write::run(&plan, &out, "card", &Control::default()).unwrap();
    let [after, before] = ["out", "target"].map(|name| fs::read(family.path(name).join("model.safetensors")).unwrap());
    let files = [&after, &before].map(|file| SafeTensors::deserialize(file).unwrap());
    let manifest: Value = serde_json::from_slice(&fs::read(out.join("taskvec.json")).unwrap()).unwrap();
    let ways = [(1, 16 << 20, Io::Pread), (2, 64 << 20, MAPPED), (7, 256 << 20, Io::Direct), (3, 24 << 20, Io::Auto)];
    for (threads, memory, io) in ways {
        let plan = live_plan(family.transfer(), options(threads, memory, io)).unwrap();
        assert!(plan.budget.planned <= memory, "the plan keeps to the budget");
        let (found, report) = collect(plan, &[true; 5]);
        for (place, (name, ..)) in TENSORS.into_iter().enumerate() {
            for (found, file) in found[place].iter().zip(&files) {
                assert!(found == file.tensor(name).unwrap().data(), "{name} with {io} on {threads} threads");
            }
        }
        assert_eq!(report["effect"], written["effect"], "the figures are those of the run that writes");
        for tensor in report["tensors"].as_array().unwrap() {
            let entries = manifest["tensors"].as_array().unwrap();
            let entry = entries.iter().find(|entry| entry["name"] == tensor["name"]).unwrap();
            assert_eq!(entry["effect"]["norm_v"], tensor["norm_v"]);
            assert_eq!(entry["effect"]["gain"], tensor["gain"]);
        }
        assert_eq!(report["tensors"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn only_what_is_wanted_comes_and_the_figures_are_whole() {
    let family = Family::new();
    let all = collect(live_plan(family.transfer(), Options::default()).unwrap(), &[true; 5]);
    let wanted = [false, true, false, false, true];
    let some = collect(live_plan(family.transfer(), Options::default()).unwrap(), &wanted);
    assert!(some.0[1] == all.0[1] && some.0[4] == all.0[4]);
    assert_eq!(some.1, all.1);
}

#[test]
fn reading_gives_the_targets_own_values() {
    let family = Family::new();
    let file = fs::read(family.path("target").join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let request = Request::Read { target: family.path("target").into() };
    let plan = live_plan(request, options(2, 8 << 20, Io::Auto)).unwrap();
    let (found, report) = collect(plan, &[true; 5]);
    for ((name, ..), found) in TENSORS.into_iter().zip(&found) {
        assert!(found[1] == file.tensor(name).unwrap().data(), "{name}");
    }
    assert_eq!(report["tensors"], json!([]));
}

#[test]
fn the_target_is_known_by_its_files() {
    let family = Family::new();
    let read =
        || live_plan(Request::Read { target: family.path("target").into() }, Options::default()).unwrap().base_id();
    let before = read();
    assert_eq!(before, live_plan(family.transfer(), Options::default()).unwrap().base_id());
    checkpoint(&family.path("target"), 1, &TENSORS);
    assert_ne!(before, read(), "the same bytes written anew are not known to be the same");
}

#[test]
fn an_input_that_changes_ends_in_an_error() {
    let family = Family::new();
    let plan = live_plan(family.transfer(), options(1, 16 << 20, Io::Pread)).unwrap();
    let mut stream = Stream::start(plan, &[true; 5]).unwrap();
    let path = family.path("minuend").join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes).unwrap();
    let error = loop {
        match stream.next(Duration::from_secs(10)) {
            Ok(Next::Window(packet)) => stream.give_back(packet),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(matches!(stream.next(Duration::ZERO), Err(Error::Cancelled)), "it stays ended");
}

#[test]
fn a_consumer_may_leave_at_any_time() {
    let family = Family::new();
    for windows in 0..3 {
        let plan = live_plan(family.transfer(), options(2, 16 << 20, Io::Auto)).unwrap();
        let mut stream = Stream::start(plan, &[true; 5]).unwrap();
        for _ in 0..windows {
            // The packet is kept, not given back: workers are waiting for one when the stream goes.
            assert!(matches!(stream.next(Duration::from_secs(10)), Ok(Next::Window(_))));
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let family = Family::new();
    let dtype = Some(taskvec_core::numeric::dtype::Float::F32);
    let converted = live_plan(family.transfer(), Options { dtype, ..Options::default() });
    assert!(matches!(converted, Err(Error::Usage(_))));
    let plan = live_plan(family.transfer(), Options::default()).unwrap();
    assert!(matches!(Stream::start(plan, &[true; 4]), Err(Error::Usage(_))));
    checkpoint(&family.path("minuend"), 2, &TENSORS[..2]);
    let plan = live_plan(family.transfer(), Options::default()).unwrap();
    assert!(matches!(Stream::start(plan, &[true; 5]), Err(Error::Mismatch(_))));
    let described =
        live::tensors(&live_plan(Request::Read { target: family.path("target").into() }, Options::default()).unwrap());
    assert_eq!(
        described[4],
        json!({"name": "e.weight", "dtype": "F64", "shape": [400_003], "base": "e.weight", "combined": false})
    );
}
