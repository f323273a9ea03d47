//! Methods of one pass, and the sums that others come down to.

/// `out = Σ wᵢxᵢ` from 0 on, divided by `Σ wᵢ` if they are normalised (mergekit's `linear`; it fuses each product with
/// its addition where the processor can).
pub(super) fn linear(weights: &[f32], normalize: bool, rows: &[Vec<f32>], out: &mut [f32]) {
    out.fill(0.0);
    for (&weight, row) in weights.iter().zip(rows) {
        for (out, &x) in out.iter_mut().zip(row) {
            *out += x * weight;
        }
    }
    if normalize {
        let sum = total(weights);
        out.iter_mut().for_each(|out| *out /= sum);
    }
}

/// The sum of weights, in order.
pub(super) fn total(weights: &[f32]) -> f32 {
    weights.iter().fold(0.0, |sum, weight| sum + weight)
}

/// `out = s·x` (`passthrough` with `scale`).
pub(super) fn scale(scale: f32, row: &[f32], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(row) {
        *out = x * scale;
    }
}

/// `out = Σ cᵢxᵢ`, beginning with the first product.
pub(super) fn blend(coefficients: &[f32], rows: &[Vec<f32>], out: &mut [f32]) {
    let mut first = true;
    for (&c, row) in coefficients.iter().zip(rows) {
        for (out, &x) in out.iter_mut().zip(row) {
            *out = if first { c * x } else { *out + c * x };
        }
        first = false;
    }
}

/// `out = b + Σ cᵢ(xᵢ − b)`, where the sum is computed first.
pub(super) fn blend_deltas(coefficients: &[f32], rows: &[Vec<f32>], out: &mut [f32]) {
    let (base, models) = (&rows[0], &rows[1..]);
    for (number, (&c, row)) in coefficients.iter().zip(models).enumerate() {
        for ((out, &x), &b) in out.iter_mut().zip(row).zip(base) {
            let product = c * (x - b);
            *out = if number == 0 { product } else { *out + product };
        }
    }
    for (out, &b) in out.iter_mut().zip(base) {
        *out += b;
    }
}

/// `out = t·mean(xᵢ) + (1 − t)·b` (`model_stock`).
pub(super) fn stock(t: f32, rows: &[Vec<f32>], out: &mut [f32]) {
    let (base, models) = (&rows[0], &rows[1..]);
    out.fill(0.0);
    for row in models {
        for (out, &x) in out.iter_mut().zip(row) {
            *out += x;
        }
    }
    let count = models.len() as f32;
    for (out, &b) in out.iter_mut().zip(base) {
        *out = t * (*out / count) + (1.0 - t) * b;
    }
}

/// The least difference that nearswap divides by.
const NEAR: f32 = 1e-6;

/// `w = clamp(t / max(|b − x|, 1e-6), 0, 1)`, `out = w·x + (1 − w)·b` (`nearswap`; the quotient is the reciprocal times
/// t, as torch computes a number over a tensor).
pub(super) fn nearswap(t: f32, rows: &[Vec<f32>], out: &mut [f32]) {
    for ((out, &b), &x) in out.iter_mut().zip(&rows[0]).zip(&rows[1]) {
        let weight = (1.0 / (b - x).abs().max(NEAR) * t).clamp(0.0, 1.0);
        *out = weight * x + (1.0 - weight) * b;
    }
}
