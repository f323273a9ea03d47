//! The commonest values of a tensor, which one byte stands for.
//!
//! A palette is a list of magnitudes (upper halves of float32, sign bit clear). Magnitude `i` has rank `2i` with a plus
//! and `2i + 1` with a minus sign: differences are as often negative as positive. A value that is not in the palette has
//! rank 255 and is stored as it is.

/// The most magnitudes of a palette.
pub const MOST: usize = 127;
/// The rank of values that are not in the palette.
pub const ESCAPE: u8 = 255;
/// The bit that makes a half negative.
const SIGN: u16 = 0x8000;
/// Half of the possible halves: magnitudes.
const MAGNITUDES: usize = 1 << 15;

/// Some magnitudes, the commonest first, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Palette(Vec<u16>);

impl Palette {
    /// The palette with these bytes (u16, little-endian); `None` if it is none: too long, a magnitude twice or with a
    /// sign.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (magnitudes, rest) = bytes.as_chunks::<2>();
        let list: Vec<u16> = magnitudes.iter().map(|&magnitude| u16::from_le_bytes(magnitude)).collect();
        let mut sorted = list.clone();
        sorted.sort_unstable();
        let good = rest.is_empty()
            && list.len() <= MOST
            && sorted.last().is_none_or(|&last| last < SIGN)
            && sorted.windows(2).all(|pair| pair[0] != pair[1]);
        good.then_some(Self(list))
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|magnitude| magnitude.to_le_bytes()).collect()
    }

    /// How many ranks it has, [`ESCAPE`] not counted.
    pub fn ranks(&self) -> u8 {
        2 * self.0.len() as u8
    }

    /// The value of every rank; 0 for ranks that the palette does not have.
    pub fn values(&self) -> [u16; 256] {
        let mut values = [0; 256];
        for (pair, &magnitude) in values.chunks_exact_mut(2).zip(&self.0) {
            pair.copy_from_slice(&[magnitude, magnitude | SIGN]);
        }
        values
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How often each magnitude occurs.
pub struct Histogram(Vec<u32>);

impl Default for Histogram {
    fn default() -> Self {
        Self(vec![0; MAGNITUDES])
    }
}

impl Histogram {
    /// Counts the magnitudes of some values, and forgets what was counted before.
    pub fn count(&mut self, values: &[u16]) {
        self.0.fill(0);
        for &value in values {
            self.0[usize::from(value & !SIGN)] += 1;
        }
    }

    /// The commonest magnitudes of those that occur at least `least` times.
    pub fn palette(&self, least: u32) -> Palette {
        let mut found: Vec<(u32, u16)> = self
            .0
            .iter()
            .zip(0..)
            .filter(|(count, _)| **count >= least)
            .map(|(&count, value)| (count, value))
            .collect();
        found.sort_unstable_by_key(|&(count, value)| (std::cmp::Reverse(count), value));
        Palette(found.into_iter().map(|(_, value)| value).take(MOST).collect())
    }
}

/// The rank of every value.
pub struct Ranks(Vec<u8>);

impl Ranks {
    /// Those of a palette.
    pub fn of(palette: &Palette) -> Self {
        let mut ranks = vec![ESCAPE; 2 * MAGNITUDES];
        for (rank, &value) in palette.values()[..usize::from(palette.ranks())].iter().enumerate() {
            ranks[usize::from(value)] = rank as u8;
        }
        Self(ranks)
    }

    /// Replaces each value by its rank; `missed` gets the numbers of those that have none.
    pub fn write(&self, values: &[u16], ranks: &mut Vec<u8>, missed: &mut Vec<u32>) {
        ranks.clear();
        ranks.extend(values.iter().map(|&value| self.0[usize::from(value)]));
        missed.clear();
        each_escape(ranks, |at| missed.push(at as u32));
    }
}

/// Calls `each` with the number of every value whose rank is [`ESCAPE`], in order.
pub fn each_escape(ranks: &[u8], mut each: impl FnMut(usize)) {
    for (ranks, at) in ranks.chunks(64).zip((0..).step_by(64)) {
        // Without a branch for each rank: few are escapes.
        if ranks.iter().fold(0u8, |sum, &rank| sum + u8::from(rank == ESCAPE)) > 0 {
            ranks.iter().zip(at..).filter(|(rank, _)| **rank == ESCAPE).for_each(|(_, at)| each(at));
        }
    }
}
