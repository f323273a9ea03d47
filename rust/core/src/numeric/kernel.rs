//! The arithmetic on elements: numeric spec 1 (each operation in f32, rounded once, nothing fused), any mix of types.
//!
//! A call is cut into chunks of 4,096 elements from its first one on. The sums of a chunk are f32 in 16 lanes, folded into
//! f64 at its end, so they depend on where calls begin and end, and on nothing else. Chunks are computed in parts whose
//! scratch stays in the first-level cache.

use crate::numeric::dtype::Float;
use crate::numeric::simd::{self, Isa};
use crate::numeric::stats::{Comparison, ComparisonLanes, Element, Lanes, Stats};
use crate::numeric::{loops, philox};

const CHUNK: usize = 4096;
/// A multiple of the lanes, so that a chunk's parts continue each other's; 256 and 1,024 are no faster.
const PART: usize = 512;

/// Elements in memory: little-endian, at any alignment, whole elements only.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    /// Their type.
    pub float: Float,
    /// Their bytes.
    pub bytes: &'a [u8],
}

/// Elements of a stored vector that its type could not hold. Those outside the range of a call are ignored.
#[derive(Clone, Copy)]
pub struct Exceptions<'a> {
    /// Element indices within the tensor: i64, little-endian, ascending.
    pub index: &'a [u8],
    /// The exact values: f32, little-endian.
    pub value: &'a [u8],
}

impl Exceptions<'_> {
    /// For a vector without exceptions.
    pub const NONE: Self = Self { index: &[], value: &[] };

    /// Puts the exact values of elements from index `first` on into their places.
    fn replace(&self, first: u64, values: &mut [f32]) {
        let index = self.index.as_chunks::<8>().0;
        let from = index.partition_point(|&i| i128::from(i64::from_le_bytes(i)) < i128::from(first));
        for (i, value) in index.iter().zip(self.value.as_chunks::<4>().0).skip(from) {
            let Ok(place) = usize::try_from(i64::from_le_bytes(*i) as u64 - first) else { return };
            let Some(place) = values.get_mut(place) else { return };
            *place = f32::from_le_bytes(*value);
        }
    }
}

/// One vector and its factor.
#[derive(Clone, Copy)]
pub struct Term<'a> {
    /// The minuend, or the stored vector itself.
    pub minuend: Operand<'a>,
    /// `None`: `minuend` is the vector.
    pub subtrahend: Option<Operand<'a>>,
    /// Replace elements of a stored vector; only without a subtrahend.
    pub exceptions: Exceptions<'a>,
    /// The factor.
    pub alpha: f32,
}

/// How results are rounded to the output's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even.
    Nearest,
    /// To either neighbour, by distance, with the random bits of a tensor's key (see [`philox::key`]). With f32 there is
    /// nothing to round and this is the same as nearest.
    Stochastic {
        /// The tensor's key.
        key: [u32; 2],
    },
}

/// `out = round(((t + α₁·d₁) + α₂·d₂) …)`. `first` is the index within its tensor of the first element. Without terms
/// this is a conversion, and where `to` is the target's own type a copy of its bits.
///
/// # Panics
/// If the operands and the output do not hold equally many elements.
#[allow(clippy::too_many_arguments, reason = "the operation has this many parts; a struct would only rename them")]
pub fn combine(
    isa: Isa,
    target: Operand,
    terms: &[Term],
    first: u64,
    to: Float,
    rounding: &Rounding,
    out: &mut [u8],
    mut stats: Option<&mut Stats>,
) {
    let elements = out.len() / to.size();
    for operand in terms.iter().flat_map(|term| [Some(term.minuend), term.subtrahend]).flatten().chain([target]) {
        assert_eq!(operand.bytes.len(), elements * operand.float.size(), "operands and output of equal length");
    }
    let copied = terms.is_empty() && to == target.float;
    if copied {
        out.copy_from_slice(target.bytes);
        if stats.is_none() {
            return;
        }
    }
    let rounding = if to == Float::F32 { &Rounding::Nearest } else { rounding };
    let job = Job { isa, target, terms, first, to, rounding, copied };
    let mut scratch = Scratch::new();
    for (chunk, out) in out.chunks_mut(CHUNK * to.size()).enumerate() {
        let from = chunk * CHUNK;
        let mut lanes = Lanes::default();
        for (part, out) in out.chunks_mut(PART * to.size()).enumerate() {
            job.compute(from + part * PART, out, &mut scratch);
            if stats.is_some() {
                let Seen { t, base, v, o } = job.see(from + part * PART, out, &mut scratch);
                simd::statistics(isa, &mut lanes, t, base, v, o, job.scale());
            }
        }
        let Some(stats) = stats.as_deref_mut() else { continue };
        stats.add(&lanes.fold(out.len() / to.size()).unwrap_or_else(|| job.careful(from, out, &mut scratch)));
    }
}

/// The arguments of [`combine`] that its parts share.
struct Job<'a> {
    isa: Isa,
    target: Operand<'a>,
    terms: &'a [Term<'a>],
    first: u64,
    to: Float,
    rounding: &'a Rounding,
    copied: bool,
}

/// Values of the part in work, from the start of each array.
struct Scratch {
    t: [f32; PART],
    /// The request: see [`Stats`].
    v: [f32; PART],
    r: [f32; PART],
    /// The difference of the term in work, later the widened output.
    d: [f32; PART],
    /// The rounded target, and its bytes before it is widened again.
    base: [f32; PART],
    narrow: [u8; PART * 4],
    /// One step more than a part: its first element may be in the middle of a block.
    random: [u32; PART + philox::STEP],
}

impl Scratch {
    fn new() -> Self {
        Self {
            t: [0.0; PART],
            v: [0.0; PART],
            r: [0.0; PART],
            d: [0.0; PART],
            base: [0.0; PART],
            narrow: [0; PART * 4],
            random: [0; PART + philox::STEP],
        }
    }
}

/// What the statistics look at: target, rounded target, request, widened output.
struct Seen<'a> {
    t: &'a [f32],
    base: &'a [f32],
    v: &'a [f32],
    o: &'a [f32],
}

impl Job<'_> {
    /// What turns the recorded request into the change that was asked for.
    fn scale(&self) -> f32 {
        match self.terms {
            [only] => only.alpha,
            _ => 1.0,
        }
    }

    /// Fills `t`, `v`, `random` and `out` for the part that starts at element `at` of the call.
    fn compute(&self, at: usize, out: &mut [u8], scratch: &mut Scratch) {
        let isa = self.isa;
        let n = out.len() / self.to.size();
        let Scratch { t, v, r, d, random, .. } = scratch;
        let (t, v, r, d) = (&mut t[..n], &mut v[..n], &mut r[..n], &mut d[..n]);
        simd::widen(isa, self.target.float, slice(self.target, at, n), t);
        if let [only] = self.terms {
            self.difference(only, at, v);
            simd::scale_add(isa, t, only.alpha, v, r);
        } else {
            v.fill(0.0);
            r.copy_from_slice(t);
            for term in self.terms {
                self.difference(term, at, d);
                simd::accumulate(isa, term.alpha, d, r, v);
            }
        }
        if let Rounding::Stochastic { key } = *self.rounding {
            let start = self.first + at as u64;
            let words = ((start % 4) as usize + n).next_multiple_of(philox::STEP);
            simd::random(isa, key, start / 4, &mut random[..words]);
        }
        if !self.copied {
            self.round(at, r, random, out);
        }
    }

    /// `d` of one term.
    fn difference(&self, term: &Term, at: usize, d: &mut [f32]) {
        simd::widen(self.isa, term.minuend.float, slice(term.minuend, at, d.len()), d);
        term.exceptions.replace(self.first + at as u64, d);
        if let Some(subtrahend) = term.subtrahend {
            simd::subtract(self.isa, subtrahend.float, slice(subtrahend, at, d.len()), d);
        }
    }

    fn round(&self, at: usize, values: &[f32], random: &[u32], out: &mut [u8]) {
        match self.rounding {
            Rounding::Nearest => simd::narrow(self.isa, self.to, values, out),
            Rounding::Stochastic { .. } => {
                let offset = ((self.first + at as u64) % 4) as usize;
                simd::narrow_stochastic(self.isa, self.to, values, &random[offset..], out);
            }
        }
    }

    /// After [`Job::compute`]: what it did, for the statistics.
    fn see<'s>(&self, at: usize, out: &[u8], scratch: &'s mut Scratch) -> Seen<'s> {
        let n = out.len() / self.to.size();
        let Scratch { t, v, d, base, narrow, random, .. } = scratch;
        simd::widen(self.isa, self.to, out, &mut d[..n]);
        let base = if self.to == self.target.float {
            &t[..n]
        } else {
            self.round(at, &t[..n], random, &mut narrow[..out.len()]);
            simd::widen(self.isa, self.to, &narrow[..out.len()], &mut base[..n]);
            &base[..n]
        };
        Seen { t: &t[..n], base, v: &v[..n], o: &d[..n] }
    }

    /// The figures of a chunk that f32 lanes cannot hold, element by element in f64.
    fn careful(&self, from: usize, out: &mut [u8], scratch: &mut Scratch) -> Stats {
        let mut figures = Stats::default();
        for (part, out) in out.chunks_mut(PART * self.to.size()).enumerate() {
            let at = from + part * PART;
            self.compute(at, out, scratch);
            let mut bad = [false; PART];
            let Seen { t, base, v, o } = self.see(at, out, scratch);
            mark(t, &mut bad);
            let mut input = [0.0; PART];
            let input = &mut input[..t.len()];
            for term in self.terms {
                self.difference(&Term { subtrahend: None, ..*term }, at, input);
                mark(input, &mut bad);
                if let Some(subtrahend) = term.subtrahend {
                    simd::widen(self.isa, subtrahend.float, slice(subtrahend, at, input.len()), input);
                    mark(input, &mut bad);
                }
            }
            for i in 0..t.len() {
                figures.element(Element { bad_input: bad[i], t: t[i], base: base[i], v: v[i], o: o[i] }, self.scale());
            }
        }
        figures
    }
}

/// `v = round(minuend − subtrahend)`, to nearest. Elements whose f32 difference `to` cannot hold (NaN it can) are appended
/// to `exceptions` by their index within the tensor, exactly. In the statistics every difference that is not zero counts
/// as requested, changed and survived, and the sums over `e` are zero: with the exceptions, nothing is lost.
///
/// # Panics
/// If the operands and the output do not hold equally many elements.
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
            simd::widen(isa, minuend.float, slice(minuend, at, n), d);
            simd::subtract(isa, subtrahend.float, slice(subtrahend, at, n), d);
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
                simd::widen(isa, minuend.float, slice(minuend, at, n), d);
                simd::widen(isa, subtrahend.float, slice(subtrahend, at, n), s);
                mark(d, &mut bad);
                mark(s, &mut bad);
                for i in 0..n {
                    let v = d[i] - s[i];
                    // An output of −0 in place of ±0 would count as a change; only its being finite matters here.
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

/// Appends what rounding lost of a part whose first element has index `first`.
fn collect(isa: Isa, d: &[f32], rounded: &[f32], first: u64, exceptions: &mut Vec<(u64, f32)>) {
    /// Small enough that few elements are looked at one by one where exceptions are rare.
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

/// How `b` differs from `a`, element by element, appended to `into`.
///
/// # Panics
/// If the operands do not hold equally many elements.
pub fn compare(isa: Isa, a: Operand, b: Operand, into: &mut Comparison) {
    let elements = a.bytes.len() / a.float.size();
    assert_eq!(a.bytes.len(), elements * a.float.size(), "whole elements");
    assert_eq!(b.bytes.len(), elements * b.float.size(), "operands of equal length");
    let (mut x, mut y, mut distance) = ([0.0; PART], [0.0; PART], [0; PART]);
    for from in (0..elements).step_by(CHUNK) {
        let to = elements.min(from + CHUNK);
        let mut lanes = ComparisonLanes::default();
        let mut figures = Comparison::default();
        let mut parts = |work: &mut dyn FnMut(&[f32], &[f32])| {
            for at in (from..to).step_by(PART) {
                let n = PART.min(to - at);
                simd::widen(isa, a.float, slice(a, at, n), &mut x[..n]);
                simd::widen(isa, b.float, slice(b, at, n), &mut y[..n]);
                work(&x[..n], &y[..n]);
            }
        };
        parts(&mut |x, y| {
            simd::comparison(isa, &mut lanes, x, y);
            if a.float == b.float {
                simd::distances(isa, a.float, x, y, &mut distance[..x.len()]);
                figures.count(&distance[..x.len()]);
            }
        });
        match lanes.fold() {
            Some(sums) => figures.add(&sums),
            None => parts(&mut |x, y| x.iter().zip(y).for_each(|(&x, &y)| figures.element(x, y))),
        }
        figures.elements = (to - from) as u64;
        figures.changed = u64::from(lanes.changed);
        into.add(&figures);
    }
}

/// The bytes of elements `at..at + n`.
fn slice(operand: Operand<'_>, at: usize, n: usize) -> &[u8] {
    let size = operand.float.size();
    &operand.bytes[at * size..(at + n) * size]
}

fn mark(values: &[f32], bad: &mut [bool; PART]) {
    for (bad, value) in bad.iter_mut().zip(values) {
        *bad |= !value.is_finite();
    }
}
