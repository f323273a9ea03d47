//! Methods that take a tensor, or a row of it, as one vector: they need the dot products of all pairs of vectors, and
//! come down to a sum with a coefficient for each.

use super::sums::{Gram, add_products, pairs};
use super::{Formula, Ready};

/// What [`Ready`] is for a row, whose products are computed first.
pub(super) fn of_row<'r>(formula: &Formula, rows: &[Vec<f32>]) -> Result<Ready<'r>, &'static str> {
    let mut sums = vec![0.0; pairs(rows.len())];
    let length = rows[0].len();
    measure(formula, rows, 0..length, &mut sums);
    ready(formula, rows.len(), &sums)
}

/// Adds the products that a formula needs.
pub(super) fn measure(formula: &Formula, rows: &[Vec<f32>], within: std::ops::Range<usize>, sums: &mut [f64]) {
    let based = match formula {
        Formula::ModelStock => true,
        Formula::Multislerp { base, .. } | Formula::Nuslerp { base, .. } => *base,
        _ => false,
    };
    if based {
        add_products(Some(&rows[0]), &rows[1..], within, sums);
    } else {
        add_products(None, rows, within, sums);
    }
}

/// The coefficients of a formula, from the products of its vectors.
pub(super) fn ready<'r>(formula: &Formula, operands: usize, sums: &[f64]) -> Result<Ready<'r>, &'static str> {
    let of = |coefficients: Vec<f64>| coefficients.into_iter().map(|c| c as f32).collect();
    let with = |base: bool, coefficients: Vec<f64>| {
        if base { Ready::BlendDeltas(of(coefficients)) } else { Ready::Blend(of(coefficients)) }
    };
    Ok(match formula {
        Formula::Slerp { t } => slerp(*t, &Gram::new(2, sums)),
        Formula::ModelStock => Ready::Stock(stock(&Gram::new(operands - 1, sums), operands - 1)),
        Formula::Karcher { steps, tolerance } => {
            Ready::Blend(of(karcher(&Gram::new(operands, sums), operands, *steps, *tolerance)))
        }
        Formula::Nuslerp { base, t } => with(*base, nuslerp(*t, &Gram::new(2, sums))),
        Formula::Multislerp { base, weights, epsilon } => {
            with(*base, multislerp(weights, *epsilon, &Gram::new(weights.len(), sums))?)
        }
        _ => Ready::Only(0),
    })
}

/// Above this cosine mergekit's slerp is a straight line.
const PARALLEL: f64 = 0.9995;

/// `sin((1 − t)θ)/sin θ · a + sin(tθ)/sin θ · b` with the angle θ between a and b; `(1 − t)·a + t·b` where the cosine is
/// above 0.9995 or below −0.9995. A length of at most 1e-8 counts as 1.
fn slerp<'r>(t: f32, products: &Gram) -> Ready<'r> {
    let cosine = products.cosine(0, 1, 1e-8, 1.0);
    if cosine.abs() > PARALLEL {
        return Ready::Blend(vec![1.0 - t, t]);
    }
    let [a, b] = arc(f64::from(t), cosine);
    Ready::Blend(vec![a as f32, b as f32])
}

/// The coefficients of both ends of an arc.
fn arc(t: f64, cosine: f64) -> [f64; 2] {
    let angle = libm::acos(cosine);
    let sine = libm::sin(angle);
    [libm::sin((1.0 - t) * angle) / sine, libm::sin(t * angle) / sine]
}

/// As slerp, with lengths of at least 1e-7, and a straight line only where `1 − cos² ≤ 1e-16`.
fn nuslerp(t: f64, products: &Gram) -> Vec<f64> {
    const LEAST: f64 = 1e-7;
    let cosine = products.cosine(0, 1, LEAST, LEAST);
    if 1.0 - cosine * cosine <= 1e-16 {
        return vec![1.0 - t, t];
    }
    arc(t, cosine).to_vec()
}

/// `t = m·c / (1 + (m − 1)·c)`, where c is the mean over pairs of `oᵢ·oⱼ / max(‖oᵢ‖·‖oⱼ‖, 1e-6)` between −1 and 1; 0 where
/// the denominator is below 1e-6.
fn stock(products: &Gram, models: usize) -> f32 {
    const LEAST: f64 = 1e-6;
    let (mut sum, mut count) = (0.0, 0.0);
    for a in 0..models {
        for b in a + 1..models {
            let norms = (products.norm(a) * products.norm(b)).max(LEAST);
            sum += (products.dot(a, b) / norms).clamp(-1.0, 1.0);
            count += 1.0;
        }
    }
    let (cosine, models) = (sum / count, models as f64);
    let below = 1.0 + (models - 1.0) * cosine;
    if below.abs() < LEAST { 0.0 } else { (models * cosine / below) as f32 }
}

/// With `uᵢ = xᵢ/(‖xᵢ‖ + ε)`: the direction of `Σ wᵢuᵢ`, times `Σ wᵢ‖xᵢ‖`. The tangent step that mergekit takes from there
/// is identically zero. Where the sum vanishes, two models are added as they are, and more have no mean.
fn multislerp(weights: &[f64], epsilon: f64, products: &Gram) -> Result<Vec<f64>, &'static str> {
    let count = weights.len();
    let scaled: Vec<f64> = (0..count).map(|i| weights[i] / (products.norm(i) + epsilon)).collect();
    let mut square = 0.0;
    for a in 0..count {
        for b in 0..count {
            square += scaled[a] * scaled[b] * products.dot(a, b);
        }
    }
    let length = square.max(0.0).sqrt();
    if length < epsilon {
        return if count == 2 {
            Ok(weights.to_vec())
        } else {
            Err(
                "the weighted directions of its models cancel each other, so multislerp has no mean of them; change the weights",
            )
        };
    }
    let norm = (0..count).fold(0.0, |sum, i| sum + weights[i] * products.norm(i));
    Ok(scaled.into_iter().map(|scaled| scaled * norm / length).collect())
}

/// The mean on the sphere, by steps in the tangent space: `T = Σ a·θᵢ/sin θᵢ·(uᵢ − cos θᵢ·u)`, then u along T by its
/// length. Everything follows from the products of the directions, so u is kept as coefficients of them. Vectors of a
/// length up to the tolerance have no direction, but count in the mean of the lengths.
fn karcher(products: &Gram, count: usize, steps: u32, tolerance: f64) -> Vec<f64> {
    let long: Vec<usize> = (0..count).filter(|&i| products.norm(i) > tolerance).collect();
    let mut coefficients = vec![0.0; count];
    if long.is_empty() {
        return coefficients;
    }
    let n = long.len();
    let unit = |i: usize, j: usize| {
        let (i, j) = (long[i], long[j]);
        if i == j { 1.0 } else { products.cosine(i, j, 0.0, 1.0) }
    };
    let dots = |c: &[f64]| -> Vec<f64> { (0..n).map(|i| (0..n).fold(0.0, |sum, j| sum + c[j] * unit(i, j))).collect() };
    let length = |c: &[f64]| {
        let square = dots(c).iter().zip(c).fold(0.0, |sum, (d, c)| sum + d * c);
        square.max(0.0).sqrt()
    };
    let share = 1.0 / n as f64;
    let mut u = vec![share; n];
    let mean = length(&u);
    if mean < tolerance {
        u.fill(0.0);
        u[0] = 1.0;
    } else {
        u.iter_mut().for_each(|c| *c /= mean);
    }
    for _ in 0..steps {
        let d = dots(&u);
        let mut tangent = vec![0.0; n];
        for (i, cosine) in d.into_iter().enumerate() {
            let cosine = cosine.clamp(-1.0, 1.0);
            let angle = libm::acos(cosine);
            if angle < tolerance {
                continue;
            }
            let factor = share * angle / libm::sin(angle);
            tangent[i] += factor;
            for (t, u) in tangent.iter_mut().zip(&u) {
                *t -= factor * cosine * u;
            }
        }
        let step = length(&tangent);
        if step < tolerance {
            break;
        }
        let (cosine, sine) = (libm::cos(step), libm::sin(step));
        for (u, t) in u.iter_mut().zip(&tangent) {
            *u = cosine * *u + sine * t / step;
        }
        let norm = length(&u);
        u.iter_mut().for_each(|u| *u /= norm);
    }
    let scale = (0..count).fold(0.0, |sum, i| sum + products.norm(i)) / count as f64;
    for (&i, c) in long.iter().zip(u) {
        coefficients[i] = c * scale / products.norm(i);
    }
    coefficients
}
