//! Output heads that are tied to the embedding, and tensors with one row per token.

use crate::checkpoint::Checkpoint;

const HEADS: [&str; 2] = ["lm_head.weight", "embed_out.weight"];
const EMBEDDINGS: [&str; 5] =
    ["embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "tok_embeddings.weight"];

fn ends_with_part(name: &str, part: &str) -> bool {
    name.strip_suffix(part).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether a tensor is a model's output head.
pub fn is_head(name: &str) -> bool {
    HEADS.iter().any(|head| ends_with_part(name, head))
}

/// Whether the first dimension of a tensor is the vocabulary, so that it may differ just by padding.
pub fn is_vocabulary(name: &str) -> bool {
    is_head(name) || ends_with_part(name, "lm_head.bias") || EMBEDDINGS.iter().any(|e| ends_with_part(name, e))
}

/// The embedding that a stored head repeats, in a checkpoint whose configuration ties the two.
///
/// Only names, types, shapes and the configuration are looked at. A writing verb also compares the bytes before it
/// writes.
pub fn tied_embedding(checkpoint: &Checkpoint, head: u32) -> Option<u32> {
    if checkpoint.config.tied == Some(true) { like_embedding(checkpoint, head) } else { None }
}

/// The embedding that a stored head may repeat: the only one of the same type and shape. The configuration is ignored.
pub fn like_embedding(checkpoint: &Checkpoint, head: u32) -> Option<u32> {
    let stored = &checkpoint.tensors[head as usize];
    if !is_head(&stored.name) {
        return None;
    }
    let mut candidates = (0u32..).zip(&checkpoint.tensors).filter(|(_, tensor)| {
        EMBEDDINGS.iter().any(|e| ends_with_part(&tensor.name, e))
            && tensor.shape == stored.shape
            && tensor.dtype == stored.dtype
    });
    let (place, _) = candidates.next()?;
    candidates.next().is_none().then_some(place)
}
