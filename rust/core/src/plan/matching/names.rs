//! The tensors of one input by their names without wrappers' prefixes.

use std::borrow::Cow;

use crate::checkpoint::Checkpoint;
use crate::plan::options::Options;

/// Finds the tensors of one input by name. Without `--strip-prefix` the checkpoint itself does; with it, names are
/// other than those that the checkpoint is sorted by, and there is a list of them.
pub(super) struct Names<'a> {
    checkpoint: &'a Checkpoint,
    /// Names without prefixes and the tensors that have them, sorted; `None` if no prefix is removed.
    stripped: Option<Vec<(Cow<'a, str>, u32)>>,
}

impl<'a> Names<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint, options: &Options) -> Self {
        let list = || {
            let names = (0..).zip(&checkpoint.tensors).map(|(at, tensor)| (options.strip(&tensor.name), at));
            let mut names: Vec<_> = names.collect();
            names.sort();
            names
        };
        Self { checkpoint, stripped: (!options.prefixes.is_empty()).then(list) }
    }

    /// The tensor of this name: the first, if prefixes make the names of several equal. A guess that is right saves the
    /// search: files of different inputs mostly have their tensors in the same order.
    pub(super) fn find(&self, name: &str, guess: u32) -> Option<u32> {
        let Some(stripped) = &self.stripped else {
            let guessed = self.checkpoint.tensors.get(guess as usize);
            return if guessed.is_some_and(|tensor| tensor.name == *name) {
                Some(guess)
            } else {
                self.checkpoint.find(name)
            };
        };
        let first = stripped.partition_point(|(known, _)| &**known < name);
        stripped.get(first).filter(|(known, _)| known == name).map(|(_, at)| *at)
    }

    /// How many tensors there are.
    pub(super) fn len(&self) -> usize {
        self.checkpoint.tensors.len()
    }
}
