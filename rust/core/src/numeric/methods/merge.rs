//! The results of a formula, rounded to the output's type, with their figures.

use crate::numeric::dtype::Float;
use crate::numeric::operand::Rounding;
use crate::numeric::philox;
use crate::numeric::simd::{self, Isa};
use crate::numeric::stats::{self, Element, Stats};

/// Rounds values, the first of which has this index in its tensor, to the output's type.
pub fn round(isa: Isa, values: &[f32], first: u64, to: Float, rounding: &Rounding, out: &mut [u8]) {
    match *rounding {
        Rounding::Stochastic { key } if to != Float::F32 => {
            simd::narrow_stochastic(isa, to, values, &philox::words(isa, key, first, values.len()), out);
        }
        _ => simd::narrow(isa, to, values, out),
    }
}

/// The figures of elements: `operands` are their values, those of the base or the first model first, `values` the results
/// and `out` these as they were rounded. The request is the difference between result and base, before it is rounded.
pub fn figures(
    isa: Isa,
    operands: &[&[f32]],
    values: &[f32],
    first: u64,
    to: Float,
    rounding: &Rounding,
    out: &[u8],
) -> Stats {
    let base = operands[0];
    let mut bytes = vec![0; out.len()];
    round(isa, base, first, to, rounding, &mut bytes);
    let (mut rounded, mut written) = (vec![0.0; base.len()], vec![0.0; base.len()]);
    simd::widen(isa, to, &bytes, &mut rounded);
    simd::widen(isa, to, out, &mut written);
    let request: Vec<f32> = values.iter().zip(base).map(|(value, base)| value - base).collect();
    let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
    if operands.iter().all(|values| finite(values)) && finite(&written) {
        return stats::of_values(isa, base, &rounded, &request, &written, 1.0);
    }
    let mut figures = Stats::default();
    for i in 0..base.len() {
        let bad_input = operands.iter().any(|values| !values[i].is_finite());
        figures.element(Element { bad_input, t: base[i], base: rounded[i], v: request[i], o: written[i] }, 1.0);
    }
    figures
}
