//! Numbers from a seed, and what else tests of whole jobs share.

use taskvec_core::source::Io;

/// Mapping is offered on Linux alone; elsewhere the automatic choice takes its place.
pub const MAPPED: Io = if cfg!(target_os = "linux") { Io::Mmap } else { Io::Auto };

/// Random bits, 48 at a time.
pub fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 16
    }
}

/// Numbers in `[-0.5, 0.5)`.
pub fn numbers(seed: u64) -> impl FnMut() -> f32 {
    let mut next = noise(seed);
    move || (next() >> 24) as f32 / (1_u32 << 24) as f32 - 0.5
}
