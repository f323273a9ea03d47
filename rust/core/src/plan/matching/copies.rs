//! Copies of the embedding and of the output head that layers of multi-token prediction keep: where donors have no such
//! layers, the copies follow what they repeat.

use super::views::View;
use super::{Matcher, SameBytes};
use crate::checkpoint::Checkpoint;
use crate::plan::inputs::At;
use crate::system::files::read_exact_at;

/// Bytes that are compared at both ends of two tensors while planning. All of them are compared before a run writes.
const SAMPLE: u64 = 1 << 16;

/// The name of what a tensor of this name repeats: `model.layers.61.embed_tokens.weight` the embedding,
/// `model.layers.61.shared_head.head.weight` the output head.
fn repeated(name: &str) -> Option<String> {
    let (front, rest) = name.rsplit_once("layers.")?;
    let (number, rest) = rest.split_once('.')?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match rest {
        "embed_tokens.weight" => Some(format!("{front}{rest}")),
        "shared_head.head.weight" => Some(format!("{}lm_head.weight", front.strip_suffix("model.")?)),
        _ => None,
    }
}

/// Whether the beginnings or the ends of two tensors are known to differ. Files that are not here are not asked.
fn surely_differ(checkpoint: &Checkpoint, tensors: [u32; 2]) -> bool {
    let ends = |tensor: u32| {
        let tensor = &checkpoint.tensors[tensor as usize];
        let disk = checkpoint.shard(tensor).on_disk()?;
        let len = SAMPLE.min(tensor.bytes);
        [tensor.begin, tensor.begin + tensor.bytes - len]
            .map(|begin| {
                let mut bytes = vec![0; len as usize];
                read_exact_at(&disk.file, &mut bytes, begin).ok().map(|()| bytes)
            })
            .into_iter()
            .collect::<Option<Vec<_>>>()
    };
    matches!(tensors.map(ends), [Some(one), Some(other)] if one != other)
}

impl<'a> Matcher<'a> {
    /// The target's tensor that this one repeats, if the donors have that one, but not this one.
    pub(super) fn follows(&mut self, at: At, views: &mut [View<'a>]) -> Option<At> {
        let base = self.inputs.base();
        let tensor = At { tensor: base.find(&repeated(self.name(at))?)?, ..at };
        let mut in_donors = |at: At| {
            let name = self.options.strip(self.name(at));
            views.iter_mut().any(|view| view.get(&name).is_some())
        };
        let (mine, other) = (self.inputs.tensor(at), self.inputs.tensor(tensor));
        let alike = mine.dtype == other.dtype && mine.shape == other.shape;
        let plain = self.inputs.made(at).is_none() && self.inputs.made(tensor).is_none();
        let chosen = self.options.selects(&self.options.strip(self.name(at)));
        if !alike || !plain || !chosen || in_donors(at) || !in_donors(tensor) {
            return None;
        }
        if surely_differ(base, [at.tensor, tensor.tensor]) {
            self.note("tensor(s) of multi-token prediction that differ from the embedding or the head", self.name(at));
            return None;
        }
        self.found.same.push(SameBytes { head: at, embedding: tensor });
        self.note(
            "tensor(s) of multi-token prediction that repeat the embedding or the head, and follow it",
            self.name(at),
        );
        Some(tensor)
    }
}
