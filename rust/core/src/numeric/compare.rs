//! How two tensors differ.

use crate::numeric::operand::{CHUNK, Operand, PART};
use crate::numeric::simd::{self, Isa};
use crate::numeric::stats::{Comparison, ComparisonLanes};

/// Compares `b` with `a`, element by element, and adds the result to `into`.
///
/// # Panics
/// If the operands do not have the same number of elements.
pub fn compare(isa: Isa, a: Operand, b: Operand, into: &mut Comparison) {
    let elements = a.bytes.len() / a.float.size();
    assert_eq!(a.bytes.len(), elements * a.float.size(), "whole elements");
    assert_eq!(b.bytes.len(), elements * b.float.size(), "operands of equal length");
    let (mut x, mut y, mut distance) = ([0.0; PART], [0.0; PART], [0; PART]);
    for from in (0..elements).step_by(CHUNK) {
        let to = elements.min(from + CHUNK);
        let mut lanes = ComparisonLanes::default();
        let mut figures = Comparison::default();
        let mut parts = |work: &mut dyn FnMut(&[f32], &[f32])| {
            for at in (from..to).step_by(PART) {
                let n = PART.min(to - at);
                simd::widen(isa, a.float, a.bytes_of(at, n), &mut x[..n]);
                simd::widen(isa, b.float, b.bytes_of(at, n), &mut y[..n]);
                work(&x[..n], &y[..n]);
            }
        };
        parts(&mut |x, y| {
            simd::comparison(isa, &mut lanes, x, y);
            if a.float == b.float {
                simd::distances(isa, a.float, x, y, &mut distance[..x.len()]);
                figures.count(&distance[..x.len()]);
            }
        });
        match lanes.fold() {
            Some(sums) => figures.add(&sums),
            None => parts(&mut |x, y| x.iter().zip(y).for_each(|(&x, &y)| figures.element(x, y))),
        }
        figures.elements = (to - from) as u64;
        figures.changed = u64::from(lanes.changed);
        into.add(&figures);
    }
}
