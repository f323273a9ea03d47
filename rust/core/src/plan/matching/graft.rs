//! Tensors of donors that are copied into the target. A quantised weight is copied with all of its parts, and only over
//! a weight that is quantised in the same way.

use std::collections::HashMap;

use super::{Match, Matcher, Terms};
use crate::checkpoint::quantised::units::{Unit, units};
use crate::checkpoint::tied;
use crate::error::{Error, Result};
use crate::plan::inputs::At;

impl Matcher<'_> {
    /// Matches the units that are taken from donors with those of the target.
    ///
    /// # Errors
    /// A pattern that matches no tensor of its donor.
    pub(super) fn graft(&mut self) -> Result<()> {
        let own = units(self.inputs.base())?;
        let by_name: HashMap<&str, &Unit> = own.iter().map(|unit| (&*unit.name, unit)).collect();
        // By tensor of the target, what replaces it.
        let mut taken: HashMap<u32, At> = HashMap::new();
        for (input, patterns) in &self.inputs.grafts {
            let donor = &self.inputs.list[*input as usize];
            let theirs = units(&donor.checkpoint)?;
            for pattern in patterns {
                if !theirs.iter().any(|unit| pattern.is_match(&unit.name)) {
                    return Err(Error::Usage(format!(
                        "--take `{pattern}` matches no tensor of {}; see `taskvec inspect` for the names",
                        donor.checkpoint.place.root.display()
                    )));
                }
            }
            let selected = |unit: &&Unit| patterns.iter().any(|pattern| pattern.is_match(&unit.name));
            for unit in theirs.iter().filter(selected) {
                let first = At { input: *input, tensor: unit.parts[0] };
                match by_name.get(&*unit.name) {
                    Some(target) => self.replace(target, *input, unit, &mut taken),
                    None => self.unmatched(
                        first,
                        "are not in the target",
                        "take fewer (--take)",
                        "the target has no tensor of this name; take fewer (--take)",
                    ),
                }
            }
            let known: HashMap<&str, &Unit> = theirs.iter().map(|unit| (&*unit.name, unit)).collect();
            for unit in own.iter().filter(selected).filter(|unit| !known.contains_key(&*unit.name)) {
                let what = format!("--take names it, but {} has no tensor of this name; take fewer", donor.role);
                self.problem(At { input: 0, tensor: unit.parts[0] }, what);
            }
        }
        for at in self.tensors(0) {
            // A tied head repeats the embedding, wherever that comes from.
            let embedding = tied::tied_embedding(self.inputs.base(), at.tensor);
            if embedding.is_some() {
                self.drop_tied(at);
            }
            let from = taken.get(&embedding.unwrap_or(at.tensor)).copied();
            if from.is_some() {
                self.note("tensor(s) taken from donors", self.name(at));
            }
            let from = from.unwrap_or(embedding.map_or(at, |tensor| At { tensor, ..at }));
            self.found.matches.push(Match { tensor: at.tensor, from, terms: Terms::default() });
        }
        Ok(())
    }

    /// Replaces a unit of the target, part by part.
    fn replace(&mut self, target: &Unit, input: u32, donor: &Unit, taken: &mut HashMap<u32, At>) {
        let at = |part: u32| At { input, tensor: part };
        let first = At { input: 0, tensor: target.parts[0] };
        if let Some(other) = taken.get(&target.parts[0]) {
            let roles = [other.input, input].map(|input| &self.inputs.list[input as usize].role);
            let what = format!("both {} and {} are to replace it; take it from one of them", roles[0], roles[1]);
            return self.problem(first, what);
        }
        let quantised = |unit: &Unit| unit.format.as_ref().map_or("not quantised".into(), ToString::to_string);
        if target.format != donor.format {
            let what = format!(
                "it is {} in the target but {} in the donor; only bytes of one format can be taken over",
                quantised(target),
                quantised(donor)
            );
            return self.problem(first, what);
        }
        if target.parts.len() != donor.parts.len() {
            let what =
                format!("it has {} parts in the target but {} in the donor", target.parts.len(), donor.parts.len());
            return self.problem(first, what);
        }
        for (&own, &theirs) in target.parts.iter().zip(&donor.parts) {
            let own = At { input: 0, tensor: own };
            let (a, b) = (self.inputs.tensor(own), self.inputs.tensor(at(theirs)));
            if a.name != b.name || a.dtype != b.dtype || a.shape != b.shape {
                let what = format!(
                    "it is {} {:?} in the target but `{}` is {} {:?} in the donor; only tensors of equal type and shape can be taken",
                    a.dtype, a.shape, b.name, b.dtype, b.shape
                );
                return self.problem(own, what);
            }
        }
        taken.extend(target.parts.iter().zip(&donor.parts).map(|(&own, &theirs)| (own, at(theirs))));
    }
}
