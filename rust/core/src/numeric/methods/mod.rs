//! How several models become one: what each merge method computes for one element, or for one row, in f32. Formulas and
//! their order of operations are those of mergekit 0.1.5 in float32; nothing is fused, and the result is rounded to the
//! output's type once.
//!
//! What a formula has to know of the whole tensor (norms, thresholds) is measured first, see `measure`. A new method is
//! a variant of [`Formula`], with its arithmetic in a file of its family.

mod family;
mod linear;
pub mod measure;
pub mod merge;
mod ram;
mod sce;
mod sums;
mod vectors;

use self::family::ReadyFamily;
pub use self::family::{Family, Member, Sparse};
use self::measure::Measured;
pub use self::ram::Boost;
use crate::numeric::philox;
use crate::numeric::select::{self, Rank};
use crate::numeric::simd::Isa;

/// Elements that are worked on at a time, unless a formula takes whole rows.
pub const TILE: u64 = 4096;

/// How a tensor is merged. Its operands are in a fixed order: the base first, if the formula has one, then the models.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// The method with its parameters.
    pub formula: Formula,
    /// How many operands there are, the base included.
    pub operands: usize,
    /// The length of a row, if the formula takes whole rows.
    pub row: Option<u64>,
}

/// A method with its parameters for one tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Formula {
    /// `Σ wᵢxᵢ`, divided by `Σ wᵢ` if they are normalised.
    Linear {
        /// A weight for each operand.
        weights: Vec<f32>,
        /// Whether the sum is divided by that of the weights.
        normalize: bool,
    },
    /// `s·x`, of the only operand.
    Scaled(f32),
    /// The methods that add up differences: see [`Family`].
    Family(Family),
    /// From the base to the other model, along the arc between them.
    Slerp {
        /// 0 is the base, 1 the other.
        t: f32,
    },
    /// Between the base and the mean of the models, by the angles between their differences.
    ModelStock,
    /// Towards the other model where it is near to the base.
    Nearswap {
        /// The difference up to which the other model is taken whole.
        t: f32,
    },
    /// Whole differences where one model moved, means where several did.
    Ram {
        /// A difference counts if it is larger.
        epsilon: f32,
        /// The factors of RAM+, if any.
        boost: Option<Boost>,
    },
    /// The Karcher mean of the directions, with the mean of the norms.
    Karcher {
        /// The most steps.
        steps: u32,
        /// Steps and norms up to this are nothing.
        tolerance: f64,
    },
    /// The weighted mean direction, with the weighted mean of the norms.
    Multislerp {
        /// Whether the first operand is a base, and directions are those of differences.
        base: bool,
        /// A weight for each model, as they are used.
        weights: Vec<f64>,
        /// Added to norms.
        epsilon: f64,
    },
    /// From one model to another, along the arc between them.
    Nuslerp {
        /// Whether the first operand is a base, and directions are those of differences.
        base: bool,
        /// 0 is the first model, 1 the second.
        t: f64,
    },
    /// The elements in which models differ most, weighted by their squares.
    Sce {
        /// The share of the elements that differ which is kept.
        share: f32,
    },
}

impl Recipe {
    /// How many rows of keys the formula ranks, at most.
    pub fn key_rows(&self) -> usize {
        match &self.formula {
            Formula::Family(family) => family.members.len(),
            Formula::Sce { share } => usize::from(*share < 1.0),
            _ => 0,
        }
    }

    /// The ranks that have to be found in a tensor of so many elements.
    pub fn ranks(&self, elements: u64) -> Vec<Rank> {
        match &self.formula {
            Formula::Family(family) => family.ranks(elements),
            Formula::Sce { share } if *share < 1.0 => vec![sce::rank(*share, elements)],
            _ => Vec::new(),
        }
    }

    /// How many sums over the tensor are needed, once ranks are known.
    pub fn sums(&self) -> usize {
        let models = self.operands - 1;
        match &self.formula {
            _ if self.row.is_some() && !matches!(self.formula, Formula::Family(_)) => 0,
            Formula::Slerp { .. } => sums::pairs(2),
            Formula::ModelStock => sums::pairs(models),
            Formula::Karcher { .. } => sums::pairs(self.operands),
            Formula::Multislerp { base, weights, .. } if weights.len() > 1 => {
                sums::pairs(self.operands - usize::from(*base))
            }
            Formula::Nuslerp { .. } => sums::pairs(2),
            Formula::Family(family) => family.sums(),
            Formula::Ram { boost: Some(_), .. } => 2 * models,
            Formula::Sce { .. } => models,
            _ => 0,
        }
    }

    /// Whether anything of the whole tensor has to be known before the first element is computed.
    pub fn is_measured(&self, elements: u64) -> bool {
        self.sums() > 0 || !self.ranks(elements).is_empty()
    }

    /// How often a tensor is read before it is computed, at least: for thresholds, and for sums.
    pub fn passes(&self, elements: u64) -> u64 {
        u64::from(!self.ranks(elements).is_empty()) + u64::from(self.sums() > 0)
    }

    /// For each model, whether it needs random numbers.
    pub fn draws(&self) -> Vec<bool> {
        match &self.formula {
            Formula::Family(family) => family.members.iter().map(Member::draws).collect(),
            _ => Vec::new(),
        }
    }

    /// The elements that are computed together with element `at` of a tensor: its row, or a tile from `from` on.
    pub fn group(&self, from: u64, at: u64, end: u64) -> std::ops::Range<u64> {
        match self.row {
            Some(row) => at / row * row..(at / row + 1) * row,
            None => at..end.min(from + ((at - from) / TILE + 1) * TILE),
        }
    }

    /// The most elements that are computed together.
    pub fn longest(&self) -> u64 {
        self.row.unwrap_or(TILE)
    }

    /// Bytes of scratch that a worker needs for a group.
    pub fn scratch(&self) -> u64 {
        // Operands, differences, the result, what figures are taken from, and keys with their order.
        self.longest() * (self.operands as u64 * 8 + 56)
    }
}

/// A formula with all that it needs to compute elements.
pub enum Ready<'r> {
    /// See [`Formula::Linear`].
    Linear(&'r [f32], bool),
    /// `s·x`.
    Scaled(f32),
    /// See [`Family`].
    Family(ReadyFamily<'r>),
    /// `Σ cᵢxᵢ`.
    Blend(Vec<f32>),
    /// `b + Σ cᵢ(xᵢ − b)`.
    BlendDeltas(Vec<f32>),
    /// `t·mean(xᵢ) + (1 − t)·b`.
    Stock(f32),
    /// One of the others, for each row anew.
    ByRow(&'r Formula),
    /// See [`Formula::Nearswap`].
    Nearswap(f32),
    /// The threshold, and a factor for each model.
    Ram(f32, Vec<f32>),
    /// The mark of the variance, and a weight for each model.
    Sce(Option<select::Mark>, Vec<f32>),
    /// This operand as it is.
    Only(usize),
}

/// Room for the values of a group. It is kept from group to group.
#[derive(Default)]
pub struct Scratch {
    differences: Vec<Vec<f32>>,
    keys: Vec<u32>,
    order: Vec<u64>,
    spare: Vec<u64>,
    words: Vec<u32>,
}

/// The key of the mask of a model for a tensor. It is another domain than that of stochastic rounding, and each model
/// has a mask of its own.
pub fn mask_key(seed: u64, place: usize, tensor: &str) -> [u32; 2] {
    philox::key(seed, &format!("mask\0{place}\0{tensor}"))
}

impl<'r> Ready<'r> {
    /// Prepares a recipe for a tensor of which this is known. `keys` are those of the models' masks; they may be left
    /// out where nothing is drawn.
    ///
    /// # Errors
    /// The operands have no mean of this kind. The text completes "tensor …: …".
    pub fn new(recipe: &'r Recipe, elements: u64, known: &Measured, keys: &[[u32; 2]]) -> Result<Self, &'static str> {
        let (sums, marks) = (&known.sums[..], &known.marks[..]);
        Ok(match &recipe.formula {
            Formula::Linear { weights, normalize } => Self::Linear(weights, *normalize),
            Formula::Scaled(scale) => Self::Scaled(*scale),
            Formula::Family(family) => Self::Family(ReadyFamily::new(family, elements, sums, marks, keys)),
            Formula::Nearswap { t } => Self::Nearswap(*t),
            Formula::Ram { epsilon, boost } => Self::Ram(*epsilon, ram::factors(*boost, recipe.operands - 1, sums)),
            Formula::Sce { .. } => Self::Sce(marks.first().copied(), sce::weights(sums, elements, recipe.operands - 1)),
            Formula::Multislerp { base, weights, .. } if weights.len() == 1 => Self::Only(usize::from(*base)),
            formula if recipe.row.is_some() => Self::ByRow(formula),
            formula => vectors::ready(formula, recipe.operands, sums)?,
        })
    }

    /// Computes the elements of a group, the first of which is `first`, from the operands' values of the same elements.
    pub fn compute(&self, isa: Isa, rows: &[Vec<f32>], first: u64, scratch: &mut Scratch, out: &mut [f32]) {
        match self {
            Self::Linear(weights, normalize) => linear::linear(weights, *normalize, rows, out),
            Self::Scaled(scale) => linear::scale(*scale, &rows[0], out),
            Self::Family(family) => family.compute(isa, rows, first, scratch, out),
            Self::Blend(coefficients) => linear::blend(coefficients, rows, out),
            Self::BlendDeltas(coefficients) => linear::blend_deltas(coefficients, rows, out),
            Self::Stock(t) => linear::stock(*t, rows, out),
            Self::ByRow(formula) => match vectors::of_row(formula, rows) {
                Ok(ready) => ready.compute(isa, rows, first, scratch, out),
                Err(_) => out.fill(f32::NAN),
            },
            Self::Nearswap(t) => linear::nearswap(*t, rows, out),
            Self::Ram(epsilon, factors) => ram::compute(*epsilon, factors, rows, out),
            Self::Sce(mark, weights) => sce::compute(*mark, weights, rows, first, scratch, out),
            Self::Only(operand) => out.copy_from_slice(&rows[*operand]),
        }
    }
}
