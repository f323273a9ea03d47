//! Values back to codes, over one block. Plain safe Rust, written once; simd.rs compiles it per instruction set.

use super::Codes;

/// Lanes of a search for extremes: eight of a 256-bit vector, twice.
const LANES: usize = 16;
/// How many values are encoded together.
const PART: usize = 128;

/// What the new values of a block are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Extent {
    /// Whether any of them differs from the old one.
    pub changed: bool,
    /// The least finite one, or zero if that is less.
    pub low: f32,
    /// The largest finite one, or zero if that is more.
    pub high: f32,
}

/// What was met while a block was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Met {
    /// How many codes differ from the old ones.
    pub codes: u32,
    /// How many values were too large.
    pub saturated: u32,
    /// Whether one was NaN.
    pub nan: bool,
}

/// −0 and 0 are the same value, and so are all NaN.
#[inline(always)]
fn same(old: f32, new: f32) -> bool {
    (old == new) | (old.is_nan() & new.is_nan())
}

/// The extent of the new values.
#[inline(always)]
pub(crate) fn extent(old: &[f32], new: &[f32]) -> Extent {
    let (mut low, mut high, mut changed) = ([0_f32; LANES], [0_f32; LANES], [0_u32; LANES]);
    let mut lane = |at: usize, old: f32, new: f32| {
        let finite = if new.abs() < f32::INFINITY { new } else { 0.0 };
        low[at] = if finite < low[at] { finite } else { low[at] };
        high[at] = if finite > high[at] { finite } else { high[at] };
        changed[at] |= u32::from(!same(old, new));
    };
    let ((old, old_rest), (new, new_rest)) = (old.as_chunks::<LANES>(), new.as_chunks::<LANES>());
    for (old, new) in old.iter().zip(new) {
        for at in 0..LANES {
            lane(at, old[at], new[at]);
        }
    }
    for (at, (&old, &new)) in old_rest.iter().zip(new_rest).enumerate() {
        lane(at, old, new);
    }
    Extent {
        changed: changed.contains(&1),
        low: low.into_iter().fold(0.0, f32::min),
        high: high.into_iter().fold(0.0, f32::max),
    }
}

/// Encodes a block under `scale`. A value that does not change keeps its code if `kept`: if the scale is the one that the
/// codes have. `random` are 32 random bits a value, or none: then codes are rounded to nearest.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "one block, as its slices")]
pub(crate) fn encode(
    kind: Codes,
    old: &[f32],
    new: &[f32],
    codes: &[u8],
    (scale, kept): (f32, bool),
    random: &[u32],
    out: &mut [u8],
) -> Met {
    let mut met = Met { codes: 0, saturated: 0, nan: false };
    let mut part = Part { x: [0.0; PART], stays: [0; PART], codes: [0; PART] };
    for (at, out) in out.chunks_mut(PART).enumerate() {
        let here = at * PART..at * PART + out.len();
        let random = if random.is_empty() { random } else { &random[here.clone()] };
        part.divide(&old[here.clone()], &new[here.clone()], scale, kept);
        // The kind of codes is a constant of each loop.
        match kind {
            Codes::E4m3 => part.round(random, |x| Codes::E4m3.nearest(x), |x, word| Codes::E4m3.stochastic(x, word)),
            Codes::E2m1 => part.round(random, |x| Codes::E2m1.nearest(x), |x, word| Codes::E2m1.stochastic(x, word)),
            Codes::Int4 => part.round(random, |x| Codes::Int4.nearest(x), |x, word| Codes::Int4.stochastic(x, word)),
        }
        part.count(kind.limits(), out.len(), &mut met);
        // A part has fewer values than a byte can count, and bytes are counted faster than numbers.
        let mut differ = 0_u8;
        for ((out, &code), (&old, &stays)) in out.iter_mut().zip(&part.codes).zip(codes[here].iter().zip(&part.stays)) {
            *out = if stays != 0 { old } else { code as u8 };
            differ += u8::from(*out != old);
        }
        met.codes += u32::from(differ);
    }
    met
}

/// Values that are encoded together. Each step is a loop of its own over types of one width, which vectorises.
struct Part {
    /// Values in steps of their scale.
    x: [f32; PART],
    /// All bits are set where the code stays.
    stays: [u32; PART],
    codes: [u32; PART],
}

impl Part {
    #[inline(always)]
    fn divide(&mut self, old: &[f32], new: &[f32], scale: f32, kept: bool) {
        let kept = if kept { u32::MAX } else { 0 };
        for (((x, stays), &old), &new) in self.x.iter_mut().zip(&mut self.stays).zip(old).zip(new) {
            let same = same(old, new);
            *x = if same { old } else { new } / scale;
            *stays = if same { kept } else { 0 };
        }
    }

    #[inline(always)]
    fn round(&mut self, random: &[u32], nearest: impl Fn(f32) -> u8, stochastic: impl Fn(f32, u32) -> u8) {
        if random.is_empty() {
            self.codes.iter_mut().zip(&self.x).for_each(|(code, &x)| *code = u32::from(nearest(x)));
        } else {
            let words = self.codes.iter_mut().zip(&self.x).zip(random);
            words.for_each(|((code, &x), &word)| *code = u32::from(stochastic(x, word)));
        }
    }

    #[inline(always)]
    fn count(&self, [below, above]: [f32; 2], n: usize, met: &mut Met) {
        let (mut saturated, mut nan) = (0, 0);
        for (&x, &stays) in self.x[..n].iter().zip(&self.stays) {
            let large = if (x > above) | (x < below) { 1 } else { 0 };
            saturated += large & !stays;
            nan |= if x.is_nan() { !stays } else { 0 };
        }
        met.saturated += saturated;
        met.nan |= nan != 0;
    }
}

/// The values of codes, one a byte, under one scale.
#[inline(always)]
pub(crate) fn decode(kind: Codes, codes: &[u8], scale: f32, out: &mut [f32]) {
    macro_rules! with {
        ($kind:expr) => {
            out.iter_mut().zip(codes).for_each(|(out, &code)| *out = $kind.value(code) * scale)
        };
    }
    match kind {
        Codes::E4m3 => with!(Codes::E4m3),
        Codes::E2m1 => with!(Codes::E2m1),
        Codes::Int4 => with!(Codes::Int4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::philox::block;
    use crate::numeric::simd::{self, Isa};

    /// Values of many magnitudes, with NaN, infinities, zeros of both signs, subnormals and ties.
    fn values(n: usize, stream: u32) -> Vec<f32> {
        let special = [f32::NAN, f32::INFINITY, -f32::INFINITY, 0.0, -0.0, 1e-42, -1e-42, 464.0, 464.1, -8.5, 7.5, 2.5];
        let word = |i: usize| block([i as u32, 0, 0, 0], [stream, 0]);
        let value = |i: usize| match word(i) {
            [pick, ..] if pick % 16 == 0 => special[pick as usize / 16 % special.len()],
            [_, sign, exponent, mantissa] => {
                f32::from_bits((sign & 1) << 31 | (115 + exponent % 22) << 23 | mantissa & 0x7F_0000)
            }
        };
        (0..n).map(value).collect()
    }

    #[test]
    fn every_instruction_set_encodes_what_one_value_at_a_time_would() {
        for n in [0, 1, 15, 16, 17, 128, 1000] {
            let (old, mut new) = (values(n, 1), values(n, 2));
            (0..n).filter(|at| at % 3 == 0).for_each(|at| new[at] = old[at]);
            let codes: Vec<u8> = (0..n).map(|at| (at * 7 % 16) as u8).collect();
            let words: Vec<u32> = (0..n).map(|at| block([at as u32, 0, 0, 0], [3, 0])[0]).collect();
            for kind in [Codes::E4m3, Codes::E2m1, Codes::Int4] {
                for (scale, kept) in [(1.0, true), (0.37, false), (-2.0, true), (0.0, true)] {
                    for random in [&words[..], &[]] {
                        let mut expected = (Met { codes: 0, saturated: 0, nan: false }, vec![0; n]);
                        for at in 0..n {
                            let equal = old[at] == new[at] || old[at].is_nan() && new[at].is_nan();
                            if equal && kept {
                                expected.1[at] = codes[at];
                                continue;
                            }
                            let x = if equal { old[at] } else { new[at] } / scale;
                            expected.0.nan |= x.is_nan();
                            expected.0.saturated += u32::from(x < kind.limits()[0] || x > kind.limits()[1]);
                            expected.1[at] = random.get(at).map_or(kind.nearest(x), |&word| kind.stochastic(x, word));
                            expected.0.codes += u32::from(expected.1[at] != codes[at]);
                        }
                        for isa in Isa::available() {
                            let mut out = vec![0; n];
                            let met = simd::encode(isa, kind, &old, &new, &codes, (scale, kept), random, &mut out);
                            assert_eq!((met, &out), (expected.0, &expected.1), "{isa:?} {kind:?} {scale} {n}");
                            let mut decoded = vec![0.0; n];
                            simd::decode(isa, kind, &out, scale, &mut decoded);
                            let one = |&code: &u8| (kind.value(code) * scale).to_bits();
                            let same =
                                |(a, b): (&f32, u32)| a.to_bits() == b || a.is_nan() && f32::from_bits(b).is_nan();
                            assert!(decoded.iter().zip(out.iter().map(one)).all(same), "{isa:?} {kind:?} {scale} {n}");
                        }
                    }
                }
            }
            let finite = || new.iter().copied().filter(|x| x.is_finite());
            let changed = (0..n).any(|at| old[at] != new[at] && !(old[at].is_nan() && new[at].is_nan()));
            let (low, high) = (finite().fold(0.0, f32::min), finite().fold(0.0, f32::max));
            for isa in Isa::available() {
                assert_eq!(simd::extent(isa, &old, &new), Extent { changed, low, high }, "{isa:?} {n}");
                assert!(!simd::extent(isa, &new, &new).changed);
            }
        }
    }
}
