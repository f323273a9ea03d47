//! What an operation did to its elements, as counts and sums that are the same for every instruction set and thread
//! count.

use crate::numeric::operand::CHUNK;
use crate::numeric::simd::{self, Isa};

/// The number of lanes: element `i` of a chunk is added to lane `i % LANES`. It is fixed, because it decides how sums
/// round.
pub(crate) const LANES: usize = 16;
/// 2^-70. A sum of squares below this may be too small, because squares that f32 cannot hold became 0.
const SMALL: f64 = 1.0 / (1u64 << 35) as f64 / (1u64 << 35) as f64;

/// Figures of one write. `v` is the request: the difference before α where one vector is applied, the sum of the `α·v`
/// where several are. `e` is the answer: the output less the target, in f32. An element is finite when its inputs, its
/// output and `v` all are; the counts and sums from `requested` on speak of finite elements only.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// The number of elements.
    pub elements: u64,
    /// Elements with Inf or NaN in any input.
    pub nonfinite_inputs: u64,
    /// Elements with finite inputs and an output that is not.
    pub overflowed: u64,
    /// Elements with a requested change: `α·v ≠ 0`.
    pub requested: u64,
    /// Elements whose output differs, in its bits, from the target rounded in the same way.
    pub changed: u64,
    /// Elements that are both requested and changed.
    pub survived: u64,
    /// Σ v².
    pub v2: f64,
    /// Σ e².
    pub e2: f64,
    /// Σ e·v.
    pub ev: f64,
    /// How much of Σ v² is, at most, noise of the grids of quantised donors.
    pub noise2: f64,
}

impl Stats {
    /// The length of [`Stats::to_bytes`].
    pub const BYTES: usize = 80;

    /// Appends the figures of the elements that follow.
    pub fn add(&mut self, other: &Self) {
        self.elements += other.elements;
        self.nonfinite_inputs += other.nonfinite_inputs;
        self.overflowed += other.overflowed;
        self.requested += other.requested;
        self.changed += other.changed;
        self.survived += other.survived;
        self.v2 += other.v2;
        self.e2 += other.e2;
        self.ev += other.ev;
        self.noise2 += other.noise2;
    }

    /// The fields in their order, little-endian.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let counts =
            [self.elements, self.nonfinite_inputs, self.overflowed, self.requested, self.changed, self.survived];
        let sums = [self.v2, self.e2, self.ev, self.noise2].map(f64::to_bits);
        let mut bytes = [0; Self::BYTES];
        for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(counts.into_iter().chain(sums)) {
            *bytes = word.to_le_bytes();
        }
        bytes
    }

    /// The inverse of [`Stats::to_bytes`].
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let word = |i: usize| u64::from_le_bytes(bytes.as_chunks::<8>().0[i]);
        let sum = |i: usize| f64::from_bits(word(i));
        Self {
            elements: word(0),
            nonfinite_inputs: word(1),
            overflowed: word(2),
            requested: word(3),
            changed: word(4),
            survived: word(5),
            v2: sum(6),
            e2: sum(7),
            ev: sum(8),
            noise2: sum(9),
        }
    }

    /// Adds one element, in f64, of a chunk whose sums f32 lanes cannot hold.
    pub(crate) fn element(&mut self, element: Element, alpha: f32) {
        let Element { bad_input, t, base, v, o } = element;
        self.elements += 1;
        self.nonfinite_inputs += u64::from(bad_input);
        self.overflowed += u64::from(!bad_input && !o.is_finite());
        if bad_input || !o.is_finite() || !v.is_finite() {
            return;
        }
        let (requested, changed) = (alpha * v != 0.0, o.to_bits() != base.to_bits());
        self.requested += u64::from(requested);
        self.changed += u64::from(changed);
        self.survived += u64::from(requested && changed);
        let (v, e) = (f64::from(v), f64::from(o) - f64::from(t));
        self.v2 += v * v;
        self.e2 += e * e;
        self.ev += e * v;
    }
}

/// The figures of elements in memory: target, rounded target, request, output. `alpha` turns the request into the
/// requested change. An element whose target or request is not finite counts as one with such an input.
pub fn of_values(isa: Isa, t: &[f32], base: &[f32], v: &[f32], o: &[f32], alpha: f32) -> Stats {
    let mut figures = Stats::default();
    for at in (0..t.len()).step_by(CHUNK) {
        let range = at..t.len().min(at + CHUNK);
        let [t, base, v, o] = [t, base, v, o].map(|values| &values[range.clone()]);
        let mut lanes = Lanes::default();
        simd::statistics(isa, &mut lanes, t, base, v, o, alpha);
        let careful = || {
            let mut figures = Stats::default();
            for i in 0..t.len() {
                let bad_input = !t[i].is_finite() || !v[i].is_finite();
                figures.element(Element { bad_input, t: t[i], base: base[i], v: v[i], o: o[i] }, alpha);
            }
            figures
        };
        figures.add(&lanes.fold(t.len()).unwrap_or_else(careful));
    }
    figures
}

/// One element for [`Stats::element`]: `base` is the rounded target and `o` the output, both widened.
pub(crate) struct Element {
    pub bad_input: bool,
    pub t: f32,
    pub base: f32,
    pub v: f32,
    pub o: f32,
}

/// The sums of one chunk while it is computed; element `i` is added in lane `i % 16`. The masks gather the bits of all
/// `v` and `e`, so as to tell sums of nothing from sums of what is too small.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lanes {
    pub v2: [f32; LANES],
    pub e2: [f32; LANES],
    pub ev: [f32; LANES],
    pub any_v: u32,
    pub any_e: u32,
    pub requested: u32,
    pub changed: u32,
    pub survived: u32,
}

impl Lanes {
    /// Whether a sum of squares is so small that the masks decide if something was lost.
    pub(crate) fn is_small(&self) -> bool {
        [self.v2, self.e2].iter().any(|lanes| fold(lanes).is_some_and(|sum| sum < SMALL))
    }

    /// The chunk's figures, or `None` where f32 lanes lost something: Inf or NaN, a square that overflowed, or squares
    /// so small that they underflowed.
    pub(crate) fn fold(&self, elements: usize) -> Option<Stats> {
        let (v2, e2, ev) = (fold(&self.v2)?, fold(&self.e2)?, fold(&self.ev)?);
        if lost(v2, self.any_v) || lost(e2, self.any_e) {
            return None;
        }
        Some(Stats {
            elements: elements as u64,
            requested: u64::from(self.requested),
            changed: u64::from(self.changed),
            survived: u64::from(self.survived),
            v2,
            e2,
            ev,
            ..Stats::default()
        })
    }
}

/// The sum of the lanes from 0 to 15, in f64; `None` if it is not finite.
fn fold(lanes: &[f32; LANES]) -> Option<f64> {
    let sum = lanes.iter().fold(0.0, |sum, &lane| sum + f64::from(lane));
    sum.is_finite().then_some(sum)
}

/// Whether a sum of squares may be too small. `any` has the bits of all values that were squared.
fn lost(sum: f64, any: u32) -> bool {
    sum < SMALL && any & 0x7FFF_FFFF != 0
}

/// How two tensors differ, element by element. The sums are over the elements that are finite on both sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// The number of elements.
    pub elements: u64,
    /// Elements that differ in their bits. If the types differ, they are compared as f32.
    pub changed: u64,
    /// Elements with Inf or NaN on either side.
    pub nonfinite: u64,
    /// Σ a².
    pub a2: f64,
    /// Σ b².
    pub b2: f64,
    /// Σ a·b.
    pub ab: f64,
    /// Σ (b − a)².
    pub d2: f64,
    /// Elements by distance in units of the last place of the common type; all zero where the types differ. Bucket 0:
    /// the same value (0 and −0, or two NaN); bucket k: a distance from 2^(k−1) to below 2^k, infinity counting as the
    /// number after the largest; the last bucket: NaN on one side only.
    pub ulps: [u64; Self::BUCKETS],
}

/// Used instead of a distance if only one side is NaN. It is more than the distance of any two numbers.
pub(crate) const NAN_APART: u32 = u32::MAX;

impl Default for Comparison {
    fn default() -> Self {
        Self { elements: 0, changed: 0, nonfinite: 0, a2: 0.0, b2: 0.0, ab: 0.0, d2: 0.0, ulps: [0; Self::BUCKETS] }
    }
}

impl Comparison {
    /// Distances of f32 need 33 buckets, and NaN needs one more.
    pub const BUCKETS: usize = 34;

    /// Appends the figures of the elements that follow.
    pub fn add(&mut self, other: &Self) {
        self.elements += other.elements;
        self.changed += other.changed;
        self.nonfinite += other.nonfinite;
        self.a2 += other.a2;
        self.b2 += other.b2;
        self.ab += other.ab;
        self.d2 += other.d2;
        for (mine, theirs) in self.ulps.iter_mut().zip(other.ulps) {
            *mine += theirs;
        }
    }

    /// Counts distances, as loops.rs measures them, in the buckets.
    pub(crate) fn count(&mut self, distances: &[u32]) {
        // Four sets of buckets are used in turn, so that equal neighbours do not wait for each other's count.
        let mut turns = [[0; Self::BUCKETS]; 4];
        for distances in distances.chunks(turns.len()) {
            for (buckets, &distance) in turns.iter_mut().zip(distances) {
                let bits = (u32::BITS - distance.leading_zeros()) as usize;
                buckets[bits + usize::from(distance == NAN_APART)] += 1;
            }
        }
        for (i, bucket) in self.ulps.iter_mut().enumerate() {
            *bucket += turns.iter().map(|buckets| buckets[i]).sum::<u64>();
        }
    }

    /// Adds one element of a chunk whose sums f32 lanes cannot hold: all figures except `elements`, `changed` and
    /// `ulps`.
    pub(crate) fn element(&mut self, a: f32, b: f32) {
        if !a.is_finite() || !b.is_finite() {
            self.nonfinite += 1;
            return;
        }
        let (a, b) = (f64::from(a), f64::from(b));
        let d = b - a;
        self.a2 += a * a;
        self.b2 += b * b;
        self.ab += a * b;
        self.d2 += d * d;
    }
}

/// As [`Lanes`], for a comparison.
#[derive(Clone, Copy, Default)]
pub(crate) struct ComparisonLanes {
    pub a2: [f32; LANES],
    pub b2: [f32; LANES],
    pub ab: [f32; LANES],
    pub d2: [f32; LANES],
    pub any_a: u32,
    pub any_b: u32,
    pub any_d: u32,
    pub changed: u32,
}

impl ComparisonLanes {
    /// The chunk's sums, or `None` if f32 lanes lost something.
    pub(crate) fn fold(&self) -> Option<Comparison> {
        let (a2, b2, ab, d2) = (fold(&self.a2)?, fold(&self.b2)?, fold(&self.ab)?, fold(&self.d2)?);
        let small = lost(a2, self.any_a) || lost(b2, self.any_b) || lost(d2, self.any_d);
        (!small).then_some(Comparison { a2, b2, ab, d2, ..Comparison::default() })
    }
}
