//! One weight file of a checkpoint, local or remote, whose header has been read.

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

/// What is wrong with a file that is not as it was when it was opened.
pub(crate) const CHANGED: &str = "changed while it was read; run again when nothing writes to it";

/// One weight file.
#[derive(Debug)]
pub struct Shard {
    /// Its name in the folder.
    pub name: String,
    /// Its name in messages; for a local file, the path where it was opened.
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
    /// In a local file.
    Disk(OnDisk),
    /// In a remote folder.
    Remote {
        /// The folder that has it.
        remote: Arc<dyn Remote>,
        /// Its index in the folder's list of files.
        file: usize,
        /// The local file, once it has been downloaded. Never set for a streamed file.
        arrived: OnceLock<OnDisk>,
    },
}

/// An open file.
#[derive(Debug)]
pub struct OnDisk {
    /// Where it was opened.
    pub path: PathBuf,
    /// The open file. Every later read goes through it, even if the path names another file by then.
    pub file: File,
    /// The identity of the file before anything of it was read.
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
    /// Opens the shard `name` and reads its header. `None` if it does not exist. For a remote shard, `guess` bytes are
    /// requested first: if the header is not longer, one request is enough.
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

    /// The open local file; `None` for a remote file that has not been downloaded.
    pub fn on_disk(&self) -> Option<&OnDisk> {
        match &self.store {
            Store::Disk(disk) => Some(disk),
            Store::Remote { arrived, .. } => arrived.get(),
        }
    }

    /// Fetches a range of a remote file, and hands its bytes to `take`, in order.
    pub fn fetch(&self, range: Range<u64>, take: &mut (dyn FnMut(&[u8]) -> Result<()> + Send)) -> Result<()> {
        match &self.store {
            Store::Remote { remote, file, .. } => place::fetch(&**remote, *file, range, &self.path, take),
            // No caller does this. Without an error, the caller's buffer would silently keep its old content.
            Store::Disk(_) => Err(Error::corrupt(&self.path, "is on this machine and is not fetched; run again")),
        }
    }

    /// Starts to download it, unless it is local or streamed.
    pub fn want(&self) -> Result<()> {
        match &self.store {
            Store::Remote { remote, file, .. } if !remote.streams() => remote.want(*file),
            _ => Ok(()),
        }
    }

    /// Waits until the file is downloaded, and checks that it is the one whose header was read.
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

    /// Fails if the file was changed or replaced since it was opened. Remote files do not change.
    pub fn unchanged(&self) -> Result<()> {
        match self.on_disk() {
            Some(disk) if Identity::of(&disk.file, &self.path)? != disk.identity => {
                Err(Error::corrupt(&self.path, CHANGED))
            }
            _ => Ok(()),
        }
    }
}
