//! The scalar specification of every conversion. Without branches, so that loops over it vectorise, and right whether
//! or not the thread flushes subnormals; only the rounding direction is taken from the thread (nearest, as by default).

const SIGN: u32 = 0x8000_0000;
const INFINITY: u32 = 0x7F80_0000;
/// The NaN that f32 arithmetic here writes, whatever the processor made.
const NAN: u32 = 0x7FC0_0000;
/// The smallest normal f16, 2^-14, as f32.
const F16_NORMAL: u32 = 113 << 23;
/// The largest finite f16, 65504, as f32.
const F16_MAX: u32 = 0x477F_E000;
/// The largest finite bf16 as f32.
const BF16_MAX: u32 = 0x7F7F_0000;

/// Exact.
#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Exact, subnormals and NaN payloads included.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7FFF) << 13;
    // A subnormal is `m · 2^-24`: as the low bits of a number in [2^-14, 2^-13) it costs one exact subtraction, and no
    // f32 subnormal appears on the way.
    let subnormal = (f32::from_bits(magnitude + F16_NORMAL) - f32::from_bits(F16_NORMAL)).to_bits();
    let normal = magnitude + (112 << 23);
    let finite = if magnitude < 1 << 23 { subnormal } else { normal };
    let value = if magnitude >= 31 << 23 { magnitude | INFINITY } else { finite };
    f32::from_bits(value | u32::from(bits & 0x8000) << 16)
}

/// Nearest, ties to even; NaN becomes 0x7FC0.
#[inline(always)]
pub fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
    (if is_nan(bits) { NAN >> 16 } else { rounded }) as u16
}

/// Nearest, ties to even; overflow becomes infinity, NaN becomes 0x7E00.
#[inline(always)]
pub fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let magnitude = bits & !SIGN;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xFFF + (magnitude >> 13 & 1)) >> 13;
    // The unit in the last place of 0.5 is f16's smallest step, so the addition rounds as f16 wants it.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let finite = if magnitude < F16_NORMAL { subnormal } else { normal };
    let number = if magnitude > F16_MAX + 0xFFF { 0x7C00 } else { finite };
    let signed = number | bits >> 16 & 0x8000;
    (if is_nan(bits) { 0x7E00 } else { signed }) as u16
}

/// The value itself; NaN becomes 0x7FC00000.
#[inline(always)]
pub fn f32_to_f32(value: f32) -> f32 {
    if is_nan(value.to_bits()) { f32::from_bits(NAN) } else { value }
}

/// Stochastic: the neighbour away from zero if the discarded part, as a fraction of the step between the neighbours,
/// plus `random / 2^32` reaches 1, else the one towards zero. What bf16 discards is 16 bits, so exactly that fraction
/// of the random numbers rounds up: unbiased. Values of bf16 never change. A finite value beyond the largest finite
/// bf16 rounds to nearest, as do Inf and NaN, so that chance alone never makes an infinity.
#[inline(always)]
pub fn f32_to_bf16_stochastic(value: f32, random: u32) -> u16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(random >> 16) >> 16) as u16;
    if bits & !SIGN > BF16_MAX { f32_to_bf16(value) } else { rounded }
}

/// As [`f32_to_bf16_stochastic`], on the grid of f16 with its subnormals. The discarded fraction is cut to 32 bits,
/// which is exact for magnitudes from 2^-33 and biases smaller ones towards zero by less than 2^-56.
#[inline(always)]
pub fn f32_to_f16_stochastic(value: f32, random: u32) -> u16 {
    let bits = value.to_bits();
    let magnitude = bits & !SIGN;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(random >> 19) >> 13;
    let subnormal = {
        let exponent = (magnitude >> 23).max(1);
        let implicit = if magnitude < 1 << 23 { 0 } else { 1 << 23 };
        let significand = u64::from(magnitude & 0x007F_FFFF | implicit);
        let fixed = (significand << 32) >> 126u32.wrapping_sub(exponent).min(63);
        ((fixed + u64::from(random)) >> 32) as u32
    };
    let finite = if magnitude < F16_NORMAL { subnormal } else { normal };
    if magnitude > F16_MAX { f32_to_f16(value) } else { (finite | bits >> 16 & 0x8000) as u16 }
}

#[inline(always)]
fn is_nan(bits: u32) -> bool {
    bits & !SIGN > INFINITY
}
