//! What keeps a view from fitting, in words, for names that have no counterpart.

use std::collections::BTreeMap;

use super::experts::{View, Why};
use super::nested::{self, Found};
use super::{Donor, Names, donors};
use crate::plan::inputs::Inputs;
use crate::plan::options::Options;
use crate::text::quote;

/// A reason why tensors have no counterpart.
pub struct Obstacle {
    /// The inputs that it concerns.
    pub inputs: [u32; 2],
    /// The fused tensors' names without prefixes that it concerns. `None` if it concerns all names of the donor.
    pub keys: Option<Vec<String>>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What the end of a message says to do.
const LEAVE_OUT: &str = "leave these layers out (--exclude)";

/// Everything that keeps views from fitting.
pub fn find(inputs: &Inputs, options: &Options) -> Vec<Obstacle> {
    donors(inputs).into_iter().flat_map(|donor| of_donor(inputs, donor, options)).collect()
}

fn of_donor(inputs: &Inputs, donor: Donor, options: &Options) -> Vec<Obstacle> {
    let first = &inputs.list[0];
    let known = Names::of(&first.checkpoint, options);
    let concerned = [0, donor.number as u32];
    let mut found: Vec<Obstacle> = of_fronts(inputs, donor, options)
        .map(|message| Obstacle { inputs: concerned, keys: None, message })
        .into_iter()
        .collect();
    let view = View::of(inputs, donor, &known, options);
    let (here, there) = (&inputs.list[donor.number], first);
    for (pairings, fused, apart) in [(view.cut, here, there), (view.joined, there, here)] {
        let mut by_reason: BTreeMap<Why, Vec<String>> = BTreeMap::new();
        for pairing in pairings {
            let name = || options.strip(&fused.checkpoint.tensors[pairing.fused as usize].name).into_owned();
            if let Some(why) = pairing.why {
                by_reason.entry(why).or_default().push(name());
            }
        }
        let front = format!(
            "the {} has the experts of a layer in one tensor and the {} has them one by one",
            fused.role, apart.role
        );
        found.extend(by_reason.into_iter().map(|(why, keys)| {
            let message = format!("{front}, {}", sentence(why));
            Obstacle { inputs: concerned, keys: Some(keys), message }
        }));
    }
    found
}

/// The end of the sentence about experts.
fn sentence(why: Why) -> String {
    let what = match why {
        Why::Count(fused, apart) => {
            format!("but there are {fused} in the one and {apart} in the other, so they are not the same model")
        }
        Why::Transposed => {
            "but the fused tensor is transposed (as those of Qwen3-VL-MoE and Llama 4 are), which is not read as single experts; save both checkpoints in one layout".into()
        }
        Why::Interleaved => {
            "but the fused tensor has the rows of gate and up in turn (as that of gpt-oss has), which is not read as single experts; save both checkpoints in one layout".into()
        }
        Why::Square => {
            "but the matrices are square, and config.json does not tell whether the fused tensor is transposed; save both checkpoints in one layout".into()
        }
        Why::Blocks => {
            "but the fused tensor has scales for blocks of rows that belong to several matrices, which is not read as single experts; save both checkpoints in one layout".into()
        }
    };
    format!("{what}, or {LEAVE_OUT}")
}

/// What keeps a change of fronts from fitting.
fn of_fronts(inputs: &Inputs, donor: Donor, options: &Options) -> Option<String> {
    let (first, input) = (&inputs.list[0], &inputs.list[donor.number]);
    let roles = (&input.role, &first.role);
    match nested::find(&input.checkpoint, &first.checkpoint, options) {
        Found::Two(one, other) => Some(format!(
            "the names of the {} meet those of the {} in two ways, with {} for {} and with {} for {}; say which is meant, as with {}",
            roles.0,
            roles.1,
            one.to.body,
            one.from.body,
            other.to.body,
            other.from.body,
            one.as_options()
        )),
        Found::Almost(change, missed, example) => Some(format!(
            "the names of the {} would meet those of the {} with {} for {}, but {missed} of them would not, such as {}; leave these out (--exclude)",
            roles.0,
            roles.1,
            change.to.body,
            change.from.body,
            quote(&example)
        )),
        Found::Nothing | Found::Fits(_) => None,
    }
}
