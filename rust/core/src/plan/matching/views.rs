//! The tensors of each origin by name: the vector that it represents, before it is matched with a target.

use super::names::Names;
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

impl Difference {
    /// What is stored as it is.
    const fn stored(at: At) -> Self {
        Self { minuend: at, subtrahend: None, exceptions: None, used: false }
    }
}

/// The tensors of one origin, by name without prefixes.
pub(super) struct View<'a> {
    names: Names<'a>,
    /// For each tensor of the input that gives the names, what the origin has under its name. If several have the same
    /// name, it is at the place of the first of them.
    differences: Vec<Option<Difference>>,
    /// Where the next name is looked for first.
    guess: u32,
}

impl<'a> View<'a> {
    fn new(names: Names<'a>) -> Self {
        let differences = vec![None; names.len()];
        Self { names, differences, guess: 0 }
    }

    fn place(&mut self, name: &str) -> Option<usize> {
        let found = self.names.find(name, self.guess)?;
        self.guess = found + 1;
        Some(found as usize)
    }

    /// What the origin has under a name.
    pub(super) fn get(&mut self, name: &str) -> Option<&mut Difference> {
        let place = self.place(name)?;
        self.differences[place].as_mut()
    }

    /// Takes out what the origin has under a name.
    fn remove(&mut self, name: &str) -> Option<Difference> {
        let place = self.place(name)?;
        self.differences[place].take()
    }

    /// Puts something under a name that the input has; returns what was there before.
    fn insert(&mut self, name: &str, difference: Difference) -> Option<Difference> {
        let place = self.place(name)?;
        self.differences[place].replace(difference)
    }

    /// All that the origin has, in the order of the minuend.
    pub(super) fn differences(&self) -> Vec<Difference> {
        let mut all: Vec<Difference> = self.differences.iter().copied().flatten().collect();
        all.sort_by_key(|difference| difference.minuend.tensor);
        all
    }

    /// The tensors of the minuend.
    pub(super) fn minuends(&self) -> impl Iterator<Item = At> {
        self.differences.iter().flatten().map(|difference| difference.minuend)
    }
}

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
                let mut view = self.empty_view(dense);
                for minuend in self.tensors(dense) {
                    let name = self.name(minuend);
                    let mut difference = Difference::stored(minuend);
                    if exceptions.is_some() {
                        difference.exceptions = find(format!("{name}.index")).zip(find(format!("{name}.value")));
                    }
                    self.insert(&mut view, difference);
                }
                view
            }
        }
    }

    fn empty_view(&self, input: u32) -> View<'a> {
        View::new(Names::new(&self.inputs.list[input as usize].checkpoint, self.options))
    }

    pub(super) fn tensors(&self, input: u32) -> impl Iterator<Item = At> + use<'a> {
        (0u32..).zip(&self.inputs.list[input as usize].checkpoint.tensors).map(move |(tensor, _)| At { input, tensor })
    }

    fn insert(&mut self, view: &mut View<'a>, difference: Difference) {
        let name = self.options.strip(self.name(difference.minuend));
        if view.insert(&name, difference).is_some() && self.options.selects(&name) {
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
    fn one_sided(&mut self, at: At, other: &str) {
        if self.repeats_embedding(at) {
            self.note(
                "output head(s) of one donor, taken to be tied as in the other: each must hold the same bytes as its embedding",
                self.name(at),
            );
        } else {
            let role = &self.inputs.list[at.input as usize].role;
            let what = format!("are not in the {other}");
            let message = format!(
                "the {role} has this tensor but the {other} does not; exclude it (--exclude) or use a pair from one training run"
            );
            self.unmatched(at, &what, "exclude them (--exclude) or use a pair from one training run", &message);
        }
    }

    /// The differences of two donors, by name without prefixes.
    fn pair_view(&mut self, minuend: u32, subtrahend: u32) -> View<'a> {
        let mut subtrahends = self.empty_view(subtrahend);
        for at in self.tensors(subtrahend) {
            if !self.drop_donors_tied(at) {
                self.insert(&mut subtrahends, Difference::stored(at));
            }
        }
        let mut view = self.empty_view(minuend);
        for at in self.tensors(minuend) {
            // For `extract` the minuend is also the first input, but a head is dropped (and noted) only here.
            if self.drop_donors_tied(at) {
                continue;
            }
            let name = self.options.strip(self.name(at));
            let other = subtrahends.remove(&name).map(|d| d.minuend);
            if other.is_none() && self.options.selects(&name) {
                self.one_sided(at, "subtrahend");
            }
            if let Some(other) = other {
                self.insert(&mut view, Difference { subtrahend: Some(other), ..Difference::stored(at) });
            }
        }
        for Difference { minuend: at, .. } in subtrahends.differences() {
            if self.options.selects(&self.options.strip(self.name(at))) {
                self.one_sided(at, "minuend");
            }
        }
        view
    }
}
