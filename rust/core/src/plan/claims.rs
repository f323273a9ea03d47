//! What configs and tokenizers say against a job. It counts only where it concerns a tensor that is combined.

use crate::checkpoint::tied;
use crate::plan::inputs::Inputs;
use crate::plan::matching::{Matching, Problem};

/// One such statement, made before the headers were read.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The file that says it.
    pub file: String,
    /// One sentence: what is wrong and what to do.
    pub message: String,
    /// The first row that means another token, where only vocabulary tensors are concerned.
    pub row: Option<u64>,
}

/// The claims that concern a tensor that is combined; all of them where the inputs do not fit anyway, since what would be
/// combined is not known then.
pub fn problems(claims: &[Claim], inputs: &Inputs, found: &Matching) -> Vec<Problem> {
    let concerns = |claim: &Claim| {
        !found.problems.is_empty()
            || found.matches.iter().any(|found| {
                let tensor = &inputs.base().tensors[found.tensor as usize];
                found.terms.iter().any(|term| match claim.row {
                    None => true,
                    Some(row) => {
                        let width: u64 = tensor.shape.iter().skip(1).product();
                        tied::is_vocabulary(&tensor.name) && term.elements > row.saturating_mul(width)
                    }
                })
            })
    };
    let problem = |claim: &Claim| Problem { file: claim.file.clone(), tensor: None, message: claim.message.clone() };
    claims.iter().filter(|claim| concerns(claim)).map(problem).collect()
}
