//! Values that kernels are tried on, and how they are stored.

use half::{bf16, f16};
use taskvec_core::numeric::dtype::Float::{self, Bf16, F16, F32};

pub const FLOATS: [Float; 3] = [Bf16, F16, F32];

pub fn load(float: Float, bytes: &[u8]) -> Vec<f32> {
    let half = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
    match float {
        Bf16 => bytes.chunks(2).map(|pair| bf16::from_bits(half(pair)).to_f32()).collect(),
        F16 => bytes.chunks(2).map(|pair| f16::from_bits(half(pair)).to_f32()).collect(),
        F32 => bytes.chunks(4).map(|quad| f32::from_le_bytes([quad[0], quad[1], quad[2], quad[3]])).collect(),
    }
}

/// To nearest; NaN as the specification writes it.
pub fn store(float: Float, values: &[f32]) -> Vec<u8> {
    let one = |&value: &f32| match float {
        Bf16 if value.is_nan() => vec![0xC0, 0x7F],
        F16 if value.is_nan() => vec![0x00, 0x7E],
        F32 if value.is_nan() => vec![0x00, 0x00, 0xC0, 0x7F],
        Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        F32 => value.to_le_bytes().to_vec(),
    };
    values.iter().flat_map(one).collect()
}

pub fn noise(seed: u64) -> impl Iterator<Item = u64> {
    (1u64..).map(move |n| {
        let z = seed.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    })
}

/// Every kind of value: one in two any pattern of bits, the others the corners.
pub fn wild(float: Float, n: usize, seed: u64) -> Vec<u8> {
    let corners: &[u32] = match float {
        Bf16 => &[0, 0x8000, 1, 0x8001, 0x7F, 0x80, 0x3F80, 0xBF80, 0x3F81, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7F81],
        F16 => &[0, 0x8000, 1, 0x8001, 0x3FF, 0x400, 0x3C00, 0xBC00, 0x3C01, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7C01],
        F32 => {
            &[0, 1 << 31, 1, 0x007F_FFFF, 0x3F80_8000, 0xBF80_8001, 0x7F7F_FFFF, 0xFF7F_FFFF, 0x7F80_0000, 0x7F80_0001]
        }
    };
    let one = |x: u64| {
        let bits = if x.is_multiple_of(2) { (x >> 32) as u32 } else { corners[(x >> 8) as usize % corners.len()] };
        bits.to_le_bytes()[..float.size()].to_vec()
    };
    noise(seed).take(n).flat_map(one).collect()
}

/// Numbers of the size of weights. Of equal seeds, a greater `moved` moves more of them a little.
pub fn tame(float: Float, n: usize, seed: u64, moved: u64) -> Vec<u8> {
    let one = |x: u64| ((x >> 40) as f32 / (1 << 24) as f32 - 0.5) * if x % 100 < moved { 0.0502 } else { 0.05 };
    store(float, &noise(seed).take(n).map(one).collect::<Vec<_>>())
}
