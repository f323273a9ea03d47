//! What a caller asks for.

pub(in crate::plan) mod recipe;

use crate::plan::alpha::Alpha;
use crate::plan::merge::{Document, Shared};
use crate::storage::place::Place;

/// What the caller asks for: the verb and its inputs.
#[derive(Clone, Debug)]
pub enum Request {
    /// Write `minuend − subtrahend` as a vector.
    Extract {
        /// The checkpoint that has the skill.
        minuend: Place,
        /// The checkpoint it was trained from.
        subtrahend: Place,
    },
    /// Write `target + Σ αᵢ·vᵢ`.
    Apply {
        /// The checkpoint that receives the vectors.
        target: Place,
        /// Vector folders and their factors, in the order of the sum.
        vectors: Vec<(Place, Alpha)>,
    },
    /// Write `target + α·(minuend − subtrahend)` without storing the vector.
    Transfer {
        /// The checkpoint that receives the vector.
        target: Place,
        /// The checkpoint that has the skill.
        minuend: Place,
        /// The checkpoint it was trained from.
        subtrahend: Place,
        /// The factor.
        alpha: Alpha,
    },
    /// Store a vector with another encoding.
    Convert {
        /// The vector.
        vector: Place,
    },
    /// Write `Σ αᵢ·vᵢ` as a vector.
    Combine {
        /// Vector folders and their factors, in the order of the sum.
        vectors: Vec<(Place, Alpha)>,
    },
    /// Write random numbers as a vector, in place of the values of another one.
    Randomize {
        /// The numbers: a checkpoint with the vector's tensors, already scaled.
        noise: Place,
        /// The vector, for the record: none of its values are read.
        vector: Place,
        /// What the numbers were drawn from.
        seed: u64,
    },
    /// Copy tensors of donors into the target, byte for byte.
    Graft {
        /// The checkpoint that receives them.
        target: Place,
        /// Checkpoints, each with the patterns of the tensors that are taken from it.
        donors: Vec<(Place, Vec<String>)>,
    },
    /// Merge several checkpoints.
    Merge {
        /// The distinct models, a base among them.
        inputs: Vec<Place>,
        /// What becomes of them, tensor by tensor.
        document: Shared,
    },
    /// Read a checkpoint's own values, for a consumer that compares them or puts them back.
    Read {
        /// The checkpoint.
        target: Place,
    },
}

impl Request {
    /// The verb, as on the command line.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Extract { .. } => "extract",
            Self::Apply { .. } => "apply",
            Self::Transfer { .. } => "transfer",
            Self::Convert { .. } => "convert",
            Self::Combine { .. } => "combine",
            Self::Randomize { .. } => "randomize",
            Self::Graft { .. } => "graft",
            Self::Merge { .. } => "merge",
            Self::Read { .. } => "read",
        }
    }

    /// The document of a merge.
    pub fn document(&self) -> Option<&Document> {
        match self {
            Self::Merge { document, .. } => Some(document),
            _ => None,
        }
    }

    /// The same request with another factor for its vectors.
    #[must_use]
    pub fn with_alpha(&self, new: &Alpha) -> Self {
        let mut request = self.clone();
        match &mut request {
            Self::Apply { vectors, .. } => vectors.iter_mut().for_each(|(_, alpha)| *alpha = new.clone()),
            Self::Transfer { alpha, .. } => *alpha = new.clone(),
            _ => {}
        }
        request
    }
}
