//! Reads an output again and compares it with its manifest: every digest, every tensor.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::checkpoint::{Checkpoint, vector};
use crate::control::{Control, Phase};
use crate::error::{Error, Result};
use crate::format::blocks::{self, BLOCK, FileDigest};
use crate::format::header::Header;
use crate::format::packed_table;
use crate::output::manifest;
use crate::plan::output::{MANIFEST, MANIFEST_SCHEMA};
use crate::storage::place::Place;
use crate::system::files::read_exact_at;
use crate::system::parallel::ordered;

#[derive(Deserialize)]
struct Document {
    schema: String,
    files: Vec<Entry>,
    tensors: Vec<Tensor>,
    #[serde(default)]
    recipe: Recipe,
}

#[derive(Default, Deserialize)]
struct Recipe {
    requantise: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    size: u64,
    xxh3_128: String,
    sha256: Option<String>,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    dtype: String,
}

/// Collects the problems found, each with its file.
#[derive(Default)]
struct Problems(Vec<Value>);

impl Problems {
    fn add(&mut self, file: &str, message: impl Into<String>) {
        self.0.push(json!({"file": file, "message": message.into()}));
    }
}

/// Verifies `out` and returns the findings as JSON (`taskvec/verify/1`).
///
/// # Errors
/// The folder has no manifest, or one that cannot be read. A difference from the manifest is a finding, not an error.
pub fn verify(out: &Path, threads: usize, control: &Control) -> Result<Value> {
    let (path, document) = read_manifest(out)?;
    let mut problems = Problems::default();
    let mut whole = Vec::new();
    for entry in &document.files {
        if !manifest::stays_inside(&entry.name) {
            return Err(Error::corrupt(
                &path,
                format!("names the file `{}`, which is outside its folder; do not trust it", entry.name),
            ));
        }
        match File::open(out.join(&entry.name)).and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((size, file)) if size == entry.size => whole.push((entry, file)),
            Ok((size, _)) => problems.add(&entry.name, format!("has {size} bytes instead of {}", entry.size)),
            Err(error) => problems.add(&entry.name, format!("cannot be read: {error}")),
        }
    }
    digests(&whole, threads, control, &mut problems)?;
    sha256(out, &whole, threads, control, &mut problems)?;
    if document.recipe.requantise.is_some() {
        logical_tensors(out, &document, control, &mut problems);
    } else {
        tensors(&path, &document, &whole, &mut problems);
    }
    strangers(out, &document, &mut problems)?;
    Ok(json!({
        "schema": "taskvec/verify/1",
        "ok": problems.0.is_empty(),
        "files": document.files.len(),
        "tensors": document.tensors.len(),
        "bytes": document.files.iter().map(|entry| entry.size).sum::<u64>(),
        "problems": problems.0,
    }))
}

fn read_manifest(out: &Path) -> Result<(PathBuf, Document)> {
    let found = [MANIFEST, vector::FILE].map(|name| out.join(name)).into_iter().find(|path| path.exists());
    let Some(path) = found else {
        std::fs::read_dir(out).map_err(Error::io(out, "open"))?;
        return Err(Error::Mismatch(format!(
            "{}: holds neither {} nor {}, so there is nothing to verify it against",
            out.display(),
            MANIFEST,
            vector::FILE
        )));
    };
    let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    let document: Document = serde_json::from_slice(&bytes)
        .map_err(|error| Error::corrupt(&path, format!("is not a manifest ({error}); write the output again")))?;
    if document.schema != MANIFEST_SCHEMA && document.schema != vector::SCHEMA {
        return Err(Error::corrupt(
            &path,
            format!("has the schema `{}`, which this version does not read; update taskvec", document.schema),
        ));
    }
    Ok((path, document))
}

fn digests(whole: &[(&Entry, File)], threads: usize, control: &Control, problems: &mut Problems) -> Result<()> {
    let mut blocks = Vec::new();
    for (place, (entry, _)) in whole.iter().enumerate() {
        blocks.extend((0..entry.size.div_ceil(BLOCK)).map(|block| (place, block * BLOCK)));
    }
    control.begin(Phase::Verifying, whole.iter().map(|(entry, _)| entry.size).sum());
    let mut digests = vec![FileDigest::default(); whole.len()];
    let mut unread: Vec<Option<String>> = vec![None; whole.len()];
    let work = |item: u64, buffer: &mut Vec<u8>| {
        let (place, begin) = blocks[item as usize];
        let (entry, file) = &whole[place];
        buffer.resize(BLOCK.min(entry.size - begin) as usize, 0);
        control.add(buffer.len() as u64);
        // A disk that cannot read a block is a finding about that file.
        Ok(read_exact_at(file, buffer, begin).map(|()| blocks::block(buffer)))
    };
    ordered(control, threads, blocks.len() as u64, Vec::new, work, |item, digest| {
        let place = blocks[item as usize].0;
        match digest {
            Ok(digest) => digests[place].add(digest),
            Err(error) => unread[place] = Some(error.to_string()),
        }
        Ok(())
    })?;
    for (((entry, _), digest), unread) in whole.iter().zip(digests).zip(unread) {
        match unread {
            Some(error) => problems.add(&entry.name, format!("cannot be read: {error}")),
            None if digest.hex() != entry.xxh3_128 => {
                problems.add(&entry.name, "its bytes are not those that were written (XXH3-128 differs)")
            }
            None => {}
        }
    }
    Ok(())
}

fn sha256(
    out: &Path,
    whole: &[(&Entry, File)],
    threads: usize,
    control: &Control,
    problems: &mut Problems,
) -> Result<()> {
    let promised: Vec<_> = whole.iter().filter_map(|(entry, _)| Some((entry, entry.sha256.as_ref()?))).collect();
    control.begin(Phase::Hashing, promised.iter().map(|(entry, _)| entry.size).sum());
    let work = |item: u64, (): &mut ()| blocks::sha256(&out.join(&promised[item as usize].0.name), control);
    ordered(
        control,
        threads,
        promised.len() as u64,
        || (),
        work,
        |item, sum| {
            let (entry, wanted) = &promised[item as usize];
            if sum != **wanted {
                problems.add(&entry.name, "its bytes are not those that were written (SHA-256 differs)");
            }
            Ok(())
        },
    )
}

/// Checks that the headers name exactly the tensors of the manifest at `path`, with the same types.
fn tensors(path: &Path, document: &Document, whole: &[(&Entry, File)], problems: &mut Problems) {
    let mut wanted: HashMap<&str, &str> = document.tensors.iter().map(|t| (&t.name[..], &t.dtype[..])).collect();
    // If a file is damaged, tensors missing from it are not reported once more as missing from the output.
    let undamaged = problems.0.is_empty();
    let is_weights = |name: &str| name.ends_with(".safetensors") && !name.starts_with("vector-exceptions");
    for (entry, file) in whole.iter().filter(|(entry, _)| is_weights(&entry.name)) {
        let header = match Header::read(file, &path.with_file_name(&entry.name)) {
            Ok((header, _)) => header,
            Err(error) => {
                problems.add(&entry.name, error.to_string());
                continue;
            }
        };
        let table = packed_table::read(&header.tensors, &header.metadata).unwrap_or_else(|what| {
            problems.add(&entry.name, what);
            None
        });
        for (number, tensor) in header.tensors.iter().enumerate() {
            let packed = table.as_ref().map(|entries| entries[number].float.dtype());
            let dtype = packed.unwrap_or(tensor.dtype);
            if wanted.remove(tensor.name.as_str()) != Some(dtype.name()) {
                let what = format!("tensor `{}` ({dtype}) does not match the manifest", tensor.name);
                problems.add(&entry.name, what);
            }
        }
    }
    if undamaged {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        missing(&name, wanted, problems);
    }
}

/// As [`tensors`], for an output that is quantised: its manifest names weights, which have other names in the files.
/// Damage is reported already, and would only be reported again.
fn logical_tensors(out: &Path, document: &Document, control: &Control, problems: &mut Problems) {
    if !problems.0.is_empty() {
        return;
    }
    let checkpoint = match Checkpoint::open_with_parts(&Place::from(out.to_owned()), control) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return problems.add(MANIFEST, error.to_string()),
    };
    let mut wanted: HashMap<&str, &str> = document.tensors.iter().map(|t| (&t.name[..], &t.dtype[..])).collect();
    for (place, tensor) in (0..).zip(&checkpoint.tensors) {
        let dtype = checkpoint.dtype_name(place);
        if wanted.remove(tensor.name.as_str()) != Some(dtype) {
            let what = format!("tensor `{}` ({dtype}) does not match the manifest", tensor.name);
            problems.add(&checkpoint.shards[tensor.shard as usize].name, what);
        }
    }
    missing(MANIFEST, wanted, problems);
}

/// Reports what is in the manifest only.
fn missing(manifest: &str, wanted: HashMap<&str, &str>, problems: &mut Problems) {
    let mut missing: Vec<_> = wanted.into_iter().collect();
    missing.sort_unstable();
    for (tensor, dtype) in missing {
        problems.add(manifest, format!("tensor `{tensor}` ({dtype}) is in none of the files"));
    }
}

/// Reports weight files that the manifest does not name, because a loader could pick them up.
fn strangers(out: &Path, document: &Document, problems: &mut Problems) -> Result<()> {
    let known: HashSet<&str> = document.files.iter().map(|entry| entry.name.as_str()).collect();
    let mut names: Vec<String> = std::fs::read_dir(out)
        .map_err(Error::io(out, "list"))?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    for name in names.iter().filter(|name| name.ends_with(".safetensors") && !known.contains(name.as_str())) {
        problems.add(name, "is not in the manifest");
    }
    Ok(())
}
