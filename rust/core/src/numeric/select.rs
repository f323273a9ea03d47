//! The element of a given rank in a tensor that is read block by block: exact, whatever the number of blocks.
//!
//! ```text
//! key of an element = the bits of its magnitude; keys are in the order of magnitudes, and NaN is the greatest
//! high:    count the keys by their upper 16 bits; the bin that holds the rank is known then
//! low:     count the keys of that bin by their lower 16 bits; left out if all of them are 0
//! count:   how many keys of each block equal the one found; left out unless the rank cuts through equal keys
//! locate:  in the block where the cut is, the element at which it is
//! ```
//!
//! Equal keys are in the order of their elements, so a rank always means one element. In a small tensor all keys are taken
//! together instead, and sorted as far as that is needed.

/// Bins of the upper 16 bits: the sign is 0.
const HIGH: usize = 1 << 15;
/// Bins of the lower 16 bits.
const LOW: usize = 1 << 16;
/// A tensor of so many elements is small: its keys take no more memory than a table.
const SMALL: u64 = 1 << 16;

/// The key of a value: its magnitude, as an integer of the same order.
#[inline(always)]
pub fn key(value: f32) -> u32 {
    value.to_bits() & 0x7FFF_FFFF
}

/// A place in the order of all elements of a tensor by key, then by index: just before the element `index` among those
/// with this key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// A key.
    pub key: u32,
    /// The index of an element, or [`u64::MAX`]: after all elements with this key.
    pub index: u64,
}

impl Mark {
    /// Whether an element is among the greatest that the mark counts off, where the first of equal ones come first.
    #[inline(always)]
    pub fn within_greatest(self, key: u32, index: u64) -> bool {
        key > self.key || (key == self.key && index < self.index)
    }

    /// Whether an element comes before the mark in ascending order.
    #[inline(always)]
    pub fn after(self, key: u32, index: u64) -> bool {
        key < self.key || (key == self.key && index < self.index)
    }
}

/// The places of keys in ascending order, equal ones in the order in which they come, in the low half of each word (the
/// key is in the high half). `spare` is room for as many words.
pub fn sorted<'o>(keys: impl Iterator<Item = u32>, order: &'o mut Vec<u64>, spare: &mut Vec<u64>) -> &'o [u64] {
    /// Three digits make up a key.
    const DIGIT: u32 = 11;
    const BINS: usize = 1 << DIGIT;
    order.clear();
    order.extend(keys.zip(0_u64..).map(|(key, place)| u64::from(key) << 32 | place));
    if order.len() < BINS {
        order.sort_unstable();
        return order;
    }
    spare.resize(order.len(), 0);
    for digit in 0..3 {
        let bin = |word: u64| (word >> (32 + digit * DIGIT)) as usize % BINS;
        let mut next = [0_u32; BINS];
        order.iter().for_each(|&word| next[bin(word)] += 1);
        let mut before = 0;
        for next in &mut next {
            before += std::mem::replace(next, before);
        }
        for &word in &*order {
            let next = &mut next[bin(word)];
            spare[*next as usize] = word;
            *next += 1;
        }
        std::mem::swap(order, spare);
    }
    order
}

/// Which element is looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Position {
    /// The mark is before the element that has so many before it in ascending order.
    Ascending(u64),
    /// The mark counts off so many of the greatest elements; at least 1.
    Greatest(u64),
    /// As `Greatest`, for this share of the elements whose key is not 0. The product is cut to a whole number, in f32.
    GreatestOfNonzero(f32),
}

/// A rank that is being found.
#[derive(Clone, Debug)]
pub struct Rank {
    /// The row of keys that it is a rank of.
    pub row: usize,
    position: Position,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Whole,
    High,
    /// The upper bits, and the position among the keys that have them.
    Low(u32, Position),
    /// The key, and how many elements with it are before the mark.
    Count(u32, u64),
    /// The same within this block.
    Locate(u32, u64, usize),
    Found(Mark),
}

/// What finds ranks: each step needs a pass over all blocks, or over one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take all keys.
    Whole,
    /// Count by upper bits.
    High,
    /// Count by lower bits.
    Low,
    /// Count equal keys by block.
    Count,
    /// Find an element in this block.
    Locate(usize),
}

/// Counts of keys in one block, or in a whole tensor.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// All keys, in the step `whole`.
    keys: Vec<u32>,
    counts: Vec<u64>,
    /// For each bin of upper bits, all lower bits that any of its keys has.
    lower: Vec<u16>,
    /// Keys that are 0, or in the step `count` those that equal the one that was found.
    zeros: u64,
}

impl Table {
    /// The most bytes that the table of a rank takes.
    pub const BYTES: u64 = (LOW * size_of::<u64>()) as u64;
}

impl Rank {
    /// A rank of the keys in a row of so many elements.
    pub const fn new(row: usize, position: Position, elements: u64) -> Self {
        Self { row, position, state: if elements > SMALL { State::High } else { State::Whole } }
    }

    /// The step that it needs next; `None` if it is found.
    pub const fn step(&self) -> Option<Step> {
        match self.state {
            State::Whole => Some(Step::Whole),
            State::High => Some(Step::High),
            State::Low(..) => Some(Step::Low),
            State::Count(..) => Some(Step::Count),
            State::Locate(_, _, block) => Some(Step::Locate(block)),
            State::Found(_) => None,
        }
    }

    /// The mark, once it is found.
    pub fn mark(&self) -> Mark {
        match self.state {
            State::Found(mark) => mark,
            _ => Mark::default(),
        }
    }

    /// Counts the keys of some elements for the step that the rank needs: in a table, or if they are those that equal
    /// the found one, as a number.
    pub fn count(&self, keys: &[u32], table: &mut Table) {
        match self.state {
            State::Whole => table.keys.extend(keys),
            State::High => {
                table.counts.resize(HIGH, 0);
                table.lower.resize(HIGH, 0);
                for &key in keys {
                    table.counts[(key >> 16) as usize] += 1;
                    table.lower[(key >> 16) as usize] |= key as u16;
                    table.zeros += u64::from(key == 0);
                }
            }
            State::Low(high, _) => {
                table.counts.resize(LOW, 0);
                for &key in keys.iter().filter(|&&key| key >> 16 == high) {
                    table.counts[key as usize & 0xFFFF] += 1;
                }
            }
            State::Count(wanted, _) => {
                table.zeros += keys.iter().map(|&key| u64::from(key == wanted)).sum::<u64>();
            }
            State::Locate(..) | State::Found(_) => {}
        }
    }

    /// The element at which the mark is, in the block where it is. `passed` is how many equal keys came before these
    /// elements in the block; they are added to it. `first` is the index of the first element.
    pub fn locate(&self, keys: &[u32], first: u64, passed: &mut u64) -> Option<u64> {
        let State::Locate(wanted, before, _) = self.state else { return None };
        for (index, _) in (first..).zip(keys).filter(|&(_, &key)| key == wanted) {
            if *passed == before {
                return Some(index);
            }
            *passed += 1;
        }
        None
    }

    /// Takes all keys, block by block.
    pub fn take_whole<'t>(&mut self, blocks: impl Iterator<Item = &'t Table>) {
        let keys: Vec<u32> = blocks.flat_map(|table| table.keys.iter().copied()).collect();
        let (greatest, count) = match self.position {
            Position::Ascending(before) => (false, before),
            Position::Greatest(kept) => (true, kept),
            Position::GreatestOfNonzero(share) => {
                let nonzero = keys.iter().filter(|&&key| key != 0).count();
                (true, (nonzero as f32 * share) as u64)
            }
        };
        // In the order of the position; equal keys by index.
        let turned = |key: u32| if greatest { !key } else { key };
        let mut order: Vec<u64> =
            keys.iter().zip(0_u64..).map(|(&key, index)| u64::from(turned(key)) << 32 | index).collect();
        // The first element after the mark.
        let mark = match order.get(count as usize) {
            Some(_) => {
                let (_, &mut found, _) = order.select_nth_unstable(count as usize);
                Mark { key: turned((found >> 32) as u32), index: found & 0xFFFF_FFFF }
            }
            None => Mark { key: 0, index: u64::MAX },
        };
        self.state = State::Found(mark);
    }

    /// Takes the table of all blocks, and goes on to the next step.
    pub fn take(&mut self, table: &Table) {
        let upper = matches!(self.state, State::High);
        let (prefix, position) = match self.state {
            State::High => (0, self.position),
            State::Low(high, position) => (high << 16, position),
            _ => return,
        };
        let position = match position {
            Position::GreatestOfNonzero(share) => {
                let nonzero = table.counts.iter().sum::<u64>() - table.zeros;
                let wanted = (nonzero as f32 * share) as u64;
                if wanted == 0 {
                    // None is kept: no key is greater than this.
                    self.state = State::Found(Mark { key: u32::MAX, index: 0 });
                    return;
                }
                Position::Greatest(wanted)
            }
            position => position,
        };
        let (bin, rest) = find(&table.counts, position);
        let inside = table.counts[bin];
        if upper && table.lower[bin] != 0 {
            let rest = if let Position::Ascending(_) = position {
                Position::Ascending(rest)
            } else {
                Position::Greatest(rest)
            };
            self.state = State::Low(bin as u32, rest);
            return;
        }
        let key = if upper { (bin as u32) << 16 } else { prefix | bin as u32 };
        self.state = match rest {
            // Which zeros are kept makes no difference.
            0 => State::Found(Mark { key, index: 0 }),
            _ if key == 0 => State::Found(Mark { key, index: 0 }),
            rest if rest == inside => State::Found(Mark { key, index: u64::MAX }),
            rest => State::Count(key, rest),
        };
    }

    /// Takes the number of equal keys of every block, in order.
    pub fn take_counts(&mut self, counts: impl Iterator<Item = u64>) {
        let State::Count(key, mut rest) = self.state else { return };
        for (block, count) in counts.enumerate() {
            if rest < count {
                self.state = State::Locate(key, rest, block);
                return;
            }
            rest -= count;
        }
    }

    /// Takes the element at which the mark is.
    pub fn take_index(&mut self, index: u64) {
        if let State::Locate(key, ..) = self.state {
            self.state = State::Found(Mark { key, index });
        }
    }
}

impl Table {
    /// Adds the counts of another block.
    pub fn add(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
            self.lower.resize(other.lower.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        for (mine, theirs) in self.lower.iter_mut().zip(&other.lower) {
            *mine |= theirs;
        }
        self.zeros += other.zeros;
    }

    /// How many keys equal the one that was found, in [`Step::Count`].
    pub const fn equal(&self) -> u64 {
        self.zeros
    }
}

/// The bin that holds a position, and how many of its elements come before the mark in the position's own order.
fn find(counts: &[u64], position: Position) -> (usize, u64) {
    let search = |bins: &mut dyn Iterator<Item = (usize, u64)>, mut rest: u64, inclusive: bool| {
        let mut last = (0, 0);
        for (bin, count) in bins.filter(|&(_, count)| count > 0) {
            if rest < count || (inclusive && rest == count) {
                return (bin, rest);
            }
            rest -= count;
            last = (bin, count);
        }
        last
    };
    let mut bins = counts.iter().copied().enumerate();
    match position {
        Position::Ascending(before) => search(&mut bins, before, false),
        Position::Greatest(kept) => search(&mut bins.rev(), kept, true),
        Position::GreatestOfNonzero(_) => (0, 0),
    }
}

#[cfg(test)]
mod tests;
