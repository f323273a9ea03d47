//! Reading byte ranges of input files, behind one trait. Local files are mapped, read through the page cache, or read
//! past it. Remote files are downloaded first, or streamed: fetched range by range.
//!
//! May import `checkpoint` and what is below it. A new way to read bytes is an implementation of `Source`.

pub mod lane;
pub(crate) mod lanes;

use std::fs::File;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{fmt, io};

use crate::checkpoint::Checkpoint;
use crate::checkpoint::shard::{OnDisk, Shard, Store};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::system::files::read_exact_at;
use crate::system::os::{self, DIRECT_ALIGNMENT};

/// How inputs are read (`--io`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// Chosen by file system and available memory; see [`Io::resolve`].
    #[default]
    Auto,
    /// Memory-mapped.
    Mmap,
    /// Positional reads through the page cache.
    Pread,
    /// Positional reads past the page cache.
    Direct,
}

impl FromStr for Io {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "mmap" => Ok(Self::Mmap),
            "pread" => Ok(Self::Pread),
            "direct" => Ok(Self::Direct),
            _ => Err(Error::Usage(format!("--io is one of auto, mmap, pread, direct, not `{text}`"))),
        }
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Mmap => "mmap",
            Self::Pread => "pread",
            Self::Direct => "direct",
        })
    }
}

impl Io {
    /// What `auto` means for these inputs, and why in a few words.
    ///
    /// If the inputs fit in memory, mapping them saves one copy of every byte. If they do not, mapped pages are the
    /// most expensive to reclaim. On network and FUSE file systems, mapping is slow or refused.
    pub fn resolve(self, inputs: &[&Checkpoint]) -> (Self, String) {
        if self != Self::Auto {
            return (self, "requested".into());
        }
        if let Some(input) = inputs.iter().find(|input| input.place.remote.is_some()) {
            return (Self::Pread, format!("{} is fetched while it is read", input.label));
        }
        let shards = || inputs.iter().flat_map(|input| &input.shards);
        let disks = || shards().filter_map(|shard| Some((shard, shard.on_disk()?)));
        if let Some((shard, _)) = disks().find(|(_, disk)| !os::is_local(&disk.file)) {
            return (Self::Pread, format!("{} is not on a local file system", shard.name));
        }
        // Some mounts look local but refuse mappings.
        if let Some((shard, error)) = disks().find_map(|(shard, disk)| Some((shard, map(shard, disk).err()?))) {
            return (Self::Pread, format!("{} cannot be mapped ({error})", shard.name));
        }
        let bytes: u64 = shards().map(|shard| shard.size).sum();
        match os::memory_limit() {
            Some(limit) if bytes <= limit / 2 => (Self::Mmap, "local files that fit in half of the memory".into()),
            Some(_) => (Self::Pread, "the inputs do not fit in half of the memory".into()),
            None => (Self::Pread, "the available memory is not known".into()),
        }
    }
}

/// Reads shorter than this always go through the page cache, because neighbouring reads will need the same disk blocks.
pub const LONG: usize = 64 << 10;

/// One input file, open for positional reads.
pub trait Source: Send + Sync {
    /// Bytes `[begin, begin + len)`: a slice of the file's mapping, or of `buffer`, which has [`Source::room`] bytes.
    fn read<'a>(&'a self, begin: u64, len: usize, buffer: &'a mut [u8]) -> Result<&'a [u8]>;

    /// The bytes of buffer that a read of `len` bytes needs; from [`LONG`] bytes on, the buffer is aligned for direct
    /// reads.
    fn room(&self, len: usize) -> usize;

    /// Releases a range after its window is computed. Fails if bytes that were handed out may have been lost meanwhile.
    fn release(&self, _begin: u64, _len: usize) -> Result<()> {
        Ok(())
    }
}

/// Opens one shard. It is read through the same descriptor as its header, so a file that replaces it meanwhile is not
/// read.
///
/// Large checkpoints have hundreds of shards, so a second descriptor is opened only for direct reads.
pub fn open<'a>(shard: &'a Shard, io: Io, control: &'a Control) -> Result<Box<dyn Source + 'a>> {
    match &shard.store {
        Store::Disk(disk) => open_disk(shard, disk, io),
        Store::Remote { remote, .. } if remote.streams() => Ok(Box::new(Ranges { shard, control })),
        Store::Remote { .. } => {
            Ok(Box::new(Arriving { shard, io, control, opening: Mutex::new(()), source: OnceLock::new() }))
        }
    }
}

fn open_disk<'a>(shard: &'a Shard, disk: &'a OnDisk, io: Io) -> Result<Box<dyn Source + 'a>> {
    let (file, path) = (&disk.file, &*shard.path);
    match io {
        Io::Mmap => map(shard, disk),
        Io::Direct => match os::reopen_direct(file) {
            Ok(direct) => Ok(Box::new(Direct { direct, file, path })),
            // The file system does not support direct reads, or there is no /proc through which to reopen the file.
            // Reads go through the page cache instead.
            Err(error) if os::refuses_direct(&error) || error.kind() == io::ErrorKind::NotFound => {
                Ok(Box::new(Pread { file, path }))
            }
            Err(error) => Err(Error::io(path, "open for direct reads")(error)),
        },
        Io::Auto | Io::Pread => Ok(Box::new(Pread { file, path })),
    }
}

/// The error for a failed read. If an input ends early, somebody changed it; any other error is passed on.
fn lost(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            let what = "became shorter, or its disk failed, while it was read; restore it and start again";
            Error::corrupt(path, what)
        }
        _ => Error::io(path, "read")(error),
    }
}

/// A file that is downloaded. The first read waits until it has arrived, and opens it.
struct Arriving<'a> {
    shard: &'a Shard,
    io: Io,
    control: &'a Control,
    /// Held by the one worker that waits for the file; the others wait for that worker.
    opening: Mutex<()>,
    source: OnceLock<Box<dyn Source + 'a>>,
}

impl<'a> Arriving<'a> {
    fn source(&self) -> Result<&(dyn Source + 'a)> {
        if let Some(source) = self.source.get() {
            return Ok(&**source);
        }
        let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = self.source.get() {
            return Ok(&**source);
        }
        let source = open_disk(self.shard, self.shard.arrive(self.control)?, self.io)?;
        Ok(&**self.source.get_or_init(|| source))
    }
}

impl Source for Arriving<'_> {
    fn read<'a>(&'a self, begin: u64, len: usize, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
        self.source()?.read(begin, len, buffer)
    }

    fn room(&self, len: usize) -> usize {
        match self.io {
            Io::Mmap => 0,
            Io::Direct => direct_room(len),
            Io::Auto | Io::Pread => len,
        }
    }

    fn release(&self, begin: u64, len: usize) -> Result<()> {
        self.source.get().map_or(Ok(()), |source| source.release(begin, len))
    }
}

/// A streamed file, which never becomes a local file. Each read is a request of its own.
struct Ranges<'a> {
    shard: &'a Shard,
    control: &'a Control,
}

impl Source for Ranges<'_> {
    fn read<'a>(&'a self, begin: u64, len: usize, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
        let mut at = 0;
        self.shard.fetch(begin..begin + len as u64, &mut |piece| {
            buffer[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
            self.control.check()
        })?;
        Ok(&buffer[..len])
    }

    fn room(&self, len: usize) -> usize {
        len
    }
}

#[cfg(target_os = "linux")]
fn map<'a>(shard: &'a Shard, disk: &'a OnDisk) -> Result<Box<dyn Source + 'a>> {
    let path = &*shard.path;
    let len = usize::try_from(shard.size).map_err(|_| Error::corrupt(path, "is too large to map; use --io pread"))?;
    let map = crate::system::mapping::Mapping::new(&disk.file, len).map_err(Error::io(path, "map (try --io pread)"))?;
    Ok(Box::new(Mapped { map, path }))
}

#[cfg(not(target_os = "linux"))]
fn map<'a>(shard: &'a Shard, _: &'a OnDisk) -> Result<Box<dyn Source + 'a>> {
    Err(Error::Usage(format!("{}: --io mmap is supported on Linux only; use --io pread", shard.path.display())))
}

#[cfg(target_os = "linux")]
struct Mapped<'a> {
    map: crate::system::mapping::Mapping,
    path: &'a Path,
}

#[cfg(target_os = "linux")]
impl Source for Mapped<'_> {
    fn read<'a>(&'a self, begin: u64, len: usize, _: &'a mut [u8]) -> Result<&'a [u8]> {
        let window = usize::try_from(begin).map_err(io::Error::other).and_then(|begin| self.map.window(begin, len));
        window.map_err(lost(self.path))
    }

    fn room(&self, _: usize) -> usize {
        0
    }

    fn release(&self, begin: u64, len: usize) -> Result<()> {
        if self.map.damaged() {
            return Err(lost(self.path)(io::ErrorKind::UnexpectedEof.into()));
        }
        if let Ok(begin) = usize::try_from(begin) {
            self.map.release(begin, len);
        }
        Ok(())
    }
}

struct Pread<'a> {
    file: &'a File,
    path: &'a Path,
}

impl Source for Pread<'_> {
    fn read<'a>(&'a self, begin: u64, len: usize, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
        let bytes = &mut buffer[..len];
        read_exact_at(self.file, bytes, begin).map_err(lost(self.path))?;
        Ok(bytes)
    }

    fn room(&self, len: usize) -> usize {
        len
    }
}

struct Direct<'a> {
    direct: File,
    file: &'a File,
    path: &'a Path,
}

impl Source for Direct<'_> {
    fn read<'a>(&'a self, begin: u64, len: usize, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
        self.read_direct(begin, len, buffer).map_err(lost(self.path))
    }

    fn room(&self, len: usize) -> usize {
        direct_room(len)
    }
}

fn direct_room(len: usize) -> usize {
    if len < LONG { len } else { (len + DIRECT_ALIGNMENT).next_multiple_of(DIRECT_ALIGNMENT) }
}

impl Direct<'_> {
    fn read_direct<'a>(&self, begin: u64, len: usize, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        if len < LONG {
            read_exact_at(self.file, &mut buffer[..len], begin)?;
            return Ok(&buffer[..len]);
        }
        let align = DIRECT_ALIGNMENT as u64;
        let skip = usize::try_from(begin % align).map_err(io::Error::other)?;
        let span = (skip + len).next_multiple_of(DIRECT_ALIGNMENT);
        let mut got = 0;
        // The file may end inside the last aligned block, and a read may stop early at any aligned offset.
        while got < skip + len {
            match read_at(&self.direct, &mut buffer[got..span], begin - skip as u64 + got as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) if n % DIRECT_ALIGNMENT == 0 || got + n >= skip + len => got += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if !os::refuses_direct(&error) => return Err(error),
                // The file system accepts the flag but not this read, so the whole range is read through the page
                // cache.
                Ok(_) | Err(_) => {
                    read_exact_at(self.file, &mut buffer[..len], begin)?;
                    return Ok(&buffer[..len]);
                }
            }
        }
        Ok(&buffer[skip..skip + len])
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}
