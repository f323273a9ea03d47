//! The files of an output that are not weights. They are copied from the target, or written anew if the target's would
//! be wrong.

use std::fs::File;
use std::io::{Read, Write};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::blocks::{self, BLOCK, FileDigest};
use crate::format::config::{self, Config};
use crate::format::index::index_name;
use crate::output::index;
use crate::output::manifest::FileEntry;
use crate::output::staging::Staging;
use crate::plan::Plan;
use crate::plan::merge::Document;
use crate::plan::output::Output;
use crate::storage::place::Place;
use crate::system::os;

const CARD: &str = "README.md";
const TARGET_CARD: &str = "README.target.md";

/// Builds every file that is not weights, and returns them in the order in which they are moved into place. The files
/// that make a folder loadable come last.
pub fn build(plan: &Plan, staging: &Staging, card: &str, sync: bool, control: &Control) -> Result<Vec<FileEntry>> {
    let mut files = Vec::new();
    let write = |name: &str, bytes: &[u8]| -> Result<FileEntry> {
        staging.write(name, bytes)?;
        Ok(FileEntry { name: name.into(), size: bytes.len() as u64, xxh3_128: blocks::of_bytes(bytes), sha256: None })
    };
    let mut last = Vec::new();
    for (name, to) in kept(plan) {
        let entry = match rewritten(plan, name) {
            Some(bytes) => write(to, &bytes)?,
            None => copy(&plan.inputs.base().place, name, to, staging, sync, control)?,
        };
        if to == config::FILE { last.push(entry) } else { files.push(entry) }
    }
    files.push(write(CARD, card.as_bytes())?);
    let base = plan.inputs.base();
    if index::is_kept(plan) && base.place.remote.is_none() {
        // Copied, because it may be longer than all that is known about the tensors.
        let name = index_name("model");
        last.push(copy(&base.place, &name, &name, staging, sync, control)?);
        base.require_index(&staging.path(&name))?;
    } else if let Some((name, bytes)) = index::build(plan)? {
        last.push(write(&name, &bytes)?);
    }
    files.extend(last);
    Ok(files)
}

/// The target's files that are kept in the output, each with its name there.
fn kept(plan: &Plan) -> impl Iterator<Item = (&str, &str)> {
    let base = plan.inputs.base();
    let names = base.sidecars.iter().map(String::as_str).filter(|_| plan.inputs.output == Output::Checkpoint);
    let has_card = base.sidecars.iter().any(|name| name == CARD);
    names.filter_map(move |name| match name {
        CARD => Some((CARD, TARGET_CARD)),
        // The target was itself written by taskvec: its own card replaces the one that it kept of its target.
        TARGET_CARD if has_card => None,
        name => Some((name, name)),
    })
}

/// The new bytes of `config.json` if the output has another element type, or is no longer quantised; `None` for every
/// other file.
fn rewritten(plan: &Plan, name: &str) -> Option<Vec<u8>> {
    if name != config::FILE || !plan.layout.converted {
        return None;
    }
    let (config, dtype) = (&plan.inputs.base().config, plan.options.dtype);
    if let Some(document) = plan.request.document() {
        return of_merge(plan, document);
    }
    if plan.layout.unquantised {
        return config.unquantised(dtype);
    }
    dtype.and_then(|dtype| config.with_dtype(dtype))
}

/// The new bytes of a merge's `config.json`; `None` if it stays as it is.
fn of_merge(plan: &Plan, document: &Document) -> Option<Vec<u8>> {
    let config = &plan.inputs.base().config;
    let typed = match (plan.layout.unquantised, document.dtype) {
        (true, dtype) => config.unquantised(dtype),
        (false, Some(dtype)) => config.with_dtype(dtype),
        (false, None) => config.raw.clone().filter(|_| !document.config_edits.is_empty()),
    };
    let typed = Config { raw: typed, ..Config::default() };
    typed.with_members(&document.config_edits).map(|(text, _)| text)
}

/// Begins to download what [`build`] will copy.
pub fn want(plan: &Plan) -> Result<()> {
    let place = &plan.inputs.base().place;
    let Some(remote) = &place.remote else { return Ok(()) };
    for (name, _) in kept(plan).filter(|(name, _)| rewritten(plan, name).is_none()) {
        place.listed(name).map_or(Ok(()), |(file, _)| remote.want(file))?;
    }
    Ok(())
}

fn copy(place: &Place, name: &str, to: &str, staging: &Staging, sync: bool, control: &Control) -> Result<FileEntry> {
    let path = staging.path(to);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(Error::io(parent, "create"))?;
    }
    let from = &place.arrive(name, control)?;
    let mut input = File::open(from).map_err(Error::io(from, "read"))?;
    let mut output = File::create(&path).map_err(Error::io(&path, "create"))?;
    let (mut digest, mut size) = (FileDigest::default(), 0);
    let mut block = Vec::new();
    loop {
        control.check()?;
        block.clear();
        Read::by_ref(&mut input).take(BLOCK).read_to_end(&mut block).map_err(Error::io(from, "read"))?;
        if block.is_empty() {
            break;
        }
        output.write_all(&block).map_err(Error::io(&path, "write"))?;
        digest.add(blocks::block(&block));
        size += block.len() as u64;
    }
    if sync {
        os::sync_file(&output).map_err(Error::io(&path, "sync"))?;
    }
    Ok(FileEntry { name: to.into(), size, xxh3_128: digest.hex(), sha256: None })
}
