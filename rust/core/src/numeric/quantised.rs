//! Codes of four and eight bits as f32, times their scales. Plain safe Rust, written once; simd.rs compiles it per
//! instruction set.

/// A format of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codes {
    /// F8_E4M3 (the finite variant, `float8_e4m3fn`): one byte each. Code 0x7F and its negative are NaN.
    E4m3,
    /// E2M1, the 4-bit float: two in a byte, the low half first.
    E2m1,
    /// Integers from −8 to 7, stored as value + 8: two in a byte, the low half first.
    Int4,
}

impl Codes {
    /// Its name in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::E4m3 => "F8_E4M3",
            Self::E2m1 => "F4",
            Self::Int4 => "I4",
        }
    }

    /// Bits of one code.
    pub const fn bits(self) -> u64 {
        match self {
            Self::E4m3 => 8,
            Self::E2m1 | Self::Int4 => 4,
        }
    }
}

/// The value of an E4M3 code.
#[inline(always)]
pub fn e4m3(code: u8) -> f32 {
    let magnitude = u32::from(code & 0x7F);
    // The exponent and the mantissa move to their places in an f32, and the bias grows from 7 to 127.
    let normal = (magnitude << 20) + (120 << 23);
    // The smallest codes have no leading one: they are multiples of 2^-9.
    let small = (magnitude as i32 as f32 * 2f32.powi(-9)).to_bits();
    let bits = if magnitude < 8 { small } else { normal };
    let bits = if magnitude == 0x7F { 0x7FC0_0000 } else { bits };
    f32::from_bits(bits | u32::from(code & 0x80) << 24)
}

/// The value of an E2M1 code.
#[inline(always)]
fn e2m1(code: u8) -> f32 {
    let magnitude = u32::from(code & 7);
    let normal = (magnitude << 22) + (126 << 23);
    let small = (magnitude as i32 as f32 * 0.5).to_bits();
    let bits = if magnitude < 2 { small } else { normal };
    f32::from_bits(bits | u32::from(code & 8) << 28)
}

/// The value of an integer code.
#[inline(always)]
fn int4(code: u8) -> f32 {
    (i32::from(code) - 8) as f32
}

/// A power of two as the exponent byte of E8M0 has it. 255 is NaN, and 0 is 2^-127.
#[inline(always)]
pub fn e8m0(code: u8) -> f32 {
    f32::from_bits(match code {
        0 => 0x0040_0000,
        255 => 0x7FC0_0000,
        code => u32::from(code) << 23,
    })
}

/// Consecutive codes of one row, whose scales change every `group` codes. The first code is number `first` of its group
/// and has scale `scales[0]`. `out` is f32, little-endian. If two codes are in a byte, `codes` begins with the byte of
/// the first one, which is the upper half of it where `first` is odd.
#[inline(always)]
pub(crate) fn dequantise(kind: Codes, codes: &[u8], first: usize, group: usize, scales: &[f32], out: &mut [u8]) {
    let out = out.as_chunks_mut::<4>().0;
    match kind {
        Codes::E4m3 => {
            let mut at = 0;
            for (number, &scale) in scales.iter().enumerate() {
                let end = ((number + 1) * group - first).min(out.len());
                for (out, &code) in out[at..end].iter_mut().zip(&codes[at..end]) {
                    *out = (e4m3(code) * scale).to_le_bytes();
                }
                at = end;
            }
        }
        Codes::E2m1 => halves(codes, first, group, scales, out, e2m1),
        Codes::Int4 => halves(codes, first, group, scales, out, int4),
    }
}

/// As [`dequantise`], for two codes a byte.
#[inline(always)]
fn halves(
    codes: &[u8],
    first: usize,
    group: usize,
    scales: &[f32],
    out: &mut [[u8; 4]],
    value: impl Fn(u8) -> f32 + Copy,
) {
    let skip = first % 2;
    let mut at = 0;
    for (number, &scale) in scales.iter().enumerate() {
        let end = ((number + 1) * group - first).min(out.len());
        // Up to the first element that begins a byte, then whole bytes, then perhaps half of one.
        while at < end && (at + skip) % 2 == 1 {
            out[at] = (value(codes[(at + skip) / 2] >> 4) * scale).to_le_bytes();
            at += 1;
        }
        let bytes = &codes[((at + skip) / 2).min(codes.len())..];
        let (pairs, rest) = out[at..end].as_chunks_mut::<2>();
        for (pair, &byte) in pairs.iter_mut().zip(bytes) {
            *pair = [byte & 15, byte >> 4].map(|code| (value(code) * scale).to_le_bytes());
        }
        if let [last] = rest {
            *last = (value(bytes[pairs.len()] & 15) * scale).to_le_bytes();
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_value_of_its_format() {
        for code in 0..=255u8 {
            let (sign, exponent, mantissa) = (code >> 7, i32::from(code >> 3 & 15), f64::from(code & 7));
            let value = match (exponent, mantissa) {
                (15, 7.0) => f64::NAN,
                (0, m) => m / 8.0 * 2f64.powi(-6),
                (e, m) => (1.0 + m / 8.0) * 2f64.powi(e - 7),
            };
            let found = e4m3(code);
            assert_eq!(found.is_nan(), value.is_nan(), "{code}");
            assert!(value.is_nan() || f64::from(found.abs()) == value, "{code}: {found} {value}");
            assert_eq!(found.is_sign_negative(), sign == 1, "{code}");
            let power = e8m0(code);
            assert!(if code == 255 { power.is_nan() } else { f64::from(power) == 2f64.powi(i32::from(code) - 127) });
        }
        let four = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        for code in 0..16u8 {
            let value = e2m1(code);
            assert_eq!(value.abs(), four[usize::from(code & 7)]);
            assert_eq!(value.is_sign_negative(), code > 7);
            assert_eq!(int4(code), f32::from(code) - 8.0);
        }
    }
}
