//! A whole job on folders of strangers: they are opened, matched and planned, for every verb.
//!
//! The input is a byte that chooses verb and options, then files: a byte that chooses folder and name, a byte for the
//! form, two bytes of length (little-endian) and the content. In the form "header", the content is the JSON text of a
//! safetensors header, to which the right length and as much data as it promises are added: a mutated text is then
//! still read to its end.

#![no_main]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use taskvec_core::control::Control;
use taskvec_core::numeric::dtype::Float;
use taskvec_core::plan::Plan;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::options::{Alpha, Options, Vocab};
use taskvec_core::storage::place::Place;
use taskvec_fuzz::{check_error, check_text};

const NAMES: [&str; 12] = [
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "adapter_config.json",
    "adapter_model.safetensors",
    "vector.json",
    "vector.safetensors",
    "vector-exceptions.safetensors",
    "tokenizer.json",
    "generation_config.json",
];
const FOLDERS: [&str; 3] = ["target", "minuend", "subtrahend"];

/// The largest file that is made: mostly a hole.
const LARGEST: u64 = 1 << 40;

/// Three folders on a disk, or better in memory: set `TMPDIR` so.
struct Folders(PathBuf);

impl Folders {
    /// Puts the files of the input there, and returns the byte that chooses. What is cut short counts as it is.
    fn new(mut data: &[u8]) -> (u8, Self) {
        let root = std::env::temp_dir().join(format!("taskvec-fuzz-{}", std::process::id()));
        let folders = FOLDERS.map(|name| root.join(name));
        for folder in &folders {
            fs::create_dir_all(folder).expect("can be made");
        }
        let choice = data.split_off_first().copied().unwrap_or(0);
        while let [place, form, low, high, rest @ ..] = data {
            let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
            let (content, after) = rest.split_at(length);
            let place = usize::from(*place) % (FOLDERS.len() * NAMES.len());
            put(&folders[place / NAMES.len()].join(NAMES[place % NAMES.len()]), content, form % 2 == 1);
            data = after;
        }
        (choice, Self(root))
    }

    fn place(&self, name: &str) -> Place {
        self.0.join(name).into()
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("can be removed");
    }
}

/// Writes a file; of a header, with its length before it and as much data as it promises after it.
fn put(path: &Path, content: &[u8], is_header: bool) {
    let mut file = File::create(path).expect("can be made");
    if !is_header {
        return file.write_all(content).expect("can be written");
    }
    let end = |entry: &Value| entry.get("data_offsets")?.get(1)?.as_u64();
    let data = match serde_json::from_slice(content) {
        Ok(Value::Object(members)) => members.values().filter_map(end).max().unwrap_or(0),
        _ => 0,
    };
    let start = [&(content.len() as u64).to_le_bytes(), content].concat();
    file.write_all(&start).expect("can be written");
    file.set_len(start.len() as u64 + data.min(LARGEST)).expect("can have a hole");
}

fuzz_target!(|data: &[u8]| {
    let (choice, folders) = Folders::new(data);
    let [target, minuend, subtrahend] = FOLDERS.map(|name| folders.place(name));
    let alpha = Alpha::new("0.5", 0.5).expect("is a factor");
    let request = match choice % 4 {
        0 => Request::Transfer { target, minuend, subtrahend, alpha },
        1 => Request::Extract { minuend, subtrahend },
        2 => Request::Apply { target, vectors: vec![(minuend, alpha.clone()), (subtrahend, alpha)] },
        _ => Request::Read { target },
    };
    let options = Options {
        threads: Some(1),
        vocab: if choice & 4 == 0 { Vocab::Strict } else { Vocab::Common },
        dtype: (choice & 8 != 0 && choice % 4 != 3).then_some(Float::F16),
        prefixes: if choice & 16 == 0 { Vec::new() } else { vec!["module.".into()] },
        memory: Some(if choice & 32 == 0 { 64 << 20 } else { 16 << 20 }),
        ..Options::default()
    };
    let plan = match Plan::new(request, options, &Control::default()) {
        Ok(plan) => plan,
        Err(error) => return check_error(&error),
    };
    for problem in &plan.problems {
        check_text(&problem.message);
        assert!(!problem.message.is_empty());
    }
    plan.notes.iter().for_each(|note| check_text(note));
    plan.to_json(Some(Path::new("/"))).expect("can be shown");
    plan.id();
    if plan.require_fit().is_ok() {
        let counted = plan.counts.combined + plan.counts.copied + plan.counts.converted;
        assert_eq!(counted, plan.layout.tensors.len() as u64);
    }
    for input in &plan.inputs.list {
        let config = &input.checkpoint.config;
        let Some(raw) = &config.raw else { continue };
        // Only values of dtype keys change, so that the text stays as sound as it was.
        let changed = config.with_dtype(Float::F16).expect("there is a config");
        if serde_json::from_slice::<Value>(raw).is_ok() {
            serde_json::from_slice::<Value>(&changed).expect("stays JSON");
        }
    }
});
