//! Sums over elements in f64, in an order that does not depend on how the work is split: 16 lanes for each group, folded
//! from the first to the last.

const LANES: usize = 16;

/// `Σ f(i)` for `i` below `count`.
#[inline(always)]
pub(super) fn sum(count: usize, f: impl Fn(usize) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let whole = count / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(at + lane);
        }
    }
    for (lane, at) in (whole..count).enumerate() {
        lanes[lane] += f(at);
    }
    lanes.iter().fold(0.0, |sum, lane| sum + lane)
}

/// The number of pairs of so many vectors, each with itself included.
pub(super) const fn pairs(vectors: usize) -> usize {
    vectors * (vectors + 1) / 2
}

/// Dot products of all pairs of vectors, as they are measured: of each vector with itself and those after it.
#[derive(Clone, Debug)]
pub(super) struct Gram<'a> {
    vectors: usize,
    products: &'a [f64],
}

impl<'a> Gram<'a> {
    /// The products of so many vectors.
    pub const fn new(vectors: usize, products: &'a [f64]) -> Self {
        Self { vectors, products }
    }

    /// The dot product of two of them.
    pub fn dot(&self, a: usize, b: usize) -> f64 {
        let (a, b) = (a.min(b), a.max(b));
        self.products[a * self.vectors - a * (a + 1) / 2 + b]
    }

    /// The length of one.
    pub fn norm(&self, a: usize) -> f64 {
        self.dot(a, a).sqrt()
    }

    /// The cosine between two, between −1 and 1. A shorter length than `least` counts as `instead`.
    pub fn cosine(&self, a: usize, b: usize, least: f64, instead: f64) -> f64 {
        let norm = |a| Some(self.norm(a)).filter(|&norm| norm > least).unwrap_or(instead);
        (self.dot(a, b) / norm(a) / norm(b)).clamp(-1.0, 1.0)
    }
}

/// Adds the dot products of the elements `within` of some vectors. With a base, they are those of the differences from it.
pub(super) fn add_products(base: Option<&[f32]>, rows: &[Vec<f32>], within: std::ops::Range<usize>, sums: &mut [f64]) {
    let mut at = 0;
    for (number, a) in rows.iter().enumerate() {
        for b in &rows[number..] {
            let (a, b) = (&a[within.clone()], &b[within.clone()]);
            sums[at] += match base {
                None => sum(a.len(), |i| f64::from(a[i]) * f64::from(b[i])),
                Some(base) => {
                    let base = &base[within.clone()];
                    sum(a.len(), |i| f64::from(a[i] - base[i]) * f64::from(b[i] - base[i]))
                }
            };
            at += 1;
        }
    }
}
