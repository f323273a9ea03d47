//! RAM: an element that one model moved gets its whole difference, one that several moved their mean. RAM+ multiplies the
//! differences of each model by a factor.

use super::sums::sum;

/// How RAM+ makes up for what models share: `λᵢ = 1 + r·clamp(sharedᵢ / max(uniqueᵢ, ε), 0, α)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Boost {
    /// The factor r.
    pub r: f64,
    /// The most that the quotient counts.
    pub alpha: f64,
    /// The least that it is divided by.
    pub epsilon: f64,
}

/// The factor of every model, from the numbers of elements that it moved with others, and alone.
pub(super) fn factors(boost: Option<Boost>, models: usize, sums: &[f64]) -> Vec<f32> {
    let Some(Boost { r, alpha, epsilon }) = boost.filter(|_| !sums.is_empty()) else { return vec![1.0; models] };
    let factor = |pair: &[f64; 2]| (1.0 + r * (pair[0] / pair[1].max(epsilon)).clamp(0.0, alpha)) as f32;
    sums.as_chunks().0.iter().map(factor).collect()
}

/// Adds, for each model, how many elements it moved with others and how many alone.
pub(super) fn measure(epsilon: f32, rows: &[Vec<f32>], within: std::ops::Range<usize>, sums: &mut [f64]) {
    let (base, models) = (&rows[0], &rows[1..]);
    let moved = |row: &[f32], i: usize| (row[i] - base[i]).abs() > epsilon;
    let others: Vec<usize> = within.clone().map(|i| models.iter().filter(|row| moved(row, i)).count()).collect();
    for (row, pair) in models.iter().zip(sums.as_chunks_mut::<2>().0) {
        let count = |shared: bool| {
            let one = |i: usize| f64::from(u8::from(moved(row, within.start + i) && (others[i] > 1) == shared));
            sum(within.len(), one)
        };
        *pair = [pair[0] + count(true), pair[1] + count(false)];
    }
}

/// `out = b + Σ λᵢδᵢ[|δᵢ| > ε] / count`, and the base where no model moved.
pub(super) fn compute(epsilon: f32, factors: &[f32], rows: &[Vec<f32>], out: &mut [f32]) {
    let (base, models) = (&rows[0], &rows[1..]);
    for (i, (out, &b)) in out.iter_mut().zip(base).enumerate() {
        let (mut sum, mut count) = (0.0, 0.0_f32);
        for (row, &factor) in models.iter().zip(factors) {
            let difference = row[i] - b;
            // A NaN counts as moved: it must not vanish.
            if difference.abs() > epsilon || difference.is_nan() {
                sum += difference * factor;
                count += 1.0;
            }
        }
        *out = if count > 0.0 { b + sum / count } else { b };
    }
}
