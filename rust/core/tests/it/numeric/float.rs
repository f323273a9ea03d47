//! Conversions and random bits, against the half crate and published vectors.

use half::{bf16, f16};
use taskvec_core::numeric::convert::{
    bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_bf16_stochastic, f32_to_f16, f32_to_f16_stochastic, f32_to_f32,
};
use taskvec_core::numeric::philox::{block, key};

/// All values of bf16 and f16, the ties between them, the f32 neighbours of both, and patterns spread over all others.
fn interesting() -> impl Iterator<Item = f32> {
    let grid = (0..=u16::MAX).flat_map(|bits| {
        let (b, h) = (bf16::from_bits(bits).to_f32().to_bits(), f16::from_bits(bits).to_f32().to_bits());
        [b, b | 0x8000, h, h | 0x1000].into_iter().flat_map(|bits| [bits.wrapping_sub(1), bits, bits.wrapping_add(1)])
    });
    // Ties between f16's subnormals lie on no grid of bits.
    let ties = (0..1u32 << 12).map(|n| (n as f32 * 2f32.powi(-26)).to_bits());
    let ties = ties.flat_map(|bits| [bits.wrapping_sub(1), bits, bits + 1]);
    let spread = (0..1u32 << 21).map(|n| n.wrapping_mul(0x9E37_79B9));
    grid.chain(ties).chain(spread).map(f32::from_bits)
}

#[test]
fn every_16_bit_pattern_widens_exactly_and_comes_back() {
    for bits in 0..=u16::MAX {
        let (b, h) = (bf16::from_bits(bits), f16::from_bits(bits));
        if b.is_nan() {
            assert!(bf16_to_f32(bits).is_nan());
            assert_eq!(f32_to_bf16(bf16_to_f32(bits)), 0x7FC0);
        } else {
            assert_eq!(bf16_to_f32(bits).to_bits(), b.to_f32().to_bits(), "bf16 {bits:#06x}");
            assert_eq!(f32_to_bf16(bf16_to_f32(bits)), bits);
        }
        if h.is_nan() {
            assert!(f16_to_f32(bits).is_nan());
            assert_eq!(f32_to_f16(f16_to_f32(bits)), 0x7E00);
        } else {
            assert_eq!(f16_to_f32(bits).to_bits(), h.to_f32().to_bits(), "f16 {bits:#06x}");
            assert_eq!(f32_to_f16(f16_to_f32(bits)), bits);
        }
    }
}

#[test]
fn rounding_to_nearest_agrees_with_half() {
    for value in interesting() {
        let (b, h) = (f32_to_bf16(value), f32_to_f16(value));
        if value.is_nan() {
            assert_eq!((b, h, f32_to_f32(value).to_bits()), (0x7FC0, 0x7E00, 0x7FC0_0000));
        } else {
            assert_eq!(b, bf16::from_f32(value).to_bits(), "bf16 of {:#010x}", value.to_bits());
            assert_eq!(h, f16::from_f32(value).to_bits(), "f16 of {:#010x}", value.to_bits());
            assert_eq!(f32_to_f32(value).to_bits(), value.to_bits());
        }
    }
}

#[test]
fn overflow_begins_where_ieee_puts_it() {
    for sign in [0u32, 1 << 31] {
        let with = |bits: u32| f32::from_bits(bits | sign);
        let half = (sign >> 16) as u16;
        assert_eq!(f32_to_f16(with(65520f32.to_bits() - 1)), 0x7BFF | half);
        assert_eq!(f32_to_f16(with(65520f32.to_bits())), 0x7C00 | half);
        assert_eq!(f32_to_f16(with(f32::MAX.to_bits())), 0x7C00 | half);
        assert_eq!(f32_to_bf16(with(0x7F7F_7FFF)), 0x7F7F | half);
        assert_eq!(f32_to_bf16(with(0x7F7F_8000)), 0x7F80 | half);
    }
}

#[test]
fn stochastic_rounding_takes_a_neighbour_and_leaves_what_fits() {
    for (n, value) in interesting().enumerate() {
        let random = (n as u32).wrapping_mul(0x85EB_CA6B);
        let (b, h) = (f32_to_bf16_stochastic(value, random), f32_to_f16_stochastic(value, random));
        if value.is_nan() {
            assert_eq!((b, h), (0x7FC0, 0x7E00));
            continue;
        }
        let exact = f64::from(value).abs();
        let check = |name, got: u16, nearest: u16, max: f64, size: &dyn Fn(u16) -> f64| {
            if exact > max {
                assert_eq!(got, nearest, "{name} of {:#010x}", value.to_bits());
                return;
            }
            let down = if size(nearest & 0x7FFF) > exact { nearest - 1 } else { nearest };
            let fits = size(down & 0x7FFF) == exact;
            assert!(got == down || !fits && got == down + 1, "{name} of {:#010x}: {got:#06x}", value.to_bits());
        };
        check("bf16", b, bf16::from_f32(value).to_bits(), bf16::MAX.to_f64(), &|bits| bf16::from_bits(bits).to_f64());
        check("f16", h, f16::from_f32(value).to_bits(), f16::MAX.to_f64(), &|bits| f16::from_bits(bits).to_f64());
    }
}

#[test]
fn stochastic_rounding_never_makes_an_infinity_by_chance() {
    for random in [0, u32::MAX] {
        assert_eq!(f32_to_bf16_stochastic(f32::from_bits(0x7F7F_7FFF), random), 0x7F7F);
        assert_eq!(f32_to_bf16_stochastic(f32::from_bits(0xFF7F_8000), random), 0xFF80);
        assert_eq!(f32_to_bf16_stochastic(f32::NEG_INFINITY, random), 0xFF80);
        assert_eq!(f32_to_f16_stochastic(65519.0, random), 0x7BFF);
        assert_eq!(f32_to_f16_stochastic(-65520.0, random), 0xFC00);
        assert_eq!(f32_to_f16_stochastic(f32::INFINITY, random), 0x7C00);
    }
}

/// Over all values of the random bits that matter, the share rounded away from zero is exactly the distance in steps.
#[test]
fn stochastic_rounding_is_exactly_unbiased() {
    for low in [0u32, 1, 2, 0x1234, 0x8000, 0xFFFF] {
        for high in [0u32, 0x0001, 0x3F80, 0xBF80, 0x7F00] {
            let value = f32::from_bits(high << 16 | low);
            let up = (0..1u32 << 16).filter(|r| f32_to_bf16_stochastic(value, r << 16) == high as u16 + 1).count();
            assert_eq!(up as u32, low, "bf16 of {value:e}");
        }
    }
    for low in [0u32, 1, 0x0ABC, 0x1000, 0x1FFF] {
        let value = f32::from_bits(1.5f32.to_bits() | low);
        let up = (0..1u32 << 13).filter(|r| f32_to_f16_stochastic(value, r << 19) == 0x3E01).count();
        assert_eq!(up as u32, low, "f16 of {value:e}");
    }
    // Below 2^-14 the step is 2^-24 whatever the exponent.
    for (steps, fraction) in [(0u16, 1), (0, 0x4000), (1, 0x8000), (3, 7), (200, 0xFFFF), (1023, 0x8000)] {
        let value = (f32::from(steps) + fraction as f32 / 65536.0) * 2f32.powi(-24);
        let up = (0..1u32 << 16).filter(|r| f32_to_f16_stochastic(-value, r << 16) == 0x8000 | (steps + 1)).count();
        assert_eq!(up, fraction, "f16 of {value:e}");
    }
}

#[test]
fn stochastic_rounding_ends_where_the_random_bits_end() {
    assert_eq!(f32_to_f16_stochastic(2f32.powi(-56), u32::MAX), 1);
    assert_eq!(f32_to_f16_stochastic(2f32.powi(-56), u32::MAX - 1), 0);
    assert_eq!(f32_to_f16_stochastic(-2f32.powi(-57), u32::MAX), 0x8000);
    assert_eq!(f32_to_f16_stochastic(1e-45, u32::MAX), 0);
}

/// The known answers that the authors publish with the generator.
#[test]
fn philox_gives_the_published_answers() {
    assert_eq!(block([0; 4], [0; 2]), [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]);
    assert_eq!(block([u32::MAX; 4], [u32::MAX; 2]), [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]);
    let pi = [0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344];
    assert_eq!(block(pi, [0xA409_3822, 0x299F_31D0]), [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1]);
}

#[test]
fn keys_are_the_hash_of_seed_and_name() {
    let hash = xxhash_rust::xxh3::xxh3_64(b"\x2a\0\0\0\0\0\0\0model.norm.weight");
    assert_eq!(key(42, "model.norm.weight"), [hash as u32, (hash >> 32) as u32]);
    assert_ne!(key(42, "model.norm.weight"), key(43, "model.norm.weight"));
    assert_ne!(key(42, "model.norm.weight"), key(42, "model.norm.bias"));
}
