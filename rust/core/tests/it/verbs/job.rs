//! A whole job through the public surface, against an oracle written with the `half` and `safetensors` crates.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::seeded::{MAPPED, numbers};
use half::bf16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use taskvec_core::Error;
use taskvec_core::checkpoint::vector::Encoding;
use taskvec_core::control::Control;
use taskvec_core::plan::Plan;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::options::{Alpha, Options};
use taskvec_core::source::Io;
use taskvec_core::verbs::write;
use tempfile::TempDir;

/// Enough for several blocks and an element cut by an edge, in three tensors of very different size.
const SHAPES: [(&str, usize); 3] = [("a.weight", 1_500_001), ("b.bias", 7), ("c.weight", 900_000)];

/// Numbers that look like weights: small, of both signs, from a seed.
fn values(seed: u64, count: usize) -> Vec<bf16> {
    let mut next = numbers(seed);
    (0..count).map(|_| bf16::from_f32(next() * 0.05)).collect()
}

fn bytes(values: &[bf16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect()
}

struct Family {
    folder: TempDir,
    weights: HashMap<(&'static str, &'static str), Vec<bf16>>,
}

impl Family {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mut weights = HashMap::new();
        for (number, role) in ["target", "minuend", "subtrahend"].into_iter().enumerate() {
            let mut data = Vec::new();
            for (place, (name, count)) in SHAPES.into_iter().enumerate() {
                let made = values((number * 10 + place + 1) as u64, count);
                data.push((name, count, bytes(&made)));
                weights.insert((role, name), made);
            }
            let views = data
                .iter()
                .map(|(name, count, bytes)| (*name, TensorView::new(Dtype::BF16, vec![*count], bytes).unwrap()));
            fs::create_dir(folder.path().join(role)).unwrap();
            let path = folder.path().join(role).join("model.safetensors");
            safetensors::serialize_to_file(views, None, &path).unwrap();
        }
        Self { folder, weights }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn transfer(&self, alpha: f64, options: Options) -> Plan {
        let [target, minuend, subtrahend] = ["target", "minuend", "subtrahend"].map(|role| self.path(role).into());
        let alpha = Alpha::new(&alpha.to_string(), alpha).unwrap();
        Plan::new(Request::Transfer { target, minuend, subtrahend, alpha }, options, &Control::default()).unwrap()
    }

    /// `round(t + α·(m − s))`, each operation rounded to f32.
    fn expected(&self, name: &'static str, alpha: f32) -> Vec<u8> {
        let [t, m, s] = ["target", "minuend", "subtrahend"].map(|role| &self.weights[&(role, name)]);
        let results =
            t.iter().zip(m).zip(s).map(|((t, m), s)| bf16::from_f32(t.to_f32() + alpha * (m.to_f32() - s.to_f32())));
        bytes(&results.collect::<Vec<_>>())
    }
}

fn options(threads: usize, memory: u64, io: Io) -> Options {
    Options { threads: Some(threads), memory: Some(memory), io, ..Options::default() }
}

fn weights(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("model.safetensors")).unwrap()
}

#[test]
fn every_way_of_working_gives_the_oracles_bytes() {
    let family = Family::new();
    let mut first = None;
    let ways = [(1, 16 << 20, Io::Pread), (2, 64 << 20, MAPPED), (7, 256 << 20, Io::Direct), (3, 24 << 20, Io::Auto)];
    for (number, (threads, memory, io)) in ways.into_iter().enumerate() {
        let plan = family.transfer(0.7, options(threads, memory, io));
        assert!(plan.budget.planned <= memory, "the plan keeps to the budget");
        let out = family.path(&format!("out{number}"));
        write::run(&plan, &out, "card", &Control::default()).unwrap();
        let written = weights(&out);
        let read = SafeTensors::deserialize(&written).unwrap();
        for (name, _) in SHAPES {
            assert!(
                read.tensor(name).unwrap().data() == family.expected(name, 0.7),
                "{name} with {io} on {threads} threads"
            );
        }
        let manifest = fs::read(out.join("taskvec.json")).unwrap();
        assert_eq!(
            *first.get_or_insert_with(|| manifest.clone()),
            manifest,
            "the manifest tells nothing of threads or budget"
        );
        assert!(!out.join(".taskvec-partial").exists());
    }
}

#[test]
fn a_vector_applied_gives_the_bytes_of_the_transfer() {
    let family = Family::new();
    let control = Control::default();
    let transferred = family.path("transferred");
    write::run(&family.transfer(-1.5, Options::default()), &transferred, "card", &control).unwrap();
    for (encoding, memory) in [(Encoding::Dense, 16 << 20), (Encoding::Packed, 24 << 20)] {
        let request =
            Request::Extract { minuend: family.path("minuend").into(), subtrahend: family.path("subtrahend").into() };
        let plan = Plan::new(request, Options { encoding, ..Options::default() }, &control).unwrap();
        let vector = family.path(encoding.name());
        let result = write::run(&plan, &vector, "card", &control).unwrap();
        assert!(
            result["exceptions"].as_u64().unwrap() > 100_000,
            "unrelated donors have differences that bf16 cannot hold"
        );
        for memory in [memory, 128 << 20] {
            let alpha = Alpha::new("-1.5", -1.5).unwrap();
            let request =
                Request::Apply { target: family.path("target").into(), vectors: vec![(vector.clone().into(), alpha)] };
            let plan = Plan::new(request, options(2, memory, Io::Auto), &control).unwrap();
            let out = family.path(&format!("applied-{}-{memory}", encoding.name()));
            write::run(&plan, &out, "card", &control).unwrap();
            assert!(weights(&out) == weights(&transferred));
        }
    }
}

#[test]
fn a_stopped_job_leaves_nothing_loadable_and_goes_on() {
    let family = Family::new();
    let out = family.path("out");
    let plan = family.transfer(1.0, options(1, 16 << 20, Io::Pread));
    let control = Control::default();
    let stopped = std::thread::scope(|scope| {
        let job = scope.spawn(|| write::run(&plan, &out, "card", &control));
        // Stops once something is written; a job that was quicker than we are has nothing to go on from.
        while !job.is_finished() && control.progress().1 == 0 {
            std::thread::yield_now();
        }
        control.stop();
        job.join().unwrap()
    });
    if let Err(error) = stopped {
        assert!(matches!(error, Error::Cancelled), "{error}");
        let left: Vec<_> = fs::read_dir(&out).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
        assert!(left.is_empty() || left == [".taskvec-partial"], "{left:?}");
        // Another budget, other threads: the grid is the same.
        let plan = family.transfer(1.0, options(2, 64 << 20, MAPPED));
        write::run(&plan, &out, "card", &Control::default()).unwrap();
    }
    let written = weights(&out);
    let read = SafeTensors::deserialize(&written).unwrap();
    for (name, _) in SHAPES {
        assert!(read.tensor(name).unwrap().data() == family.expected(name, 1.0), "{name}");
    }
}

#[test]
fn a_budget_that_cannot_work_names_the_least_that_does() {
    let family = Family::new();
    let [target, minuend, subtrahend] = ["target", "minuend", "subtrahend"].map(|role| family.path(role).into());
    let request = Request::Transfer { target, minuend, subtrahend, alpha: Alpha::new("1", 1.0).unwrap() };
    let Err(Error::Usage(message)) = Plan::new(request.clone(), options(1, 1 << 20, Io::Pread), &Control::default())
    else {
        panic!("1 MiB is too little")
    };
    let least: u64 = message.split_whitespace().last().unwrap().trim_end_matches("KiB").parse().unwrap();
    let plan = Plan::new(request, options(1, least << 10, Io::Pread), &Control::default()).unwrap();
    write::run(&plan, &family.path("out"), "card", &Control::default()).unwrap();
}
