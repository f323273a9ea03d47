//! The weights of a folder as its files store them: finds the files, reads their headers, and holds them against the
//! index.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::{Checkpoint, Shard, Tensor, Unread, missing, one_of, shard, sorted};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::config::Config;
use crate::format::header::TensorInfo;
use crate::format::index::{Index, MAX_INDEX, index_name};
use crate::storage::place::Place;
use crate::system::allocator;
use crate::system::parallel::ordered;
use crate::text::quote;

/// Opens `{stem}.safetensors`, or `{stem}.safetensors.index.json` and the shards it lists.
pub(super) fn open(place: &Place, stem: &str, control: &Control) -> Result<Checkpoint> {
    let label = place.label()?;
    let single_is_there = place.has(&format!("{stem}.safetensors"))?;
    let name = index_name(stem);
    let raw = place.read(&name, MAX_INDEX)?;
    let index = raw.as_deref().map(|raw| Index::parse(raw, &place.path(&name))).transpose()?;
    let names = locate(place, stem, single_is_there, index.as_ref())?;
    let listed = index.map(|index| Digests {
        raw: raw.as_deref().map_or(0, xxh3_128),
        pairs: of_pairs(index.by_name(), names.keys().map(String::as_str)),
    });
    drop(raw);
    allocator::give_back();
    let (mut shards, mut tensors, mut shapes) = (Vec::with_capacity(names.len()), Vec::new(), HashSet::new());
    let names: Vec<_> = names.into_iter().collect();
    let open = |item: u64, (): &mut ()| {
        let (name, listed) = &names[item as usize];
        open_shard(place, name, listed.as_ref(), stem, control)
    };
    // Each remote shard takes a round trip, so several are opened at once. Opening local files is quick.
    let at_once = if place.remote.is_some() { MOST_REQUESTS } else { 1 };
    ordered(
        control,
        at_once,
        names.len() as u64,
        || (),
        open,
        |number, (shard, infos): (Shard, Vec<TensorInfo>)| {
            tensors.extend(infos.into_iter().map(|TensorInfo { name, dtype, shape, begin, end }| {
                let shape = one_of(&mut shapes, &shape);
                let begin_in_file = shard.data_start + begin;
                Tensor {
                    name: name.into(),
                    dtype,
                    shape,
                    shard: number as u32,
                    begin: begin_in_file,
                    bytes: end - begin,
                }
            }));
            shards.push(shard);
            Ok(())
        },
    )?;
    tensors.shrink_to_fit();
    let by_name = sorted(&tensors);
    let (sidecars, left_out, notes) = Default::default();
    let (config, place) = (Config::read(place)?, place.clone());
    let (adapter, made, unread) = (None, None, config.quantized.clone().map(Unread::Method));
    let checkpoint = Checkpoint {
        place,
        label,
        shards,
        tensors,
        index: listed.as_ref().map(|listed| listed.raw),
        sidecars,
        left_out,
        config,
        adapter,
        made,
        unread,
        notes,
        by_name,
    };
    check_names(&checkpoint, stem, listed.as_ref())?;
    Ok(checkpoint)
}

/// What is kept of an index while headers are read. Its names would take as much memory as those of all headers.
struct Digests {
    /// Of its bytes.
    raw: u128,
    /// Of its pairs of tensor and shard.
    pairs: [u8; 32],
}

/// SHA-256 of pairs of tensor and shard, sorted by the tensors' names. The shards are given sorted too.
fn of_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>, shards: impl Iterator<Item = &'a str>) -> [u8; 32] {
    let numbers: HashMap<&str, u32> = shards.zip(0..).collect();
    let mut digest = Sha256::new();
    for (tensor, shard) in pairs {
        digest.update((tensor.len() as u64).to_le_bytes());
        digest.update(tensor);
        digest.update(numbers.get(shard).map_or([0xff; 4], |number| number.to_le_bytes()));
    }
    digest.finalize().into()
}

impl Checkpoint {
    /// The bytes of the index; `None` if there is none.
    ///
    /// # Errors
    /// They are not those with which the checkpoint was opened.
    pub fn index_again(&self, stem: &str) -> Result<Option<Vec<u8>>> {
        let Some(digest) = self.index else { return Ok(None) };
        let name = index_name(stem);
        match self.place.read(&name, MAX_INDEX)? {
            Some(raw) if xxh3_128(&raw) == digest => Ok(Some(raw)),
            _ => Err(Error::corrupt(&self.place.path(&name), shard::CHANGED)),
        }
    }

    /// Checks that a copy of the index has the bytes with which the checkpoint was opened.
    ///
    /// # Errors
    /// It has others, because the index changed meanwhile.
    pub fn require_index(&self, copy: &Path) -> Result<()> {
        let mut digest = Xxh3::new();
        let mut part = vec![0; 1 << 20];
        let mut file = File::open(copy).map_err(Error::io(copy, "read"))?;
        loop {
            match file.read(&mut part).map_err(Error::io(copy, "read"))? {
                0 if Some(digest.digest128()) == self.index => return Ok(()),
                0 => return Err(Error::corrupt(&self.place.path(&index_name("model")), shard::CHANGED)),
                some => digest.update(&part[..some]),
            }
        }
    }
}

/// Checks that every tensor is in only one shard, the one that the index names.
fn check_names(checkpoint: &Checkpoint, stem: &str, listed: Option<&Digests>) -> Result<()> {
    let tensor = |place: u32| &checkpoint.tensors[place as usize];
    for pair in checkpoint.by_name.windows(2) {
        let (a, b) = (tensor(pair[0]), tensor(pair[1]));
        if a.name == b.name {
            let (a_shard, b_shard) = (&checkpoint.shard(a).path, &checkpoint.shard(b).name);
            let what = format!("holds tensor {}, and so does {b_shard}; remove one of them", quote(&a.name));
            return Err(Error::corrupt(a_shard, what));
        }
    }
    let Some(listed) = listed else { return Ok(()) };
    let holders =
        checkpoint.by_name.iter().map(|&place| (&*tensor(place).name, &*checkpoint.shard(tensor(place)).name));
    if of_pairs(holders, checkpoint.shards.iter().map(|shard| &*shard.name)) == listed.pairs {
        return Ok(());
    }
    let path = checkpoint.place.path(&index_name(stem));
    let raw = checkpoint.index_again(stem)?.unwrap_or_default();
    let index = Index::parse(&raw, &path)?;
    let refuse = |what: String| {
        let what = format!("{what}; download or save index and shards together");
        Err(Error::corrupt(&path, what))
    };
    // Something differs. The first pair in the order of the index is named.
    for (name, listed) in index.pairs() {
        match checkpoint.get(name).map(|tensor| &checkpoint.shard(tensor).name) {
            Some(holder) if holder == listed => {}
            Some(holder) => return refuse(format!("lists tensor {} in {listed} but {holder} has it", quote(name))),
            None => return refuse(format!("lists tensor {} in {listed}, which does not have it", quote(name))),
        }
    }
    // All listed tensors were found. So if there are more tensors, some are not listed.
    if checkpoint.tensors.len() > index.pairs().len() {
        let listed: HashSet<&str> = index.pairs().map(|(name, _)| name).collect();
        if let Some(extra) = checkpoint.tensors.iter().find(|tensor| !listed.contains(tensor.name.as_str())) {
            let holder = &checkpoint.shard(extra).name;
            return refuse(format!("does not list tensor {} that {holder} has", quote(&extra.name)));
        }
    }
    Ok(())
}

/// What an index says about a shard.
struct Listed {
    /// The first tensor that it lists in the shard.
    first: String,
    /// An estimate of the size of the shard's header, in bytes.
    header: u64,
}

/// Shards by name. Without an index, nothing is known about the only shard.
type ShardNames = BTreeMap<String, Option<Listed>>;

/// The shards that the index lists, or otherwise the single file.
fn locate(place: &Place, stem: &str, single_is_there: bool, index: Option<&Index>) -> Result<ShardNames> {
    let single = format!("{stem}.safetensors");
    let Some(index) = index else {
        if single_is_there {
            return Ok(BTreeMap::from([(single, None)]));
        }
        return Err(missing::nothing_there(place, stem));
    };
    let mut names = ShardNames::new();
    for (tensor, shard) in index.pairs() {
        match names.get_mut(shard).and_then(Option::as_mut) {
            Some(listed) => listed.header += tensor.len() as u64 + PER_ENTRY,
            None => {
                let header = BESIDE_ENTRIES + tensor.len() as u64 + PER_ENTRY;
                names.insert(shard.to_owned(), Some(Listed { first: tensor.to_owned(), header }));
            }
        }
    }
    if single_is_there && !names.contains_key(&single) {
        let what = format!("does not list {single}, which is in the same folder; remove whichever of the two is stale");
        return Err(Error::corrupt(&place.path(&index_name(stem)), what));
    }
    Ok(names)
}

/// The most requests at the same time, to all remote folders together.
pub const MOST_REQUESTS: usize = 16;
/// Bytes of a tensor's entry in a header, without its name: usually about 80, more with many dimensions.
const PER_ENTRY: u64 = 128;
/// Bytes for a header's metadata.
const BESIDE_ENTRIES: u64 = 8 << 10;
/// Bytes to request of a header if there is no index to estimate its size from. Most headers of single files are
/// shorter.
const UNLISTED: u64 = 100_000;

fn open_shard(
    place: &Place,
    name: &str,
    listed: Option<&Listed>,
    stem: &str,
    control: &Control,
) -> Result<(Shard, Vec<TensorInfo>)> {
    let guess = listed.map_or(UNLISTED, |listed| listed.header.next_multiple_of(4 << 10));
    if let Some(opened) = Shard::open(place, name, guess, control)? {
        return Ok(opened);
    }
    Err(match listed {
        Some(Listed { first, .. }) => {
            let what = format!("lists tensor {} in {name}, which is missing; download it", quote(first));
            Error::corrupt(&place.path(&index_name(stem)), what)
        }
        // The file was there a moment ago, when it was looked for.
        None => Error::io(&place.path(name), "open")(ErrorKind::NotFound.into()),
    })
}
