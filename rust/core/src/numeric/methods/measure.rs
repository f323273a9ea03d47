//! What is measured of a whole tensor before its first element is computed: in passes over its blocks, whose results are
//! the same whichever worker has which block.
//!
//! ```text
//! until the thresholds are known:  a pass for each step of the ranks (see `select`)
//! then, if a formula needs sums:   a pass in which each block gives its sums in f64; they are added in the order of blocks
//! ```

use std::ops::Range;

use super::{Formula, Ready, Recipe, Scratch, ram, sce, vectors};
use crate::numeric::select::{Mark, Rank, Step, Table};
use crate::numeric::simd::Isa;

/// What is known of a tensor once it is measured: some tens of bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Thresholds, in the order of the formula's ranks.
    pub marks: Vec<Mark>,
    /// Sums over all elements.
    pub sums: Vec<f64>,
}

impl Measured {
    /// For a journal, little-endian: the number of marks, the marks, the sums.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = (self.marks.len() as u32).to_le_bytes().to_vec();
        for mark in &self.marks {
            bytes.extend(mark.key.to_le_bytes());
            bytes.extend(mark.index.to_le_bytes());
        }
        self.sums.iter().for_each(|sum| bytes.extend(sum.to_bits().to_le_bytes()));
        bytes
    }

    /// The inverse of [`Measured::to_bytes`]; `None` if the bytes have another form.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk::<4>()?;
        let (marks, sums) = rest.split_at_checked(u32::from_le_bytes(*count) as usize * 12)?;
        let mark = |bytes: &[u8; 12]| {
            let (key, index) = bytes.split_first_chunk::<4>()?;
            Some(Mark { key: u32::from_le_bytes(*key), index: u64::from_le_bytes(index.try_into().ok()?) })
        };
        let (sums, left) = sums.as_chunks::<8>();
        left.is_empty().then_some(())?;
        Some(Self {
            marks: marks.as_chunks::<12>().0.iter().map(mark).collect::<Option<_>>()?,
            sums: sums.iter().map(|&bits| f64::from_bits(u64::from_le_bytes(bits))).collect(),
        })
    }
}

/// What one block gives in one pass.
#[derive(Clone, Debug, Default)]
pub struct Partial {
    /// A table for each rank that needs one in this pass.
    tables: Vec<Table>,
    /// The element that a rank looked for.
    found: Option<u64>,
    /// Equal keys that were passed on the way to it.
    passed: u64,
    sums: Vec<f64>,
}

/// One pass: which blocks it visits, and what it does with each.
#[derive(Clone, Debug)]
pub enum Pass {
    /// All blocks: count the keys of these ranks, which need this step.
    Count(Step, Vec<usize>),
    /// One block: find the element of this rank.
    Locate(usize, usize),
    /// All blocks: add up.
    Sums,
}

/// A tensor that is being measured.
#[derive(Clone, Debug)]
pub struct Measure {
    elements: u64,
    blocks: usize,
    ranks: Vec<Rank>,
    pass: Option<Pass>,
    /// Of the present pass: tables of all blocks by rank, all keys by block and rank, equal keys by block and rank, sums by
    /// block.
    tables: Vec<Table>,
    whole: Vec<Vec<Table>>,
    equal: Vec<Vec<u64>>,
    sums: Vec<Vec<f64>>,
    done: usize,
}

impl Measure {
    /// Begins with a tensor of so many elements in so many blocks.
    pub fn new(recipe: &Recipe, elements: u64, blocks: usize) -> Self {
        let ranks = recipe.ranks(elements);
        let (tables, whole, equal, sums) = Default::default();
        let mut measure = Self { elements, blocks, ranks, pass: None, tables, whole, equal, sums, done: 0 };
        measure.next(recipe);
        measure
    }

    /// Bytes of memory that a tensor takes while it is measured.
    pub fn bytes(recipe: &Recipe, elements: u64, blocks: u64) -> u64 {
        let ranks = recipe.ranks(elements).len() as u64;
        ranks * (Table::BYTES + 8 * blocks) + blocks * (8 * recipe.sums() as u64 + 48)
    }

    /// Bytes that a worker needs for what one block gives.
    pub fn partial(recipe: &Recipe, elements: u64) -> u64 {
        recipe.ranks(elements).len() as u64 * Table::BYTES
    }

    /// The present pass; `None` if all is measured.
    pub fn pass(&self) -> Option<&Pass> {
        self.pass.as_ref()
    }

    /// The ranks, as far as they are known.
    pub fn ranks(&self) -> &[Rank] {
        &self.ranks
    }

    /// The blocks that the present pass visits.
    pub fn visits(&self) -> Range<usize> {
        match self.pass {
            Some(Pass::Locate(_, block)) => block..block + 1,
            Some(_) => 0..self.blocks,
            None => 0..0,
        }
    }

    /// What is known.
    pub fn known(&self) -> Measured {
        let mut sums = self.sums.iter().filter(|sums| !sums.is_empty());
        let mut total = sums.next().cloned().unwrap_or_default();
        for block in sums {
            total.iter_mut().zip(block).for_each(|(total, sum)| *total += sum);
        }
        Measured { marks: self.ranks.iter().map(Rank::mark).collect(), sums: total }
    }

    /// Takes what a block gave in the present pass. After the last one it goes on to the next pass, and returns true.
    pub fn take(&mut self, recipe: &Recipe, block: usize, partial: Partial) -> bool {
        match &self.pass {
            Some(Pass::Count(step, ranks)) => {
                for ((number, rank), table) in ranks.iter().enumerate().zip(partial.tables) {
                    match step {
                        Step::Count => self.equal[number][block] = table.equal(),
                        Step::Whole => self.whole[number][block] = table,
                        _ => self.tables[*rank].add(&table),
                    }
                }
            }
            Some(Pass::Locate(rank, _)) => {
                if let Some(index) = partial.found {
                    self.ranks[*rank].take_index(index);
                }
            }
            Some(Pass::Sums) => self.sums[block] = partial.sums,
            None => {}
        }
        self.done += 1;
        let last = self.done == self.visits().len();
        if last {
            self.end();
            self.next(recipe);
        }
        last
    }

    /// Ends a pass over all blocks.
    fn end(&mut self) {
        let Some(Pass::Count(step, ranks)) = self.pass.take() else { return };
        for (number, rank) in ranks.into_iter().enumerate() {
            match step {
                Step::Count => self.ranks[rank].take_counts(self.equal[number].iter().copied()),
                Step::Whole => self.ranks[rank].take_whole(self.whole[number].iter()),
                _ => self.ranks[rank].take(&self.tables[rank]),
            }
        }
        (self.tables, self.whole, self.equal) = Default::default();
    }

    /// Chooses the next pass: first what ranks need, then sums.
    fn next(&mut self, recipe: &Recipe) {
        self.done = 0;
        let needs = |step: Step| -> Vec<usize> {
            (0..self.ranks.len()).filter(|&rank| self.ranks[rank].step() == Some(step)).collect()
        };
        for step in [Step::Whole, Step::High, Step::Low, Step::Count] {
            let ranks = needs(step);
            if !ranks.is_empty() {
                match step {
                    Step::Count => self.equal = vec![vec![0; self.blocks]; ranks.len()],
                    Step::Whole => self.whole = vec![vec![Table::default(); self.blocks]; ranks.len()],
                    _ => self.tables = vec![Table::default(); self.ranks.len()],
                }
                self.pass = Some(Pass::Count(step, ranks));
                return;
            }
        }
        let located = self.ranks.iter().enumerate().find_map(|(number, rank)| match rank.step() {
            Some(Step::Locate(block)) => Some(Pass::Locate(number, block)),
            _ => None,
        });
        self.pass = located;
        if self.pass.is_none() && self.sums.is_empty() && recipe.sums() > 0 && self.blocks > 0 {
            self.sums = vec![Vec::new(); self.blocks];
            self.pass = Some(Pass::Sums);
        }
    }

    /// What does the present pass, on a block of its own. `keys` are those of the models' masks.
    ///
    /// # Errors
    /// As [`Ready::new`].
    pub fn probe<'r>(&self, recipe: &'r Recipe, keys: &[[u32; 2]]) -> Result<Probe<'r>, &'static str> {
        let ready = match self.pass {
            Some(Pass::Sums) => match &recipe.formula {
                Formula::Family(_) => Some(Ready::new(recipe, self.elements, &self.known(), keys)?),
                _ => None,
            },
            _ => None,
        };
        let mark = self.ranks.first().map(Rank::mark);
        Ok(Probe { recipe, ready, mark, pass: self.pass.clone(), ranks: self.ranks.clone() })
    }
}

/// One pass over the groups of one block.
pub struct Probe<'r> {
    recipe: &'r Recipe,
    ready: Option<Ready<'r>>,
    mark: Option<Mark>,
    pass: Option<Pass>,
    ranks: Vec<Rank>,
}

impl Probe<'_> {
    /// Adds the elements `within` of a group of whose operands these are the values, the first of them with index
    /// `first`.
    pub fn add(
        &self,
        isa: Isa,
        rows: &[Vec<f32>],
        first: u64,
        within: Range<usize>,
        scratch: &mut Scratch,
        partial: &mut Partial,
    ) {
        let from = first + within.start as u64;
        match &self.pass {
            Some(Pass::Count(_, ranks)) => {
                partial.tables.resize(ranks.len(), Table::default());
                for (&rank, table) in ranks.iter().zip(&mut partial.tables) {
                    let rank = &self.ranks[rank];
                    self.keys(rank.row, rows, &mut scratch.keys);
                    rank.count(&scratch.keys[within.clone()], table);
                }
            }
            Some(Pass::Locate(rank, _)) => {
                let rank = &self.ranks[*rank];
                self.keys(rank.row, rows, &mut scratch.keys);
                let found = rank.locate(&scratch.keys[within], from, &mut partial.passed);
                partial.found = partial.found.or(found);
            }
            Some(Pass::Sums) => {
                partial.sums.resize(self.recipe.sums(), 0.0);
                self.sums(isa, rows, first, within, scratch, &mut partial.sums);
            }
            None => {}
        }
    }

    fn keys(&self, row: usize, rows: &[Vec<f32>], keys: &mut Vec<u32>) {
        match &self.recipe.formula {
            Formula::Family(family) => family.keys(row, rows, keys),
            _ => sce::keys(rows, keys),
        }
    }

    fn sums(
        &self,
        isa: Isa,
        rows: &[Vec<f32>],
        first: u64,
        within: Range<usize>,
        scratch: &mut Scratch,
        sums: &mut [f64],
    ) {
        match (&self.recipe.formula, &self.ready) {
            (_, Some(Ready::Family(family))) => family.measure(isa, rows, first, within, scratch, sums),
            (Formula::Ram { epsilon, .. }, _) => ram::measure(*epsilon, rows, within, sums),
            (Formula::Sce { .. }, _) => sce::measure(self.mark, rows, first, within, scratch, sums),
            (formula, _) => vectors::measure(formula, rows, within, sums),
        }
    }
}
