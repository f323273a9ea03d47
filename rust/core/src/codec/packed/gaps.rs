//! Distances between the elements that are not zero, in Golomb code.
//!
//! A gap is the number of elements skipped since the last one. With parameter `m`, `b = max(1, ⌈log₂ m⌉)` and
//! `c = 2ᵇ − m`, the code of a gap `g = q·m + r` with `r < m` is
//!
//! ```text
//! q ≥ 31:   31 zero bits, a one, the 20 bits of g
//! q < 31:   q zero bits, a one, then   r < c:  b − 1 bits of r
//!                                      else:   b − 1 bits of c + ⌊(r − c)/2⌋, and the last bit of r − c
//! ```
//!
//! each number from its lowest bit on, into each byte from its lowest bit on. The `m` of the first 64 gaps stands before
//! the bits. Each further group of 64 takes it from the sum of the group before, so that the code follows regions that
//! change more or less.
//!
//! Many gaps are written in two runs of equal length, which are decoded side by side: a gap can only be found
//! when the one before it has been decoded, and the processor would wait.

use crate::codec::packed::section::{Rest, write_number};
use crate::numeric::sparse::WORD;

/// Gaps that share a parameter.
const GROUP: usize = 64;
/// Zero bits that announce a gap in full.
const MOST: u32 = 31;
/// The bits of a gap in full: no frame has more elements.
const FULL: u32 = 20;
/// From so many gaps on there are two runs.
const MANY: usize = 8192;

/// A parameter, and what follows from it.
#[derive(Clone, Copy)]
struct Code {
    m: u32,
    /// 2⁴⁰ divided by `m`, rounded up: multiplying by it takes less time than dividing, and is exact for all gaps.
    inverse: u64,
    /// One bit less than the longest remainder has.
    short: u32,
    /// How many remainders have only so many bits.
    cut: u32,
}

impl Code {
    fn new(m: u32) -> Self {
        let bits = m.next_power_of_two().ilog2().max(1);
        Self { m, inverse: (1 << 40) / u64::from(m) + 1, short: bits - 1, cut: (1 << bits) - m }
    }

    /// The code for gaps whose sum over a group is known: `m` is `ln 2 · (mean + ½)`, which is best if gaps are
    /// distributed geometrically (Gallager and van Voorhis, "Optimal source codes for geometrically distributed integer
    /// alphabets", 1975).
    fn after(sum: u64) -> Self {
        Self::new((((sum + GROUP as u64 / 2) * 11_357 + (1 << 19)) >> 20).max(1) as u32)
    }

    /// A gap's code and its length in bits.
    fn of(self, gap: u32) -> (u64, u32) {
        let quotient = ((u64::from(gap) * self.inverse) >> 40) as u32;
        let rest = gap - quotient * self.m;
        if quotient >= MOST {
            return ((1 | u64::from(gap) << 1) << MOST, MOST + 1 + FULL);
        }
        let (low, bits) = if rest < self.cut {
            (rest, self.short)
        } else {
            let over = rest - self.cut;
            ((self.cut + over / 2) | ((over & 1) << self.short), self.short + 1)
        };
        ((1 | u64::from(low) << 1) << quotient, quotient + 1 + bits)
    }
}

/// Appends the gaps before these places, which ascend.
pub fn write(places: &[u32], out: &mut Vec<u8>) {
    if places.len() < MANY {
        return write_run(places, 0, out);
    }
    // Where the number of gaps is odd, the first run has one more.
    let (left, right) = places.split_at(places.len().div_ceil(2));
    let middle = left.last().map_or(0, |last| last + 1);
    let mut codes = Vec::new();
    write_run(left, 0, &mut codes);
    write_number(codes.len(), out);
    out.extend_from_slice(&codes);
    write_number(middle as usize, out);
    write_run(right, middle, out);
}

/// Appends the first parameter and the codes of a run of places from `start` on.
fn write_run(places: &[u32], start: u32, out: &mut Vec<u8>) {
    let Some(&last) = places.last() else { return };
    let count = places.len() as u64;
    let mut code = Code::after((u64::from(last + 1 - start) - count) * GROUP as u64 / count);
    write_number(code.m as usize, out);
    let mut at = out.len();
    // The longest code has 52 bits, and whole words are written.
    out.resize(at + places.len() * 7 + 8, 0);
    let mut next = start;
    let (mut pending, mut filled) = (0u64, 0);
    for group in places.chunks(GROUP) {
        let from = next;
        for &place in group {
            let (bits, len) = code.of(place - next);
            next = place + 1;
            // At most 7 bits are pending.
            pending |= bits << filled;
            filled += len;
            out[at..at + 8].copy_from_slice(&pending.to_le_bytes());
            at += (filled / 8) as usize;
            pending >>= filled & !7;
            filled %= 8;
        }
        code = Code::after(u64::from(next - from) - group.len() as u64);
    }
    out.truncate(at + usize::from(filled > 0));
}

/// Sets the bits of `count` places below `elements` in a mask that has none set. `None` if the bytes are not exactly
/// what [`write`] appends for so many.
pub fn read(bytes: &[u8], count: usize, elements: usize, mask: &mut [u64]) -> Option<()> {
    if count < MANY {
        let mut run = Run::new(bytes, 0, count)?;
        run.finish(mask);
        return (run.is_whole() && run.next <= elements as u64).then_some(());
    }
    let mut rest = Rest(bytes);
    let len = rest.number(bytes.len())?;
    let left = rest.bytes(len)?;
    let middle = rest.number(elements)? as u64;
    let (mut a, mut b) = (Run::new(left, 0, count.div_ceil(2))?, Run::new(rest.0, middle, count / 2)?);
    while b.left > 0 {
        let (group, code_a, code_b) = (b.left.min(GROUP), a.code, b.code);
        for _ in 0..group {
            a.step(code_a, mask);
            b.step(code_b, mask);
        }
        a.turn(group);
        b.turn(group);
    }
    a.finish(mask);
    (a.is_whole() && b.is_whole() && a.next == middle && b.next <= elements as u64).then_some(())
}

/// A run that is being decoded.
struct Run<'a> {
    bytes: &'a [u8],
    /// The bits that come next, lowest first; at least 56 from the start of each step on.
    bits: u64,
    filled: u32,
    /// The byte after those in `bits`; beyond the end there are zeros.
    at: usize,
    /// The place after the last.
    next: u64,
    /// The place after the last of the group before.
    group: u64,
    /// How many gaps are to come.
    left: usize,
    code: Code,
    /// Whether a code was none.
    bad: bool,
}

impl<'a> Run<'a> {
    fn new(bytes: &'a [u8], start: u64, left: usize) -> Option<Self> {
        let mut rest = Rest(bytes);
        let code = Code::new(rest.number(1 << FULL).filter(|&m| m > 0)? as u32);
        Some(Self { bytes: rest.0, bits: 0, filled: 0, at: 0, next: start, group: start, left, code, bad: false })
    }

    /// Decodes a gap and sets the bit of the place after it.
    #[inline(always)]
    fn step(&mut self, code: Code, mask: &mut [u64]) {
        self.bits |= word(self.bytes, self.at) << self.filled;
        self.at += ((63 - self.filled) / 8) as usize;
        self.filled |= 56;
        let quotient = self.bits.trailing_zeros();
        let (gap, used) = if quotient < MOST {
            let after = self.bits >> (quotient + 1);
            let low = (after & ((1 << code.short) - 1)) as u32;
            // No branch, because nothing would predict it.
            let over = u32::from(low >= code.cut);
            let rest = low + over * (low.wrapping_sub(code.cut).wrapping_add((after >> code.short & 1) as u32));
            (u64::from(quotient) * u64::from(code.m) + u64::from(rest), quotient + 1 + code.short + over)
        } else {
            self.bad |= quotient > MOST;
            (self.bits >> (MOST + 1) & ((1 << FULL) - 1), MOST + 1 + FULL)
        };
        self.bits >>= used;
        self.filled -= used;
        let place = self.next + gap;
        if let Some(word) = mask.get_mut((place / WORD as u64) as usize) {
            *word |= 1 << (place % WORD as u64);
        }
        self.next = place + 1;
    }

    /// Counts the gaps that were decoded. A whole group gives the next its parameter.
    fn turn(&mut self, count: usize) {
        self.left -= count;
        if count == GROUP {
            self.code = Code::after(self.next - self.group - GROUP as u64);
            self.group = self.next;
        }
    }

    /// Decodes all gaps that are left.
    fn finish(&mut self, mask: &mut [u64]) {
        while self.left > 0 {
            let (group, code) = (self.left.min(GROUP), self.code);
            (0..group).for_each(|_| self.step(code, mask));
            self.turn(group);
        }
    }

    /// Whether the bytes end here: nothing is missing, and nothing follows but the zeros that fill up the last byte.
    fn is_whole(&self) -> bool {
        let end = 8 * self.at as u64 - u64::from(self.filled);
        let fill = 8 * self.bytes.len() as u64 - end.min(8 * self.bytes.len() as u64);
        !self.bad && end <= 8 * self.bytes.len() as u64 && fill < 8 && self.bits & ((1 << fill) - 1) == 0
    }
}

/// Eight bytes; zeros after the end.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or(&[]);
    let word = rest.first_chunk::<8>().copied().unwrap_or_else(|| {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        last
    });
    u64::from_le_bytes(word)
}
