//! Random bits by position: Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2,
//! 3", 2011), keyed by a seed and a tensor's name. Element `i` of the tensor takes word `i % 4` of the block whose
//! counter is `i / 4`, a 64-bit number in words 0 (low) and 1 (high) with words 2 and 3 zero: the same bits however the
//! work is split.

use xxhash_rust::xxh3::Xxh3;

use crate::numeric::simd::{self, Isa};

const MULTIPLY: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const LOW: u64 = 0xFFFF_FFFF;
const ROUNDS: usize = 10;
/// Blocks that are computed at the same time: eight 32-bit lanes fill an AVX2 register.
const LANES: usize = 8;
/// The number of words that one step of [`fill`] writes.
pub(crate) const STEP: usize = 4 * LANES;

/// The key of a tensor: XXH3-64 with seed 0 of the user's seed (8 bytes, little-endian) and the name in UTF-8, as its
/// low and its high half.
pub fn key(seed: u64, tensor: &str) -> [u32; 2] {
    let mut hash = Xxh3::new();
    hash.update(&seed.to_le_bytes());
    hash.update(tensor.as_bytes());
    let digest = hash.digest();
    [digest as u32, (digest >> 32) as u32]
}

/// One block.
pub fn block(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    blocks(counter.map(|word| [word]), key).map(|[word]| word)
}

/// The words of `n` elements from element `first` on.
pub fn words(isa: Isa, key: [u32; 2], first: u64, n: usize) -> Vec<u32> {
    let skip = (first % 4) as usize;
    let mut words = vec![0; (skip + n).next_multiple_of(STEP)];
    simd::random(isa, key, first / 4, &mut words);
    words.truncate(skip + n);
    words.split_off(skip)
}

/// The words of whole blocks, from block number `first` on; `out` is cut into steps of [`STEP`] words and what is left
/// at its end stays as it is.
#[inline(always)]
pub(crate) fn fill(key: [u32; 2], first: u64, out: &mut [u32]) {
    for (step, out) in out.as_chunks_mut::<STEP>().0.iter_mut().enumerate() {
        let number = |lane: usize| first + (step * LANES + lane) as u64;
        let counter = [
            std::array::from_fn(|lane| number(lane) as u32),
            std::array::from_fn(|lane| (number(lane) >> 32) as u32),
            [0; LANES],
            [0; LANES],
        ];
        let words = blocks(counter, key);
        for (lane, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *out = words.map(|word| word[lane]);
        }
    }
}

/// `N` blocks at once, word by word. The words are kept in 64-bit lanes, because vector units multiply
/// 32 by 32 bits there.
#[inline(always)]
fn blocks<const N: usize>(counter: [[u32; N]; 4], mut key: [u32; 2]) -> [[u32; N]; 4] {
    let mut words = counter.map(|word| word.map(u64::from));
    for _ in 0..ROUNDS {
        let [a, b, c, d] = &mut words;
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            let (first, second) = (u64::from(MULTIPLY[0]) * *a, u64::from(MULTIPLY[1]) * *c);
            *a = second >> 32 ^ *b ^ u64::from(key[0]);
            *b = second & LOW;
            *c = first >> 32 ^ *d ^ u64::from(key[1]);
            *d = first & LOW;
        }
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    words.map(|word| word.map(|lane| lane as u32))
}
