//! A checkpoint folder, opened: its shards, the place of every tensor in them, and the files beside them.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
pub use crate::files::Identity;
use crate::files::{open_regular, read_whole};
use crate::folder::{is_weights, walk};
use crate::header::{Header, TensorInfo};
use crate::index::{Index, MAX_INDEX};
use crate::json::quote;

/// One weight file, open.
#[derive(Debug)]
pub struct Shard {
    /// Its name in the folder.
    pub name: String,
    /// Where it was opened.
    pub path: PathBuf,
    /// The open file: every later read goes through it, whatever the path names by then.
    pub file: File,
    /// Where its data section begins.
    pub data_start: u64,
    /// XXH3-128 (seed 0) of all bytes before the data section.
    pub header_digest: u128,
    /// What the open file looked like before its header was read.
    pub identity: Identity,
    /// Its header's `__metadata__`.
    pub metadata: Vec<(String, String)>,
}

/// One tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name, unique in the checkpoint.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions; none for a scalar.
    pub shape: Vec<u64>,
    /// Its shard's place in [`Checkpoint::shards`].
    pub shard: u32,
    /// Its first byte in the shard's file.
    pub begin: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

impl Tensor {
    /// The number of its elements; the header's check made sure that it can be counted.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// A checkpoint in which every tensor stands in exactly one shard, and just where the index says.
#[derive(Debug)]
pub struct Checkpoint {
    /// The folder as the caller named it.
    pub root: PathBuf,
    /// The folder's own name, for messages and manifests.
    pub label: String,
    /// By name.
    pub shards: Vec<Shard>,
    /// By shard, then in the order of the file.
    pub tensors: Vec<Tensor>,
    /// The index, where there is one.
    pub index: Option<Index>,
    /// Files that go along with an output: relative paths with `/`, sorted.
    pub sidecars: Vec<String>,
    /// Files and folders that do not (other weights, what is no file): relative paths with `/`, sorted.
    pub left_out: Vec<String>,
    /// What `config.json` says.
    pub config: Config,
    /// Places in `tensors`, by name: a second copy of the names would cost more than the search.
    by_name: Vec<u32>,
}

impl Checkpoint {
    /// Opens a folder as `transformers` saves it, with the files beside the weights.
    pub fn open(root: &Path) -> Result<Self> {
        let mut checkpoint = Self::open_weights(root, "model")?;
        let index = index_name("model");
        let mut used: HashSet<&str> = checkpoint.shards.iter().map(|shard| shard.name.as_str()).collect();
        used.insert(&index);
        let found = walk(root, &used)?;
        (checkpoint.sidecars, checkpoint.left_out) = (found.sidecars, found.left_out);
        Ok(checkpoint)
    }

    /// Opens the weights alone: `{stem}.safetensors`, or `{stem}.safetensors.index.json` and the shards it lists.
    pub fn open_weights(root: &Path, stem: &str) -> Result<Self> {
        let found = fs::metadata(root).map_err(Error::io(root, "open the folder"))?;
        if !found.is_dir() {
            return Err(Error::Usage(format!("{}: is a file; name the folder that holds it", root.display())));
        }
        let own = root.canonicalize().map_err(Error::io(root, "open the folder"))?;
        let label = own.file_name().unwrap_or(own.as_os_str()).to_string_lossy().into_owned();

        let (index, names) = locate(root, stem)?;
        let mut shards = Vec::with_capacity(names.len());
        let mut tensors = Vec::new();
        for (place, (name, first)) in (0..).zip(names) {
            let (shard, infos) = open_shard(root, name, first.as_deref(), stem)?;
            tensors.extend(infos.into_iter().map(|TensorInfo { name, dtype, shape, begin, end }| {
                let begin_in_file = shard.data_start + begin;
                Tensor { name, dtype, shape, shard: place, begin: begin_in_file, bytes: end - begin }
            }));
            shards.push(shard);
        }
        let mut by_name: Vec<u32> = (0..).take(tensors.len()).collect();
        by_name.sort_unstable_by(|&a, &b| tensors[a as usize].name.cmp(&tensors[b as usize].name));
        let (sidecars, left_out) = (Vec::new(), Vec::new());
        let config = Config::read(root)?;
        let root = root.to_owned();
        let checkpoint = Self { root, label, shards, tensors, index, sidecars, left_out, config, by_name };
        checkpoint.check_names(stem)?;
        Ok(checkpoint)
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.find(name).map(|place| &self.tensors[place as usize])
    }

    /// The place in `tensors` of the tensor of this name.
    pub fn find(&self, name: &str) -> Option<u32> {
        let found = self.by_name.binary_search_by(|&place| self.tensors[place as usize].name.as_str().cmp(name));
        found.ok().map(|at| self.by_name[at])
    }

    /// The shard that holds a tensor of this checkpoint.
    pub fn shard(&self, tensor: &Tensor) -> &Shard {
        &self.shards[tensor.shard as usize]
    }

    /// Looks at every open shard again: an error when one was changed, or replaced, since it was opened.
    pub fn unchanged(&self) -> Result<()> {
        for shard in &self.shards {
            if Identity::of(&shard.file, &shard.path)? != shard.identity {
                return Err(Error::corrupt(
                    &shard.path,
                    "changed while it was read; run again when nothing writes to it",
                ));
            }
        }
        Ok(())
    }

    /// Every tensor in one shard only, and where the index says.
    fn check_names(&self, stem: &str) -> Result<()> {
        let tensor = |place: u32| &self.tensors[place as usize];
        for pair in self.by_name.windows(2) {
            let (a, b) = (tensor(pair[0]), tensor(pair[1]));
            if a.name == b.name {
                let (a_shard, b_shard) = (&self.shard(a).path, &self.shard(b).name);
                let what = format!("holds tensor {}, and so does {b_shard}; take one of them out", quote(&a.name));
                return Err(Error::corrupt(a_shard, what));
            }
        }
        let Some(index) = &self.index else { return Ok(()) };
        let refuse = |what: String| {
            let what = format!("{what}; download or save index and shards together");
            Err(Error::corrupt(&self.root.join(index_name(stem)), what))
        };
        for (name, listed) in &index.weight_map {
            match self.get(name).map(|tensor| &self.shard(tensor).name) {
                Some(holder) if holder == listed => {}
                Some(holder) => return refuse(format!("lists tensor {} in {listed} but {holder} has it", quote(name))),
                None => return refuse(format!("lists tensor {} in {listed}, which does not have it", quote(name))),
            }
        }
        // All listed tensors were found, so that a difference in number can only be unlisted ones.
        if self.tensors.len() > index.weight_map.len() {
            let listed: HashSet<&str> = index.weight_map.iter().map(|(name, _)| name.as_str()).collect();
            if let Some(extra) = self.tensors.iter().find(|tensor| !listed.contains(tensor.name.as_str())) {
                let holder = &self.shard(extra).name;
                return refuse(format!("does not list tensor {} that {holder} has", quote(&extra.name)));
            }
        }
        Ok(())
    }
}

fn index_name(stem: &str) -> String {
    format!("{stem}.safetensors.index.json")
}

/// Shards by name, each with the first tensor that the index lists in it.
type ShardNames = BTreeMap<String, Option<String>>;

/// Finds the index, or else the single file.
fn locate(root: &Path, stem: &str) -> Result<(Option<Index>, ShardNames)> {
    let single = format!("{stem}.safetensors");
    let index_path = root.join(index_name(stem));
    let single_is_there = is_there(&root.join(&single))?;
    if !is_there(&index_path)? {
        if single_is_there {
            return Ok((None, BTreeMap::from([(single, None)])));
        }
        return Err(nothing_there(root, stem));
    }
    let index = Index::parse(read_whole(&index_path, MAX_INDEX)?, &index_path)?;
    let mut names = BTreeMap::new();
    for (tensor, shard) in &index.weight_map {
        if !names.contains_key(shard) {
            names.insert(shard.clone(), Some(tensor.clone()));
        }
    }
    if single_is_there && !names.contains_key(&single) {
        let what = format!("does not list {single}, which lies beside it; take away the one that is stale");
        return Err(Error::corrupt(&index_path, what));
    }
    Ok((Some(index), names))
}

/// A link that leads nowhere counts as there: opening it says so.
fn is_there(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        found => found.map(|_| true).map_err(Error::io(path, "look at the file")),
    }
}

fn open_shard(root: &Path, name: String, first: Option<&str>, stem: &str) -> Result<(Shard, Vec<TensorInfo>)> {
    let path = root.join(&name);
    let file = open_regular(&path).map_err(|error| match (error, first) {
        (Error::Io { source, .. }, Some(tensor)) if source.kind() == ErrorKind::NotFound => {
            let what = format!("lists tensor {} in {name}, which is missing; download it", quote(tensor));
            Error::corrupt(&root.join(index_name(stem)), what)
        }
        (error, _) => error,
    })?;
    let identity = Identity::of(&file, &path)?;
    let (Header { tensors, data_start, metadata }, header_digest) = Header::read(&file, &path)?;
    Ok((Shard { name, path, file, data_start, header_digest, identity, metadata }, tensors))
}

/// Says what was looked for, and what lies there instead.
fn nothing_there(root: &Path, stem: &str) -> Error {
    let (mut weights, mut folders) = (Vec::new(), Vec::new());
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) => return Error::io(root, "list")(error),
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_weights(&name) {
            weights.push(name);
        } else if [format!("{stem}.safetensors"), index_name(stem)].iter().any(|file| entry.path().join(file).exists())
        {
            folders.push(name);
        }
    }
    weights.sort();
    folders.sort();
    let missing = format!("holds no {stem}.safetensors and no {}", index_name(stem));
    let what = if !folders.is_empty() {
        format!("{missing}, but its subfolders do; name one of them: {}", listing(&folders))
    } else if weights.iter().any(|name| name.starts_with("adapter_model.")) {
        format!("{missing}, only an adapter; merge it into its base model first")
    } else if weights.is_empty() {
        format!("{missing}; name the folder of a checkpoint in safetensors format")
    } else if weights.iter().any(|name| name.ends_with(".safetensors")) {
        format!("{missing}, only {}; name the file so, or save the model again", listing(&weights))
    } else {
        format!("{missing}, only {}; convert it to safetensors first", listing(&weights))
    };
    Error::corrupt(root, what)
}

/// The first few of many names.
fn listing(names: &[String]) -> String {
    let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
    let shown: Vec<_> = names.iter().take(3).map(|name| quote(name)).collect();
    format!("{}{more}", shown.join(", "))
}
