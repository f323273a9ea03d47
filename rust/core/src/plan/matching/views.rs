//! The tensors of each origin by name: the vector that it represents, before it is matched with a target.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Matcher, SameBytes};
use crate::checkpoint::tied;
use crate::plan::inputs::{At, Origin};

/// A tensor of the vector, stored or still to be subtracted: what one origin has under a name.
#[derive(Clone, Copy)]
pub(super) struct Difference {
    pub minuend: At,
    pub subtrahend: Option<At>,
    pub exceptions: Option<(At, At)>,
    /// Whether the target has a tensor of this name.
    pub used: bool,
}

/// The tensors of one origin, by name without prefixes.
pub(super) type View<'a> = HashMap<Cow<'a, str>, Difference>;

impl<'a> Matcher<'a> {
    /// The vector that an origin represents, by name without prefixes: what `extract` would write.
    pub(super) fn view(&mut self, origin: &Origin) -> View<'a> {
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

    fn insert(&mut self, view: &mut View<'a>, difference: Difference) {
        let name = self.options.strip(self.name(difference.minuend));
        if view.insert(name.clone(), difference).is_some() && self.options.selects(&name) {
            self.problem(
                difference.minuend,
                "two tensors have this name once the prefixes are removed; give fewer prefixes (--strip-prefix)",
            );
        }
    }

    /// Drops a donor's tied head, which is not a tensor of the vector; returns whether it did. If `--include` and
    /// `--exclude` do not select it, it is not compared with the embedding either.
    fn drop_donors_tied(&mut self, at: At) -> bool {
        let tied = tied::tied_embedding(&self.inputs.list[at.input as usize].checkpoint, at.tensor).is_some();
        if tied && !self.options.selects(&self.options.strip(self.name(at))) {
            self.note(
                "tied output head(s) of the donors, not compared because --include/--exclude do not select them",
                self.name(at),
            );
            return true;
        }
        self.drop_tied(at)
    }

    /// Drops a tied head, and has its bytes compared with the embedding before writing; returns whether it did.
    pub(super) fn drop_tied(&mut self, at: At) -> bool {
        let Some(embedding) = tied::tied_embedding(&self.inputs.list[at.input as usize].checkpoint, at.tensor) else {
            return false;
        };
        self.found.same.push(SameBytes { head: at, embedding: At { tensor: embedding, ..at } });
        self.note("stored output head(s) tied to the embedding, so treated as the embedding itself", self.name(at));
        true
    }

    /// Whether a donor's head may be a copy of its embedding, although its configuration does not tie them. The other
    /// inputs have no such tensor, so it can only be a copy: its bytes are compared before writing, and the head is
    /// dropped.
    fn repeats_embedding(&mut self, at: At) -> bool {
        let checkpoint = &self.inputs.list[at.input as usize].checkpoint;
        // An adapter's ΔW of a head says nothing about the head.
        let embedding = tied::like_embedding(checkpoint, at.tensor).filter(|_| checkpoint.adapter.is_none());
        let Some(tensor) = embedding else { return false };
        self.found.same.push(SameBytes { head: at, embedding: At { tensor, ..at } });
        true
    }

    /// As [`Self::repeats_embedding`], for all tensors that an origin has under the name of a head.
    pub(super) fn repeats_embeddings(&mut self, origin: &Origin, difference: &Difference) -> bool {
        let Difference { minuend, subtrahend, .. } = *difference;
        let repeats = self.repeats_exceptions(origin, difference)
            && self.repeats_embedding(minuend)
            && subtrahend.is_none_or(|subtrahend| self.repeats_embedding(subtrahend));
        if repeats {
            self.note(
                "output head(s) of the donors, taken to be tied as in the target: each must hold the same bytes as its embedding",
                self.name(minuend),
            );
        }
        repeats
    }

    /// Whether a vector's exceptions for the head may be those for the embedding. They belong to the values, so they
    /// have to be the same too, and are compared before writing.
    fn repeats_exceptions(&mut self, origin: &Origin, difference: &Difference) -> bool {
        let Origin::Vector { dense, exceptions: Some(input), .. } = *origin else { return true };
        let (vector, file) =
            (&self.inputs.list[dense as usize].checkpoint, &self.inputs.list[input as usize].checkpoint);
        let Some(embedding) = tied::like_embedding(vector, difference.minuend.tensor) else { return false };
        let embedding = &vector.tensors[embedding as usize].name;
        let find = |part: &str| file.find(&format!("{embedding}.{part}")).map(|tensor| At { input, tensor });
        let (heads, embeddings) = (difference.exceptions, find("index").zip(find("value")));
        let Some((head, embedding)) = heads.zip(embeddings) else { return heads.is_none() && embeddings.is_none() };
        let pairs = [(head.0, embedding.0), (head.1, embedding.1)];
        if pairs.iter().any(|&(head, embedding)| self.inputs.tensor(head).shape != self.inputs.tensor(embedding).shape)
        {
            return false;
        }
        self.found.same.extend(pairs.map(|(head, embedding)| SameBytes { head, embedding }));
        true
    }

    /// Handles a tensor that only one of the two donors has.
    fn one_sided(&mut self, at: At, message: &str) {
        if self.repeats_embedding(at) {
            self.note(
                "output head(s) of one donor, taken to be tied as in the other: each must hold the same bytes as its embedding",
                self.name(at),
            );
        } else {
            self.unmatched(at, message);
        }
    }

    /// The differences of two donors, by name without prefixes.
    fn pair_view(&mut self, minuend: u32, subtrahend: u32) -> View<'a> {
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
            // For `extract` the minuend is also the first input, but a head is dropped (and noted) only here.
            if self.drop_donors_tied(at) {
                continue;
            }
            let name = self.options.strip(self.name(at));
            let other = subtrahends.remove(&name).map(|d| d.minuend);
            if other.is_none() && self.options.selects(&name) {
                self.one_sided(at, "the minuend has this tensor but the subtrahend does not; exclude it (--exclude) or use a pair from one training run");
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
            self.one_sided(difference.minuend, "the subtrahend has this tensor but the minuend does not; exclude it (--exclude) or use a pair from one training run");
        }
        view
    }
}
