//! How many exceptions each tensor of a vector has.

/// Tensors by index in the layout, in order, with their exceptions; those that have none are left out.
#[derive(Debug, Default)]
pub struct Tally(Vec<(u32, u64)>);

impl Tally {
    /// Adds the counts of a window.
    pub fn add(&mut self, counts: &[(u32, u64)]) {
        for &(tensor, count) in counts {
            match self.0.last_mut() {
                Some((last, sum)) if *last == tensor => *sum += count,
                _ => self.0.push((tensor, count)),
            }
        }
    }

    /// All exceptions so far.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Those of each tensor that has any.
    pub fn counts(&self) -> &[(u32, u64)] {
        &self.0
    }
}
