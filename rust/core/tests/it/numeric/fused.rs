//! One pass over bfloat16 against the loops that it stands in for: bits and figures, whatever the values.

use half::bf16;
use proptest::prelude::*;
use taskvec_core::numeric::combine::combine;
use taskvec_core::numeric::dtype::Float;
use taskvec_core::numeric::operand::{Exceptions, Operand, Rounding, Term};
use taskvec_core::numeric::simd::Isa;
use taskvec_core::numeric::stats::Stats;

/// A stretch of elements of one kind, which may go over the edge of a chunk.
#[derive(Clone, Debug)]
enum Kind {
    Weights,
    Unchanged,
    Zero,
    Tiny,
    Large,
    Anything,
}

fn values(kind: &Kind, n: usize, seed: u64) -> [Vec<u16>; 3] {
    let random = |stream: u64, i: usize| {
        let z = (seed ^ stream << 60).wrapping_add((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z ^ z >> 27
    };
    let number = |stream, i, size: f32| bf16::from_f32(((random(stream, i) >> 40) as f32 / 8_388_608.0 - 1.0) * size);
    let of = |stream: u64, i: usize| match kind {
        Kind::Weights => number(stream.min(1), i, if stream == 2 && i.is_multiple_of(3) { 0.0502 } else { 0.05 }),
        Kind::Unchanged => number(stream.min(1), i, 0.05),
        Kind::Zero => bf16::from_bits((random(stream, i) as u16) & 0x8000),
        Kind::Tiny => number(stream, i, 2f32.powi(-120)),
        Kind::Large => number(stream, i, 2f32.powi(126)),
        Kind::Anything => bf16::from_bits(random(stream, i) as u16),
    };
    [0, 1, 2].map(|stream| (0..n).map(|i| of(stream, i).to_bits()).collect())
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        6 => Just(Kind::Weights),
        2 => Just(Kind::Unchanged),
        1 => Just(Kind::Zero),
        1 => Just(Kind::Tiny),
        1 => Just(Kind::Large),
        1 => Just(Kind::Anything),
    ]
}

fn alphas() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -2.0f32..2.0,
        1 => Just(1.0),
        1 => Just(f32::MIN_POSITIVE),
        1 => Just(f32::MAX),
        1 => Just(f32::INFINITY),
        1 => Just(f32::NAN),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bits_and_figures_are_those_of_the_scalar_loops(
        stretches in prop::collection::vec((kinds(), 1usize..5000, any::<u64>()), 1..4),
        alpha in alphas(),
        pair in any::<bool>(),
        exception in prop::option::of(0u64..12_000),
        first in 0u64..100,
    ) {
        let mut columns = [Vec::new(), Vec::new(), Vec::new()];
        for (kind, n, seed) in &stretches {
            for (column, more) in columns.iter_mut().zip(values(kind, *n, *seed)) {
                column.extend(more.into_iter().flat_map(u16::to_le_bytes));
            }
        }
        let [t, s, g] = &columns;
        let operand = |bytes| Operand { float: Float::Bf16, bytes };
        let index: Vec<u8> = exception.iter().flat_map(|i| i.to_le_bytes()).collect();
        let value: Vec<u8> = exception.iter().flat_map(|_| 0.0101f32.to_le_bytes()).collect();
        let exceptions = [Exceptions { index: &index, value: &value, skip: 0 }];
        let exceptions = if pair { &[][..] } else { &exceptions };
        let terms = [Term { minuend: operand(g), subtrahend: pair.then(|| operand(s)), exceptions, alpha }];
        let run = |isa, wanted: bool| {
            let (mut out, mut stats) = (vec![0xAA; t.len()], Stats::default());
            let into = wanted.then_some(&mut stats);
            combine(isa, operand(t), &terms, first, Float::Bf16, &Rounding::Nearest, &mut out, into);
            (out, stats.to_bytes())
        };
        for wanted in [false, true] {
            let expected = run(Isa::Scalar, wanted);
            for isa in Isa::available() {
                prop_assert!(run(isa, wanted) == expected, "{} with figures: {wanted}", isa.name());
            }
        }
    }
}
