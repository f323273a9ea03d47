//! The loops of the kernels, over parts that stay in the first-level cache. Plain safe Rust, written once; simd.rs
//! compiles them per instruction set. No operation is fused or reordered, so every build gives the same bits.

use crate::numeric::convert::{self, bf16_to_f32, f16_to_f32};
use crate::numeric::dtype::Float;
use crate::numeric::operand::Bf16Term;
use crate::numeric::philox;
use crate::numeric::stats::{ComparisonLanes, LANES, Lanes, NAN_APART};

/// `out = bytes`, exactly.
#[inline(always)]
pub(crate) fn widen(float: Float, bytes: &[u8], out: &mut [f32]) {
    match float {
        Float::Bf16 => each(bytes, out, |out, x| *out = bf16_to_f32(u16::from_le_bytes(x))),
        Float::F16 => each(bytes, out, |out, x| *out = f16_to_f32(u16::from_le_bytes(x))),
        Float::F32 => each(bytes, out, |out, x| *out = f32::from_le_bytes(x)),
    }
}

/// `out −= bytes`.
#[inline(always)]
pub(crate) fn subtract(float: Float, bytes: &[u8], out: &mut [f32]) {
    match float {
        Float::Bf16 => each(bytes, out, |out, x| *out -= bf16_to_f32(u16::from_le_bytes(x))),
        Float::F16 => each(bytes, out, |out, x| *out -= f16_to_f32(u16::from_le_bytes(x))),
        Float::F32 => each(bytes, out, |out, x| *out -= f32::from_le_bytes(x)),
    }
}

/// The number of bits that are set.
#[inline(always)]
pub(crate) fn count_ones(mask: &[u64]) -> usize {
    mask.iter().map(|word| word.count_ones() as usize).sum()
}

/// `r = t + α·d`.
#[inline(always)]
pub(crate) fn scale_add(t: &[f32], alpha: f32, d: &[f32], r: &mut [f32]) {
    for ((r, &t), &d) in r.iter_mut().zip(t).zip(d) {
        *r = t + alpha * d;
    }
}

/// `r += α·d` and `v += α·d`.
#[inline(always)]
pub(crate) fn accumulate(alpha: f32, d: &[f32], r: &mut [f32], v: &mut [f32]) {
    for ((r, v), &d) in r.iter_mut().zip(v).zip(d) {
        let m = alpha * d;
        *r += m;
        *v += m;
    }
}

/// `out = round(r)`, to nearest.
#[inline(always)]
pub(crate) fn narrow(float: Float, r: &[f32], out: &mut [u8]) {
    match float {
        Float::Bf16 => each_mut(out, r, |r| convert::f32_to_bf16(r).to_le_bytes()),
        Float::F16 => each_mut(out, r, |r| convert::f32_to_f16(r).to_le_bytes()),
        Float::F32 => each_mut(out, r, |r| convert::f32_to_f32(r).to_le_bytes()),
    }
}

/// `out = round(r)`, stochastically; f32 has nothing to round.
#[inline(always)]
pub(crate) fn narrow_stochastic(float: Float, r: &[f32], random: &[u32], out: &mut [u8]) {
    match float {
        Float::Bf16 => {
            for ((out, &r), &random) in out.as_chunks_mut::<2>().0.iter_mut().zip(r).zip(random) {
                *out = convert::f32_to_bf16_stochastic(r, random).to_le_bytes();
            }
        }
        Float::F16 => {
            for ((out, &r), &random) in out.as_chunks_mut::<2>().0.iter_mut().zip(r).zip(random) {
                *out = convert::f32_to_f16_stochastic(r, random).to_le_bytes();
            }
        }
        Float::F32 => narrow(float, r, out),
    }
}

/// Columns of a tile of the product of two factors.
pub(crate) const COLUMNS: usize = 64;
/// How much of the factors' common dimension is in one tile.
pub(crate) const DEPTH: usize = 64;

/// `sums += left · right`, for the rows of `right` in their order.
#[inline(always)]
pub(crate) fn multiply_add(left: &[[f64; DEPTH]], right: &[[f64; COLUMNS]], sums: &mut [[f64; COLUMNS]]) {
    /// As many sums as fit in the registers.
    const LANES: usize = 16;
    for (left, sums) in left.iter().zip(sums) {
        for (number, sums) in sums.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut lanes = *sums;
            for (&x, right) in left.iter().zip(right) {
                let right = &right.as_chunks::<LANES>().0[number];
                for (lane, &y) in lanes.iter_mut().zip(right) {
                    *lane += x * y;
                }
            }
            *sums = lanes;
        }
    }
}

/// See [`philox::fill`].
#[inline(always)]
pub(crate) fn random(key: [u32; 2], first_block: u64, out: &mut [u32]) {
    philox::fill(key, first_block, out);
}

/// Whether rounding changed any difference. `rounded` are the widened results. All NaN count as equal, whatever their
/// bits.
#[inline(always)]
pub(crate) fn any_lost(d: &[f32], rounded: &[f32]) -> bool {
    d.iter().zip(rounded).fold(false, |any, (&d, &rounded)| any | lost(d, rounded))
}

/// As [`any_lost`], for one difference.
#[inline(always)]
pub(crate) fn lost(d: f32, rounded: f32) -> bool {
    (d.to_bits() != rounded.to_bits()) & !d.is_nan()
}

/// Adds the elements of a part to the sums: target, rounded target, request, widened output. Counts come out the same
/// in any order, so their loop is left to the compiler; sums are dealt to lanes in a loop of their own.
#[inline(always)]
pub(crate) fn statistics(lanes: &mut Lanes, t: &[f32], base: &[f32], v: &[f32], o: &[f32], alpha: f32) {
    let Lanes { mut requested, mut changed, mut survived, mut any_v, mut any_e, .. } = *lanes;
    for (((&t, &base), &v), &o) in t.iter().zip(base).zip(v).zip(o) {
        let asked = u32::from(alpha * v != 0.0);
        let answered = u32::from(o.to_bits() != base.to_bits());
        requested += asked;
        changed += answered;
        survived += asked & answered;
        any_v |= v.to_bits();
        any_e |= (o - t).to_bits();
    }
    let Lanes { mut v2, mut e2, mut ev, .. } = *lanes;
    deal([t, v, o], |[t, v, o]| {
        for i in 0..LANES {
            let e = o[i] - t[i];
            v2[i] += v[i] * v[i];
            e2[i] += e * e;
            ev[i] += e * v[i];
        }
    });
    *lanes = Lanes { v2, e2, ev, any_v, any_e, requested, changed, survived };
}

/// The masks of [`statistics`], where the sums are so small that they decide.
#[inline(always)]
pub(crate) fn masks(term: Bf16Term, out: &[u8], lanes: &mut Lanes) {
    let Bf16Term { target, minuend, subtrahend, .. } = term;
    let wide = |bytes: [u8; 2]| bf16_to_f32(u16::from_le_bytes(bytes));
    let any_apart = |a: &[u8], b: &[u8]| {
        let pairs = a.as_chunks::<2>().0.iter().zip(b.as_chunks::<2>().0);
        pairs.fold(0, |any, (&a, &b)| any | (wide(a) - wide(b)).to_bits())
    };
    lanes.any_v |= match subtrahend {
        Some(subtrahend) => any_apart(minuend, subtrahend),
        None => minuend.as_chunks::<2>().0.iter().fold(0, |any, &v| any | wide(v).to_bits()),
    };
    lanes.any_e |= any_apart(out, target);
}

/// As [`statistics`], for a comparison.
#[inline(always)]
pub(crate) fn comparison(lanes: &mut ComparisonLanes, a: &[f32], b: &[f32]) {
    let ComparisonLanes { mut any_a, mut any_b, mut any_d, mut changed, .. } = *lanes;
    for (&a, &b) in a.iter().zip(b) {
        any_a |= a.to_bits();
        any_b |= b.to_bits();
        any_d |= (b - a).to_bits();
        changed += u32::from(a.to_bits() != b.to_bits());
    }
    let ComparisonLanes { mut a2, mut b2, mut ab, mut d2, .. } = *lanes;
    deal([a, b], |[a, b]| {
        for i in 0..LANES {
            let d = b[i] - a[i];
            a2[i] += a[i] * a[i];
            b2[i] += b[i] * b[i];
            ab[i] += a[i] * b[i];
            d2[i] += d * d;
        }
    });
    *lanes = ComparisonLanes { a2, b2, ab, d2, any_a, any_b, any_d, changed };
}

/// The distance between two values of type `float` in units of the last place. The values are given widened. Two NaN
/// have distance 0.
#[inline(always)]
pub(crate) fn distances(float: Float, a: &[f32], b: &[f32], out: &mut [u32]) {
    match float {
        Float::Bf16 => apart(a, b, out, |bits| bits >> 16),
        Float::F16 => apart(a, b, out, |bits| u32::from(convert::f32_to_f16(f32::from_bits(bits)))),
        Float::F32 => apart(a, b, out, |bits| bits),
    }
}

/// As [`distances`]. `rank` gives the number of values of the type between zero and a positive value.
#[inline(always)]
fn apart(a: &[f32], b: &[f32], out: &mut [u32], rank: impl Fn(u32) -> u32) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        let (x, y) = (rank(a.abs().to_bits()), rank(b.abs().to_bits()));
        let opposite = (a.to_bits() ^ b.to_bits()) >> 31 == 1;
        let distance = if opposite { x + y } else { x.abs_diff(y) };
        let either = if a.is_nan() != b.is_nan() { NAN_APART } else { distance };
        *out = if a.is_nan() & b.is_nan() { 0 } else { either };
    }
}

/// Calls `add` with 16 elements at a time. The last are filled up with zeros, which change no sum: a sum that starts at
/// +0 is never −0.
#[inline(always)]
fn deal<const N: usize>(columns: [&[f32]; N], mut add: impl FnMut([&[f32; LANES]; N])) {
    let whole = columns.map(|column| column.as_chunks::<LANES>().0);
    for i in 0..columns[0].len() / LANES {
        add(whole.map(|column| &column[i]));
    }
    let last = columns.map(|column| {
        let mut last = [0.0; LANES];
        for (to, from) in last.iter_mut().zip(column.as_chunks::<LANES>().1) {
            *to = *from;
        }
        last
    });
    add(last.each_ref());
}

#[inline(always)]
fn each<const N: usize>(bytes: &[u8], out: &mut [f32], step: impl Fn(&mut f32, [u8; N])) {
    for (out, x) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        step(out, *x);
    }
}

#[inline(always)]
fn each_mut<const N: usize>(out: &mut [u8], r: &[f32], round: impl Fn(f32) -> [u8; N]) {
    for (out, &r) in out.as_chunks_mut::<N>().0.iter_mut().zip(r) {
        *out = round(r);
    }
}
