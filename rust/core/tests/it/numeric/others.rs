//! Adding and comparing, with every instruction set.

use crate::numeric::values::{FLOATS, load, store, tame, wild};
use taskvec_core::numeric::add::add;
use taskvec_core::numeric::compare::compare;
use taskvec_core::numeric::dtype::Float;
use taskvec_core::numeric::operand::{Operand, Term};
use taskvec_core::numeric::simd::Isa;
use taskvec_core::numeric::stats::{Comparison, Stats};

#[test]
fn a_difference_loses_nothing() {
    let n = 4096 + 100;
    for (g, s, to) in
        FLOATS.into_iter().flat_map(|g| FLOATS.map(|s| (g, s))).flat_map(|(g, s)| FLOATS.map(|to| (g, s, to)))
    {
        for (a, b) in [(wild(g, n, 1), wild(s, n, 2)), (tame(g, n, 1, 20), tame(s, n, 1, 0))] {
            let (x, y) = (load(g, &a), load(s, &b));
            let d: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x - y).collect();
            let expected = store(to, &d);
            let lost = |(d, v): (&f32, f32)| !d.is_nan() && d.to_bits() != v.to_bits();
            let exact: Vec<(u64, u32)> = (100..)
                .zip(d.iter().zip(load(to, &expected)))
                .filter(|(_, pair)| lost(*pair))
                .map(|(i, (d, _))| (i, d.to_bits()))
                .collect();
            let mut all = None;
            for isa in Isa::available() {
                let (mut out, mut exceptions, mut stats) = (vec![0; n * to.size()], Vec::new(), Stats::default());
                let (a, b) = (Operand { float: g, bytes: &a }, Operand { float: s, bytes: &b });
                let pair = Term { minuend: a, subtrahend: Some(b), exceptions: &[], alpha: 1.0 };
                add(isa, &[pair], 100, to, &mut out, &mut exceptions, Some(&mut stats));
                assert!(out == expected, "{g:?} − {s:?} → {to:?}");
                assert!(exceptions.iter().map(|(i, d)| (*i, d.to_bits())).eq(exact.iter().copied()));
                let finite = |i: &usize| d[*i].is_finite();
                assert_eq!(stats.elements, n as u64);
                assert_eq!(stats.requested, (0..n).filter(finite).filter(|&i| d[i] != 0.0).count() as u64);
                assert_eq!((stats.changed, stats.survived), (stats.requested, stats.requested));
                let bad = (0..n).filter(|&i| !x[i].is_finite() || !y[i].is_finite()).count();
                assert_eq!(stats.nonfinite_inputs, bad as u64);
                assert_eq!(stats.overflowed, (0..n).filter(|i| !finite(i)).count() as u64 - bad as u64);
                let v2: f64 = d.iter().filter(|d| d.is_finite()).map(|&d| f64::from(d).powi(2)).sum();
                assert!((stats.v2 - v2).abs() <= 1e-5 * v2);
                assert_eq!((stats.e2, stats.ev), (0.0, 0.0));
                assert_eq!(*all.get_or_insert(stats.to_bytes()), stats.to_bytes());
            }
        }
    }
}

/// Terms are added in their order, each step rounded; a single one with α = 1 keeps its bits, −0 included.
#[test]
fn a_sum_is_that_of_its_terms_in_order() {
    let n = 4096 + 100;
    let float = Float::F32;
    let of: Vec<Vec<u8>> = (1..4).map(|stream| tame(float, n, stream, 20)).collect();
    let alphas = [0.7, -1.0, 1.0 / 3.0];
    let term = |i: usize, alpha: f32| Term {
        minuend: Operand { float, bytes: &of[i] },
        subtrahend: None,
        exceptions: &[],
        alpha,
    };
    for count in 1..=3 {
        let terms: Vec<Term> = (0..count).map(|i| term(i, alphas[i])).collect();
        let values: Vec<Vec<f32>> = of.iter().map(|bytes| load(float, bytes)).collect();
        let sum = |at: usize| (1..count).fold(alphas[0] * values[0][at], |sum, i| sum + alphas[i] * values[i][at]);
        let expected = store(float, &(0..n).map(sum).collect::<Vec<f32>>());
        for isa in Isa::available() {
            let mut out = vec![0; n * 4];
            add(isa, &terms, 0, float, &mut out, &mut Vec::new(), None);
            assert!(out == expected, "{count} terms with {}", isa.name());
        }
    }
    let zeros: Vec<u8> = [0.0_f32, -0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut out = vec![1; 8];
    let zeros_term = Term { minuend: Operand { float, bytes: &zeros }, subtrahend: None, exceptions: &[], alpha: 1.0 };
    add(Isa::detect(), &[zeros_term], 0, float, &mut out, &mut Vec::new(), None);
    assert_eq!(out, zeros);
}

#[test]
fn compare_counts_and_measures() {
    let n = 4096 + 1500;
    for (p, q) in FLOATS.into_iter().flat_map(|p| FLOATS.map(|q| (p, q))) {
        for (a, b) in
            [(wild(p, n, 1), wild(q, n, 2)), (tame(p, n, 1, 20), tame(q, n, 1, 0)), (wild(p, n, 1), wild(q, n, 1))]
        {
            let (x, y) = (load(p, &a), load(q, &b));
            let mut expected = Comparison { elements: n as u64, ..Comparison::default() };
            // A number's place among its type's, counted from the most negative: the order of IEEE's bits.
            let place = |bytes: &[u8], i: usize| {
                let mut bits = [0; 4];
                bits[4 - p.size()..].copy_from_slice(&bytes[i * p.size()..][..p.size()]);
                let (bits, unit) = (u32::from_le_bytes(bits), 32 - 8 * p.size() as u32);
                let magnitude = i64::from((bits & 0x7FFF_FFFF) >> unit);
                if bits >> 31 == 1 { -magnitude } else { magnitude }
            };
            for i in 0..n {
                expected.changed += u64::from(x[i].to_bits() != y[i].to_bits());
                if p == q {
                    let distance = if x[i].is_nan() || y[i].is_nan() { 0 } else { (place(&a, i) - place(&b, i)).abs() };
                    let bucket = (0..33).find(|k| distance < 1 << k).unwrap();
                    expected.ulps[if x[i].is_nan() != y[i].is_nan() { 33 } else { bucket }] += 1;
                }
                if !x[i].is_finite() || !y[i].is_finite() {
                    expected.nonfinite += 1;
                    continue;
                }
                let (x, y) = (f64::from(x[i]), f64::from(y[i]));
                (expected.a2, expected.b2) = (expected.a2 + x * x, expected.b2 + y * y);
                (expected.ab, expected.d2) = (expected.ab + x * y, expected.d2 + (y - x) * (y - x));
            }
            let mut all = None;
            for isa in Isa::available() {
                let mut got = Comparison::default();
                compare(isa, Operand { float: p, bytes: &a }, Operand { float: q, bytes: &b }, &mut got);
                let close = |a: f64, b: f64, scale: f64| (a - b).abs() <= 1e-5 * scale;
                assert!(close(got.a2, expected.a2, expected.a2) && close(got.b2, expected.b2, expected.b2));
                assert!(close(got.d2, expected.d2, expected.d2));
                assert!(close(got.ab, expected.ab, expected.a2.sqrt() * expected.b2.sqrt()));
                let counts = |c: &Comparison| (c.elements, c.changed, c.nonfinite, c.ulps);
                assert_eq!(counts(&got), counts(&expected), "{p:?} against {q:?}");
                assert_eq!(*all.get_or_insert(got), got);
            }
        }
    }
}
