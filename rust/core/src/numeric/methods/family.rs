//! Methods that add up differences from a base: `task_arithmetic`, `ties`, `dare_*`, `della*` and `breadcrumbs*`.
//!
//! ```text
//! δᵢ = xᵢ − b, made sparse, and scaled to its old sum of magnitudes if that is asked for
//! dᵢ = wᵢ·δᵢ
//! with sign election:  s = + if Σdᵢ ≥ 0, else −;  aᵢ = 1 where dᵢ has the sign s (0 has none), else 0
//!                      mix = Σ dᵢ·aᵢ;  div = Σ wᵢ·aᵢ, or 1 if that is 0
//! without:             mix = Σ dᵢ;     div = Σ wᵢ,    or 1 if that is below 1e-8
//! mix = mix / div if that is asked for; mix = λ·mix; out = b + mix
//! ```

use super::Scratch;
use super::linear::total;
use super::sums::sum;
use crate::numeric::philox;
use crate::numeric::select::{Mark, Position, Rank, key, sorted};
use crate::numeric::simd::{self, Isa};

/// A method of this family with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Its models, in order.
    pub members: Vec<Member>,
    /// Whether only differences of the elected sign are added.
    pub election: bool,
    /// Whether the sum is divided by that of the weights.
    pub normalize: bool,
    /// Whether what is left of a sparse difference is scaled to the sum of magnitudes that it had.
    pub rescale: bool,
    /// The last factor.
    pub lambda: f32,
}

/// One model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member {
    /// Its factor.
    pub weight: f32,
    /// Which elements of its difference are kept.
    pub sparse: Sparse,
}

/// Which elements of a difference are kept. Densities are between 0 and 1, both excluded. Numbers of elements are
/// products in f64, cut to whole numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sparse {
    /// All.
    All,
    /// None.
    Nothing,
    /// The largest by magnitude, at least one (`ties`).
    Largest {
        /// The share that is kept.
        density: f64,
    },
    /// Neither the largest nor the smallest (`breadcrumbs`).
    Band {
        /// The share that is kept.
        density: f64,
        /// The share of the largest that is dropped.
        gamma: f64,
    },
    /// Each by chance (`dare`).
    Drawn {
        /// The chance to be kept.
        density: f32,
    },
    /// Each by a chance that grows with its rank in its row (`della`).
    DrawnByRank {
        /// The mean chance to be kept.
        density: f64,
        /// The chances are from `density − epsilon` to `density + epsilon`.
        epsilon: f64,
    },
}

impl Member {
    /// Whether its elements are kept by chance.
    pub const fn draws(&self) -> bool {
        matches!(self.sparse, Sparse::Drawn { .. } | Sparse::DrawnByRank { .. })
    }

    /// Whether its sums of magnitudes are needed.
    const fn is_rescaled(&self, family: &Family) -> bool {
        family.rescale && !matches!(self.sparse, Sparse::All | Sparse::Nothing)
    }
}

/// The first and one past the last position in ascending order that a band keeps of so many elements.
fn band(density: f64, gamma: f64, elements: u64) -> (u64, u64) {
    let part = |share: f64| (share * elements as f64) as u64;
    let kept = part(density);
    let from = elements.saturating_sub(kept).saturating_sub(part(gamma));
    (from, from + kept)
}

impl Family {
    /// The ranks that have to be found: one for [`Sparse::Largest`], up to two for [`Sparse::Band`].
    pub(super) fn ranks(&self, elements: u64) -> Vec<Rank> {
        let mut ranks = Vec::new();
        for (row, member) in self.members.iter().enumerate() {
            match member.sparse {
                Sparse::Largest { density } => {
                    let kept = ((density * elements as f64) as u64).max(1);
                    ranks.push(Rank::new(row, Position::Greatest(kept), elements));
                }
                Sparse::Band { density, gamma } => {
                    let (from, end) = band(density, gamma, elements);
                    let inside = |&at: &u64| at > 0 && at < elements && from < end;
                    ranks.extend(
                        [from, end]
                            .iter()
                            .filter(|at| inside(at))
                            .map(|&at| Rank::new(row, Position::Ascending(at), elements)),
                    );
                }
                _ => {}
            }
        }
        ranks
    }

    /// The number of sums: of the magnitudes of each model, and of those that are kept.
    pub(super) fn sums(&self) -> usize {
        if self.members.iter().any(|member| member.is_rescaled(self)) { 2 * self.members.len() } else { 0 }
    }

    /// The keys of a model's differences.
    pub(super) fn keys(&self, model: usize, rows: &[Vec<f32>], keys: &mut Vec<u32>) {
        keys.clear();
        keys.extend(rows[model + 1].iter().zip(&rows[0]).map(|(&x, &b)| key(x - b)));
    }
}

/// What decides which elements of a model are kept.
#[derive(Clone, Copy)]
enum Keep {
    All,
    Nothing,
    Largest(Mark),
    /// From the first mark on, and before the second.
    Band(Option<Mark>, Option<Mark>),
    Drawn(u64),
    DrawnByRank(f32, f32),
}

/// A family that is ready to compute.
pub struct ReadyFamily<'r> {
    family: &'r Family,
    keep: Vec<Keep>,
    /// What differences are multiplied by to have their old sum of magnitudes; 1 changes nothing.
    factors: Vec<f32>,
    keys: Vec<[u32; 2]>,
    total: f32,
}

/// Below this a sum of magnitudes is nothing, and nothing is scaled.
const LEAST: f32 = 1e-7;

/// A word of random bits is below this with probability `p`.
fn threshold(p: f64) -> u64 {
    libm::ceil(p * (1u64 << 32) as f64) as u64
}

impl<'r> ReadyFamily<'r> {
    pub(super) fn new(family: &'r Family, elements: u64, sums: &[f64], marks: &[Mark], keys: &[[u32; 2]]) -> Self {
        let mut marks = marks.iter().copied();
        let keep = |member: &Member| match member.sparse {
            Sparse::All => Keep::All,
            Sparse::Nothing => Keep::Nothing,
            Sparse::Largest { .. } => marks.next().map_or(Keep::Nothing, Keep::Largest),
            Sparse::Band { density, gamma } => {
                let (from, end) = band(density, gamma, elements);
                if from == end {
                    return Keep::Nothing;
                }
                let mut mark = |inside: bool| if inside { marks.next() } else { None };
                let low = mark(from > 0);
                Keep::Band(low, mark(end < elements))
            }
            Sparse::Drawn { density } => Keep::Drawn(threshold(f64::from(density))),
            Sparse::DrawnByRank { density, epsilon } => Keep::DrawnByRank(epsilon as f32, (density - epsilon) as f32),
        };
        let keep: Vec<Keep> = family.members.iter().map(keep).collect();
        let factor = |(number, member): (usize, &Member)| {
            let Some(&[whole, kept]) = sums.as_chunks().0.get(number) else { return 1.0 };
            let (whole, kept) = (whole as f32, kept as f32);
            if member.is_rescaled(family) && whole >= LEAST && kept >= LEAST { whole / kept } else { 1.0 }
        };
        let factors = family.members.iter().enumerate().map(factor).collect();
        let weights: Vec<f32> = family.members.iter().map(|member| member.weight).collect();
        Self { family, keep, factors, keys: keys.to_vec(), total: total(&weights) }
    }

    /// Adds the sums of magnitudes of the elements `within`: before and after elements are dropped.
    pub(super) fn measure(
        &self,
        isa: Isa,
        rows: &[Vec<f32>],
        first: u64,
        within: std::ops::Range<usize>,
        scratch: &mut Scratch,
        sums: &mut [f64],
    ) {
        let mut kept = std::mem::take(&mut scratch.differences);
        kept.resize_with(kept.len().max(1), Vec::new);
        for (model, pair) in sums.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            if !self.family.members[model].is_rescaled(self.family) {
                continue;
            }
            let (row, base) = (&rows[model + 1], &rows[0]);
            self.difference(isa, model, rows, first, scratch, &mut kept[0]);
            pair[0] += sum(within.len(), |i| f64::from((row[within.start + i] - base[within.start + i]).abs()));
            pair[1] += sum(within.len(), |i| f64::from(kept[0][within.start + i].abs()));
        }
        scratch.differences = kept;
    }

    /// The difference of a model, with 0 (of its own sign) where it is dropped.
    fn difference(
        &self,
        isa: Isa,
        model: usize,
        rows: &[Vec<f32>],
        first: u64,
        Scratch { order, spare, words, .. }: &mut Scratch,
        out: &mut Vec<f32>,
    ) {
        out.clear();
        out.extend(rows[model + 1].iter().zip(&rows[0]).map(|(&x, &b)| x - b));
        match self.keep[model] {
            Keep::All => {}
            Keep::Nothing => keep(out, first, |_, _| false),
            Keep::Largest(mark) => keep(out, first, |key, index| mark.within_greatest(key, index)),
            Keep::Band(low, high) => keep(out, first, |key, index| {
                low.is_none_or(|mark| !mark.after(key, index)) && high.is_none_or(|mark| mark.after(key, index))
            }),
            Keep::Drawn(threshold) => {
                let words = draw(isa, self.keys[model], first, out.len(), words);
                for (d, &word) in out.iter_mut().zip(words) {
                    drop(d, u64::from(word) < threshold);
                }
            }
            Keep::DrawnByRank(epsilon, least) => {
                let order = sorted(out.iter().map(|&d| key(d)), order, spare);
                let words = draw(isa, self.keys[model], first, out.len(), words);
                let last = (out.len() - 1) as f32;
                for (rank, &at) in order.iter().enumerate() {
                    let at = (at & 0xFFFF_FFFF) as usize;
                    let p = rank as f32 / last * 2.0 * epsilon + least;
                    drop(&mut out[at], u64::from(words[at]) < threshold(f64::from(p)));
                }
            }
        }
    }

    pub(super) fn compute(&self, isa: Isa, rows: &[Vec<f32>], first: u64, scratch: &mut Scratch, out: &mut [f32]) {
        let Self { family, .. } = self;
        let Family { members, .. } = family;
        if members.is_empty() {
            out.copy_from_slice(&rows[0]);
            return;
        }
        let mut all = std::mem::take(&mut scratch.differences);
        all.resize_with(members.len().max(all.len()), Vec::new);
        for (model, (member, d)) in members.iter().zip(&mut all).enumerate() {
            self.difference(isa, model, rows, first, scratch, d);
            let factor = self.factors[model];
            if factor != 1.0 {
                d.iter_mut().for_each(|d| *d *= factor);
            }
            d.iter_mut().for_each(|d| *d *= member.weight);
        }
        let d = &all[..members.len()];
        out.copy_from_slice(&d[0]);
        for d in &d[1..] {
            for (out, &d) in out.iter_mut().zip(d) {
                *out += d;
            }
        }
        if family.election {
            self.elect(d, out);
        } else if family.normalize {
            let below = if self.total.abs() < 1e-8 { 1.0 } else { self.total };
            out.iter_mut().for_each(|mix| *mix /= below);
        }
        if family.lambda != 1.0 {
            out.iter_mut().for_each(|mix| *mix *= family.lambda);
        }
        for (out, &b) in out.iter_mut().zip(&rows[0]) {
            *out += b;
        }
        scratch.differences = all;
    }

    /// Replaces the sums of all differences by those of the differences with the elected sign.
    fn elect(&self, differences: &[Vec<f32>], sums: &mut [f32]) {
        for (i, sum) in sums.iter_mut().enumerate() {
            let plus = *sum >= 0.0;
            let (mut mix, mut below) = (0.0_f32, 0.0_f32);
            for (member, d) in self.family.members.iter().zip(differences) {
                let d = d[i];
                let agrees = if plus { d > 0.0 } else { d < 0.0 };
                // A NaN stays: it must not vanish.
                if agrees || d.is_nan() {
                    mix += d;
                    below += member.weight;
                }
            }
            *sum = if self.family.normalize { mix / if below == 0.0 { 1.0 } else { below } } else { mix };
        }
    }
}

/// A difference, or where it is dropped 0 of its sign.
#[inline(always)]
fn drop(d: &mut f32, kept: bool) {
    *d = if kept { *d } else { 0.0_f32.copysign(*d) };
}

/// Drops the differences that are not kept, by key and index.
#[inline(always)]
fn keep(differences: &mut [f32], first: u64, kept: impl Fn(u32, u64) -> bool) {
    for (d, index) in differences.iter_mut().zip(first..) {
        drop(d, kept(key(*d), index));
    }
}

/// The random words of elements from index `first` on.
fn draw(isa: Isa, key: [u32; 2], first: u64, count: usize, words: &mut Vec<u32>) -> &[u32] {
    let skip = (first % 4) as usize;
    words.resize((skip + count).next_multiple_of(philox::STEP), 0);
    simd::random(isa, key, first / 4, words);
    &words[skip..skip + count]
}
