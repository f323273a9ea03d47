//! Matches the tensors that a document names with those of the inputs, and gives each its place in the output.

use std::collections::HashMap;

use super::recipe::{Case, Treatment};
use super::{Document, From, Outline};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Result};
use crate::format::config;
use crate::numeric::dtype::{Dtype, Float};
use crate::numeric::methods::Recipe;
use crate::plan::inputs::{At, Inputs};
use crate::plan::matching::problems::Problem;
use crate::plan::matching::{Match, Matching, SameBytes};
use crate::plan::terms::TermPlan;
use crate::text::quote;

/// How the tensors of a merge are merged.
#[derive(Debug)]
pub struct Ways {
    /// The type in which each match is written, and its recipe, if it is not just copied or converted.
    pub treatments: Vec<(Dtype, Option<u32>)>,
    /// The recipes.
    pub recipes: Vec<Recipe>,
}

/// Matches the inputs with a document: matches in the order of the output, its tensors, and how they are merged.
///
/// # Errors
/// Parameters with values that they cannot have.
pub fn match_inputs(document: &Document, inputs: &Inputs) -> Result<(Matching, Outline, Ways)> {
    let used = inputs.list.iter().map(|input| vec![false; input.checkpoint.tensors.len()]).collect();
    let (found, recipes, cases) = Default::default();
    let mut matcher = Matcher { document, inputs, found, recipes, cases, used };
    for input in &inputs.list {
        matcher.found.problems.extend(input.checkpoint.unread.as_ref().map(|unread| Problem::unread(input, unread)));
    }
    matcher.config();
    let mut entries = Vec::with_capacity(document.tensors.len());
    if document.tensors.is_empty() {
        return Err(Error::Usage("the document of the merge names no tensor".into()));
    }
    for number in 0..document.tensors.len() {
        entries.extend(matcher.entry(number)?);
    }
    // In the order of the input whose layout the output has; what it lacks comes after its own in the same shard.
    entries.sort_by_key(|entry| entry.place);
    matcher.notes();
    let Matcher { mut found, recipes, .. } = matcher;
    let (mut tensors, mut treatments) = (Vec::with_capacity(entries.len()), Vec::with_capacity(entries.len()));
    for (number, Placed { tensor, matched, treatment, .. }) in (0..).zip(entries) {
        tensors.push(tensor);
        found.matches.push(Match { tensor: number, ..matched });
        treatments.push(treatment);
    }
    let outline = Outline { input: document.sidecars as u32, tensors };
    Ok((found, outline, Ways { treatments, recipes }))
}

struct Matcher<'a> {
    document: &'a Document,
    inputs: &'a Inputs,
    found: Matching,
    recipes: Vec<Recipe>,
    /// What was decided for cases that were seen, and the recipe of each.
    cases: HashMap<Case, (Treatment, u32)>,
    used: Vec<Vec<bool>>,
}

/// A tensor of the output, with its place: shard, whether that is a guess, where its values begin in the shard.
struct Placed {
    place: (u32, bool, u64),
    tensor: Tensor,
    matched: Match,
    treatment: (Dtype, Option<u32>),
}

impl Matcher<'_> {
    /// What becomes of one tensor; `None` if there is a problem with it.
    fn entry(&mut self, number: usize) -> Result<Option<Placed>> {
        let entry = &self.document.tensors[number];
        let mut operands: Vec<(usize, At)> = Vec::new();
        for (input, from) in entry.from.iter().enumerate() {
            let name = match from {
                None => continue,
                Some(From::Same(_)) => &entry.name,
                Some(From::Named(name)) => name,
            };
            let checkpoint = &self.inputs.list[input].checkpoint;
            match checkpoint.find(name) {
                Some(tensor) => {
                    self.used[input][tensor as usize] = true;
                    operands.push((input, At { input: input as u32, tensor }));
                }
                None => {
                    let role = self.document.role(input);
                    let what = format!("the {role} has no tensor {}, which the merge takes for it", quote(name));
                    self.problem(&checkpoint.place.root.display().to_string(), number, &what);
                    return Ok(None);
                }
            }
        }
        let Some(&(_, first)) = operands.first() else {
            self.problem("the merge", number, "no input takes part in it");
            return Ok(None);
        };
        if let Some(what) = self.differ(&operands) {
            self.problem(&self.inputs.path(first).display().to_string(), number, &what);
            return Ok(None);
        }
        let tensor = self.inputs.tensor(first);
        if tensor.dtype.float().is_none() {
            let same = |&(_, head): &(usize, At)| SameBytes { head, embedding: first };
            self.found.same.extend(operands[1..].iter().map(same));
            return Ok(Some(self.placed(number, &operands, first, tensor.dtype, &[], None)));
        }
        let present = operands.iter().map(|&(input, _)| input).collect();
        let row = tensor.shape.last().copied().unwrap_or(1);
        let (treatment, recipe) = self.treatment(Case { settings: entry.settings, present, row })?;
        let at = |input: usize| operands.iter().find(|(other, _)| *other == input).map_or(first, |&(_, at)| at);
        let dtype = self.dtype(&operands);
        Ok(Some(match treatment {
            Treatment::Refuse(what) => {
                self.problem(&self.inputs.path(first).display().to_string(), number, &what);
                return Ok(None);
            }
            Treatment::Copy(input) => self.placed(number, &operands, at(input), dtype, &[], None),
            Treatment::Merge(..) if tensor.elements() == 0 => self.placed(number, &operands, first, dtype, &[], None),
            Treatment::Merge(order, _) => {
                let order: Vec<At> = order.into_iter().map(at).collect();
                self.placed(number, &operands, order[0], dtype, &order[1..], Some(recipe))
            }
        }))
    }

    /// The treatment of a case, and the number of its recipe.
    fn treatment(&mut self, case: Case) -> Result<(Treatment, u32)> {
        if let Some(known) = self.cases.get(&case) {
            return Ok(known.clone());
        }
        let treatment = self.document.treatment(&case)?;
        let number = self.recipes.len() as u32;
        if let Treatment::Merge(_, recipe) = &treatment {
            self.recipes.push(recipe.clone());
        }
        self.cases.insert(case, (treatment.clone(), number));
        Ok((treatment, number))
    }

    /// Why operands cannot be merged, whatever the method.
    fn differ(&self, operands: &[(usize, At)]) -> Option<String> {
        let (first, at) = operands[0];
        let mine = self.inputs.tensor(at);
        operands[1..].iter().find_map(|&(input, at)| {
            let theirs = self.inputs.tensor(at);
            let roles = (self.document.role(first), self.document.role(input));
            if mine.shape != theirs.shape {
                let (a, b) = (&mine.shape, &theirs.shape);
                return Some(format!(
                    "its shape is {a:?} in {} but {b:?} in {}; inputs of a merge have equal shapes",
                    roles.0, roles.1
                ));
            }
            let alike = mine.dtype == theirs.dtype || (mine.dtype.float().is_some() && theirs.dtype.float().is_some());
            (!alike).then(|| {
                format!("it is {} in {} but {} in {}; these are not merged", mine.dtype, roles.0, theirs.dtype, roles.1)
            })
        })
    }

    /// The type in which a float tensor is written.
    fn dtype(&self, operands: &[(usize, At)]) -> Dtype {
        if let Some(float) = self.document.dtype {
            return float.dtype();
        }
        let mut types = operands.iter().map(|&(_, at)| self.inputs.own_dtype(at));
        let first = types.next().unwrap_or(Dtype::F32);
        if types.all(|other| other == first) { first } else { Float::F32.dtype() }
    }

    fn placed(
        &self,
        number: usize,
        operands: &[(usize, At)],
        from: At,
        dtype: Dtype,
        others: &[At],
        recipe: Option<u32>,
    ) -> Placed {
        let shown = self.inputs.tensor(from);
        let layout = operands.iter().find(|(input, _)| *input == self.document.sidecars).map(|&(_, at)| at);
        let last = (self.inputs.list[self.document.sidecars].checkpoint.shards.len() as u32).saturating_sub(1);
        let like = self.inputs.tensor(layout.unwrap_or(from));
        let shard = like.shard.min(last);
        let mut tensor = Tensor { shard, ..shown.clone() };
        // Mostly it is the name that it has there, which then is in memory once.
        if tensor.name != *self.document.tensors[number].name {
            tensor.name = self.document.tensors[number].name.as_str().into();
        }
        let elements = shown.elements();
        let term = |&minuend: &At| TermPlan { minuend, subtrahend: None, exceptions: None, alpha: 1.0, elements };
        let terms = others.iter().map(term).collect::<Vec<_>>().into();
        let matched = Match { tensor: 0, from, terms };
        Placed { place: (shard, layout.is_none(), like.begin), tensor, matched, treatment: (dtype, recipe) }
    }

    fn problem(&mut self, file: &str, number: usize, what: &str) {
        let name = self.document.tensors[number].name.as_str();
        let problem = Problem { tensor: Some(name.into()), ..Problem::of_file(file, what) };
        self.found.problems.push(problem);
    }

    /// Reports a member of the config that is to get another value, but is not there.
    fn config(&mut self) {
        let Checkpoint { config, place, .. } = &*self.inputs.list[self.document.sidecars].checkpoint;
        let missing = match config.with_members(&self.document.config_edits) {
            Some((_, missing)) => missing,
            None => self.document.config_edits.first().map(|(path, _)| path.as_str()),
        };
        if let Some(path) = missing {
            let file = place.path(config::FILE).display().to_string();
            let what = format!("has no member {}, which the merge gives another value", quote(path));
            self.found.problems.push(Problem::of_file(file, what));
        }
    }

    /// Says what the inputs have that the document does not take.
    fn notes(&mut self) {
        for (input, used) in self.inputs.list.iter().zip(&self.used) {
            let Checkpoint { tensors, notes, .. } = &*input.checkpoint;
            self.found.notes.extend(notes.iter().cloned());
            let unused =
                || used.iter().zip(tensors).filter(|(used, _)| !**used).map(|(_, tensor)| tensor.name.as_str());
            let (count, names) = (unused().count(), unused().take(3).collect::<Vec<_>>().join(", "));
            if count > 0 {
                let more = if count > 3 { format!(" and {} more", count - 3) } else { String::new() };
                self.found.notes.push(format!("{count} tensor(s) of {} are not used: {names}{more}", input.role));
            }
        }
    }
}
