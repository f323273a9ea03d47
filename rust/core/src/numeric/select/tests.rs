//! Ranks against a sort.

use super::*;

/// The mark that the steps find, with blocks of so many elements, and how many passes that took.
fn found(keys: &[u32], block: usize, position: Position, elements: u64) -> (Mark, usize) {
    let mut rank = Rank::new(0, position, elements);
    let mut passes = 0;
    while let Some(step) = rank.step() {
        passes += 1;
        let tables = keys.chunks(block).map(|keys| {
            let mut table = Table::default();
            rank.count(keys, &mut table);
            table
        });
        match step {
            Step::Whole => {
                let tables: Vec<Table> = tables.collect();
                rank.take_whole(tables.iter());
            }
            Step::High | Step::Low => {
                let mut all = Table::default();
                tables.for_each(|table| all.add(&table));
                rank.take(&all);
            }
            Step::Count => {
                let counts: Vec<u64> = tables.map(|table| table.equal()).collect();
                rank.take_counts(counts.into_iter());
            }
            Step::Locate(number) => {
                let keys = keys.chunks(block).nth(number).unwrap_or_default();
                let index = rank.locate(keys, (number * block) as u64, &mut 0);
                rank.take_index(index.unwrap_or(u64::MAX - 1));
            }
        }
    }
    (rank.mark(), passes)
}

fn sample(kind: u32) -> Vec<u32> {
    let mut state = 0x9E37_79B9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    (0..1000)
        .map(|_| match kind {
            0 => next() & 0x7FFF_FFFF,
            1 => (next() % 5) << 16,
            2 => 0x3F80_0000 | (next() % 7),
            _ => (next() % 3).saturating_sub(1) << 20 | (next() % 2),
        })
        .collect()
}

/// A tensor is taken for a large one, and for the small one that it is.
const SIZES: [u64; 2] = [u64::MAX, 1000];

#[test]
fn marks_are_those_of_a_sort() {
    for (kind, size) in (0..4).flat_map(|kind| SIZES.map(|size| (kind, size))) {
        let keys = sample(kind);
        let mut order: Vec<(u32, u64)> = keys.iter().copied().zip(0..).collect();
        order.sort_unstable();
        let mut greatest = order.clone();
        greatest.sort_by_key(|&(key, index)| (std::cmp::Reverse(key), index));
        let nonzero = |list: &[(u32, u64)]| list.iter().copied().filter(|&(key, _)| key != 0).collect::<Vec<_>>();
        for wanted in [1, 2, 17, 250, 500, 999, 1000_usize] {
            let (mark, passes) = found(&keys, 128, Position::Greatest(wanted as u64), size);
            assert!(passes <= if size == 1000 { 1 } else { 4 });
            let mut kept = nonzero(&order);
            kept.retain(|&(key, index)| mark.within_greatest(key, index));
            kept.sort_by_key(|&(key, index)| (std::cmp::Reverse(key), index));
            assert_eq!(kept, nonzero(&greatest[..wanted]), "kind {kind}, greatest {wanted}");
        }
        for before in [0, 1, 100, 333, 999_usize] {
            let (mark, _) = found(&keys, 128, Position::Ascending(before as u64), size);
            let below: Vec<_> = order.iter().copied().filter(|&(key, index)| mark.after(key, index)).collect();
            assert_eq!(nonzero(&below), nonzero(&order[..before]), "kind {kind}, ascending {before}");
        }
    }
}

#[test]
fn places_are_those_of_a_stable_sort() {
    let (mut order, mut spare) = Default::default();
    for keys in (0..4).flat_map(|kind| [sample(kind), sample(kind).repeat(5)]) {
        let mut right: Vec<u64> = (0..keys.len() as u64).collect();
        right.sort_by_key(|&place| keys[place as usize]);
        let found = sorted(keys.iter().copied(), &mut order, &mut spare);
        assert!(found.iter().map(|word| word & 0xFFFF_FFFF).eq(right));
    }
}

#[test]
fn keys_without_lower_bits_take_one_pass_less() {
    let keys: Vec<u32> = (1..=100).map(|key| key << 16).collect();
    let large = u64::MAX;
    assert_eq!(found(&keys, 10, Position::Greatest(30), large), (Mark { key: 71 << 16, index: u64::MAX }, 1));
    assert_eq!(found(&[3 << 16; 10], 4, Position::Greatest(6), large), (Mark { key: 3 << 16, index: 6 }, 3));
}

#[test]
fn a_share_is_of_what_is_not_zero() {
    let mut keys = vec![0; 90];
    keys.extend((1..=10).map(|key| key << 16));
    for size in SIZES {
        for (share, kept) in [(0.5, 5), (0.05, 0)] {
            let (mark, _) = found(&keys, 64, Position::GreatestOfNonzero(share), size);
            let within = keys.iter().zip(0..).filter(|&(&key, index)| mark.within_greatest(key, index));
            assert_eq!(within.count(), kept);
        }
    }
}
