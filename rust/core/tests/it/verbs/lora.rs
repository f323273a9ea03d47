//! Adapters as donors: the product against a naive loop, and whole jobs against an oracle written with `half`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::seeded::{MAPPED, numbers};
use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use taskvec_core::Error;
use taskvec_core::codec::derived::{Encoded, Made};
use taskvec_core::codec::lora_product::{Factor, Product};
use taskvec_core::codec::packed::unpack::Unpacker;
use taskvec_core::control::Control;
use taskvec_core::numeric::dtype::Float;
use taskvec_core::numeric::simd::Isa;
use taskvec_core::plan::Plan;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::options::{Alpha, Options};
use taskvec_core::source::Io;
use taskvec_core::verbs::write;
use tempfile::TempDir;

fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut next = numbers(seed);
    (0..count).map(|_| next()).collect()
}

fn bytes(float: Float, values: &[f32]) -> Vec<u8> {
    match float {
        Float::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        Float::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        Float::F32 => values.iter().flat_map(|&x| x.to_le_bytes()).collect(),
    }
}

fn widened(float: Float, values: &[f32]) -> Vec<f64> {
    let wide = |&x: &f32| match float {
        Float::Bf16 => bf16::from_f32(x).to_f64(),
        Float::F16 => f16::from_f32(x).to_f64(),
        Float::F32 => f64::from(x),
    };
    values.iter().map(wide).collect()
}

/// `f32(scale · Σₖ B[i, k]·A[k, j])`, as `[out, in]`.
fn naive(a: &[f64], b: &[f64], [out, rank, input]: [usize; 3], scale: f64) -> Vec<f32> {
    let mut values = Vec::new();
    for i in 0..out {
        for j in 0..input {
            let mut sum = 0.0;
            for k in 0..rank {
                sum += b[i * rank + k] * a[k * input + j];
            }
            values.push((scale * sum) as f32);
        }
    }
    values
}

fn transpose(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|j| values.iter().skip(j).step_by(columns).copied()).collect()
}

/// Every instruction set, and both ways round, for the elements of some ranges.
fn check(shape: [usize; 3], floats: [Float; 2], ranges: impl Fn(usize) -> Vec<(usize, usize)>) {
    let [out, rank, input] = shape;
    let scale = 2.0 / (rank as f64).sqrt();
    let (a, b) = (noise(rank as u64 + 1, rank * input), noise(out as u64 + 100, out * rank));
    let expected = naive(&widened(floats[0], &a), &widened(floats[1], &b), shape, scale);
    let (a, b) = (bytes(floats[0], &a), bytes(floats[1], &b));
    for transposed in [false, true] {
        let (rows, columns) = if transposed { (input, out) } else { (out, input) };
        let want = if transposed { transpose(&expected, input) } else { expected.clone() };
        let factor = |shard, float| Factor { shard, begin: 0, float };
        let product = Product {
            a: factor(0, floats[0]),
            b: factor(1, floats[1]),
            rank: rank as u64,
            rows: rows as u64,
            columns: columns as u64,
            scale,
            transposed,
        };
        for (start, stop) in ranges(out * input) {
            let made = Made::Product(product.into());
            let encoded = Encoded::of_made(&made, start as u64, stop as u64).unwrap().map(|read| {
                let file = if read.shard == 0 { &a } else { &b };
                &file[read.begin as usize..(read.begin + read.len) as usize]
            });
            for isa in Isa::available() {
                let mut made = vec![0xAA; encoded.room((stop - start) as u64) as usize];
                encoded.decode(isa, start as u64, &mut made, &mut Unpacker::default()).unwrap();
                let made: Vec<u32> = made.as_chunks::<4>().0.iter().map(|&x| u32::from_le_bytes(x)).collect();
                let want: Vec<u32> = want[start..stop].iter().map(|x| x.to_bits()).collect();
                assert!(made == want, "{shape:?} {floats:?} transposed {transposed} [{start}, {stop}) {}", isa.name());
            }
        }
    }
}

#[test]
fn small_products_are_those_of_a_naive_loop_whichever_elements_are_asked_for() {
    for out in 1..=4 {
        for rank in 1..=3 {
            for input in 1..=5 {
                let all = |count: usize| (0..count).flat_map(|i| (i + 1..=count).map(move |j| (i, j))).collect();
                check([out, rank, input], [Float::F32, Float::F32], all);
            }
        }
    }
}

#[test]
fn products_larger_than_a_tile_in_every_direction_and_type() {
    let some = |count: usize| vec![(0, count), (1, count - 1), (count / 3, count / 3 + 1), (count / 2, count)];
    let floats = [Float::Bf16, Float::F16, Float::F32];
    for shape in [[65, 64, 64], [64, 65, 63], [130, 7, 129], [1, 200, 300], [300, 1, 1], [63, 129, 65]] {
        for a in floats {
            for b in floats {
                check(shape, [a, b], some);
            }
        }
    }
}

/// Adapted: a matrix of many blocks with rows that no block's edge respects, one in both, one in each alone.
const OUT: usize = 701;
const INPUT: usize = 1999;
const RANK: usize = 5;

fn save(folder: &Path, file: &str, tensors: &[(String, Dtype, Vec<usize>, Vec<u8>)]) {
    fs::create_dir_all(folder).unwrap();
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &folder.join(file)).unwrap();
}

fn adapter(folder: &Path, seed: u64, modules: &[&str], change: impl Fn(&mut Value)) {
    let mut config = json!({
        "peft_type": "LORA", "base_model_name_or_path": "org/base", "r": RANK, "lora_alpha": 10, "bias": "none",
    });
    change(&mut config);
    let mut tensors = Vec::new();
    for (place, module) in modules.iter().enumerate() {
        let seed = seed * 100 + place as u64 * 2;
        let name = |factor: &str| format!("base_model.model.{module}.lora_{factor}.weight");
        let (a, b) = (noise(seed, RANK * INPUT), noise(seed + 1, OUT * RANK));
        tensors.push((name("A"), Dtype::BF16, vec![RANK, INPUT], bytes(Float::Bf16, &a)));
        tensors.push((name("B"), Dtype::F32, vec![OUT, RANK], bytes(Float::F32, &b)));
    }
    save(folder, "adapter_model.safetensors", &tensors);
    fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
}

struct Family(TempDir);

impl Family {
    fn new() -> Self {
        let family = Self(TempDir::new().unwrap());
        let target: Vec<_> = ["a", "b", "c", "d"]
            .iter()
            .zip(1..)
            .map(|(name, seed)| {
                let values = noise(seed, OUT * INPUT);
                (format!("{name}.weight"), Dtype::BF16, vec![OUT, INPUT], bytes(Float::Bf16, &values))
            })
            .collect();
        save(&family.path("target"), "model.safetensors", &target);
        adapter(&family.path("minuend"), 1, &["a", "b"], |_| {});
        adapter(&family.path("subtrahend"), 2, &["a", "c"], |config| config["use_rslora"] = true.into());
        family
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn transfer(&self, options: Options) -> taskvec_core::Result<Plan> {
        let [target, minuend, subtrahend] = ["target", "minuend", "subtrahend"].map(|role| self.path(role).into());
        let alpha = Alpha::new("0.5", 0.5).unwrap();
        Plan::new(Request::Transfer { target, minuend, subtrahend, alpha }, options, &Control::default())
    }

    fn delta(seed: u64, place: u64, scale: f64) -> Vec<f32> {
        let seed = seed * 100 + place * 2;
        let (a, b) = (noise(seed, RANK * INPUT), noise(seed + 1, OUT * RANK));
        naive(&widened(Float::Bf16, &a), &widened(Float::F32, &b), [OUT, RANK, INPUT], scale)
    }

    /// What the target's tensors become.
    fn expected(&self) -> Vec<Vec<u8>> {
        let (plain, rslora) = (10.0 / 5.0, 10.0 / 5f64.sqrt());
        let zero = vec![0.0; OUT * INPUT];
        let pairs = [
            (Self::delta(1, 0, plain), Self::delta(2, 0, rslora)),
            (Self::delta(1, 1, plain), zero.clone()),
            (zero, Self::delta(2, 1, rslora)),
        ];
        let mut all: Vec<_> = (1..)
            .zip(pairs)
            .map(|(seed, (m, s))| {
                let t = noise(seed, OUT * INPUT);
                let one = |((t, m), s): ((&f32, &f32), &f32)| {
                    bf16::from_f32(bf16::from_f32(*t).to_f32() + 0.5 * (m - s)).to_le_bytes()
                };
                t.iter().zip(&m).zip(&s).flat_map(one).collect()
            })
            .collect();
        all.push(bytes(Float::Bf16, &noise(4, OUT * INPUT)));
        all
    }
}

fn options(threads: usize, memory: u64, io: Io) -> Options {
    Options { threads: Some(threads), memory: Some(memory), io, overwrite: true, sync: false, ..Options::default() }
}

#[test]
fn two_adapters_are_transferred_alike_in_any_budget_by_any_threads() {
    let family = Family::new();
    let (out, expected) = (family.path("out"), family.expected());
    let least = family.transfer(options(1, 64 << 20, Io::Pread)).unwrap().budget.least;
    for (threads, memory, io) in [(1, least, Io::Pread), (3, 64 << 20, MAPPED), (2, 40 << 20, Io::Direct)] {
        let plan = family.transfer(options(threads, memory, io)).unwrap();
        write::run(&plan, &out, "", &Control::default()).unwrap();
        let written = fs::read(out.join("model.safetensors")).unwrap();
        let written = SafeTensors::deserialize(&written).unwrap();
        for (name, expected) in ["a", "b", "c", "d"].iter().zip(&expected) {
            let found = written.tensor(&format!("{name}.weight")).unwrap();
            assert!(found.data() == expected, "{name} with {threads} threads and {memory} bytes");
        }
    }
    assert!(matches!(family.transfer(options(1, least - 1, Io::Pread)), Err(Error::Usage(_))));
}

#[test]
fn the_least_memory_counts_the_factors_and_what_is_made_of_them() {
    let family = Family::new();
    // Mapped, so that nothing is added for aligned reads.
    let least = || family.transfer(options(1, 1 << 30, Io::Mmap)).unwrap().budget.least;
    let with = least();
    fs::copy(family.path("target").join("model.safetensors"), family.path("minuend").join("model.safetensors"))
        .unwrap();
    fs::copy(family.path("target").join("model.safetensors"), family.path("subtrahend").join("model.safetensors"))
        .unwrap();
    // Half as many elements of bf16 as bytes; of each, two made values instead of two that are read.
    let elements = (1 << 20) / 2;
    assert!(with > least() + elements * (4 - 2) * 2, "{with} against {}", least());
}

#[test]
fn an_adapter_is_a_donor_only() {
    let family = Family::new();
    let alpha = Alpha::new("1", 1.0).unwrap();
    let [target, minuend, subtrahend] = ["minuend", "minuend", "subtrahend"].map(|role| family.path(role).into());
    let request = Request::Transfer { target, minuend, subtrahend, alpha: alpha.clone() };
    let error = Plan::new(request, Options::default(), &Control::default()).unwrap_err().to_string();
    assert!(error.contains("only an adapter, which can be used only as a donor; merge it"), "{error}");
    let vectors = vec![(family.path("minuend").into(), alpha)];
    let request = Request::Apply { target: family.path("target").into(), vectors };
    let error = Plan::new(request, Options::default(), &Control::default()).unwrap_err().to_string();
    assert!(error.contains("is an adapter, not a vector"), "{error}");
}
