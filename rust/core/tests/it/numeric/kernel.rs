//! The kernels of every instruction set against a naive loop over the half crate's types.

use crate::numeric::values::{FLOATS, load, noise, store, tame, wild};
use taskvec_core::numeric::combine::combine;
use taskvec_core::numeric::dtype::Float::{self, Bf16, F16, F32};
use taskvec_core::numeric::operand::{Exceptions, Operand, Rounding, Term};
use taskvec_core::numeric::philox;
use taskvec_core::numeric::simd::Isa;
use taskvec_core::numeric::stats::Stats;

/// The specification, once more.
fn oracle(target: Operand, terms: &[Term], to: Float) -> Vec<u8> {
    if terms.is_empty() && to == target.float {
        return target.bytes.to_vec();
    }
    let mut r = load(target.float, target.bytes);
    for term in terms {
        let mut d = load(term.minuend.float, term.minuend.bytes);
        for exceptions in term.exceptions {
            for (index, value) in exceptions.index.chunks(8).zip(load(F32, exceptions.value)) {
                let index = i64::from(index[0]) + 256 * i64::from(index[1]);
                d[(index - exceptions.skip) as usize] = value;
            }
        }
        let s = term.subtrahend.map(|s| load(s.float, s.bytes)).unwrap_or_else(|| vec![0.0; d.len()]);
        for i in 0..r.len() {
            let d = if term.subtrahend.is_some() { d[i] - s[i] } else { d[i] };
            let m = term.alpha * d;
            r[i] += m;
        }
    }
    store(to, &r)
}

/// Every instruction set, with and without statistics: the same output, and the same statistics in all.
fn combined(target: Operand, terms: &[Term], first: u64, to: Float, rounding: &Rounding) -> (Vec<u8>, Stats) {
    let n = target.bytes.len() / target.float.size();
    let mut results = Isa::available().into_iter().map(|isa| {
        let (mut bare, mut out, mut stats) = (vec![0xAA; n * to.size()], vec![0x55; n * to.size()], Stats::default());
        combine(isa, target, terms, first, to, rounding, &mut bare, None);
        combine(isa, target, terms, first, to, rounding, &mut out, Some(&mut stats));
        assert!(bare == out, "{} with and without statistics", isa.name());
        (out, stats.to_bytes())
    });
    let (out, stats) = results.next().unwrap();
    results.for_each(|other| assert!(other.0 == out && other.1 == stats, "all instruction sets agree"));
    assert_eq!(Stats::from_bytes(&stats).to_bytes(), stats);
    (out, Stats::from_bytes(&stats))
}

fn pair<'a>(float: Float, minuend: &'a [u8], subtrahend: &'a [u8], alpha: f32) -> Term<'a> {
    let subtrahend = Some(Operand { float, bytes: subtrahend });
    Term { minuend: Operand { float, bytes: minuend }, subtrahend, exceptions: &[], alpha }
}

/// Without its first `cut` elements.
fn from(operand: Operand<'_>, cut: usize) -> Operand<'_> {
    Operand { bytes: &operand.bytes[cut * operand.float.size()..], ..operand }
}

#[test]
fn every_mix_of_types() {
    let n = 4096 + 1024 + 37;
    for (seed, alpha) in [1.0f32, -1.0, 0.7, 1e-3, 3e38].into_iter().enumerate() {
        for (target, g, s, to) in FLOATS
            .into_iter()
            .flat_map(|t| FLOATS.map(move |g| (t, g)))
            .flat_map(|(t, g)| FLOATS.map(move |s| (t, g, s)))
            .flat_map(|(t, g, s)| FLOATS.map(move |to| (t, g, s, to)))
        {
            let seed = seed as u64;
            let (a, b, c) = (wild(target, n, seed), wild(g, n, seed + 10), wild(s, n, seed + 20));
            let target = Operand { float: target, bytes: &a };
            let term = Term { subtrahend: Some(Operand { float: s, bytes: &c }), ..pair(g, &b, &c, alpha) };
            let (out, stats) = combined(target, &[term], 0, to, &Rounding::Nearest);
            assert!(out == oracle(target, &[term], to), "{:?} + {alpha}·({g:?} − {s:?}) → {to:?}", target.float);
            assert_eq!(stats.elements, n as u64);
        }
    }
}

#[test]
fn every_length_and_alignment() {
    let (a, b, c) = (wild(Bf16, 600, 1), wild(Bf16, 600, 2), wild(Bf16, 600, 3));
    for n in 0..=520 {
        for offset in 0..8 {
            let cut = |bytes: &[u8]| [&vec![0; offset], &bytes[..2 * n]].concat();
            let (a, b, c) = (cut(&a), cut(&b), cut(&c));
            let target = Operand { float: Bf16, bytes: &a[offset..] };
            let terms = [pair(Bf16, &b[offset..], &c[offset..], 0.7)];
            let expected = oracle(target, &terms, Bf16);
            for isa in Isa::available() {
                let mut out = vec![0; offset + 2 * n];
                let mut stats = Stats::default();
                combine(isa, target, &terms, 0, Bf16, &Rounding::Nearest, &mut out[offset..], Some(&mut stats));
                assert!(out[offset..] == expected, "{} elements at offset {offset}, {}", n, isa.name());
                assert_eq!(stats.elements, n as u64);
            }
        }
    }
}

#[test]
fn several_terms_and_exceptions() {
    let n = 3000;
    let (t, g, s, v) = (wild(F16, n, 1), wild(Bf16, n, 2), wild(Bf16, n, 3), wild(Bf16, n, 4));
    let places = [0u64, 1, 511, 512, 1999, 2999];
    let index: Vec<u8> = places.iter().flat_map(|i| i.to_le_bytes()).collect();
    let value = store(F32, &[0.1, f32::MAX, -0.0, 1e-45, 3.3, 7.7]);
    // The last of them once as they are, and once in a list of their own that counts from element 1,999.
    let tail: Vec<u8> = [0u64, 1000].iter().flat_map(|i| i.to_le_bytes()).collect();
    let exceptions = [
        Exceptions { index: &index[..4 * 8], value: &value[..4 * 4], skip: 0 },
        Exceptions { index: &tail, value: &value[4 * 4..], skip: -1999 },
    ];
    let exceptions = &exceptions[..];
    let stored = Term { minuend: Operand { float: Bf16, bytes: &v }, subtrahend: None, exceptions, alpha: -0.3 };
    let target = Operand { float: F16, bytes: &t };
    for terms in [vec![stored], vec![pair(Bf16, &g, &s, 0.7), stored], vec![stored, pair(Bf16, &g, &s, 2.0), stored]] {
        for to in FLOATS {
            assert!(combined(target, &terms, 0, to, &Rounding::Nearest).0 == oracle(target, &terms, to));
        }
        // The second half alone, where half of the exceptions are not its own.
        let (whole, cut) = (combined(target, &terms, 0, F32, &Rounding::Nearest).0, 1500);
        let second = terms.iter().map(|term| {
            let subtrahend = term.subtrahend.map(|s| from(s, cut));
            Term { minuend: from(term.minuend, cut), subtrahend, ..*term }
        });
        let second: Vec<Term> = second.collect();
        let (part, _) = combined(from(target, cut), &second, cut as u64, F32, &Rounding::Nearest);
        assert!(part == whole[4 * cut..]);
    }
}

#[test]
fn without_terms_bits_are_copied_or_converted() {
    for from in FLOATS {
        let bytes = wild(from, 5000, 7);
        let target = Operand { float: from, bytes: &bytes };
        for to in FLOATS {
            let (out, stats) = combined(target, &[], 3, to, &Rounding::Nearest);
            assert!(out == oracle(target, &[], to), "{from:?} → {to:?}");
            assert_eq!((stats.requested, stats.changed, stats.v2), (0, 0, 0.0));
            let (before, after) = (load(from, &bytes), load(to, &out));
            let bad = before.iter().filter(|x| !x.is_finite()).count() as u64;
            let lost = before.iter().zip(&after).filter(|(x, y)| x.is_finite() && !y.is_finite()).count() as u64;
            assert_eq!((stats.nonfinite_inputs, stats.overflowed), (bad, lost), "{from:?} → {to:?}");
        }
    }
}

#[test]
fn negative_zero_plus_zero_is_positive_zero() {
    let (t, g) = (store(Bf16, &[-0.0; 20]), store(Bf16, &[1.0; 20]));
    let target = Operand { float: Bf16, bytes: &t };
    let (out, stats) = combined(target, &[pair(Bf16, &g, &g, 0.5)], 0, Bf16, &Rounding::Nearest);
    assert_eq!(out, [0; 40]);
    assert_eq!((stats.changed, stats.requested, stats.survived), (20, 0, 0));
}

/// What [`Stats`] means, in f64 and in order of elements.
fn figures(target: Operand, terms: &[Term], to: Float, out: &[u8]) -> Stats {
    let (t, o) = (load(target.float, target.bytes), load(to, out));
    let base = load(to, &store(to, &t));
    let mut stats = Stats { elements: t.len() as u64, ..Stats::default() };
    for i in 0..t.len() {
        let at = |operand: Operand| {
            load(operand.float, &operand.bytes[i * operand.float.size()..][..operand.float.size()])[0]
        };
        let inputs: Vec<(f32, f32)> =
            terms.iter().map(|term| (at(term.minuend), at(term.subtrahend.unwrap()))).collect();
        let bad = !t[i].is_finite() || inputs.iter().any(|(g, s)| !g.is_finite() || !s.is_finite());
        let m = inputs.iter().zip(terms).map(|((g, s), term)| term.alpha * (g - s)).reduce(|a, b| a + b).unwrap();
        let v = if terms.len() == 1 { inputs[0].0 - inputs[0].1 } else { m };
        stats.nonfinite_inputs += u64::from(bad);
        stats.overflowed += u64::from(!bad && !o[i].is_finite());
        if !bad && o[i].is_finite() && v.is_finite() {
            let (asked, answered) = (m != 0.0, o[i].to_bits() != base[i].to_bits());
            stats.requested += u64::from(asked);
            stats.changed += u64::from(answered);
            stats.survived += u64::from(asked && answered);
            let (v, e) = (f64::from(v), f64::from(o[i]) - f64::from(t[i]));
            (stats.v2, stats.e2, stats.ev) = (stats.v2 + v * v, stats.e2 + e * e, stats.ev + e * v);
        }
    }
    stats
}

fn assert_close(stats: Stats, expected: Stats) {
    let close = |a: f64, b: f64, scale: f64| (a - b).abs() <= 1e-5 * scale;
    assert!(close(stats.v2, expected.v2, expected.v2), "{stats:?} {expected:?}");
    assert!(close(stats.e2, expected.e2, expected.e2), "{stats:?} {expected:?}");
    assert!(close(stats.ev, expected.ev, expected.v2.sqrt() * expected.e2.sqrt()), "{stats:?} {expected:?}");
    assert_eq!(Stats { v2: 0.0, e2: 0.0, ev: 0.0, ..stats }, Stats { v2: 0.0, e2: 0.0, ev: 0.0, ..expected });
}

#[test]
fn statistics_agree_with_sums_in_f64() {
    let n = 3 * 4096 + 77;
    for (from, to) in FLOATS.into_iter().flat_map(|from| FLOATS.map(|to| (from, to))) {
        let (t, g, s) = (tame(from, n, 1, 0), tame(from, n, 2, 20), tame(from, n, 2, 0));
        let (w, x, y) = (wild(from, n, 3), wild(from, n, 4), wild(from, n, 5));
        // One chunk of wild values among tame ones.
        let spoiled = [&t[..4096 * from.size()], &w[..4096 * from.size()], &t[8192 * from.size()..]].concat();
        for target in [&t, &w, &spoiled] {
            let target = Operand { float: from, bytes: target };
            for terms in [
                vec![pair(from, &g, &s, 0.7)],
                vec![pair(from, &x, &y, 1.5)],
                vec![pair(from, &g, &s, 0.7), pair(from, &s, &t, -0.1)],
                vec![pair(from, &g, &s, 1.0), pair(from, &x, &t, 2.0)],
            ] {
                let (out, stats) = combined(target, &terms, 0, to, &Rounding::Nearest);
                assert_close(stats, figures(target, &terms, to, &out));
            }
        }
    }
}

#[test]
fn statistics_hold_where_squares_leave_f32() {
    for size in [1e-44f32, 1e-30, 1e-22, 1e-19, 1e19, 1e25, 1e38] {
        let column =
            |seed| store(F32, &noise(seed).take(5000).map(|x| (x >> 40) as f32 / 2e7 * size).collect::<Vec<_>>());
        let (t, g, s) = (column(1), column(2), column(3));
        let (target, terms) = (Operand { float: F32, bytes: &t }, [pair(F32, &g, &s, 0.5)]);
        let (out, stats) = combined(target, &terms, 0, F32, &Rounding::Nearest);
        let expected = figures(target, &terms, F32, &out);
        assert!(stats.v2 > 0.0 && stats.e2 > 0.0 && stats.ev > 0.0);
        assert_close(stats, expected);
    }
}

#[test]
fn a_request_that_overflows_is_left_out_though_the_output_does_not() {
    let [t, g, s] = [-3e38f32, 3e38, 0.0].map(|value| store(F32, &[value; 20]));
    let (target, terms) = (Operand { float: F32, bytes: &t }, [pair(F32, &g, &s, 1.0), pair(F32, &g, &s, 1.0)]);
    let (out, stats) = combined(target, &terms, 0, F32, &Rounding::Nearest);
    assert_eq!(stats, Stats { elements: 20, ..Stats::default() });
    assert_close(stats, figures(target, &terms, F32, &out));
}

#[test]
fn stochastic_rounding_is_reproducible_by_position() {
    let n = 9000;
    let (t, g, s) = (tame(Bf16, n, 1, 0), tame(Bf16, n, 2, 50), tame(Bf16, n, 2, 0));
    let key = philox::key(7, "some.weight");
    let rounding = Rounding::Stochastic { key };
    let first = (1u64 << 34) + 3;
    for to in [Bf16, F16] {
        let part = |from: usize, end: usize| {
            let cut = 2 * from..2 * end;
            let target = Operand { float: Bf16, bytes: &t[cut.clone()] };
            combined(target, &[pair(Bf16, &g[cut.clone()], &s[cut], 0.3)], first + from as u64, to, &rounding).0
        };
        let whole = part(0, n);
        for cuts in [vec![1], vec![2, 3, 7, 4096, 4099], vec![1024, 1025, 5000], vec![8999]] {
            let ends = [&[0], cuts.as_slice(), &[n]].concat();
            assert!(ends.windows(2).flat_map(|ends| part(ends[0], ends[1])).eq(whole.iter().copied()));
        }
        let exact = load(F32, &oracle(Operand { float: Bf16, bytes: &t }, &[pair(Bf16, &g, &s, 0.3)], F32));
        for (i, (exact, got)) in exact.into_iter().zip(load(to, &whole)).enumerate() {
            let place = first + i as u64;
            let word = philox::block([(place / 4) as u32, (place >> 34) as u32, 0, 0], key)[(place % 4) as usize];
            // The grid's step at this size, without the specification's bit tricks.
            let step = match to {
                Bf16 => 2f64.powi(f64::from(exact).abs().log2().floor() as i32 - 7),
                _ => 2f64.powi((f64::from(exact).abs().log2().floor() as i32).max(-14) - 10),
            };
            let steps = f64::from(exact).abs() / step;
            let up = steps.fract() + f64::from(word) / 2f64.powi(32) >= 1.0;
            let expected = (steps.floor() + f64::from(up)) * step;
            assert_eq!(f64::from(got).abs(), if exact == 0.0 { 0.0 } else { expected }, "element {i} of {to:?}");
        }
    }
}

#[test]
fn without_a_request_stochastic_rounding_changes_nothing() {
    let (t, g) = (tame(F32, 5000, 1, 0), tame(F32, 5000, 2, 0));
    for to in [Bf16, F16] {
        let target = Operand { float: F32, bytes: &t };
        let stats = combined(target, &[pair(F32, &g, &g, 0.5)], 1, to, &Rounding::Stochastic { key: [1, 2] }).1;
        assert_eq!((stats.requested, stats.changed), (0, 0), "the target is rounded with the same random bits");
        assert!(stats.e2 > 0.0);
    }
}

#[test]
fn stochastic_rounding_keeps_a_small_factor_on_average() {
    let n = 1 << 16;
    let (t, g, s) = (tame(Bf16, n, 1, 0), tame(Bf16, n, 2, 50), tame(Bf16, n, 2, 0));
    let target = Operand { float: Bf16, bytes: &t };
    let gain = |rounding| {
        let stats = combined(target, &[pair(Bf16, &g, &s, 0.05)], 0, Bf16, &rounding).1;
        stats.ev / (0.05 * stats.v2)
    };
    let mean = (0..40).map(|seed| gain(Rounding::Stochastic { key: philox::key(seed, "w") })).sum::<f64>() / 40.0;
    assert!((mean - 1.0).abs() < 0.02, "{mean}");
    assert!((gain(Rounding::Nearest) - 1.0).abs() > 0.05, "nearest does not, or this test shows nothing");
}
