//! Throughput of the kernels in bytes of output over windows of 2 MiB, and of packing in dense bytes; each case is first
//! checked against the scalar build, or unpacked.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use half::{bf16, f16};
use taskvec_core::codec::derived::TILE;
use taskvec_core::codec::lora_product::{Factor, Product, multiply};
use taskvec_core::codec::packed::frame::{Block, Packer};
use taskvec_core::codec::packed::unpack::Unpacker;
use taskvec_core::codec::packed::{Packed, frame_seed};
use taskvec_core::codec::scaled::{Codes, Format, ScaleType, Scaled, Start};
use taskvec_core::numeric::add::add;
use taskvec_core::numeric::combine::combine;
use taskvec_core::numeric::compare::compare;
use taskvec_core::numeric::dtype::Float;
use taskvec_core::numeric::operand::{Operand, Rounding, Term};
use taskvec_core::numeric::philox::block;
use taskvec_core::numeric::simd::Isa;
use taskvec_core::numeric::stats::{Comparison, Stats};

const WINDOW: usize = 2 << 20;

/// Weights as a model has them; with `step` a fifth of them moved a little, as training does.
fn weights(float: Float, stream: u32, step: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for i in 0..WINDOW / float.size() {
        let random = block([i as u32, 0, 0, 0], [stream, 0]);
        let weight = (random[0] as f32 / u32::MAX as f32 - 0.5) * 0.05;
        let moved = if step && random[1].is_multiple_of(5) { weight * 1.004 } else { weight };
        match float {
            Float::Bf16 => bytes.extend(bf16::from_f32(moved).to_bits().to_le_bytes()),
            Float::F16 => bytes.extend(f16::from_f32(moved).to_bits().to_le_bytes()),
            Float::F32 => bytes.extend(moved.to_bits().to_le_bytes()),
        }
    }
    bytes
}

fn combining(criterion: &mut Criterion) {
    let cases = [
        (Float::Bf16, Rounding::Nearest, "nearest"),
        (Float::Bf16, Rounding::Stochastic { key: [1, 2] }, "stochastic"),
        (Float::F16, Rounding::Nearest, "nearest"),
        (Float::F16, Rounding::Stochastic { key: [1, 2] }, "stochastic"),
        (Float::F32, Rounding::Nearest, "nearest"),
    ];
    for (float, rounding, name) in cases {
        let (t, s, g) = (weights(float, 0, false), weights(float, 1, false), weights(float, 1, true));
        let operand = |bytes| Operand { float, bytes };
        let subtrahend = Some(operand(s.as_slice()));
        let terms = [Term { minuend: operand(&g), subtrahend, exceptions: &[], alpha: 0.7 }];
        let run = |isa, out: &mut [u8], stats: Option<&mut Stats>| {
            combine(isa, operand(&t), &terms, 0, float, &rounding, out, stats)
        };

        let (mut expected, mut figures) = (vec![0; WINDOW], Stats::default());
        run(Isa::Scalar, &mut expected, Some(&mut figures));
        let mut group = criterion.benchmark_group(format!("combine {} {name}", float.dtype()));
        group.throughput(Throughput::Bytes(WINDOW as u64));
        for isa in Isa::available() {
            let (mut out, mut stats) = (vec![0; WINDOW], Stats::default());
            run(isa, &mut out, Some(&mut stats));
            assert!(out == expected && stats == figures, "{} gives what scalar gives", isa.name());
            group.bench_function(format!("{} bare", isa.name()), |bench| {
                bench.iter(|| run(isa, black_box(&mut out), None));
            });
            group.bench_function(format!("{} statistics", isa.name()), |bench| {
                bench.iter(|| run(isa, black_box(&mut out), Some(&mut Stats::default())));
            });
        }
    }
}

fn others(criterion: &mut Criterion) {
    for float in [Float::Bf16, Float::F16, Float::F32] {
        let (s, g) = (weights(float, 1, false), weights(float, 1, true));
        let (s, g) = (Operand { float, bytes: &s }, Operand { float, bytes: &g });
        let subtract = |isa| {
            let (mut out, mut exceptions, mut stats) = (vec![0; WINDOW], Vec::new(), Stats::default());
            let terms = [Term { minuend: g, subtrahend: Some(s), exceptions: &[], alpha: 1.0 }];
            add(isa, &terms, 0, float, &mut out, &mut exceptions, Some(&mut stats));
            (out, exceptions, stats)
        };
        let compare = |isa| {
            let mut comparison = Comparison::default();
            compare(isa, s, g, &mut comparison);
            comparison
        };
        let mut group = criterion.benchmark_group(format!("others {}", float.dtype()));
        group.throughput(Throughput::Bytes(WINDOW as u64));
        for isa in Isa::available() {
            assert!(subtract(isa) == subtract(Isa::Scalar), "{} gives what scalar gives", isa.name());
            assert_eq!(compare(isa), compare(Isa::Scalar), "{} gives what scalar gives", isa.name());
            group.bench_function(format!("{} subtract", isa.name()), |bench| bench.iter(|| subtract(isa)));
            group.bench_function(format!("{} compare", isa.name()), |bench| bench.iter(|| compare(isa)));
        }
    }
}

/// Throughput of adapters' products, in elements times rank.
fn products(criterion: &mut Criterion) {
    const ROWS: usize = 128;
    for (rank, columns) in [(16, 4096), (64, 4096), (16, 14336)] {
        let float = Float::Bf16;
        let (a, b) = (weights(float, 0, false), weights(float, 1, false));
        let (a, b) = (&a[..rank * columns * 2], &b[..ROWS * rank * 2]);
        let factor = |shard| Factor { shard, begin: 0, float };
        let (rows, scale) = (ROWS as u64, 2.0);
        let (rank, columns) = (rank as u64, columns as u64);
        let product = Product { a: factor(0), b: factor(1), rank, rows, columns, scale, transposed: false };
        let make = |isa, out: &mut [u8]| multiply(isa, &product, &[b], a, 0, out);

        let mut expected = vec![0; ROWS * columns as usize * 4];
        make(Isa::Scalar, &mut expected);
        let mut group = criterion.benchmark_group(format!("product {rank} {columns}"));
        group.throughput(Throughput::Elements(rows * rank * columns));
        for isa in Isa::available() {
            let mut out = vec![0; expected.len()];
            make(isa, &mut out);
            assert!(out == expected, "{} gives what scalar gives", isa.name());
            group.bench_function(isa.name(), |bench| bench.iter(|| make(isa, black_box(&mut out))));
        }
    }
}

/// Streams from memory, too long for any cache: beside the kernel, the same reads and writes with almost no arithmetic.
fn from_memory(criterion: &mut Criterion) {
    const STREAM: usize = 128 << 20;
    let part = [(0, false), (1, false), (1, true)].map(|(stream, step)| weights(Float::Bf16, stream, step));
    let [t, s, g] = part.map(|part| part.repeat(STREAM / WINDOW));
    let operand = |bytes| Operand { float: Float::Bf16, bytes };
    let (minuend, subtrahend) = (operand(g.as_slice()), Some(operand(s.as_slice())));
    let terms = [Term { minuend, subtrahend, exceptions: &[], alpha: 0.7 }];
    let mut out = vec![0; STREAM];
    let mut group = criterion.benchmark_group("from memory");
    group.throughput(Throughput::Bytes(STREAM as u64)).sample_size(20);
    group.bench_function("limit: three streams read, one written", |bench| {
        bench.iter(|| {
            let inputs = t.as_chunks::<8>().0.iter().zip(g.as_chunks::<8>().0).zip(s.as_chunks::<8>().0);
            for (out, ((t, g), s)) in out.as_chunks_mut::<8>().0.iter_mut().zip(inputs) {
                *out = (u64::from_ne_bytes(*t) ^ u64::from_ne_bytes(*g) ^ u64::from_ne_bytes(*s)).to_ne_bytes();
            }
            black_box(&mut out);
        });
    });
    for isa in Isa::available() {
        let run = |out: &mut [u8], stats: Option<&mut Stats>| {
            combine(isa, operand(&t), &terms, 0, Float::Bf16, &Rounding::Nearest, out, stats);
        };
        group.bench_function(format!("{} bare", isa.name()), |bench| bench.iter(|| run(black_box(&mut out), None)));
        group.bench_function(format!("{} statistics", isa.name()), |bench| {
            bench.iter(|| run(black_box(&mut out), Some(&mut Stats::default())));
        });
    }
}

/// A block of 1 MiB of bfloat16 differences, packed and unpacked, by the share of elements that changed.
fn packing(criterion: &mut Criterion) {
    for changed in [7, 20, 50, 140, 200, 300, 500, 900] {
        let exact: Vec<u8> = (0..1 << 19)
            .flat_map(|i| {
                let random = block([i, 0, 0, 0], [3, 0]);
                let weight = (random[0] as f32 / u32::MAX as f32 - 0.5) * 0.1;
                let ulp = f32::from_bits((weight.to_bits() & 0x7F80_0000).saturating_sub(7 << 23));
                let steps = random[1].trailing_zeros() as f32 + 1.0;
                let moved = if random[2] % 1000 < changed { ulp * steps * weight.signum() } else { 0.0 };
                moved.to_le_bytes()
            })
            .collect();
        let elements = 1 << 19;
        let mut group = criterion.benchmark_group(format!("packed {}.{} %", changed / 10, changed % 10));
        group.throughput(Throughput::Bytes(1 << 20));
        for isa in Isa::available() {
            let (mut packer, values) = (Packer::default(), Block { float: Float::Bf16, exact: &exact });
            let palette = packer.palette(isa, values);
            let (before, mut frame) = (palette.to_bytes(), Vec::new());
            let seed = frame_seed(1, &before, 0);
            packer.pack(isa, values, &palette, seed, &mut frame);
            let (ends, magnitudes) = (vec![frame.len() as u64], palette.ranks() / 2);
            let (shard, begin, float, wide) = (0, 0, Float::Bf16, false);
            let of = |ends: &[u64], seed| Packed {
                shard,
                begin,
                float,
                wide,
                elements,
                ends: ends.into(),
                skip: 0,
                magnitudes,
                seed,
            };
            let tensors = [of(&ends, 1), of(&ends, 1)];
            let (mut unpacker, mut out) = (Unpacker::default(), vec![0; 1 << 20]);
            unpacker.unpack(isa, &tensors[0], 0, [&before, &frame], &mut out).expect("a frame that was just packed");
            let same = out.chunks_exact(2).zip(exact.chunks_exact(4)).all(|(found, exact)| found == &exact[2..]);
            assert!(same, "{} gives back what was packed", isa.name());
            group.bench_function(format!("{} pack", isa.name()), |bench| {
                bench.iter(|| {
                    frame.clear();
                    packer.pack(isa, black_box(values), &palette, seed, &mut frame)
                });
            });
            let mut number = 0;
            group.bench_function(format!("{} unpack", isa.name()), |bench| {
                bench.iter(|| {
                    // The other tensor: of the same one, the frame would be known.
                    number += 1;
                    unpacker.unpack(isa, &tensors[number % 2], 0, [&before, black_box(&frame)], &mut out)
                });
            });
        }
    }
}

/// Quantised weights to bfloat16, in bytes of output: 512 rows of 2,048 codes in each format.
fn dequantising(criterion: &mut Criterion) {
    const ROWS: u64 = 512;
    const COLUMNS: u64 = 2048;
    let formats = [
        (Codes::E4m3, ScaleType::F32, [128, 128], false),
        (Codes::E4m3, ScaleType::Bf16, [1, COLUMNS], false),
        (Codes::E4m3, ScaleType::E8m0, [1, 32], false),
        (Codes::E2m1, ScaleType::E8m0, [1, 32], false),
        (Codes::E2m1, ScaleType::E8m0, [1, 32], true),
        (Codes::Int4, ScaleType::Bf16, [1, 32], false),
    ];
    for (codes, scale, block, transposed) in formats {
        let (rows, columns, stride, global) = (ROWS, COLUMNS, COLUMNS, None);
        let format = Format { codes, scale, global, rows, columns, stride, block, whole: false, transposed };
        let name = format!("dequantise {format}{}", if transposed { ", transposed" } else { "" });
        let start = |begin| Start { shard: 0, begin };
        let scaled = Scaled { format: format.into(), codes: start(0), scales: start(0), global: None };
        let [wanted, scales] = scaled.reads(0, ROWS * COLUMNS).map(|read| read.len as usize);
        let random = |len: usize, stream, values: u32| -> Vec<u8> {
            (0..len as u32).map(|i| (block_of(i, stream) % values) as u8).collect()
        };
        // No NaN, and scales between 2^-10 and 2^10.
        let (codes, mut of) = (random(wanted, 1, 0x7F), random(scales, 2, 20));
        for bytes in of.chunks_mut(scale.size() as usize) {
            let exponent = 117 + u32::from(bytes[0]);
            let float = (exponent << 23).to_le_bytes();
            match scale {
                ScaleType::E8m0 => bytes[0] = exponent as u8,
                _ => bytes.copy_from_slice(&float[4 - bytes.len()..]),
            }
        }
        let run = |isa, room: &mut [u8], out: &mut [u8]| {
            let step = if transposed { ROWS * COLUMNS } else { TILE };
            for first in (0..ROWS * COLUMNS).step_by(step as usize) {
                let room = &mut room[..step as usize * 4];
                scaled.decode_part(isa, (0, first), [&codes, &of], None, room);
                let (target, out) = (Operand { float: Float::F32, bytes: room }, &mut out[first as usize * 2..]);
                let out = &mut out[..step as usize * 2];
                combine(isa, target, &[], first, Float::Bf16, &Rounding::Nearest, out, None);
            }
        };
        let bytes = (ROWS * COLUMNS * 2) as usize;
        let (mut room, mut expected) = (vec![0; 2 * bytes], vec![0; bytes]);
        run(Isa::Scalar, &mut room, &mut expected);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes as u64));
        for isa in Isa::available() {
            let mut out = vec![0; bytes];
            run(isa, &mut room, &mut out);
            assert!(out == expected, "{} gives what scalar gives", isa.name());
            group.bench_function(isa.name(), |bench| bench.iter(|| run(isa, &mut room, black_box(&mut out))));
        }
    }
}

fn block_of(i: u32, stream: u32) -> u32 {
    block([i, 0, 0, 0], [stream, 0])[0]
}

criterion_group!(benches, combining, from_memory, others, products, packing, dequantising);
criterion_main!(benches);
