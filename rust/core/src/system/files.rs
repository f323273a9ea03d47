//! Opening and reading input files that are not trusted: only regular files, without blocking, and with a limit on
//! size.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::system::os;

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

/// Writes a small file that appears whole or not at all, and replaces a file of that name.
pub fn write_whole(path: &Path, bytes: &[u8], sync: bool) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (made, mut file) = create_new(folder, &format!(".{name}."), ".new")?;
    let written = file.write_all(bytes).map_err(Error::io(path, "write")).and_then(|()| {
        if sync {
            os::sync_file(&file).map_err(Error::io(path, "sync"))?;
        }
        drop(file);
        os::rename(&made, path, sync).map_err(Error::io(path, "put in place"))
    });
    if written.is_err() {
        // Best effort: the error is what matters.
        let _ = fs::remove_file(&made);
        return written;
    }
    if sync { os::sync_folder(folder).map_err(Error::io(folder, "sync")) } else { Ok(()) }
}

/// Creates a file with a name that no other process uses, on whatever machine it is.
pub fn create_new(folder: &Path, before: &str, after: &str) -> Result<(PathBuf, File)> {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let path = folder.join(format!("{before}{}-{now}{after}", std::process::id()));
        match File::options().read(true).write(true).create_new(true).open(&path) {
            // Somebody else took the name in the same nanosecond.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io(&path, "create")(error)),
            Ok(file) => return Ok((path, file)),
        }
    }
}

/// Locks a file, for this process alone or shared; returns false if another process has it.
///
/// Some network file systems have no locks. Continuing without one is better than failing: two runs in one folder are
/// rare.
pub fn try_lock(file: &File, shared: bool) -> io::Result<bool> {
    match if shared { file.try_lock_shared() } else { file.try_lock() } {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) if locks_are_not_offered(&error) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether locking failed because the file system has no locks. NFS without its lock service answers ENOLCK.
fn locks_are_not_offered(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::ENOLCK) {
        return true;
    }
    os::not_offered(error)
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
