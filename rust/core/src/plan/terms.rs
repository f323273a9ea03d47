//! The summands of one tensor of the output.

use std::ops::Deref;

use crate::plan::inputs::At;

/// One summand of a tensor of the output.
#[derive(Clone, Copy, Debug)]
pub struct TermPlan {
    /// The minuend, or a vector's values.
    pub minuend: At,
    /// `None` if `minuend` is a stored vector.
    pub subtrahend: Option<At>,
    /// A vector's exceptions: the tensors with their indices and their values.
    pub exceptions: Option<(At, At)>,
    /// The factor; never 0.
    pub alpha: f32,
    /// The number of leading elements that all tensors of this term have.
    pub elements: u64,
}

/// The summands of a tensor, in order. Nearly always there is just one, and it takes no memory elsewhere.
#[derive(Clone, Debug)]
pub enum Terms {
    /// One summand.
    One(TermPlan),
    /// None or several.
    List(Box<[TermPlan]>),
}

impl Terms {
    /// Bytes of memory that they take beside their own.
    pub fn memory(&self) -> u64 {
        match self {
            Self::One(_) => 0,
            Self::List(list) => size_of_val(&**list) as u64,
        }
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self::List(Box::default())
    }
}

impl From<Vec<TermPlan>> for Terms {
    fn from(terms: Vec<TermPlan>) -> Self {
        match terms[..] {
            [term] => Self::One(term),
            _ => Self::List(terms.into()),
        }
    }
}

impl Deref for Terms {
    type Target = [TermPlan];

    fn deref(&self) -> &[TermPlan] {
        match self {
            Self::One(term) => std::slice::from_ref(term),
            Self::List(list) => list,
        }
    }
}
