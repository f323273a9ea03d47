//! A target plus scaled terms, of any mix of types. Numeric spec 1: each operation is done in f32 and rounded once, and
//! nothing is fused.

use crate::numeric::add::{difference, not_finite};
use crate::numeric::dtype::Float;
use crate::numeric::operand::{Bf16Term, CHUNK, Operand, PART, Rounding, Term, mark};
use crate::numeric::philox;
use crate::numeric::simd::{self, Isa};
use crate::numeric::stats::{Element, Lanes, Stats};

/// `out = round(((t + α₁·d₁) + α₂·d₂) …)`. `first` is the index within its tensor of the first element. Without terms
/// this is a conversion, and where `to` is the target's own type a copy of its bits.
///
/// # Panics
/// If the operands and the output do not have the same number of elements.
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
        let wanted = stats.is_some().then_some(&mut lanes);
        if job.fused(from, out, wanted) {
            if let Some(stats) = stats.as_deref_mut() {
                stats.add(&lanes.fold(out.len() / to.size()).unwrap_or_else(|| job.careful(from, out, &mut scratch)));
            }
            continue;
        }
        lanes = Lanes::default();
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

/// Values of the current part, from the start of each array.
struct Scratch {
    t: [f32; PART],
    /// The request: see [`Stats`].
    v: [f32; PART],
    r: [f32; PART],
    /// The difference of the current term, later the widened output.
    d: [f32; PART],
    /// The rounded target, and its bytes before it is widened again.
    base: [f32; PART],
    narrow: [u8; PART * 4],
    /// One step longer than a part, because the first element may be in the middle of a block of random words.
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

/// The values from which statistics are computed: target, rounded target, request, widened output.
struct Seen<'a> {
    t: &'a [f32],
    base: &'a [f32],
    v: &'a [f32],
    o: &'a [f32],
}

impl Job<'_> {
    /// The factor that turns the recorded request `v` into the requested change `α·v`.
    fn scale(&self) -> f32 {
        match self.terms {
            [only] => only.alpha,
            _ => 1.0,
        }
    }

    /// The chunk from element `from` on in one pass, where there is one for this case and it came out right.
    fn fused(&self, from: usize, out: &mut [u8], lanes: Option<&mut Lanes>) -> bool {
        let [term] = self.terms else { return false };
        let n = out.len() / self.to.size();
        let operands = [Some(self.target), Some(term.minuend), term.subtrahend];
        let bf16 = self.to == Float::Bf16 && operands.iter().flatten().all(|operand| operand.float == Float::Bf16);
        let exact = term.exceptions.iter().any(|exceptions| exceptions.any_within(self.first + from as u64, n));
        let plain = *self.rounding == Rounding::Nearest && !exact;
        if !bf16 || !plain {
            return false;
        }
        let term = Bf16Term {
            target: self.target.bytes_of(from, n),
            minuend: term.minuend.bytes_of(from, n),
            subtrahend: term.subtrahend.map(|subtrahend| subtrahend.bytes_of(from, n)),
            alpha: term.alpha,
        };
        let Some(lanes) = lanes else { return simd::combine_bf16(self.isa, term, out, None) };
        let done = simd::combine_bf16(self.isa, term, out, Some(lanes));
        if done && lanes.is_small() {
            simd::masks(self.isa, term, out, lanes);
        }
        done
    }

    /// Fills `t`, `v`, `random` and `out` for the part that starts at element `at` of the call.
    fn compute(&self, at: usize, out: &mut [u8], scratch: &mut Scratch) {
        let isa = self.isa;
        let n = out.len() / self.to.size();
        let Scratch { t, v, r, d, random, .. } = scratch;
        let (t, v, r, d) = (&mut t[..n], &mut v[..n], &mut r[..n], &mut d[..n]);
        simd::widen(isa, self.target.float, self.target.bytes_of(at, n), t);
        if let [only] = self.terms {
            difference(isa, only, self.first, at, v);
            simd::scale_add(isa, t, only.alpha, v, r);
        } else {
            v.fill(0.0);
            r.copy_from_slice(t);
            for term in self.terms {
                difference(isa, term, self.first, at, d);
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

    fn round(&self, at: usize, values: &[f32], random: &[u32], out: &mut [u8]) {
        match self.rounding {
            Rounding::Nearest => simd::narrow(self.isa, self.to, values, out),
            Rounding::Stochastic { .. } => {
                let offset = ((self.first + at as u64) % 4) as usize;
                simd::narrow_stochastic(self.isa, self.to, values, &random[offset..], out);
            }
        }
    }

    /// The values for the statistics. Call it after [`Job::compute`], for the same part.
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

    /// The figures of a chunk whose sums f32 cannot hold, computed element by element in f64.
    fn careful(&self, from: usize, out: &mut [u8], scratch: &mut Scratch) -> Stats {
        let mut figures = Stats::default();
        for (part, out) in out.chunks_mut(PART * self.to.size()).enumerate() {
            let at = from + part * PART;
            self.compute(at, out, scratch);
            let Seen { t, base, v, o } = self.see(at, out, scratch);
            let mut input = [0.0; PART];
            let mut bad = not_finite(self.isa, self.terms, self.first, at, &mut input[..t.len()]);
            mark(t, &mut bad);
            for i in 0..t.len() {
                figures.element(Element { bad_input: bad[i], t: t[i], base: base[i], v: v[i], o: o[i] }, self.scale());
            }
        }
        figures
    }
}
