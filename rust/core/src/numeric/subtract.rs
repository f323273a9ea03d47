//! A vector from two donors, and the differences that its type cannot hold.

use crate::numeric::dtype::Float;
use crate::numeric::loops;
use crate::numeric::operand::{CHUNK, Operand, PART, mark};
use crate::numeric::simd::{self, Isa};
use crate::numeric::stats::{Element, Lanes, Stats};

/// `v = round(minuend − subtrahend)`, to nearest. Elements whose f32 difference `to` cannot hold (NaN it can) are
/// appended to `exceptions` by their index within the tensor, exactly. In the statistics every difference that is not
/// zero counts as requested, changed and survived, and the sums over `e` are zero: with the exceptions, nothing is
/// lost.
///
/// # Panics
/// If the operands and the output do not have the same number of elements.
#[allow(clippy::too_many_arguments, reason = "as for combine")]
pub fn subtract(
    isa: Isa,
    minuend: Operand,
    subtrahend: Operand,
    first: u64,
    to: Float,
    out: &mut [u8],
    exceptions: &mut Vec<(u64, f32)>,
    mut stats: Option<&mut Stats>,
) {
    let elements = out.len() / to.size();
    assert_eq!(minuend.bytes.len(), elements * minuend.float.size(), "minuend and output of equal length");
    assert_eq!(subtrahend.bytes.len(), elements * subtrahend.float.size(), "subtrahend and output of equal length");
    let (mut d, mut other, zero) = ([0.0; PART], [0.0; PART], [0.0; PART]);
    for (chunk, out) in out.chunks_mut(CHUNK * to.size()).enumerate() {
        let from = chunk * CHUNK;
        let mut lanes = Lanes::default();
        for (part, out) in out.chunks_mut(PART * to.size()).enumerate() {
            let (at, n) = (from + part * PART, out.len() / to.size());
            let (d, rounded) = (&mut d[..n], &mut other[..n]);
            simd::widen(isa, minuend.float, minuend.bytes_of(at, n), d);
            simd::subtract(isa, subtrahend.float, subtrahend.bytes_of(at, n), d);
            simd::narrow(isa, to, d, out);
            if to != Float::F32 {
                simd::widen(isa, to, out, rounded);
                collect(isa, d, rounded, first + at as u64, exceptions);
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
                let (d, s) = (&mut d[..n], &mut other[..n]);
                let mut bad = [false; PART];
                simd::widen(isa, minuend.float, minuend.bytes_of(at, n), d);
                simd::widen(isa, subtrahend.float, subtrahend.bytes_of(at, n), s);
                mark(d, &mut bad);
                mark(s, &mut bad);
                for i in 0..n {
                    let v = d[i] - s[i];
                    // Only whether the output is finite matters here; −0 instead of 0 would count as a change.
                    let o = if v.is_finite() { 0.0 } else { v };
                    figures.element(Element { bad_input: bad[i], t: 0.0, base: 0.0, v, o }, 1.0);
                }
            }
            figures
        });
        (figures.changed, figures.survived) = (figures.requested, figures.requested);
        stats.add(&figures);
    }
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
