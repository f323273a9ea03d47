//! Codes of four and eight bits as f32, times their scales. Plain safe Rust, written once; simd.rs compiles it per
//! instruction set.

pub(crate) mod encode;

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

    /// The largest magnitude of a code.
    pub const fn most(self) -> f32 {
        match self {
            Self::E4m3 => 448.0,
            Self::E2m1 => 6.0,
            Self::Int4 => 7.0,
        }
    }

    /// The least and the largest value that are stored with no more than the error that any value may have: half a step.
    pub const fn limits(self) -> [f32; 2] {
        match self {
            Self::E4m3 => [-464.0, 464.0],
            Self::E2m1 => [-7.0, 7.0],
            Self::Int4 => [-8.5, 7.5],
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

impl Codes {
    /// The value of a code.
    #[inline(always)]
    pub fn value(self, code: u8) -> f32 {
        match self {
            Self::E4m3 => e4m3(code),
            Self::E2m1 => e2m1(code),
            Self::Int4 => int4(code),
        }
    }

    /// The code of the distance between the neighbours of a code.
    #[inline(always)]
    pub fn step(self, code: u8) -> u8 {
        match self {
            // The exponents 0 and 1 have the same distance, the smallest code. Small powers of two have no leading one.
            Self::E4m3 => match (code & 0x7F) >> 3 {
                exponent @ 0..4 => 1 << exponent.saturating_sub(1),
                exponent => (exponent - 3) << 3,
            },
            Self::E2m1 => 1 << ((code & 7) >> 1).saturating_sub(1),
            Self::Int4 => 9,
        }
    }

    /// The code of a value, to nearest, ties to even; what is too large becomes the largest. Only E4M3 has a code for
    /// NaN.
    #[inline(always)]
    pub fn nearest(self, x: f32) -> u8 {
        match self {
            Self::E4m3 => {
                small_float::<3, 9>(x, |bits| (bits + 0x7_FFFF + (bits >> 20 & 1)) >> 20, f32::round_ties_even)
            }
            Self::E2m1 => {
                small_float::<1, 1>(x, |bits| (bits + 0x1F_FFFF + (bits >> 22 & 1)) >> 22, f32::round_ties_even)
            }
            Self::Int4 => (x.round_ties_even().clamp(-8.0, 7.0) as i32 + 8) as u8,
        }
    }

    /// The code of a value, upwards or downwards by chance, so that the mean of many is the value. `random` are 32
    /// random bits: the upper ones decide.
    #[inline(always)]
    pub fn stochastic(self, x: f32, random: u32) -> u8 {
        let chance = f64::from(random) / f64::from(1u32 << 16) / f64::from(1u32 << 16);
        let whole = |x: f32| x.floor() + f32::from(u8::from(chance < f64::from(x) - f64::from(x.floor())));
        match self {
            Self::E4m3 => small_float::<3, 9>(x, |bits| (bits + (random >> 12)) >> 20, whole),
            Self::E2m1 => small_float::<1, 1>(x, |bits| (bits + (random >> 10)) >> 22, whole),
            Self::Int4 => (whole(x).clamp(-8.0, 7.0) as i32 + 8) as u8,
        }
    }
}

/// The code of a float with so many bits of mantissa, whose smallest step is 2^-`STEP`. `normal` cuts the bits of an f32
/// to those of the mantissa, `whole` makes a whole number of steps; both round. Both are computed for every value, so
/// that loops over it have no branch.
#[inline(always)]
fn small_float<const MANTISSA: u32, const STEP: i32>(
    x: f32,
    normal: impl Fn(u32) -> u32,
    whole: impl Fn(f32) -> f32,
) -> u8 {
    // Sign, and all bits of the largest code: E4M3's are those of 448, because all ones are NaN.
    let (sign, most, nan) = if MANTISSA == 3 { (0x80, 0x7E, 0x7F) } else { (8, 7, 0) };
    let magnitude = x.abs();
    let steps = magnitude * (1 << STEP) as f32;
    // As the low bits of 2^23, a whole number needs no conversion.
    let small = (whole(steps) + 8_388_608.0).to_bits() & 0xFF;
    // The exponent of the first number with a leading one is 1.
    let bias = (127 - STEP + MANTISSA as i32 - 1) as u32;
    let large = normal(magnitude.to_bits()).wrapping_sub(bias << MANTISSA).min(most);
    let code = if steps < (1 << MANTISSA) as f32 { small } else { large };
    let signed = code | if x.is_sign_negative() { sign } else { 0 };
    // The sign of a NaN says nothing: processors differ in it.
    (if x.is_nan() { nan } else { signed }) as u8
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

/// How much of Σ d² is there only because `d` is a difference of values on coarse grids, at most. `steps` are the
/// distances of neighbouring grid values: the minuend's and the subtrahend's, 0 for one that is on no grid.
///
/// Rounding to a grid of step u adds an error of variance u²/12, and two independent ones add up. Values on the same grid
/// err alike where they differ by less than a step, so that some differences are a whole step and the others 0. A mean
/// of magnitudes is right in spite of that, and Σ d² less that of equal magnitudes, (Σ |d|)² / n, is a bound, too.
/// The smaller one counts. Elements that are not finite are left out.
pub(crate) fn grid_noise(d: &[f32], steps: [&[f32]; 2]) -> f64 {
    #[derive(Default)]
    struct Sums {
        n: f64,
        absolute: f64,
        squares: f64,
        grid: f64,
    }
    let mut alike = Sums::default();
    let mut apart = Sums::default();
    for ((&d, &one), &other) in d.iter().zip(steps[0]).zip(steps[1]) {
        if !(d.is_finite() && one.is_finite() && other.is_finite()) {
            continue;
        }
        // Grids whose steps differ by a power of two have the same points, but for the range.
        let same = (one.to_bits() ^ other.to_bits()) & 0x7F_FFFF == 0 && one != 0.0 && other != 0.0;
        let sums = if same { &mut alike } else { &mut apart };
        let [d, one, other] = [d, one, other].map(f64::from);
        sums.n += 1.0;
        sums.absolute += d.abs();
        sums.squares += d * d;
        sums.grid += (one * one + other * other) / 12.0;
    }
    let spread = alike.squares - alike.absolute * alike.absolute / alike.n.max(1.0);
    spread.max(0.0).min(alike.grid) + apart.squares.min(apart.grid)
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

    #[test]
    fn a_step_is_the_distance_to_the_next_value() {
        for kind in ALL {
            let codes = ascending(kind);
            let positive: Vec<_> = codes.iter().filter(|(x, _)| x.is_sign_positive()).collect();
            for pair in positive.windows(2).filter(|pair| pair[0].0 < pair[1].0) {
                let [(low, code), (high, _)] = [pair[0], pair[1]];
                assert_eq!(kind.value(kind.step(*code)), high - low, "{kind:?} {code}");
            }
        }
        assert_eq!(Codes::E4m3.step(0x80 | 0x31), Codes::E4m3.step(0x31));
    }

    #[test]
    fn noise_of_a_grid_is_bounded_in_two_ways() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        // The same grid, one of four differs by a step: 1 − 1/4 of the square.
        close(grid_noise(&[0.0, 0.5, 0.0, 0.0], [&[0.5; 4], &[1.0; 4]]), 0.25 * 0.75_f64.min(4.0 * 1.25 / 12.0 / 0.25));
        // Far apart: what two grids add.
        close(grid_noise(&[8.0, -1.0], [&[0.5; 2]; 2]), 2.0 * 0.5 / 12.0);
        // One grid only, and grids of other points.
        close(grid_noise(&[8.0, 0.0], [&[0.5; 2], &[0.0; 2]]), 2.0 * 0.25 / 12.0);
        close(grid_noise(&[0.1, 0.0], [&[0.5; 2], &[0.7; 2]]), f64::from(0.1_f32).powi(2));
        close(grid_noise(&[f32::NAN], [&[0.5], &[0.5]]), 0.0);
    }

    /// All codes of a format that are numbers, ascending by value.
    fn ascending(kind: Codes) -> Vec<(f32, u8)> {
        let codes = 0..=if kind == Codes::E4m3 { 255 } else { 15 };
        let mut all: Vec<(f32, u8)> = codes.map(|code| (kind.value(code), code)).filter(|(x, _)| !x.is_nan()).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all
    }

    const ALL: [Codes; 3] = [Codes::E4m3, Codes::E2m1, Codes::Int4];

    #[test]
    fn rounding_to_nearest_takes_the_closest_code_and_of_two_the_even_one() {
        for kind in ALL {
            let codes = ascending(kind);
            for &(x, code) in &codes {
                assert_eq!(kind.nearest(x), code, "{kind:?} {x}");
            }
            for pair in codes.windows(2).filter(|pair| pair[0].0 < pair[1].0) {
                let [(low, below), (high, above)] = [pair[0], pair[1]];
                let middle = f32::midpoint(low, high);
                let even = if kind.nearest(middle) == below { below } else { above };
                assert_eq!(even % 2, 0, "{kind:?} {middle}");
                assert_eq!((kind.nearest(middle.next_down()), kind.nearest(middle.next_up())), (below, above));
            }
            let (least, most) = (codes[0], codes[codes.len() - 1]);
            for x in [most.0 * 1.03, f32::MAX, f32::INFINITY] {
                assert_eq!((kind.nearest(x), kind.stochastic(x, 5)), (most.1, most.1));
                assert_eq!(kind.nearest(-x.max(9.0)), least.1);
            }
        }
        assert_eq!([f32::NAN, -f32::NAN, -0.0].map(|x| Codes::E4m3.nearest(x)), [0x7F, 0x7F, 0x80]);
    }

    #[test]
    fn stochastic_rounding_is_a_neighbour_with_the_right_chance() {
        for kind in ALL {
            for pair in ascending(kind).windows(2).filter(|pair| pair[0].0 < pair[1].0) {
                let [(low, below), (high, above)] = [pair[0], pair[1]];
                for part in [0.0, 0.25, 0.625] {
                    let x = low + (high - low) * part;
                    let up = (0..64u32).filter(|i| {
                        let code = kind.stochastic(x, i << 26 | 0x1234);
                        assert!(code == below || code == above || kind.value(code) == x, "{kind:?} {x} {code}");
                        code == above
                    });
                    // Away from zero is up for positive numbers only.
                    assert_eq!(up.count(), (64.0 * part) as usize, "{kind:?} {x} between {low} and {high}");
                }
            }
        }
    }
}
