//! Objections to a job from configs and tokenizers, such as a token with another id. Python finds them. An objection
//! counts only if it concerns a tensor that is combined.

use crate::checkpoint::tied;
use crate::plan::inputs::Inputs;
use crate::plan::matching::Matching;
use crate::plan::matching::problems::Problem;
use crate::plan::options::Claim;

/// The claims that concern a combined tensor, as problems. If the inputs do not fit together anyway, all claims are
/// returned, because then it is not known which tensors would be combined.
pub fn problems(claims: &[Claim], inputs: &Inputs, found: &Matching) -> Vec<Problem> {
    let concerns = |claim: &Claim| {
        !found.problems.is_empty()
            || found.matches.iter().any(|found| {
                let tensor = inputs.outlined(found.tensor);
                // How many of its leading elements come from another input.
                let grafted = (found.from.input != 0).then(|| tensor.elements());
                found.terms.iter().map(|term| term.elements).chain(grafted).any(|elements| match claim.row {
                    None => true,
                    Some(row) => {
                        let width: u64 = tensor.shape.iter().skip(1).product();
                        tied::is_vocabulary(&tensor.name) && elements > row.saturating_mul(width)
                    }
                })
            })
    };
    let problem = |claim: &Claim| Problem::of_file(claim.file.as_str(), claim.message.as_str());
    claims.iter().filter(|claim| concerns(claim)).map(problem).collect()
}
