//! A vector folder's description, and the exceptions file that it speaks of.
//!
//! The input is `vector.json`, a zero byte, and the header's JSON text of `vector-exceptions.safetensors`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use taskvec_core::checkpoint::Checkpoint;
use taskvec_core::checkpoint::vector::{self, VectorInfo};
use taskvec_core::control::Control;
use taskvec_fuzz::{Content, Folder, check_error};

/// The values that the exceptions belong to.
const DENSE: &str = r#"{"a":{"dtype":"BF16","shape":[4,8],"data_offsets":[0,64]},"b":{"dtype":"F32","shape":[2],"data_offsets":[64,72]}}"#;

/// A safetensors file with this header and as much data as its size promises.
fn weights(json: &[u8], data: u64) -> Content {
    let mut start = (json.len() as u64).to_le_bytes().to_vec();
    start.extend_from_slice(json);
    let size = start.len() as u64 + data;
    Content { start, size }
}

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |&byte| byte == 0);
    let (description, exceptions) = (parts.next().unwrap_or_default(), parts.next());
    let mut folder = Folder::default();
    folder.add(vector::FILE, description.to_vec());
    folder.add("vector.safetensors", weights(DENSE.as_bytes(), 72));
    if let Some(exceptions) = exceptions {
        // As much data as the text promises, so that a mutated header is still that of a whole file.
        let promised = serde_json::from_slice::<serde_json::Value>(exceptions).ok().and_then(|value| {
            value.as_object()?.values().filter_map(|entry| entry.get("data_offsets")?.get(1)?.as_u64()).max()
        });
        folder.add("vector-exceptions.safetensors", weights(exceptions, promised.unwrap_or(0).min(1 << 20)));
    }
    let place = folder.place("vector");
    let control = Control::default();
    let info = match VectorInfo::read(&place) {
        Ok(info) => info,
        Err(error) => return check_error(&error),
    };
    if exceptions.is_none() {
        return;
    }
    let dense = Checkpoint::open_weights(&place, "vector", &control).expect("the values are sound");
    match Checkpoint::open_weights(&place, "vector-exceptions", &control) {
        Ok(file) => match info.check_exceptions(&file, &dense) {
            Ok(()) => assert!(info.exceptions <= 32, "more exceptions than elements"),
            Err(error) => check_error(&error),
        },
        Err(error) => check_error(&error),
    }
});
