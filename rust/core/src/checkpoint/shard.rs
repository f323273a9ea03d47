//! One weight file of a checkpoint, its header read: open here, or elsewhere.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use xxhash_rust::xxh3::xxh3_128;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::header::{Header, TensorInfo};
use crate::storage::place::{self, Place, Remote};
use crate::system::files::{Identity, open_regular, read_exact_at};

/// One weight file.
#[derive(Debug)]
pub struct Shard {
    /// Its name in the folder.
    pub name: String,
    /// What messages call it; for a file of this machine, where it was opened.
    pub path: PathBuf,
    /// Where its bytes are.
    pub store: Store,
    /// Its length in bytes.
    pub size: u64,
    /// Where its data section begins.
    pub data_start: u64,
    /// XXH3-128 (seed 0) of all bytes before the data section.
    pub header_digest: u128,
    /// Its header's `__metadata__`.
    pub metadata: Vec<(String, String)>,
}

/// Where the bytes of a shard are.
#[derive(Debug)]
pub enum Store {
    /// On this machine.
    Disk(OnDisk),
    /// Elsewhere.
    Remote {
        /// The folder that has it.
        remote: Arc<dyn Remote>,
        /// Its number there.
        file: usize,
        /// The file on this machine, once it has arrived; never for one that is streamed.
        arrived: OnceLock<OnDisk>,
    },
}

/// An open file.
#[derive(Debug)]
pub struct OnDisk {
    /// Where it was opened.
    pub path: PathBuf,
    /// Every later read goes through it, whatever the path names by then.
    pub file: File,
    /// What it looked like before anything of it was read.
    pub identity: Identity,
}

impl OnDisk {
    fn open(path: PathBuf) -> Result<Self> {
        let file = open_regular(&path)?;
        let identity = Identity::of(&file, &path)?;
        Ok(Self { path, file, identity })
    }
}

impl Shard {
    /// Opens the shard `name` and reads its header; nothing if it is not there. Of a shard elsewhere, `guess` bytes are
    /// asked for at first: one request is enough where the header is no longer.
    pub fn open(place: &Place, name: &str, guess: u64, control: &Control) -> Result<Option<(Self, Vec<TensorInfo>)>> {
        let path = place.path(name);
        let (store, size, header) = match &place.remote {
            None => {
                let disk = match OnDisk::open(path.clone()) {
                    Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
                    disk => disk?,
                };
                let header = Header::read(&disk.file, &path)?;
                let size = disk.identity.size;
                (Store::Disk(disk), size, header)
            }
            Some(remote) => {
                let Some((file, size)) = place.listed(name) else { return Ok(None) };
                let header = Header::read_parts(size, &path, guess, |range, bytes| {
                    place::fetch(&**remote, file, range, &path, &mut |piece| {
                        bytes.extend_from_slice(piece);
                        control.check()
                    })
                })?;
                (Store::Remote { remote: Arc::clone(remote), file, arrived: OnceLock::new() }, size, header)
            }
        };
        let (Header { tensors, data_start, metadata }, header_digest) = header;
        Ok(Some((Self { name: name.to_owned(), path, store, size, data_start, header_digest, metadata }, tensors)))
    }

    /// The open file, if it is on this machine by now.
    pub fn on_disk(&self) -> Option<&OnDisk> {
        match &self.store {
            Store::Disk(disk) => Some(disk),
            Store::Remote { arrived, .. } => arrived.get(),
        }
    }

    /// Hands the bytes of a range of a file elsewhere to `take`, in order.
    pub fn fetch(&self, range: Range<u64>, take: &mut (dyn FnMut(&[u8]) -> Result<()> + Send)) -> Result<()> {
        match &self.store {
            Store::Remote { remote, file, .. } => place::fetch(&**remote, *file, range, &self.path, take),
            // Nobody asks for one; in silence it would leave a buffer as it was.
            Store::Disk(_) => Err(Error::corrupt(&self.path, "is on this machine and is not fetched; run again")),
        }
    }

    /// Begins to download it, unless it is on this machine or streamed.
    pub fn want(&self) -> Result<()> {
        match &self.store {
            Store::Remote { remote, file, .. } if !remote.streams() => remote.want(*file),
            _ => Ok(()),
        }
    }

    /// Waits until the file is on this machine, and makes sure that it is the one whose header was read.
    pub fn arrive(&self, control: &Control) -> Result<&OnDisk> {
        let (remote, file, arrived) = match &self.store {
            Store::Disk(disk) => return Ok(disk),
            Store::Remote { remote, file, arrived } => (remote, file, arrived),
        };
        let disk = OnDisk::open(place::arrive(&**remote, *file, control)?)?;
        let mut start = vec![0; self.data_start.min(disk.identity.size) as usize];
        read_exact_at(&disk.file, &mut start, 0).map_err(Error::io(&disk.path, "read the header"))?;
        if disk.identity.size != self.size || xxh3_128(&start) != self.header_digest {
            let what = "is not the file whose header was read before; delete it and run again";
            return Err(Error::corrupt(&disk.path, what));
        }
        Ok(arrived.get_or_init(|| disk))
    }

    /// An error when the file was changed, or replaced, since it was opened. What lies elsewhere does not change.
    pub fn unchanged(&self) -> Result<()> {
        match self.on_disk() {
            Some(disk) if Identity::of(&disk.file, &self.path)? != disk.identity => {
                Err(Error::corrupt(&self.path, "changed while it was read; run again when nothing writes to it"))
            }
            _ => Ok(()),
        }
    }
}
