//! The tensors of a vector that is written: differences of two donors, or sums over other vectors.

use super::views::{Difference, View};
use super::{Match, Matcher, Problem};
use crate::numeric::dtype::{Float, Kind};
use crate::plan::inputs::At;
use crate::plan::terms::{TermPlan, Terms};

impl<'a> Matcher<'a> {
    /// Matches the first input's tensors with those of every origin.
    pub(super) fn vector(&mut self, views: &mut [View<'a>]) {
        for at in self.tensors(0) {
            let name = self.options.strip(self.name(at));
            if views[0].get(&name).is_none_or(|difference| difference.minuend != at) {
                continue;
            }
            let tensor = self.inputs.tensor(at);
            if !self.options.selects(&name) {
                self.note("tensor(s) not selected by --include/--exclude, not in the vector", &tensor.name);
            } else if tensor.dtype.kind() == Kind::Integer {
                if self.looks_quantised(at) {
                    self.problem(at, format!("its {} values look like codes of a quantised format, and arithmetic on codes has no meaning; use the unquantised checkpoint", tensor.dtype));
                }
                self.note("integer tensor(s), not in the vector", &tensor.name);
            } else if let Some(terms) = self.summands(at, &name, views) {
                self.found.matches.push(Match { tensor: at.tensor, from: at, terms });
            }
        }
        self.only_in_later(views);
        self.of_one_model();
        if self.found.matches.is_empty() && self.found.problems.is_empty() {
            let file = self.inputs.base().place.root.display().to_string();
            let message = "no tensor is left to subtract; include more of them or exclude fewer (--include, --exclude)"
                .to_owned();
            self.found.problems.push(Problem::of_file(file, message));
        }
    }

    /// The terms of one tensor; `None` if it has a problem.
    fn summands(&mut self, at: At, name: &str, views: &mut [View<'a>]) -> Option<Terms> {
        let mut terms = Vec::with_capacity(views.len());
        for (number, (view, (_, alpha))) in views.iter_mut().zip(&self.inputs.origins).enumerate() {
            let Some(&mut difference) = view.get(name) else {
                self.problem(
                    at,
                    format!(
                        "vector {} has no tensor of this name; only vectors of the same tensors can be combined",
                        number + 1
                    ),
                );
                return None;
            };
            if !self.floats(&difference) {
                return None;
            }
            let whole: Vec<At> =
                [Some(at), Some(difference.minuend), difference.subtrahend].into_iter().flatten().collect();
            let elements = self.common_elements(&whole)?;
            let alpha = alpha.as_ref().map_or(1.0, |alpha| alpha.value);
            let (minuend, subtrahend, exceptions) = (difference.minuend, difference.subtrahend, difference.exceptions);
            // A vector times 0 adds nothing.
            if alpha != 0.0 {
                terms.push(TermPlan { minuend, subtrahend, exceptions, alpha, elements });
            }
        }
        Some(terms.into())
    }

    /// Reports tensors that a later vector has and the first has not.
    fn only_in_later(&mut self, views: &mut [View<'a>]) {
        let Some((first, later)) = views.split_first_mut() else { return };
        for (number, view) in later.iter().enumerate() {
            for Difference { minuend: at, .. } in view.differences() {
                if first.get(&self.options.strip(self.name(at))).is_some() {
                    continue;
                }
                self.problem(at, format!("vector {} has this tensor but vector 1 does not; only vectors of the same tensors can be combined", number + 2));
            }
        }
    }

    /// Reports vectors of models that do not tie their heads alike: the sum could only say one of both.
    fn of_one_model(&mut self) {
        let described = self.inputs.described();
        for input in &self.inputs.list {
            let Some(vector) = input.vector.as_ref().filter(|vector| vector.tied != described.tied) else { continue };
            let tied = |tied: Option<bool>| tied.map_or("unknown", |tied| if tied { "tied" } else { "separate" });
            let message = format!(
                "the output head of its model is {}, and that of the first vector is {}; they belong to different models",
                tied(vector.tied),
                tied(described.tied)
            );
            let file = input.checkpoint.place.path(crate::checkpoint::vector::FILE).display().to_string();
            self.found.problems.push(Problem::of_file(file, message));
        }
    }
}

/// The type in which a vector's tensor is stored: bf16 if all that it is computed from is bf16, otherwise f32.
pub fn vector_dtype(mut operands: impl Iterator<Item = Float>) -> Float {
    if operands.all(|float| float == Float::Bf16) { Float::Bf16 } else { Float::F32 }
}
