//! Writing one output file: past the page cache where the file system allows it, otherwise buffered. The exact length
//! is set at the end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::system::files::read_exact_at;
use crate::system::os::{self, DIRECT_ALIGNMENT};

/// An output file that is being written. Several threads write windows to it at the same time.
#[derive(Debug)]
pub struct Sink {
    path: PathBuf,
    file: File,
    direct: Option<File>,
    refused: AtomicBool,
}

impl Sink {
    /// Opens (or creates) the file and reserves `len` bytes for it. Bytes written by an interrupted run stay.
    ///
    /// Windows are written past the page cache even if nobody waits for the disk at the end: a copy into the cache costs
    /// more processor time than the whole sum, and unwritten pages may fill a small cgroup until the kernel kills us.
    pub fn open(path: &Path, len: u64) -> Result<Self> {
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io(path, "create"))?;
        if len > 0 {
            os::preallocate(&file, len).map_err(Error::io(path, "reserve space for"))?;
        }
        let direct = os::open_direct(path).ok();
        Ok(Self { path: path.to_owned(), file, direct, refused: AtomicBool::new(false) })
    }

    /// Writes `len` bytes of `window` at `offset`. `window` has room after them up to an aligned length. A direct write
    /// at the file's end fills this room with zeros; [`Sink::finish`] cuts them off again.
    pub fn write(&self, offset: u64, window: &mut [u8], len: usize) -> Result<()> {
        let whole = len.next_multiple_of(DIRECT_ALIGNMENT);
        if let Some(direct) = self.direct.as_ref().filter(|_| !self.refused.load(Ordering::Relaxed)) {
            window[len..whole].fill(0);
            match write_all_at(direct, &window[..whole], offset) {
                Ok(()) => return Ok(()),
                // The file system accepts the flag but not this write: from here on windows go through the page cache.
                Err(error) if os::refuses_direct(&error) => self.refused.store(true, Ordering::Relaxed),
                Err(error) => return Err(Error::io(&self.path, "write")(error)),
            }
        }
        self.write_small(offset, &window[..len])
    }

    /// Writes a few bytes at any offset, through the page cache.
    pub fn write_small(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        write_all_at(&self.file, bytes, offset).map_err(Error::io(&self.path, "write"))
    }

    /// Reads bytes of an earlier run; returns whether all of them are there.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> bool {
        read_exact_at(&self.file, bytes, offset).is_ok()
    }

    /// Whether windows bypass the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some() && !self.refused.load(Ordering::Relaxed)
    }

    /// Sets the exact length and, with `sync`, waits until the disk has everything. Returns false if the file system
    /// does not support that.
    pub fn finish(&self, len: u64, sync: bool) -> Result<bool> {
        self.file.set_len(len).map_err(Error::io(&self.path, "set the length of"))?;
        if sync { os::sync_file(&self.file).map_err(Error::io(&self.path, "sync")) } else { Ok(true) }
    }
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}
