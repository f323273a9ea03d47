//! An opened checkpoint folder: its shards, the position of every tensor in them, and the files beside them.
//!
//! May import `format` and what is below it. A new kind of folder to read weights from is a new file here.

pub mod clutter;
pub(crate) mod descriptions;
pub mod lora;
pub(crate) mod missing;
pub mod open;
pub mod quantised;
pub mod shard;
pub mod sidecars;
pub(crate) mod tied;
pub mod vector;

use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;

pub use crate::checkpoint::quantised::{Parts, Unread};
pub use crate::checkpoint::shard::Shard;
use crate::checkpoint::shard::{OnDisk, Store};
use crate::checkpoint::sidecars::{sort_listed, walk};
use crate::codec::derived::Made;
use crate::codec::scaled::Format;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::adapter_config::AdapterConfig;
use crate::format::config::Config;
use crate::format::header::TensorInfo;
use crate::format::index::{Index, MAX_INDEX, index_name};
use crate::numeric::dtype::{Dtype, Kind};
use crate::storage::place::Place;
use crate::system::parallel::ordered;
use crate::text::quote;

/// One tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name, unique in the checkpoint.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions; empty for a scalar.
    pub shape: Vec<u64>,
    /// The index of its shard in [`Checkpoint::shards`].
    pub shard: u32,
    /// Its first byte in the shard's file.
    pub begin: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

impl Tensor {
    /// The number of its elements. It does not overflow: the header was checked.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// A checkpoint in which every tensor is in exactly one shard, the one that the index names.
#[derive(Debug)]
pub struct Checkpoint {
    /// The folder as the caller named it.
    pub place: Place,
    /// Its name for messages and manifests.
    pub label: String,
    /// The weight files, sorted by name.
    pub shards: Vec<Shard>,
    /// The tensors, sorted by shard, then by position in the file.
    pub tensors: Vec<Tensor>,
    /// The index, if there is one.
    pub index: Option<Index>,
    /// Files that are copied to an output: relative paths with `/`, sorted.
    pub sidecars: Vec<String>,
    /// Files and folders that are not copied (other weights, anything but regular files): relative paths with `/`,
    /// sorted.
    pub left_out: Vec<String>,
    /// What `config.json` says.
    pub config: Config,
    /// What `adapter_config.json` says, if it is an adapter.
    pub adapter: Option<AdapterConfig>,
    /// What each of its tensors is computed from, if not all are stored in its files themselves (an adapter, a packed
    /// vector, a quantised checkpoint).
    pub made: Option<Vec<Made>>,
    /// Why its weights are not read, if it is quantised in a way that taskvec does not read: then its tensors are as they
    /// are stored.
    pub unread: Option<Unread>,
    /// Notes for the report.
    pub notes: Vec<String>,
    /// Indices in `tensors`, sorted by name. A map with copies of the names would take more memory.
    by_name: Vec<u32>,
}

impl Checkpoint {
    /// Opens a folder as `transformers` saves it, with the files beside the weights. Quantised weights are opened as the
    /// logical tensors that they stand for.
    pub fn open(place: &Place, control: &Control) -> Result<Self> {
        let mut checkpoint = Self::open_stored(place, control)?;
        quantised::fold(&mut checkpoint, Parts::Dropped)?;
        Ok(checkpoint)
    }

    /// As [`Checkpoint::open`], with the parts of quantised weights among the tensors, so that these are all that there
    /// is in the files.
    pub fn open_with_parts(place: &Place, control: &Control) -> Result<Self> {
        let mut checkpoint = Self::open_stored(place, control)?;
        quantised::fold(&mut checkpoint, Parts::Kept)?;
        Ok(checkpoint)
    }

    /// As [`Checkpoint::open`], with the tensors as they are stored.
    pub fn open_stored(place: &Place, control: &Control) -> Result<Self> {
        let mut checkpoint = Self::open_weights(place, "model", control)?;
        let index = index_name("model");
        let mut used: HashSet<&str> = checkpoint.shards.iter().map(|shard| shard.name.as_str()).collect();
        used.insert(&index);
        let mut found = match &place.remote {
            Some(remote) => sort_listed(remote.files().iter().map(|(name, _)| name.as_str()), &used),
            None => walk(&place.root, &used)?,
        };
        let codes = |tensor: &Tensor| match tensor.dtype.kind() {
            Kind::Float(_) => false,
            // Integers of fewer dimensions are buffers.
            Kind::Integer => tensor.shape.len() >= 2,
            Kind::Opaque => true,
        };
        descriptions::leave_out(&mut found, place, checkpoint.tensors.iter().any(codes))?;
        checkpoint.notes.extend(descriptions::unread_adapter(&checkpoint.label, &found));
        (checkpoint.sidecars, checkpoint.left_out) = (found.sidecars, found.left_out);
        Ok(checkpoint)
    }

    /// Opens only the weights: `{stem}.safetensors`, or `{stem}.safetensors.index.json` and the shards it lists.
    pub fn open_weights(place: &Place, stem: &str, control: &Control) -> Result<Self> {
        let label = place.label()?;
        let (index, names) = locate(place, stem)?;
        let (mut shards, mut tensors) = (Vec::with_capacity(names.len()), Vec::new());
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
                    let begin_in_file = shard.data_start + begin;
                    Tensor { name, dtype, shape, shard: number as u32, begin: begin_in_file, bytes: end - begin }
                }));
                shards.push(shard);
                Ok(())
            },
        )?;
        let by_name = sorted(&tensors);
        let (sidecars, left_out, notes) = Default::default();
        let (config, place) = (Config::read(place)?, place.clone());
        let (adapter, made, unread) = (None, None, config.quantized.clone().map(Unread::Method));
        let checkpoint = Self {
            place,
            label,
            shards,
            tensors,
            index,
            sidecars,
            left_out,
            config,
            adapter,
            made,
            unread,
            notes,
            by_name,
        };
        checkpoint.check_names(stem)?;
        Ok(checkpoint)
    }

    /// Replaces its tensors by tensors that are computed from them, and adds notes for the report.
    pub fn compute(&mut self, tensors: Vec<Tensor>, made: Vec<Made>, notes: Vec<String>) {
        self.by_name = sorted(&tensors);
        (self.tensors, self.made) = (tensors, Some(made));
        self.notes.extend(notes);
    }

    /// Gives some of its tensors, by their index, other names.
    pub fn rename(&mut self, names: impl IntoIterator<Item = (u32, String)>) {
        for (place, name) in names {
            self.tensors[place as usize].name = name;
        }
        self.by_name = sorted(&self.tensors);
    }

    /// Whether any of its weights are quantised, and read as what they stand for.
    pub fn is_quantised(&self) -> bool {
        self.made.iter().flatten().any(|made| matches!(made, Made::Scaled(_)))
    }

    /// How a tensor is quantised, if it is.
    pub fn format(&self, place: u32) -> Option<&Format> {
        match self.made.as_ref().map(|made| &made[place as usize]) {
            Some(Made::Scaled(scaled)) => Some(&scaled.format),
            _ => None,
        }
    }

    /// The name of the type in which a tensor is stored.
    pub fn dtype_name(&self, place: u32) -> &'static str {
        self.format(place).map_or_else(|| self.tensors[place as usize].dtype.name(), |format| format.codes.name())
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.find(name).map(|place| &self.tensors[place as usize])
    }

    /// The index in `tensors` of the tensor of this name.
    pub fn find(&self, name: &str) -> Option<u32> {
        let found = self.by_name.binary_search_by(|&place| self.tensors[place as usize].name.as_str().cmp(name));
        found.ok().map(|at| self.by_name[at])
    }

    /// Whether both are certainly the same checkpoint: the same files on disk, or remote files with equal digests.
    pub fn is_same(&self, other: &Self) -> bool {
        let digest = |one: &Self| one.adapter.as_ref().map(|adapter| adapter.digest);
        let file = |one: &Self, shard: &Shard| match &shard.store {
            Store::Disk(OnDisk { identity, .. }) => Some(format!("{}/{}", identity.device, identity.inode)),
            Store::Remote { .. } => one.place.sha256(&shard.name).map(ToOwned::to_owned),
        };
        digest(self) == digest(other)
            && self.shards.len() == other.shards.len()
            && self.shards.iter().zip(&other.shards).all(|(a, b)| {
                let (a, b) = (file(self, a), file(other, b));
                a.is_some() && a == b
            })
    }

    /// The shard that holds a tensor of this checkpoint.
    pub fn shard(&self, tensor: &Tensor) -> &Shard {
        &self.shards[tensor.shard as usize]
    }

    /// Checks every open shard again. Fails if one was changed or replaced since it was opened.
    pub fn unchanged(&self) -> Result<()> {
        self.shards.iter().try_for_each(Shard::unchanged)
    }

    /// Checks that every tensor is in only one shard, the one that the index names.
    fn check_names(&self, stem: &str) -> Result<()> {
        let tensor = |place: u32| &self.tensors[place as usize];
        for pair in self.by_name.windows(2) {
            let (a, b) = (tensor(pair[0]), tensor(pair[1]));
            if a.name == b.name {
                let (a_shard, b_shard) = (&self.shard(a).path, &self.shard(b).name);
                let what = format!("holds tensor {}, and so does {b_shard}; remove one of them", quote(&a.name));
                return Err(Error::corrupt(a_shard, what));
            }
        }
        let Some(index) = &self.index else { return Ok(()) };
        let refuse = |what: String| {
            let what = format!("{what}; download or save index and shards together");
            Err(Error::corrupt(&self.place.path(&index_name(stem)), what))
        };
        for (name, listed) in &index.weight_map {
            match self.get(name).map(|tensor| &self.shard(tensor).name) {
                Some(holder) if holder == listed => {}
                Some(holder) => return refuse(format!("lists tensor {} in {listed} but {holder} has it", quote(name))),
                None => return refuse(format!("lists tensor {} in {listed}, which does not have it", quote(name))),
            }
        }
        // All listed tensors were found. So if there are more tensors, some are not listed.
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

/// The indices of tensors, sorted by name.
fn sorted(tensors: &[Tensor]) -> Vec<u32> {
    let mut by_name: Vec<u32> = (0..).take(tensors.len()).collect();
    by_name.sort_unstable_by(|&a, &b| tensors[a as usize].name.cmp(&tensors[b as usize].name));
    by_name
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

/// Finds the index, or otherwise the single file.
fn locate(place: &Place, stem: &str) -> Result<(Option<Index>, ShardNames)> {
    let single = format!("{stem}.safetensors");
    let single_is_there = place.has(&single)?;
    let name = index_name(stem);
    let Some(raw) = place.read(&name, MAX_INDEX)? else {
        if single_is_there {
            return Ok((None, BTreeMap::from([(single, None)])));
        }
        return Err(missing::nothing_there(place, stem));
    };
    let index = Index::parse(raw, &place.path(&name))?;
    let mut names = ShardNames::new();
    for (tensor, shard) in &index.weight_map {
        match names.get_mut(shard).and_then(Option::as_mut) {
            Some(listed) => listed.header += tensor.len() as u64 + PER_ENTRY,
            None => {
                let listed = Listed { first: tensor.clone(), header: BESIDE_ENTRIES + tensor.len() as u64 + PER_ENTRY };
                names.insert(shard.clone(), Some(listed));
            }
        }
    }
    if single_is_there && !names.contains_key(&single) {
        let what = format!("does not list {single}, which is in the same folder; remove whichever of the two is stale");
        return Err(Error::corrupt(&place.path(&name), what));
    }
    Ok((Some(index), names))
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
