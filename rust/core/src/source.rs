//! Reading byte ranges of input files: mapped, buffered or direct, behind one trait.

use std::fmt;
use std::fs::File;
use std::io;
use std::str::FromStr;

use crate::checkpoint::{Checkpoint, Shard};
use crate::error::{Error, Result};
use crate::files::read_exact_at;
use crate::os::{self, DIRECT_ALIGNMENT};

/// How inputs are read (`--io`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// Chosen from the file systems and the memory at hand; see [`Io::resolve`].
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
    /// A mapping saves one copy of every byte when the inputs can stay in memory. When they cannot, mapped pages are the
    /// most expensive to reclaim; on network and FUSE file systems a mapping is slow or refused.
    pub fn resolve(self, inputs: &[&Checkpoint]) -> (Self, String) {
        if self != Self::Auto {
            return (self, "asked for".into());
        }
        let shards = || inputs.iter().flat_map(|input| &input.shards);
        if let Some(shard) = shards().find(|shard| !os::is_local(&shard.file)) {
            return (Self::Pread, format!("{} is not on a local file system", shard.name));
        }
        // Some mounts look local and yet refuse to be mapped.
        if let Some((shard, error)) = shards().find_map(|shard| Some((shard, map(shard).err()?))) {
            return (Self::Pread, format!("{} cannot be mapped ({error})", shard.name));
        }
        let bytes: u64 = shards().map(|shard| shard.identity.size).sum();
        match os::memory_limit() {
            Some(limit) if bytes <= limit / 2 => (Self::Mmap, "local files that fit in half of the memory".into()),
            Some(_) => (Self::Pread, "the inputs do not fit in half of the memory".into()),
            None => (Self::Pread, "the memory at hand is not known".into()),
        }
    }
}

/// Reads shorter than this always go through the cache: their neighbours will want the same disk blocks.
pub const LONG: usize = 64 << 10;

/// One input file, open for positional reads.
pub trait Source: Send + Sync {
    /// Bytes `[begin, begin + len)`: a slice of the file's mapping, or of `buffer`, which has [`Source::room`] bytes.
    fn read<'a>(&'a self, begin: u64, len: usize, buffer: &'a mut [u8]) -> io::Result<&'a [u8]>;

    /// The bytes of buffer that a read of `len` bytes needs; from [`LONG`] bytes on, the buffer is aligned for direct reads.
    fn room(&self, len: usize) -> usize;

    /// The window is done with.
    fn release(&self, _begin: u64, _len: usize) {}

    /// Whether bytes handed out earlier may have been lost under us.
    fn damaged(&self) -> bool {
        false
    }
}

/// Opens one shard. The descriptor that its header was read from is the one used, so a file put in its place is not seen.
///
/// Large checkpoints have hundreds of shards, so no second descriptor is spent where one will do.
pub fn open(shard: &Shard, io: Io) -> Result<Box<dyn Source + '_>> {
    match io {
        Io::Mmap => map(shard),
        Io::Direct => {
            let direct = os::reopen_direct(&shard.file).map_err(Error::io(&shard.path, "open for direct reads"))?;
            Ok(Box::new(Direct { direct, file: &shard.file }))
        }
        Io::Auto | Io::Pread => Ok(Box::new(Pread(&shard.file))),
    }
}

#[cfg(target_os = "linux")]
fn map(shard: &Shard) -> Result<Box<dyn Source + '_>> {
    let len = usize::try_from(shard.identity.size)
        .map_err(|_| Error::corrupt(&shard.path, "is too large to map; use --io pread"))?;
    Ok(Box::new(
        crate::mapping::Mapping::new(&shard.file, len).map_err(Error::io(&shard.path, "map (try --io pread)"))?,
    ))
}

#[cfg(not(target_os = "linux"))]
fn map(shard: &Shard) -> Result<Box<dyn Source + '_>> {
    Err(Error::Usage(format!("{}: --io mmap is offered on Linux only; use --io pread", shard.path.display())))
}

#[cfg(target_os = "linux")]
impl Source for crate::mapping::Mapping {
    fn read<'a>(&'a self, begin: u64, len: usize, _: &'a mut [u8]) -> io::Result<&'a [u8]> {
        self.window(usize::try_from(begin).map_err(io::Error::other)?, len)
    }

    fn room(&self, _: usize) -> usize {
        0
    }

    fn release(&self, begin: u64, len: usize) {
        if let Ok(begin) = usize::try_from(begin) {
            Self::release(self, begin, len);
        }
    }

    fn damaged(&self) -> bool {
        Self::damaged(self)
    }
}

struct Pread<'a>(&'a File);

impl Source for Pread<'_> {
    fn read<'a>(&'a self, begin: u64, len: usize, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let bytes = &mut buffer[..len];
        read_exact_at(self.0, bytes, begin)?;
        Ok(bytes)
    }

    fn room(&self, len: usize) -> usize {
        len
    }
}

struct Direct<'a> {
    direct: File,
    file: &'a File,
}

impl Source for Direct<'_> {
    fn read<'a>(&'a self, begin: u64, len: usize, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        if len < LONG {
            read_exact_at(self.file, &mut buffer[..len], begin)?;
            return Ok(&buffer[..len]);
        }
        let align = DIRECT_ALIGNMENT as u64;
        let skip = usize::try_from(begin % align).map_err(io::Error::other)?;
        let span = (skip + len).next_multiple_of(DIRECT_ALIGNMENT);
        let mut got = 0;
        // The file's end may come inside the last aligned block, and a read may stop early at any aligned place.
        while got < skip + len {
            match read_at(&self.direct, &mut buffer[got..span], begin - skip as u64 + got as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) if n % DIRECT_ALIGNMENT == 0 || got + n >= skip + len => got += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if !os::refuses_direct(&error) => return Err(error),
                // A file system that takes the flag but not this read: the window goes through the cache.
                Ok(_) | Err(_) => {
                    read_exact_at(self.file, &mut buffer[..len], begin)?;
                    return Ok(&buffer[..len]);
                }
            }
        }
        Ok(&buffer[skip..skip + len])
    }

    fn room(&self, len: usize) -> usize {
        if len < LONG { len } else { (len + DIRECT_ALIGNMENT).next_multiple_of(DIRECT_ALIGNMENT) }
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
