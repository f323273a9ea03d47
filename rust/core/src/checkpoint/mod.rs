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
mod stored;
mod tensor;
pub(crate) mod tied;
pub mod vector;

use std::collections::HashSet;

pub use crate::checkpoint::quantised::{Parts, Unread};
pub use crate::checkpoint::shard::Shard;
use crate::checkpoint::shard::{OnDisk, Store};
use crate::checkpoint::sidecars::{sort_listed, walk};
pub use crate::checkpoint::stored::MOST_REQUESTS;
pub use crate::checkpoint::tensor::{Shape, Tensor};
use crate::codec::derived::Made;
use crate::codec::scaled::Format;
use crate::control::Control;
use crate::error::Result;
use crate::format::adapter_config::AdapterConfig;
use crate::format::config::Config;
use crate::format::index::index_name;
use crate::numeric::dtype::Kind;
use crate::storage::place::Place;

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
    /// The digest of the index's bytes, if there is one. They are read again when they are needed: they may take more
    /// memory than all that is known about the tensors.
    pub index: Option<u128>,
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
        stored::open(place, stem, control)
    }

    /// Replaces its tensors by tensors that are computed from them, and adds notes for the report.
    pub fn compute(&mut self, mut tensors: Vec<Tensor>, mut made: Vec<Made>, notes: Vec<String>) {
        let mut shapes = HashSet::new();
        for tensor in &mut tensors {
            tensor.shape = one_of(&mut shapes, &tensor.shape);
        }
        tensors.shrink_to_fit();
        made.shrink_to_fit();
        self.by_name = sorted(&tensors);
        (self.tensors, self.made) = (tensors, Some(made));
        self.notes.extend(notes);
    }

    /// Takes over the names and shapes that it has in common with another input of the same job, so that they are in
    /// memory only once.
    pub fn share(&mut self, other: &Self) {
        let mut others = other.by_name.iter().map(|&place| &other.tensors[place as usize]).peekable();
        for &place in &self.by_name {
            let mine = &mut self.tensors[place as usize];
            while others.next_if(|theirs| theirs.name < mine.name).is_some() {}
            let Some(theirs) = others.next_if(|theirs| theirs.name == mine.name) else { continue };
            mine.name = theirs.name.clone();
            if mine.shape == theirs.shape {
                mine.shape = theirs.shape.clone();
            }
        }
    }

    /// Bytes of memory that its tables take: what is known about its tensors. A name that several inputs have counts
    /// for each in part.
    pub fn memory(&self) -> u64 {
        let names: u64 = self.tensors.iter().map(|tensor| tensor.name.share()).sum();
        let made = self.made.iter().flatten().map(|made| size_of::<Made>() as u64 + made.bytes());
        names + (self.tensors.len() * (size_of::<Tensor>() + size_of::<u32>())) as u64 + made.sum::<u64>()
    }

    /// Gives some of its tensors, by their index, other names.
    pub fn rename(&mut self, names: impl IntoIterator<Item = (u32, String)>) {
        for (place, name) in names {
            self.tensors[place as usize].name = name.into();
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
}

/// The indices of tensors, sorted by name.
fn sorted(tensors: &[Tensor]) -> Vec<u32> {
    let mut by_name: Vec<u32> = (0..).take(tensors.len()).collect();
    // Most files are sorted by name in themselves, and this sort makes use of that.
    by_name.sort_by(|&a, &b| tensors[a as usize].name.cmp(&tensors[b as usize].name));
    by_name
}

/// The shape of these dimensions among those that are known.
fn one_of(shapes: &mut HashSet<Shape>, dims: &[u64]) -> Shape {
    match shapes.get(dims) {
        Some(shape) => shape.clone(),
        None => {
            let shape = Shape::from(dims.to_vec());
            shapes.insert(shape.clone());
            shape
        }
    }
}
