//! What decides the bytes of an output, in a form on which all machines agree.
//!
//! [`Plan::id`] has devices, inodes and the times of attributes, which differ between the clients of a file system. A
//! job on several machines takes an input's file for unchanged if its name, its length, its header and the time of its
//! last change are the same. Files of a commit on the Hub never change, wherever they were downloaded.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use crate::NUMERIC_SPEC;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::shard::{OnDisk, Shard, Store};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::plan::inputs::{Input, Origin};
use crate::plan::output::Output;
use crate::plan::request::recipe::vector_tied;
use crate::storage::place::Place;
use crate::system::files::{Identity as FileIdentity, open_regular};

/// What decides the bytes of an output, the manifest included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The version of taskvec.
    pub taskvec: String,
    /// The numeric specification.
    pub numeric_spec: u32,
    /// The verb.
    pub verb: String,
    /// The options that decide bytes, as in the manifest.
    pub recipe: Value,
    /// Whether SHA-256 digests are in the manifest.
    pub sha256: bool,
    /// Whether the output is a packed vector.
    pub packed: bool,
    /// Whether the donors of each vector tied their output head.
    pub tied: Vec<Option<bool>>,
    /// The inputs.
    pub inputs: Vec<Pinned>,
    /// The weight files of the output, with their lengths (of a packed file, that of the grid of its blocks).
    pub files: Vec<(String, u64)>,
}

/// An input as it was when the job was planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pinned {
    /// Its role in the job.
    pub role: String,
    /// Its name in the manifest.
    pub name: String,
    /// The commit, if it is on the Hub.
    pub commit: Option<String>,
    /// Whether it is streamed. Then its SHA-256 is not checked, and the manifest says so.
    pub streamed: bool,
    /// XXH3-128 of its configuration.
    pub config: Option<String>,
    /// The digest of its adapter's configuration.
    pub adapter: Option<String>,
    /// The digest of its index.
    pub index: Option<String>,
    /// Its weight files.
    pub files: Vec<PinnedFile>,
    /// Its other files that are copied to the output.
    pub beside: Vec<PinnedFile>,
}

/// One file of an input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PinnedFile {
    /// Its name in the folder.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// XXH3-128 of its header, if it is a weight file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// When its content was last changed, in nanoseconds since 1970; not of files on the Hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime_ns: Option<String>,
    /// Its SHA-256, if the Hub states it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Identity {
    /// The identity of a plan.
    ///
    /// # Errors
    /// A file of the target cannot be read.
    pub fn of(plan: &Plan) -> Result<Self> {
        let copied = |number: usize| number == 0 && plan.inputs.output == Output::Checkpoint;
        let inputs = plan.inputs.list.iter().enumerate().map(|(number, input)| pin(input, copied(number)));
        Ok(Self {
            taskvec: env!("CARGO_PKG_VERSION").into(),
            numeric_spec: NUMERIC_SPEC,
            verb: plan.request.verb().into(),
            recipe: plan.recipe(),
            sha256: plan.options.sha256,
            packed: plan.layout.packed,
            tied: plan.inputs.origins.iter().map(|(origin, _): &(Origin, _)| vector_tied(origin)).collect(),
            inputs: inputs.collect::<Result<_>>()?,
            files: plan.layout.files.iter().map(|file| (file.name.clone(), file.len)).collect(),
        })
    }

    /// Fails if a plan made now is not this one, and says what differs. `job` is the file that this identity is in.
    ///
    /// # Errors
    /// An input that changed is damaged for this job.
    pub fn require(&self, plan: &Plan, job: &Path) -> Result<()> {
        let now = Self::of(plan)?;
        if now.inputs.len() == self.inputs.len() {
            for ((then, now), input) in self.inputs.iter().zip(&now.inputs).zip(&plan.inputs.list) {
                then.require(now, &input.checkpoint.place)?;
            }
        }
        let same = [
            ("the inputs", now.inputs == self.inputs),
            ("the verb", now.verb == self.verb),
            ("the numeric specification", now.numeric_spec == self.numeric_spec),
            ("the options", (now.sha256, now.packed, &now.recipe) == (self.sha256, self.packed, &self.recipe)),
            ("whether heads are tied", now.tied == self.tied),
            ("the files of the output", now.files == self.files),
        ];
        match same.iter().find(|(_, same)| !same) {
            Some((what, _)) => {
                Err(Error::corrupt(job, format!("{what} are not those of the plan that this machine makes; plan anew")))
            }
            None => Ok(()),
        }
    }
}

impl Pinned {
    fn require(&self, now: &Self, place: &Place) -> Result<()> {
        let what = if now.commit != self.commit {
            "is at another commit than when the job was planned"
        } else if (&now.name, &now.role, now.streamed) != (&self.name, &self.role, self.streamed) {
            "has another name, or is read in another way, than when the job was planned"
        } else if now.config != self.config || now.adapter != self.adapter {
            "has another configuration than when the job was planned"
        } else {
            require_files(&self.files, &now.files, place)?;
            require_files(&self.beside, &now.beside, place)?;
            if now.index == self.index {
                return Ok(());
            }
            "has another index than when the job was planned"
        };
        Err(Error::corrupt(&place.root, format!("{what}; restore it, or plan anew")))
    }
}

fn require_files(then: &[PinnedFile], now: &[PinnedFile], place: &Place) -> Result<()> {
    let differs =
        |name: &str, what: &str| Err(Error::corrupt(&place.path(name), format!("{what}; restore it, or plan anew")));
    for file in now {
        if !then.iter().any(|known| known.name == file.name) {
            return differs(&file.name, "was not there when the job was planned");
        }
    }
    for known in then {
        let Some(file) = now.iter().find(|file| file.name == known.name) else {
            return differs(&known.name, "was there when the job was planned, and is not now");
        };
        if file.size != known.size {
            let what = format!("has {} bytes, but had {} when the job was planned", file.size, known.size);
            return differs(&file.name, &what);
        }
        if file.header != known.header {
            return differs(&file.name, "has another header than when the job was planned");
        }
        if file.mtime_ns != known.mtime_ns || file.sha256 != known.sha256 {
            return differs(&file.name, "was changed since the job was planned");
        }
    }
    Ok(())
}

/// The state of an input; with the files that are copied to the output, if there are any.
fn pin(input: &Input, copied: bool) -> Result<Pinned> {
    let Checkpoint { place, label, shards, sidecars, config, adapter, index, .. } = &*input.checkpoint;
    let hex = |digest: u128| format!("{digest:032x}");
    let beside = |name: &String| -> Result<PinnedFile> {
        let of_hub = place.origin.is_some();
        let (size, mtime_ns) = match place.listed(name) {
            Some((_, size)) => (size, None),
            None => {
                let path: PathBuf = place.path(name);
                let found = FileIdentity::of(&open_regular(&path)?, &path)?;
                (found.size, (!of_hub).then(|| found.mtime_ns.to_string()))
            }
        };
        Ok(PinnedFile { name: name.clone(), size, header: None, mtime_ns, sha256: None })
    };
    Ok(Pinned {
        role: input.role.clone(),
        name: label.clone(),
        commit: place.origin.as_ref().map(|origin| origin.commit.clone()),
        streamed: place.streams(),
        config: config.raw.as_deref().map(|raw| hex(xxh3_128(raw))),
        adapter: adapter.as_ref().map(|adapter| hex(adapter.digest)),
        index: index.map(hex),
        files: shards.iter().map(|shard| pin_shard(shard, place)).collect(),
        beside: sidecars.iter().filter(|_| copied).map(beside).collect::<Result<_>>()?,
    })
}

fn pin_shard(shard: &Shard, place: &Place) -> PinnedFile {
    let mtime_ns = match &shard.store {
        Store::Disk(OnDisk { identity, .. }) if place.origin.is_none() => Some(identity.mtime_ns.to_string()),
        _ => None,
    };
    PinnedFile {
        name: shard.name.clone(),
        size: shard.size,
        header: Some(format!("{:032x}", shard.header_digest)),
        mtime_ns,
        sha256: place.sha256(&shard.name).map(str::to_owned),
    }
}
