//! The index of a sharded checkpoint. What passes names files of the same folder, as any JSON reader understands it.

#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use taskvec_core::format::index::Index;
use taskvec_fuzz::check_error;

fuzz_target!(|data: &[u8]| {
    let index = match Index::parse(data, Path::new("model.safetensors.index.json")) {
        Ok(index) => index,
        Err(error) => return check_error(&error),
    };
    std::str::from_utf8(data).expect("is text for every reader");
    for (tensor, shard) in index.pairs() {
        assert!(!tensor.is_empty());
        let mut parts = Path::new(shard).components();
        assert!(matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)), "{shard:?}");
    }
    // Other members may hold numbers and escapes that this reader does not take; nobody looks at them.
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    let map = value["weight_map"].as_object().expect("has a weight map");
    assert_eq!(map.len(), index.pairs().len());
    assert!(index.pairs().all(|(tensor, shard)| map[tensor] == *shard));
});
