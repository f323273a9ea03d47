//! The loops of the kernels, over parts that stay in the first-level cache. Plain safe Rust, written once; simd.rs compiles
//! them per instruction set. No operation is fused or reordered, so every build gives the same bits.

use crate::dtype::Float;
use crate::float::{self, bf16_to_f32, f16_to_f32};
use crate::philox;
use crate::stats::{ComparisonLanes, LANES, Lanes};

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
        Float::Bf16 => each_mut(out, r, |r| float::f32_to_bf16(r).to_le_bytes()),
        Float::F16 => each_mut(out, r, |r| float::f32_to_f16(r).to_le_bytes()),
        Float::F32 => each_mut(out, r, |r| float::f32_to_f32(r).to_le_bytes()),
    }
}

/// `out = round(r)`, stochastically; f32 has nothing to round.
#[inline(always)]
pub(crate) fn narrow_stochastic(float: Float, r: &[f32], random: &[u32], out: &mut [u8]) {
    match float {
        Float::Bf16 => {
            for ((out, &r), &random) in out.as_chunks_mut::<2>().0.iter_mut().zip(r).zip(random) {
                *out = float::f32_to_bf16_stochastic(r, random).to_le_bytes();
            }
        }
        Float::F16 => {
            for ((out, &r), &random) in out.as_chunks_mut::<2>().0.iter_mut().zip(r).zip(random) {
                *out = float::f32_to_f16_stochastic(r, random).to_le_bytes();
            }
        }
        Float::F32 => narrow(float, r, out),
    }
}

/// See [`philox::fill`].
#[inline(always)]
pub(crate) fn random(key: [u32; 2], first_block: u64, out: &mut [u32]) {
    philox::fill(key, first_block, out);
}

/// Whether a difference is lost by rounding: `rounded` is the widened result. NaN is a class, whatever its bits.
#[inline(always)]
pub(crate) fn any_lost(d: &[f32], rounded: &[f32]) -> bool {
    d.iter().zip(rounded).fold(false, |any, (&d, &rounded)| any | lost(d, rounded))
}

/// See [`any_lost`].
#[inline(always)]
pub(crate) fn lost(d: f32, rounded: f32) -> bool {
    (d.to_bits() != rounded.to_bits()) & !d.is_nan()
}

/// Deals the elements of a part to the lanes: target, rounded target, request, widened output.
#[inline(always)]
pub(crate) fn statistics(lanes: &mut Lanes, t: &[f32], base: &[f32], v: &[f32], o: &[f32], alpha: f32) {
    let mut sums = *lanes;
    let mut step = |i: usize, t: f32, base: f32, v: f32, o: f32| {
        let e = o - t;
        let requested = u32::from(alpha * v != 0.0);
        let changed = u32::from(o.to_bits() != base.to_bits());
        sums.v2[i] += v * v;
        sums.e2[i] += e * e;
        sums.ev[i] += e * v;
        sums.any_v[i] |= v.to_bits();
        sums.any_e[i] |= e.to_bits();
        sums.requested[i] += requested;
        sums.changed[i] += changed;
        sums.survived[i] += requested & changed;
    };
    let (t, base) = (t.as_chunks::<LANES>(), base.as_chunks::<LANES>());
    let (v, o) = (v.as_chunks::<LANES>(), o.as_chunks::<LANES>());
    for (((t, base), v), o) in t.0.iter().zip(base.0).zip(v.0).zip(o.0) {
        for i in 0..LANES {
            step(i, t[i], base[i], v[i], o[i]);
        }
    }
    for (i, (((&t, &base), &v), &o)) in t.1.iter().zip(base.1).zip(v.1).zip(o.1).enumerate() {
        step(i, t, base, v, o);
    }
    *lanes = sums;
}

/// Deals the elements of a part of a comparison to the lanes.
#[inline(always)]
pub(crate) fn comparison(lanes: &mut ComparisonLanes, a: &[f32], b: &[f32]) {
    let mut sums = *lanes;
    let mut step = |i: usize, a: f32, b: f32| {
        let d = b - a;
        sums.a2[i] += a * a;
        sums.b2[i] += b * b;
        sums.ab[i] += a * b;
        sums.d2[i] += d * d;
        sums.any_a[i] |= a.to_bits();
        sums.any_b[i] |= b.to_bits();
        sums.any_d[i] |= d.to_bits();
        sums.changed[i] += u32::from(a.to_bits() != b.to_bits());
    };
    let (a, b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.0.iter().zip(b.0) {
        for i in 0..LANES {
            step(i, a[i], b[i]);
        }
    }
    for (i, (&a, &b)) in a.1.iter().zip(b.1).enumerate() {
        step(i, a, b);
    }
    *lanes = sums;
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
