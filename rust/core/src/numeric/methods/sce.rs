//! SCE (FuseChat, arXiv 2408.07990): select the elements in which models differ most, calculate a weight of each model
//! from its squares, erase the minority's sign.

use super::Scratch;
use super::sums::sum;
use crate::numeric::select::{Mark, Position, Rank, key};

/// The rank of the smallest variance that is kept.
pub(super) const fn rank(share: f32, elements: u64) -> Rank {
    Rank::new(0, Position::GreatestOfNonzero(share), elements)
}

/// The keys of the variances of the models' differences: population variance in f64, rounded to f32.
pub(super) fn keys(rows: &[Vec<f32>], keys: &mut Vec<u32>) {
    let (base, models) = (&rows[0], &rows[1..]);
    let count = models.len() as f64;
    keys.clear();
    keys.extend((0..base.len()).map(|i| {
        let differences = || models.iter().map(|row| f64::from(row[i] - base[i]));
        let mean = differences().fold(0.0, |sum, d| sum + d) / count;
        let variance = differences().fold(0.0, |sum, d| sum + (d - mean) * (d - mean)) / count;
        key(variance as f32)
    }));
}

/// Adds `Σδᵢ²` of every model, over the elements that are kept.
pub(super) fn measure(
    mark: Option<Mark>,
    rows: &[Vec<f32>],
    first: u64,
    within: std::ops::Range<usize>,
    scratch: &mut Scratch,
    sums: &mut [f64],
) {
    let kept = kept(mark, rows, first, &mut scratch.keys);
    let (base, models) = (&rows[0], &rows[1..]);
    for (row, total) in models.iter().zip(sums) {
        *total += sum(within.len(), |i| {
            let i = within.start + i;
            let difference = if kept(i) { f64::from(row[i] - base[i]) } else { 0.0 };
            difference * difference
        });
    }
}

fn kept<'k>(mark: Option<Mark>, rows: &[Vec<f32>], first: u64, room: &'k mut Vec<u32>) -> impl Fn(usize) -> bool + 'k {
    if mark.is_some() {
        keys(rows, room);
    }
    move |i: usize| mark.is_none_or(|mark| mark.within_greatest(room[i], first + i as u64))
}

/// `wᵢ = mean(δᵢ²) / Σ`, or all equal where the sum is below 1e-6.
pub(super) fn weights(sums: &[f64], elements: u64, models: usize) -> Vec<f32> {
    if sums.is_empty() {
        return vec![0.0; models];
    }
    let means: Vec<f32> = sums.iter().map(|sum| (sum / elements.max(1) as f64) as f32).collect();
    let total = means.iter().fold(0.0, |sum, mean| sum + mean);
    if total < 1e-6 {
        return vec![1.0 / models as f32; models];
    }
    means.into_iter().map(|mean| mean / total).collect()
}

/// `out = b + Σ δᵢwᵢaᵢ / max(Σ wᵢaᵢ, 1e-6)`, where `aᵢ` says whether δᵢ has the sign of `Σδᵢ` (plus, if that is 0).
pub(super) fn compute(
    mark: Option<Mark>,
    weights: &[f32],
    rows: &[Vec<f32>],
    first: u64,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let kept = kept(mark, rows, first, &mut scratch.keys);
    let (base, models) = (&rows[0], &rows[1..]);
    for (i, (out, &b)) in out.iter_mut().zip(base).enumerate() {
        if !kept(i) {
            *out = b;
            continue;
        }
        let total = models.iter().fold(0.0, |sum, row| sum + (row[i] - b));
        let plus = total >= 0.0;
        let (mut sum, mut below) = (0.0, 0.0);
        for (row, &weight) in models.iter().zip(weights) {
            let difference = row[i] - b;
            let agrees = if plus { difference > 0.0 } else { difference < 0.0 };
            if agrees || difference.is_nan() {
                sum += difference * weight;
                below += weight;
            }
        }
        *out = b + sum / below.max(1e-6);
    }
}
