//! RAM (Reinforced Agent Merging, arXiv 2601.13572): an element that one model moved gets its whole difference, one that
//! several moved their mean. RAM+ multiplies whole differences by a factor of their model.

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
    let [r, alpha, epsilon] = [r, alpha, epsilon].map(|parameter| parameter as f32);
    let factor = |&[shared, unique]: &[f64; 2]| {
        let quotient = shared as f32 / (unique as f32).max(epsilon);
        1.0 + r * quotient.clamp(0.0, alpha)
    };
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

/// `out = b + Σ δᵢ[|δᵢ| > ε]·fᵢ`, where fᵢ is λᵢ if no other model moved the element, and a division by the number of those
/// that did otherwise.
pub(super) fn compute(epsilon: f32, factors: &[f32], rows: &[Vec<f32>], out: &mut [f32]) {
    let (base, models) = (&rows[0], &rows[1..]);
    for (i, (out, &b)) in out.iter_mut().zip(base).enumerate() {
        // A NaN counts as moved: it must not vanish.
        let moved = |difference: f32| difference.abs() > epsilon || difference.is_nan();
        let count = models.iter().filter(|row| moved(row[i] - b)).count() as f32;
        let mut sum = 0.0;
        for (row, &factor) in models.iter().zip(factors) {
            let difference = row[i] - b;
            if moved(difference) {
                sum += if count > 1.0 { difference / count } else { difference * factor };
            }
        }
        *out = b + sum;
    }
}
