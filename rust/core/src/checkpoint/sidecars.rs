//! The files beside the weights: which of them are copied to an output, and which are left out, such as other weights.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};

use crate::checkpoint::clutter::{is_of_the_system, is_run_folder, is_stray};
use crate::error::{Error, Result};

/// Endings of weight files in any format, and of pickles. None of these files is copied.
const WEIGHTS: &[&str] = &[
    "safetensors",
    "bin",
    "pt",
    "pth",
    "gguf",
    "ckpt",
    "h5",
    "msgpack",
    "onnx",
    "tflite",
    "ot",
    "npz",
    "pkl",
    "pickle",
    "joblib",
    "nemo",
    "distcp",
    "keras",
    "mar",
    "llamafile",
    "engine",
    "mlmodel",
];

/// Folders that are a model in another format.
const MODELS: [&str; 2] = [".mlpackage", ".mlmodelc"];

/// Descriptions of what an earlier run wrote. In a new output they would be wrong.
const DESCRIPTIONS: &[&str] = &["taskvec.json", "vector.json"];

/// What a walk through a checkpoint folder found, as relative paths with `/`, sorted.
#[derive(Debug, Default)]
pub struct Found {
    /// Files that are copied to an output.
    pub sidecars: Vec<String>,
    /// Files and folders that are not.
    pub left_out: Vec<String>,
}

/// Searches `root` and its subfolders. `used` names the files in `root` that are the checkpoint's own weights, which
/// count neither as sidecars nor as left out.
pub fn walk(root: &Path, used: &HashSet<&str>) -> Result<Found> {
    let mut walk = Walk { used, found: Found::default(), links: Vec::new(), seen: HashSet::new() };
    let own = canonical(root)?;
    walk.seen.insert(own.clone());
    walk.tree(root.to_owned(), String::new())?;
    // Linked folders are searched after all real ones, so that content inside the root is found under its own name.
    // Each is entered only once. A link to a folder that contains the root is not entered, because the walk would never
    // end.
    while !walk.links.is_empty() {
        let mut links = std::mem::take(&mut walk.links);
        links.sort();
        for (name, path) in links {
            let target = canonical(&path)?;
            if own.starts_with(&target) || !walk.seen.insert(target) {
                walk.found.left_out.push(name);
            } else {
                walk.tree(path, name)?;
            }
        }
    }
    let mut found = walk.found;
    found.sidecars.sort();
    found.left_out.sort();
    Ok(found)
}

/// Whether a file of this name holds weights, or is the index of a sharded format.
pub fn is_weights(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // An index may have a variant: `model.safetensors.index.fp16.json`.
    let index = name.strip_suffix(".json").and_then(|name| name.rsplit_once(".index"));
    let stem =
        index.filter(|(_, variant)| variant.is_empty() || variant.starts_with('.')).map_or(&*name, |(stem, _)| stem);
    // ONNX keeps large weights in files of their own: `model.onnx.data`, `model.onnx_data_1`.
    let onnx = |rest: &str| rest == ".data" || rest.starts_with("_data");
    stem.rsplit_once('.').is_some_and(|(_, ending)| WEIGHTS.contains(&ending))
        || stem.rsplit_once(".onnx").is_some_and(|(_, rest)| onnx(rest))
}

/// As [`walk`], for the list of files of a remote folder.
pub fn sort_listed<'a>(names: impl Iterator<Item = &'a str>, used: &HashSet<&str>) -> Found {
    let (mut sidecars, mut left_out) = (Vec::new(), BTreeSet::new());
    for name in names {
        let folders = name.match_indices('/').map(|(at, _)| &name[..at]);
        match folders.map(|folder| (folder, treat(own_name(folder)))).find(|(_, folder)| *folder != Folder::Entered) {
            Some((_, Folder::Ignored)) => {}
            Some((folder, _)) => drop(left_out.insert(folder.to_owned())),
            None if used.contains(name) => {}
            None if goes_along(own_name(name), name) => sidecars.push(name.to_owned()),
            None => drop(left_out.insert(name.to_owned())),
        }
    }
    sidecars.sort();
    Found { sidecars, left_out: left_out.into_iter().collect() }
}

/// The last part of a path.
pub fn own_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, own)| own)
}

#[derive(PartialEq)]
enum Folder {
    Entered,
    LeftOut,
    /// Not reported: folders that tools keep beside every checkpoint.
    Ignored,
}

/// What is done with a folder of this name.
fn treat(own: &str) -> Folder {
    match own {
        ".git" | ".cache" | ".taskvec-partial" => Folder::Ignored,
        _ if is_of_the_system(own) => Folder::Ignored,
        _ if own.starts_with('.') || is_run_folder(own) || MODELS.iter().any(|end| own.ends_with(end)) => {
            Folder::LeftOut
        }
        _ => Folder::Entered,
    }
}

/// Whether a file is copied to an output. `own` is its file name, `name` its path below the root.
fn goes_along(own: &str, name: &str) -> bool {
    !is_weights(own) && !is_stray(own) && !DESCRIPTIONS.contains(&name)
}

struct Walk<'a> {
    used: &'a HashSet<&'a str>,
    found: Found,
    /// Linked folders that are still to be searched: path below the root, and full path.
    links: Vec<(String, PathBuf)>,
    /// Real paths of the folders entered.
    seen: HashSet<PathBuf>,
}

impl Walk<'_> {
    /// Searches the folder `path`, whose path below the root is `name`, and all real folders below it.
    fn tree(&mut self, path: PathBuf, name: String) -> Result<()> {
        let mut todo = vec![(path, name)];
        while let Some((path, name)) = todo.pop() {
            for entry in fs::read_dir(&path).map_err(Error::io(&path, "list"))? {
                let entry = entry.map_err(Error::io(&path, "list"))?;
                if let Some(folder) = self.entry(&entry, &name)? {
                    todo.push(folder);
                }
            }
        }
        Ok(())
    }

    /// Classifies one entry. Returns it if it is a real folder that is to be searched.
    fn entry(&mut self, entry: &DirEntry, folder: &str) -> Result<Option<(PathBuf, String)>> {
        let path = entry.path();
        let own_name = entry.file_name();
        let own = own_name.to_string_lossy();
        let name = if folder.is_empty() { own.to_string() } else { format!("{folder}/{own}") };
        let link = entry.file_type().map_err(Error::io(&path, "look at the file"))?.is_symlink();
        let kind = match fs::metadata(&path) {
            Ok(metadata) => metadata.file_type(),
            // A broken link, or a file that has just been removed.
            Err(_) => {
                self.found.left_out.push(name);
                return Ok(None);
            }
        };
        if kind.is_dir() {
            let treated = treat(&own);
            if treated == Folder::Ignored {
                return Ok(None);
            }
            if treated == Folder::Entered && own_name.to_str().is_some() {
                if link {
                    self.links.push((name, path));
                    return Ok(None);
                }
                self.seen.insert(canonical(&path)?);
                return Ok(Some((path, name)));
            }
        } else if folder.is_empty() && self.used.contains(&*own) {
            return Ok(None);
        } else if kind.is_file() && own_name.to_str().is_some() && goes_along(&own, &name) {
            self.found.sidecars.push(name);
            return Ok(None);
        }
        self.found.left_out.push(name);
        Ok(None)
    }
}

fn canonical(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(Error::io(path, "look at the folder"))
}
