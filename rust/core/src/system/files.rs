//! Opening and reading input files that are not trusted: only regular files, without blocking, and with a limit on
//! size.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// Identifies a file and its state, to detect whether it was changed or replaced. A field is 0 if the platform does not
/// tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The device that holds it.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its length in bytes.
    pub size: u64,
    /// When its content was last changed, in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// When its content or attributes were last changed, in nanoseconds since 1970.
    pub ctime_ns: i128,
}

impl Identity {
    /// Asks the open file, never the path, because the path may name another file by now. `path` is for messages.
    pub fn of(file: &File, path: &Path) -> Result<Self> {
        file.metadata().map(|metadata| Self::from_metadata(&metadata)).map_err(Error::io(path, "look at the file"))
    }

    #[cfg(unix)]
    fn from_metadata(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let ns = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    #[cfg(not(unix))]
    fn from_metadata(metadata: &Metadata) -> Self {
        let since = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let mtime_ns = since.and_then(|since| i128::try_from(since.as_nanos()).ok()).unwrap_or(0);
        Self { device: 0, inode: 0, size: metadata.len(), mtime_ns, ctime_ns: 0 }
    }
}

/// Opens a regular file for reading; symbolic links are followed. Anything else (a directory, a pipe, a device) is
/// refused without being opened. A missing file is an I/O error, a broken link a corrupt input.
pub fn open_regular(path: &Path) -> Result<File> {
    let found = fs::metadata(path).map_err(|error| missing(path, error))?;
    refuse_irregular(&found, path)?;
    let mut options = OpenOptions::new();
    options.read(true);
    // A pipe may replace the file between the check and the opening. Opening it must not wait for a writer.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path).map_err(|error| missing(path, error))?;
    let opened = file.metadata().map_err(Error::io(path, "look at the file"))?;
    refuse_irregular(&opened, path)?;
    Ok(file)
}

fn missing(path: &Path, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound && path.is_symlink() {
        return Error::corrupt(path, "is a link to a file that is not there; download it again");
    }
    Error::io(path, "open")(error)
}

fn refuse_irregular(metadata: &Metadata, path: &Path) -> Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let kind = if metadata.is_dir() { "a directory" } else { "a pipe, socket or device" };
    Err(Error::corrupt(path, format!("is {kind}, not a regular file; put the file itself there")))
}

/// The content of a small regular file. A file of more than `cap` bytes is refused.
pub fn read_whole(path: &Path, cap: u64) -> Result<Vec<u8>> {
    let file = open_regular(path)?;
    let mut bytes = Vec::new();
    // One byte more than allowed is read, which tells whether the file is too long, even if it grows meanwhile.
    file.take(cap + 1).read_to_end(&mut bytes).map_err(Error::io(path, "read"))?;
    if bytes.len() as u64 > cap {
        return Err(Error::corrupt(path, format!("is longer than the {cap} bytes allowed; put the real file there")));
    }
    Ok(bytes)
}

/// Fills `buffer` from byte `offset` on. The file's own position does not matter, and on Unix it does not change.
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
    }
    #[cfg(windows)]
    {
        // Positional like on Unix: threads share the handle, so its own position must not matter.
        let mut done = 0;
        while done < buffer.len() {
            match std::os::windows::fs::FileExt::seek_read(file, &mut buffer[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                got => done += got,
            }
        }
        Ok(())
    }
}
