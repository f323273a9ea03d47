//! The error for a folder that is not a checkpoint: it says what was looked for, what is there instead, and what to
//! name.

use std::fs;
use std::path::{Path, PathBuf};

use crate::checkpoint::clutter::is_of_the_system;
use crate::checkpoint::sidecars::is_weights;
use crate::error::{Error, Result};
use crate::format::adapter_config;
use crate::format::index::index_name;
use crate::storage::place::Place;
use crate::text::quote;

/// How many levels below the folder are searched, and at most how many folders.
const DEEPEST: usize = 3;
const MOST_FOLDERS: usize = 1_000;

/// What is there instead of a checkpoint.
#[derive(Default)]
struct Instead {
    /// Weight files in the folder itself.
    weights: Vec<String>,
    /// Subfolders that hold what was looked for, as a user would name them. Only those of the first level that has any.
    checkpoints: Vec<String>,
    /// Subfolders that hold an adapter.
    adapters: Vec<String>,
}

/// The error for a folder without the weights `stem`.
pub fn nothing_there(place: &Place, stem: &str) -> Error {
    let wanted = [format!("{stem}.safetensors"), index_name(stem)];
    let Instead { weights, checkpoints, adapters } = match look(place, &wanted, stem == "model") {
        Ok(found) => found,
        Err(error) => return error,
    };
    let missing = format!("holds no {} and no {}", wanted[0], wanted[1]);
    let own_adapter = stem == "model" && weights.iter().any(|name| name.starts_with("adapter_model."));
    let what = if let Some(snapshot) = snapshot(place) {
        format!("{missing}: it is a folder of the Hub's cache, whose files are in its snapshots; name {snapshot}")
    } else if !checkpoints.is_empty() {
        let more = if adapters.is_empty() { String::new() } else { format!(" (adapters: {})", listing(&adapters)) };
        format!("{missing}, but its subfolders do; name one of them: {}{more}", listing(&checkpoints))
    } else if own_adapter {
        if !place.has(adapter_config::FILE).unwrap_or(false) {
            let what =
                format!("{missing}, only an adapter without its {}; download or save it again", adapter_config::FILE);
            return Error::corrupt(&place.root, what);
        }
        format!("{missing}, only an adapter, which can be used only as a donor; {}", adapter_config::MERGE)
    } else if !adapters.is_empty() {
        format!("{missing}, but its subfolders hold adapters; as a donor, name one of them: {}", listing(&adapters))
    } else if weights.is_empty() {
        format!("{missing}; name the folder of a checkpoint in safetensors format")
    } else if weights.iter().any(|name| name.ends_with(".safetensors")) {
        format!(
            "{missing}, only {}; give the weights the name {}, or save the model again",
            listing(&weights),
            wanted[0]
        )
    } else {
        format!("{missing}, only {}; convert it to safetensors first", listing(&weights))
    };
    Error::corrupt(&place.root, what)
}

/// The error for a folder that is not a vector, because it has no description (a file called `wanted`). Names the
/// subfolders that are vectors.
pub fn no_vector(place: &Place, wanted: &str) -> Error {
    let missing = format!("holds no {wanted}");
    let what = match (snapshot(place), look(place, &[wanted.to_owned()], false)) {
        (Some(snapshot), _) => {
            format!("{missing}: it is a folder of the Hub's cache, whose files are in its snapshots; name {snapshot}")
        }
        (None, Ok(found)) if !found.checkpoints.is_empty() => {
            format!("{missing}, but its subfolders do; name one of them: {}", listing(&found.checkpoints))
        }
        _ => format!("{missing}, so it is not a vector; `taskvec extract` makes one"),
    };
    Error::corrupt(&place.root, what)
}

/// Searches for folders that hold one of the `wanted` files; with `adapters`, also for folders that hold an adapter.
fn look(place: &Place, wanted: &[String], adapters: bool) -> Result<Instead> {
    if place.remote.is_some() { Ok(elsewhere(place, wanted, adapters)) } else { here(&place.root, wanted, adapters) }
}

/// Searches a local folder and the folders below it.
fn here(root: &Path, wanted: &[String], adapters: bool) -> Result<Instead> {
    let mut found = Instead::default();
    // Folders to search, each with its path below the root.
    let mut level: Vec<(PathBuf, String)> = Vec::new();
    for entry in fs::read_dir(root).map_err(Error::io(root, "list"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_weights(&name) {
            found.weights.push(name);
        } else {
            level.push((entry.path(), name));
        }
    }
    let mut looked = 0;
    for _ in 0..DEEPEST {
        level.retain(|(_, name)| {
            name.rsplit('/').next().is_some_and(|own| !own.starts_with('.') && !is_of_the_system(own))
        });
        level.sort();
        let mut below = Vec::new();
        for (path, name) in level {
            looked += 1;
            if looked > MOST_FOLDERS {
                break;
            }
            if wanted.iter().any(|file| path.join(file).exists()) {
                found.checkpoints.push(name);
            } else if adapters && path.join(adapter_config::FILE).exists() {
                found.adapters.push(name);
            } else if let Ok(entries) = fs::read_dir(&path) {
                let inside = entries.flatten().filter(|entry| entry.path().is_dir());
                below.extend(inside.map(|entry| {
                    let own = entry.file_name().to_string_lossy().into_owned();
                    (entry.path(), format!("{name}/{own}"))
                }));
            }
        }
        if !found.checkpoints.is_empty() || !found.adapters.is_empty() {
            break;
        }
        level = below;
    }
    found.weights.sort();
    Ok(found)
}

/// Searches the list of files of a remote folder.
fn elsewhere(place: &Place, wanted: &[String], adapters: bool) -> Instead {
    let mut found = Instead::default();
    // In a ref, the first subfolder comes after a colon.
    let below = place.origin.as_ref().is_some_and(|origin| origin.subfolder.is_some());
    let root = format!("{}{}", place.root.display(), if below { '/' } else { ':' });
    let files = place.remote.as_ref().map_or(&[][..], |remote| remote.files());
    let depth = |name: &str| name.matches('/').count();
    let is_wanted = |own: &str| wanted.iter().any(|file| file == own);
    let of_adapter = |own: &str| adapters && own == adapter_config::FILE;
    let split = || files.iter().filter_map(|(name, _)| name.rsplit_once('/'));
    let least = split().filter(|(_, own)| is_wanted(own) || of_adapter(own)).map(|(folder, _)| depth(folder)).min();
    found.weights =
        files.iter().map(|(name, _)| name).filter(|name| !name.contains('/') && is_weights(name)).cloned().collect();
    for (folder, own) in split().filter(|(folder, _)| Some(depth(folder)) == least) {
        let named = format!("{root}{folder}");
        if is_wanted(own) {
            found.checkpoints.push(named);
        } else if of_adapter(own) {
            found.adapters.push(named);
        }
    }
    found.checkpoints.sort();
    found.checkpoints.dedup();
    found.adapters.sort();
    found.adapters.retain(|name| !found.checkpoints.contains(name));
    found.weights.sort();
    found
}

/// If the folder is that of a repository in huggingface_hub's cache (`models--org--name`, or `snapshots` in it): the
/// snapshot to name instead. This is the commit that `main` last was, or otherwise the only snapshot there is.
fn snapshot(place: &Place) -> Option<String> {
    let root = place.root.as_path();
    if place.remote.is_some() {
        return None;
    }
    let inside = root.canonicalize().ok()?.file_name()? == "snapshots";
    let (repository, snapshots) =
        if inside { (root.join(".."), root.to_owned()) } else { (root.to_owned(), root.join("snapshots")) };
    if !["blobs", "refs"].iter().any(|folder| repository.join(folder).is_dir()) {
        return None;
    }
    let entries = fs::read_dir(&snapshots).ok()?.flatten();
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    let main = fs::read_to_string(repository.join("refs/main")).ok().map(|commit| snapshots.join(commit.trim()));
    let chosen = main.filter(|main| all.contains(main)).or_else(|| if all.len() == 1 { all.pop() } else { None })?;
    Some(format!("`{}`", chosen.display()))
}

/// The first three names, and how many more there are.
fn listing(names: &[String]) -> String {
    let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
    let shown: Vec<_> = names.iter().take(3).map(|name| quote(name)).collect();
    format!("{}{more}", shown.join(", "))
}
