//! The loops of [`sparse`](crate::numeric::sparse) on AVX2, over whole words of the mask: 64 elements at a time.
//!
//! The elements of one byte of the mask are moved by one shuffle, whose table entry depends on the byte. Words with few
//! bits are not worth it.
#![allow(unsafe_code, reason = "loads and stores of whole registers, within arrays of their size")]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm_setzero_si128, _mm_shuffle_epi8, _mm_storeu_si128, _mm_unpackhi_epi16,
    _mm_unpacklo_epi16, _mm256_and_si256, _mm256_cmpeq_epi32, _mm256_loadu_si256, _mm256_movemask_epi8,
    _mm256_or_si256, _mm256_packs_epi16, _mm256_packs_epi32, _mm256_packus_epi32, _mm256_permute4x64_epi64,
    _mm256_permutevar8x32_epi32, _mm256_set1_epi32, _mm256_setr_epi32, _mm256_setzero_si256, _mm256_srli_epi32,
    _mm256_storeu_si256, _mm256_testz_si256,
};

use crate::numeric::sparse::{SLACK, Values, WORD, bits};

/// The elements of so many bits of a word, or fewer, are moved one by one.
const FEW: u32 = 6;

/// For each byte of a mask: where in a list of 2-byte values the bytes of the 8 elements come from; 0x80 gives zero.
static SPREAD: [[u8; 16]; 256] = shuffles(true);

/// The other way round: where among the bytes of 8 elements those of the listed values come from.
static SQUEEZE: [[u8; 16]; 256] = shuffles(false);

const fn shuffles(spread: bool) -> [[u8; 16]; 256] {
    let mut table = [[0x80; 16]; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut element, mut value) = (0, 0);
        while element < 8 {
            if byte >> element & 1 == 1 {
                let (to, from) = if spread { (element, value) } else { (value, element) };
                table[byte][2 * to] = 2 * from as u8;
                table[byte][2 * to + 1] = 2 * from as u8 + 1;
                value += 1;
            }
            element += 1;
        }
        byte += 1;
    }
    table
}

/// Returns how many words of the mask were filled: all that are whole. Sets `any_low` if a lower half is not zero.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn part(bytes: &[u8], high: &mut [u8], mask: &mut [u64], any_low: &mut bool) -> usize {
    let (words, zero) = (bytes.as_chunks::<{ 4 * WORD }>().0, _mm256_setzero_si256());
    let mut seen = zero;
    for ((bytes, high), word) in words.iter().zip(high.as_chunks_mut::<{ 2 * WORD }>().0).zip(mask) {
        *word = 0;
        let (bytes, high) = (bytes.as_chunks::<128>().0, high.as_chunks_mut::<64>().0);
        for ((bytes, high), half) in bytes.iter().zip(high).zip([0, 32]) {
            let x = [0, 1, 2, 3].map(|i: usize| load_32(&bytes.as_chunks::<32>().0[i]));
            let zeros = x.map(|x| _mm256_cmpeq_epi32(x, zero));
            seen = x.into_iter().fold(seen, |seen, x| _mm256_or_si256(seen, x));
            let upper = x.map(|x| _mm256_srli_epi32::<16>(x));
            for (out, pair) in high.as_chunks_mut::<32>().0.iter_mut().zip(upper.as_chunks::<2>().0) {
                // Packing interleaves quarters of the two registers; the permutation puts them in order again.
                let packed = _mm256_packus_epi32(pair[0], pair[1]);
                store_32(out, _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
            }
            let pairs = [0, 2].map(|i: usize| _mm256_packs_epi32(zeros[i], zeros[i + 1]));
            let bits = _mm256_movemask_epi8(_mm256_permutevar8x32_epi32(
                _mm256_packs_epi16(pairs[0], pairs[1]),
                // Two packings leave groups of four elements in this order.
                _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7),
            ));
            *word |= u64::from(!bits as u32) << half;
        }
    }
    let low = _mm256_and_si256(seen, _mm256_set1_epi32(0xFFFF));
    *any_low |= _mm256_testz_si256(low, low) == 0;
    words.len()
}

/// Returns how many words of the mask were done.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn squeeze(bytes: &[u8], mask: &[u64], values: &mut [u16]) -> usize {
    let words = bytes.as_chunks::<{ 2 * WORD }>().0;
    let mut at = 0;
    for (&word, bytes) in mask.iter().zip(words) {
        if word.count_ones() <= FEW {
            for bit in bits(word) {
                values[at] = u16::from_le_bytes([bytes[2 * bit], bytes[2 * bit + 1]]);
                at += 1;
            }
            continue;
        }
        for (byte, elements) in word.to_le_bytes().into_iter().zip(bytes.as_chunks::<16>().0) {
            let Some(place) = values[at..].first_chunk_mut::<SLACK>() else { break };
            store_8(place, _mm_shuffle_epi8(load_16(elements), load_16(&SQUEEZE[usize::from(byte)])));
            at += byte.count_ones() as usize;
        }
    }
    words.len().min(mask.len())
}

/// Returns how many words of the mask were done.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn spread(mask: &[u64], values: Values, out: &mut [u8]) -> usize {
    match values {
        Values::Halves(high) => each::<{ 2 * WORD }, 16>(mask, values, out, |at, byte, out| {
            store_16(out, shuffled(high, at, byte));
        }),
        Values::Upper(high) => each::<{ 4 * WORD }, 32>(mask, values, out, |at, byte, out| {
            store_pairs(out, _mm_setzero_si128(), shuffled(high, at, byte));
        }),
        Values::Both(high, low) => each::<{ 4 * WORD }, 32>(mask, values, out, |at, byte, out| {
            store_pairs(out, shuffled(low, at, byte), shuffled(high, at, byte));
        }),
    }
}

/// Calls `step` for each byte of every word that has more than a few bits: with the number of values before it, the
/// byte, and the place of its 8 elements.
#[inline(always)]
fn each<const OF_WORD: usize, const OF_BYTE: usize>(
    mask: &[u64],
    values: Values,
    out: &mut [u8],
    mut step: impl FnMut(usize, u8, &mut [u8; OF_BYTE]),
) -> usize {
    let (size, words) = (values.size(), out.as_chunks_mut::<OF_WORD>().0);
    let mut at = 0;
    let mut done = 0;
    for (&word, out) in mask.iter().zip(words) {
        if word.count_ones() <= FEW {
            out.fill(0);
            for bit in bits(word) {
                values.put(at, &mut out[bit * size..(bit + 1) * size]);
                at += 1;
            }
        } else {
            for (byte, out) in word.to_le_bytes().into_iter().zip(out.as_chunks_mut::<OF_BYTE>().0) {
                step(at, byte, out);
                at += byte.count_ones() as usize;
            }
        }
        done += 1;
    }
    done
}

/// The 8 elements of a byte of the mask, from the list of values.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn shuffled(values: &[u16], at: usize, byte: u8) -> __m128i {
    let Some(block) = values[at..].first_chunk::<SLACK>() else { return _mm_setzero_si128() };
    // SAFETY: reads the 16 bytes of the block, at any alignment.
    let block = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
    _mm_shuffle_epi8(block, load_16(&SPREAD[usize::from(byte)]))
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn load_16(block: &[u8; 16]) -> __m128i {
    // SAFETY: reads the 16 bytes of the block, at any alignment.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn load_32(block: &[u8; 32]) -> __m256i {
    // SAFETY: reads the 32 bytes of the block, at any alignment.
    unsafe { _mm256_loadu_si256(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn store_8(place: &mut [u16; SLACK], value: __m128i) {
    // SAFETY: writes the 16 bytes of the place, at any alignment.
    unsafe { _mm_storeu_si128(place.as_mut_ptr().cast(), value) };
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn store_16(block: &mut [u8; 16], value: __m128i) {
    // SAFETY: writes the 16 bytes of the block, at any alignment.
    unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), value) };
}

/// Writes 8 elements of 4 bytes, from their lower and their upper halves.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn store_pairs(block: &mut [u8; 32], low: __m128i, high: __m128i) {
    let halves = [_mm_unpacklo_epi16(low, high), _mm_unpackhi_epi16(low, high)];
    for (out, half) in block.as_chunks_mut::<16>().0.iter_mut().zip(halves) {
        store_16(out, half);
    }
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn store_32(block: &mut [u8; 32], value: __m256i) {
    // SAFETY: writes the 32 bytes of the block, at any alignment.
    unsafe { _mm256_storeu_si256(block.as_mut_ptr().cast(), value) };
}
