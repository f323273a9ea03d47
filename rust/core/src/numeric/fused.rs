//! The commonest case of [`combine`](crate::numeric::combine::combine) in one pass that keeps everything in registers:
//! bfloat16 in and out, one term, rounded to nearest, on AVX2.
//!
//! For 16 elements at a time:
//!
//! ```text
//! d = g − s            (a stored vector is d itself)
//! r = t + α·d
//! o = round(r)         as integers: add 0x7FFF and the last bit that stays, cut 16 bits off
//! sums: d², (o − t)², (o − t)·d;   counts: α·d ≠ 0, o = t, both
//! ```
//!
//! Bits and figures are those of the loops in loops.rs. Rounding done so is wrong for NaN alone: then the answer is
//! false, and the caller computes the chunk by those loops.
#![allow(unsafe_code, reason = "loads and stores of whole registers, within arrays of their size")]

use std::arch::x86_64::{
    __m256, __m256i, _CMP_NEQ_UQ, _CMP_UNORD_Q, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_andnot_si256,
    _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cmpeq_epi16, _mm256_loadu_si256,
    _mm256_movemask_ps, _mm256_mul_ps, _mm256_or_ps, _mm256_packs_epi32, _mm256_packus_epi32, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_srli_epi32, _mm256_storeu_ps, _mm256_storeu_si256,
    _mm256_sub_epi16, _mm256_sub_ps, _mm256_unpackhi_epi16, _mm256_unpacklo_epi16,
};

use crate::numeric::operand::Bf16Term;
use crate::numeric::stats::{LANES, Lanes};

/// Bytes of 16 elements: one register of bfloat16, two of float32.
const STEP: usize = 2 * LANES;
type Block = [u8; STEP];

/// Two registers of float32. Unpacking interleaves within halves of a register: elements 0 to 3 and 8 to 11 are in the
/// first, the others in the second, and packing undoes it.
type Wide = [__m256; 2];

/// Computes `out`, and adds to `lanes` if the figures are wanted. False where a result may be NaN: nothing that was
/// written counts then.
///
/// At most 65,535 blocks of 16 elements: counts are kept in 16 bits.
#[target_feature(enable = "avx2")]
pub(super) fn combine(operands: Bf16Term, out: &mut [u8], lanes: Option<&mut Lanes>) -> bool {
    match (operands.subtrahend, lanes) {
        (Some(subtrahend), Some(lanes)) => with_statistics::<true>(&operands, subtrahend, out, lanes),
        (None, Some(lanes)) => with_statistics::<false>(&operands, &[], out, lanes),
        (Some(subtrahend), None) => bare::<true>(&operands, subtrahend, out),
        (None, None) => bare::<false>(&operands, &[], out),
    }
}

/// Without PAIR the minuend is the difference itself.
#[target_feature(enable = "avx2")]
fn bare<const PAIR: bool>(operands: &Bf16Term, subtrahend: &[u8], out: &mut [u8]) -> bool {
    let alpha = _mm256_set1_ps(operands.alpha);
    let mut unordered = _mm256_setzero_ps();
    each::<PAIR>(operands, subtrahend, out, |t, g, s, out| {
        let (t, d) = (widen(load(t)), difference::<PAIR>(g, s));
        let r = [0, 1].map(|half| _mm256_add_ps(t[half], _mm256_mul_ps(alpha, d[half])));
        // True where either of the two is NaN.
        unordered = _mm256_or_ps(unordered, _mm256_cmp_ps::<_CMP_UNORD_Q>(r[0], r[1]));
        store(out, pack(r.map(|r| round(r))));
    });
    _mm256_movemask_ps(unordered) == 0
}

#[target_feature(enable = "avx2")]
fn with_statistics<const PAIR: bool>(
    operands: &Bf16Term,
    subtrahend: &[u8],
    out: &mut [u8],
    lanes: &mut Lanes,
) -> bool {
    let (alpha, zero, keep) = (_mm256_set1_ps(operands.alpha), _mm256_setzero_ps(), _mm256_set1_epi32(!0xFFFF));
    let [mut v2, mut e2, mut ev] = [[zero; 2]; 3];
    let [mut asked, mut same, mut survived] = [_mm256_setzero_si256(); 3];
    let mut blocks = 0;
    each::<PAIR>(operands, subtrahend, out, |t, g, s, out| {
        let (narrow, d) = (load(t), difference::<PAIR>(g, s));
        let t = widen(narrow);
        let m = d.map(|d| _mm256_mul_ps(alpha, d));
        let rounded = [0, 1].map(|half| round(_mm256_add_ps(t[half], m[half])));
        let o = pack(rounded);
        store(out, o);
        for half in [0, 1] {
            let wide = _mm256_castsi256_ps(_mm256_and_si256(rounded[half], keep));
            let (d, e) = (d[half], _mm256_sub_ps(wide, t[half]));
            v2[half] = _mm256_add_ps(v2[half], _mm256_mul_ps(d, d));
            e2[half] = _mm256_add_ps(e2[half], _mm256_mul_ps(e, e));
            ev[half] = _mm256_add_ps(ev[half], _mm256_mul_ps(e, d));
        }
        let wants = m.map(|m| _mm256_castps_si256(_mm256_cmp_ps::<_CMP_NEQ_UQ>(m, zero)));
        let wants = _mm256_packs_epi32(wants[0], wants[1]);
        let stays = _mm256_cmpeq_epi16(o, narrow);
        // A mask is −1 where it holds.
        asked = _mm256_sub_epi16(asked, wants);
        same = _mm256_sub_epi16(same, stays);
        survived = _mm256_sub_epi16(survived, _mm256_andnot_si256(stays, wants));
        blocks += 1;
    });
    lanes.requested += count(asked);
    // What fills the last block up stays as it is.
    lanes.changed += blocks * LANES as u32 - count(same);
    lanes.survived += count(survived);
    for (sums, found) in [(&mut lanes.v2, v2), (&mut lanes.e2, e2), (&mut lanes.ev, ev)] {
        add(sums, found);
    }
    // A result is NaN only where an input, a difference or an error is not finite, and then so is a sum of squares.
    lanes.v2.iter().chain(&lanes.e2).all(|sum| sum.is_finite())
}

/// Calls `step` with the operands' blocks of 16 elements; the last one is filled up with zeros.
#[inline(always)]
fn each<const PAIR: bool>(
    Bf16Term { target, minuend, .. }: &Bf16Term,
    subtrahend: &[u8],
    out: &mut [u8],
    mut step: impl FnMut(&Block, &Block, &Block, &mut Block),
) {
    let (t, last_t) = target.as_chunks::<STEP>();
    let (g, last_g) = minuend.as_chunks::<STEP>();
    let (s, last_s) = if PAIR { subtrahend.as_chunks::<STEP>() } else { (g, last_g) };
    let (o, last_o) = out.as_chunks_mut::<STEP>();
    for (((o, t), g), s) in o.iter_mut().zip(t).zip(g).zip(s) {
        step(t, g, s, o);
    }
    if !last_o.is_empty() {
        let filled = |last: &[u8]| {
            let mut block = [0; STEP];
            block[..last.len()].copy_from_slice(last);
            block
        };
        let mut block = [0; STEP];
        step(&filled(last_t), &filled(last_g), &filled(last_s), &mut block);
        last_o.copy_from_slice(&block[..last_o.len()]);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn difference<const PAIR: bool>(minuend: &Block, subtrahend: &Block) -> Wide {
    let g = widen(load(minuend));
    if !PAIR {
        return g;
    }
    let s = widen(load(subtrahend));
    [_mm256_sub_ps(g[0], s[0]), _mm256_sub_ps(g[1], s[1])]
}

/// A bfloat16 is the upper half of a float32.
#[inline]
#[target_feature(enable = "avx2")]
fn widen(narrow: __m256i) -> Wide {
    let zero = _mm256_setzero_si256();
    [_mm256_unpacklo_epi16(zero, narrow), _mm256_unpackhi_epi16(zero, narrow)].map(|x| _mm256_castsi256_ps(x))
}

/// To nearest, ties to even: the result is the upper half of each element; the lower half is of no use.
#[inline]
#[target_feature(enable = "avx2")]
fn round(r: __m256) -> __m256i {
    let bits = _mm256_castps_si256(r);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)))
}

/// The upper halves, in the order of the elements.
#[inline]
#[target_feature(enable = "avx2")]
fn pack(rounded: [__m256i; 2]) -> __m256i {
    _mm256_packus_epi32(_mm256_srli_epi32::<16>(rounded[0]), _mm256_srli_epi32::<16>(rounded[1]))
}

/// Adds sums to the lanes of their elements.
#[target_feature(enable = "avx2")]
fn add(sums: &mut [f32; LANES], found: Wide) {
    let found = found.map(|half| {
        let mut values = [0.0; 8];
        // SAFETY: eight float32 fill a register.
        unsafe { _mm256_storeu_ps(values.as_mut_ptr(), half) };
        values
    });
    for (lane, sum) in sums.iter_mut().enumerate() {
        // Lanes 0 to 3 and 8 to 11 are those of the first register.
        let place = lane % 4 + if lane < 8 { 0 } else { 4 };
        *sum += found[lane / 4 % 2][place];
    }
}

/// The sum of 16 counts.
#[target_feature(enable = "avx2")]
fn count(counts: __m256i) -> u32 {
    let mut bytes = [0; STEP];
    store(&mut bytes, counts);
    bytes.as_chunks::<2>().0.iter().map(|&count| u32::from(u16::from_le_bytes(count))).sum()
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(block: &Block) -> __m256i {
    // SAFETY: reads the 32 bytes of the block, at any alignment.
    unsafe { _mm256_loadu_si256(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(block: &mut Block, value: __m256i) {
    // SAFETY: writes the 32 bytes of the block, at any alignment.
    unsafe { _mm256_storeu_si256(block.as_mut_ptr().cast(), value) };
}
