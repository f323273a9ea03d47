//! What each origin has: the vector it stands for, by name, before it meets a target.

use std::collections::HashMap;

use super::{Matcher, SameBytes};
use crate::inputs::{At, Origin};
use crate::tie;

/// A tensor of the (virtual) vector: what one origin has under a name.
#[derive(Clone, Copy)]
pub(super) struct Difference {
    pub minuend: At,
    pub subtrahend: Option<At>,
    pub exceptions: Option<(At, At)>,
    pub used: bool,
}

impl<'a> Matcher<'a> {
    /// The vector that an origin stands for, by name without prefixes: what `extract` would write.
    pub(super) fn view(&mut self, origin: &Origin) -> HashMap<&'a str, Difference> {
        match *origin {
            Origin::Pair { minuend, subtrahend } => self.pair_view(minuend, subtrahend),
            Origin::Vector { dense, exceptions, .. } => {
                let inputs = self.inputs;
                let find = |name: String| {
                    let input = exceptions?;
                    let tensor = inputs.list[input as usize].checkpoint.find(&name)?;
                    Some(At { input, tensor })
                };
                let mut view = HashMap::new();
                for minuend in self.tensors(dense) {
                    let name = self.name(minuend);
                    let exceptions = find(format!("{name}.index")).zip(find(format!("{name}.value")));
                    self.insert(&mut view, Difference { minuend, subtrahend: None, exceptions, used: false });
                }
                view
            }
        }
    }

    pub(super) fn tensors(&self, input: u32) -> impl Iterator<Item = At> + use<'a> {
        (0u32..).zip(&self.inputs.list[input as usize].checkpoint.tensors).map(move |(tensor, _)| At { input, tensor })
    }

    fn insert(&mut self, view: &mut HashMap<&'a str, Difference>, difference: Difference) {
        let name = self.options.strip(self.name(difference.minuend));
        if view.insert(name, difference).is_some() && self.options.selects(name) {
            self.problem(
                difference.minuend,
                "two tensors have this name once the prefix is taken off; name fewer prefixes",
            );
        }
    }

    /// A donor's tied head is not a tensor of the vector. One that the user left out is not compared either.
    fn drop_donors_tied(&mut self, at: At) -> bool {
        let tied = tie::tied_embedding(&self.inputs.list[at.input as usize].checkpoint, at.tensor).is_some();
        if tied && !self.options.selects(self.options.strip(self.name(at))) {
            self.note(
                "tied output head(s) of the donors not selected by --include/--exclude, not compared",
                self.name(at),
            );
            return true;
        }
        self.drop_tied(at)
    }

    /// A head that repeats the embedding is no tensor of the vector: dropped, and its bytes compared before writing.
    pub(super) fn drop_tied(&mut self, at: At) -> bool {
        let Some(embedding) = tie::tied_embedding(&self.inputs.list[at.input as usize].checkpoint, at.tensor) else {
            return false;
        };
        self.found.same.push(SameBytes { head: at, embedding: At { tensor: embedding, ..at } });
        self.note("stored output head is its own tied embedding and follows it", self.name(at));
        true
    }

    fn pair_view(&mut self, minuend: u32, subtrahend: u32) -> HashMap<&'a str, Difference> {
        let mut subtrahends = HashMap::new();
        for at in self.tensors(subtrahend) {
            if !self.drop_donors_tied(at) {
                self.insert(
                    &mut subtrahends,
                    Difference { minuend: at, subtrahend: None, exceptions: None, used: false },
                );
            }
        }
        let mut view = HashMap::new();
        for at in self.tensors(minuend) {
            // `extract` has the minuend as its first input too; it must not drop (and note) a head twice.
            if self.drop_donors_tied(at) {
                continue;
            }
            let name = self.options.strip(self.name(at));
            let other = subtrahends.remove(name).map(|d| d.minuend);
            if other.is_none() && self.options.selects(name) {
                self.problem(at, "the minuend has this tensor but the subtrahend does not; exclude it (--exclude) or use a pair from one training run");
            }
            if let Some(other) = other {
                self.insert(
                    &mut view,
                    Difference { minuend: at, subtrahend: Some(other), exceptions: None, used: false },
                );
            }
        }
        let mut rest: Vec<_> = subtrahends.into_iter().filter(|(name, _)| self.options.selects(name)).collect();
        rest.sort_by_key(|(_, d)| d.minuend.tensor);
        for (_, difference) in rest {
            self.problem(difference.minuend, "the subtrahend has this tensor but the minuend does not; exclude it (--exclude) or use a pair from one training run");
        }
        view
    }
}
