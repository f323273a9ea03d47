//! A tied output head is dropped only if its bytes are those of the embedding. This compares them.

use sha2::{Digest, Sha256};

use crate::checkpoint::tied;
use crate::control::{Control, Phase};
use crate::engine::gather::Sources;
use crate::engine::reader::{PART, Reader};
use crate::error::{Error, Result};
use crate::numeric::simd::Isa;
use crate::plan::Plan;
use crate::plan::inputs::At;
use crate::plan::matching::SameBytes;
use crate::text::quote;

/// Compares every head that a plan takes for tied with its embedding.
pub fn compare(plan: &Plan, sources: &Sources, isa: Isa, control: &Control) -> Result<()> {
    let bytes = |same: &SameBytes| plan.inputs.tensor(same.head).bytes;
    control.begin(Phase::Comparing, plan.same.iter().map(bytes).sum());
    for &SameBytes { head, embedding } in &plan.same {
        let len = plan.inputs.tensor(head).bytes;
        if plan.inputs.list[head.input as usize].checkpoint.place.streams() {
            if digest(plan, head, control)? != digest(plan, embedding, control)? {
                return Err(differ(plan, head, embedding));
            }
            control.add(len);
            continue;
        }
        // If an element has less than one byte, bytes are counted.
        let elements = match plan.inputs.made(head) {
            Some(_) => plan.inputs.tensor(head).elements(),
            None => len / plan.inputs.tensor(head).dtype.unit(),
        };
        let (mut left, mut right) = (Reader::new(), Reader::new());
        let from = (&plan.inputs, sources, isa);
        for first in (0..elements).step_by(PART as usize) {
            control.check()?;
            let part = (first, elements.min(first + PART));
            let same = left.read(from, head, part, |head| {
                right.read(from, embedding, part, |embedding| Ok(head.bytes == embedding.bytes))
            })?;
            if !same {
                return Err(differ(plan, head, embedding));
            }
            control.add(len * (part.1 - part.0) / elements);
        }
    }
    Ok(())
}

/// SHA-256 of a streamed tensor, fetched in one request. Comparing two tensors block by block would take a request for
/// each block.
fn digest(plan: &Plan, at: At, control: &Control) -> Result<impl PartialEq> {
    let tensor = plan.inputs.tensor(at);
    let mut hash = Sha256::new();
    let shard = plan.inputs.list[at.input as usize].checkpoint.shard(tensor);
    shard.fetch(tensor.begin..tensor.begin + tensor.bytes, &mut |piece| {
        hash.update(piece);
        control.check()
    })?;
    Ok(hash.finalize())
}

fn differ(plan: &Plan, head: At, embedding: At) -> Error {
    let input = &plan.inputs.list[head.input as usize];
    if plan.request.document().is_some() {
        let (name, other) = (quote(&plan.inputs.tensor(head).name), &plan.inputs.list[embedding.input as usize].role);
        return Error::Mismatch(format!(
            "{}: tensor {name} is no float tensor and differs from that of {other}, so it cannot be merged; take it from one of them",
            plan.inputs.path(head).display()
        ));
    }
    let (path, names) = (plan.inputs.path(head), [head, embedding].map(|at| &plan.inputs.tensor(at).name));
    let why = if !tied::is_head(names[0]) {
        "although it begins and ends alike, so it does not follow it; leave it out (--exclude) to copy it as it is"
    } else if input.checkpoint.config.tied != Some(true) {
        "so it is a separate output head, but in other inputs the head is tied to the embedding; leave this one out (--exclude) if theirs should stay tied"
    } else if input.role == "target" {
        "although config.json ties the two; set tie_word_embeddings to false in it if the model has a separate output head"
    } else {
        "although config.json ties the two; set tie_word_embeddings to false in it if the model has a separate output head, or leave the head out (--exclude)"
    };
    Error::Mismatch(format!("{}: tensor `{}` differs from `{}`, {why}", path.display(), names[0], names[1]))
}
