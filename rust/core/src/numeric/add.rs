//! A vector, from two donors or from other vectors, and the values that its type cannot hold.

use crate::numeric::dtype::Float;
use crate::numeric::loops;
use crate::numeric::operand::{CHUNK, PART, Term, mark};
use crate::numeric::simd::{self, Isa};
use crate::numeric::stats::{Element, Lanes, Stats};

/// `v = round(α₁·d₁ + α₂·d₂ …)`, to nearest, where a term's `d` is the difference of two donors or a stored vector.
/// Each operation is done in f32 and rounded once; the sum begins with the first product, and not with 0, so that a
/// single term with α = 1 keeps even −0.
///
/// Elements whose f32 sum `to` cannot hold (NaN it can) are appended to `exceptions` by their index within the tensor,
/// exactly. In the statistics every element that is not zero counts as requested, changed and survived, and the sums
/// over `e` are zero: with the exceptions, nothing is lost.
///
/// # Panics
/// If there is no term, or the operands and the output do not have the same number of elements.
pub fn add(
    isa: Isa,
    terms: &[Term],
    first: u64,
    to: Float,
    out: &mut [u8],
    exceptions: &mut Vec<(u64, f32)>,
    mut stats: Option<&mut Stats>,
) {
    let elements = out.len() / to.size();
    assert!(!terms.is_empty(), "a vector has a term");
    for operand in terms.iter().flat_map(|term| [Some(term.minuend), term.subtrahend]).flatten() {
        assert_eq!(operand.bytes.len(), elements * operand.float.size(), "operands and output of equal length");
    }
    let (mut d, mut other, zero) = ([0.0; PART], [0.0; PART], [0.0; PART]);
    for (chunk, out) in out.chunks_mut(CHUNK * to.size()).enumerate() {
        let from = chunk * CHUNK;
        let mut lanes = Lanes::default();
        for (part, out) in out.chunks_mut(PART * to.size()).enumerate() {
            let (at, n) = (from + part * PART, out.len() / to.size());
            let (d, other) = (&mut d[..n], &mut other[..n]);
            sum(isa, terms, first, at, d, other);
            simd::narrow(isa, to, d, out);
            if to != Float::F32 {
                simd::widen(isa, to, out, other);
                collect(isa, d, other, first + at as u64, exceptions);
            }
            if stats.is_some() {
                simd::statistics(isa, &mut lanes, &zero[..n], &zero[..n], d, &zero[..n], 1.0);
            }
        }
        let Some(stats) = stats.as_deref_mut() else { continue };
        let mut figures = lanes.fold(out.len() / to.size()).unwrap_or_else(|| {
            let mut figures = Stats::default();
            for at in (from..from + out.len() / to.size()).step_by(PART) {
                let n = PART.min(elements - at);
                let (d, other) = (&mut d[..n], &mut other[..n]);
                let bad = not_finite(isa, terms, first, at, other);
                sum(isa, terms, first, at, d, other);
                for (&v, &bad_input) in d.iter().zip(&bad) {
                    // Only whether the output is finite matters here; −0 instead of 0 would count as a change.
                    let o = if v.is_finite() { 0.0 } else { v };
                    figures.element(Element { bad_input, t: 0.0, base: 0.0, v, o }, 1.0);
                }
            }
            figures
        });
        (figures.changed, figures.survived) = (figures.requested, figures.requested);
        stats.add(&figures);
    }
}

/// The sum of all terms, for the part that starts at element `at` of the call. `other` is scratch.
fn sum(isa: Isa, terms: &[Term], first: u64, at: usize, d: &mut [f32], other: &mut [f32]) {
    difference(isa, &terms[0], first, at, d);
    if terms[0].alpha != 1.0 {
        d.iter_mut().for_each(|d| *d *= terms[0].alpha);
    }
    for term in &terms[1..] {
        difference(isa, term, first, at, other);
        for (d, other) in d.iter_mut().zip(&*other) {
            *d += term.alpha * other;
        }
    }
}

/// The difference `d` of one term, for the part that starts at element `at` of the call; `first` is the index within the
/// tensor of the call's first element.
pub(crate) fn difference(isa: Isa, term: &Term, first: u64, at: usize, d: &mut [f32]) {
    simd::widen(isa, term.minuend.float, term.minuend.bytes_of(at, d.len()), d);
    term.exceptions.iter().for_each(|exceptions| exceptions.replace(first + at as u64, d));
    if let Some(subtrahend) = term.subtrahend {
        simd::subtract(isa, subtrahend.float, subtrahend.bytes_of(at, d.len()), d);
    }
}

/// Which elements of the part have an input that is Inf or NaN. `input` is scratch of the part's length.
pub(super) fn not_finite(isa: Isa, terms: &[Term], first: u64, at: usize, input: &mut [f32]) -> [bool; PART] {
    let mut bad = [false; PART];
    for term in terms {
        difference(isa, &Term { subtrahend: None, ..*term }, first, at, input);
        mark(input, &mut bad);
        if let Some(subtrahend) = term.subtrahend {
            simd::widen(isa, subtrahend.float, subtrahend.bytes_of(at, input.len()), input);
            mark(input, &mut bad);
        }
    }
    bad
}

/// Appends the differences of a part that rounding changed. `first` is the index of the part's first element.
fn collect(isa: Isa, d: &[f32], rounded: &[f32], first: u64, exceptions: &mut Vec<(u64, f32)>) {
    /// Elements are looked at one by one only in runs with exceptions, so runs are short.
    const RUN: usize = 64;
    for (run, (d, rounded)) in d.chunks(RUN).zip(rounded.chunks(RUN)).enumerate() {
        if !simd::any_lost(isa, d, rounded) {
            continue;
        }
        let index = first + (run * RUN) as u64;
        let pairs = d.iter().zip(rounded).zip(index..);
        exceptions.extend(pairs.filter(|((d, rounded), _)| loops::lost(**d, **rounded)).map(|((d, _), i)| (i, *d)));
    }
}
