//! The configuration of a PEFT adapter: what passes has a finite scale for every module, or a pattern that is refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use taskvec_core::control::Control;
use taskvec_core::format::adapter_config::{self, AdapterConfig};
use taskvec_fuzz::{Folder, check_error};

const MODULES: [&str; 4] = ["model.layers.0.self_attn.q_proj", "model.layers.11.mlp.down_proj", "lm_head", ""];

fuzz_target!(|data: &[u8]| {
    let mut folder = Folder::default();
    folder.add(adapter_config::FILE, data.to_vec());
    let place = folder.place("adapter");
    let config = match AdapterConfig::read(&place) {
        Ok(config) => config,
        Err(error) => return check_error(&error),
    };
    assert!(config.base.as_deref() != Some(""));
    serde_json::to_string(&config.to_json()).expect("can be shown");
    match config.scales(&place, &MODULES, &Control::default()) {
        Ok(scales) => assert!(scales.iter().all(|(rank, scale)| *rank > 0 && scale.is_finite())),
        Err(error) => check_error(&error),
    }
});
