//! A tied output head is dropped only if its bytes are those of the embedding. This compares them.

use sha2::{Digest, Sha256};

use crate::control::{Control, Phase};
use crate::engine::gather::{Gather, Sources};
use crate::error::{Error, Result};
use crate::format::blocks::BLOCK;
use crate::plan::Plan;
use crate::plan::inputs::At;
use crate::plan::matching::SameBytes;
use crate::system::buffer::Buffer;
use crate::system::os::DIRECT_ALIGNMENT;

/// Compares every head that a plan takes for tied with its embedding.
pub fn compare(plan: &Plan, sources: &Sources, control: &Control) -> Result<()> {
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
        let read = |at: At, from: u64, len: u64, buffer: &mut Buffer| -> Result<Vec<u8>> {
            let mut gather = Gather::default();
            let slot = gather.tensor(&plan.inputs, at, from, len);
            let bytes = gather.load(sources, buffer.bytes())?.bytes(slot).to_vec();
            gather.release(sources)?;
            Ok(bytes)
        };
        let mut buffer = Buffer::new(BLOCK as usize + 4 * DIRECT_ALIGNMENT);
        for from in (0..len).step_by(BLOCK as usize) {
            control.check()?;
            let part = BLOCK.min(len - from);
            if read(head, from, part, &mut buffer)? != read(embedding, from, part, &mut buffer)? {
                return Err(differ(plan, head, embedding));
            }
            control.add(part);
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
    let (path, names) = (plan.inputs.path(head), [head, embedding].map(|at| &plan.inputs.tensor(at).name));
    let why = if input.checkpoint.config.tied != Some(true) {
        "so it is a separate output head, but in other inputs the head is tied to the embedding; leave this one out (--exclude) if theirs should stay tied"
    } else if input.role == "target" {
        "although config.json ties the two; set tie_word_embeddings to false in it if the model has a separate output head"
    } else {
        "although config.json ties the two; set tie_word_embeddings to false in it if the model has a separate output head, or leave the head out (--exclude)"
    };
    Error::Mismatch(format!("{}: tensor `{}` differs from `{}`, {why}", path.display(), names[0], names[1]))
}
