//! What differs between operating systems: direct I/O, preallocation, free space, memory limits, file systems.
//!
//! Everything is supported on Linux. On other systems reads and writes are buffered, and most functions here answer
//! "not known".

use std::fs::File;
use std::io;
use std::path::Path;

/// Direct reads and writes need offsets, lengths and addresses in multiples of this.
///
/// 4096 covers every logical block size in use on local disks. If a disk needs more, the system refuses and the caller
/// continues with buffered reads and writes.
pub const DIRECT_ALIGNMENT: usize = 4096;

/// Whether an error of a direct read or write means only that direct access is not supported here.
pub fn refuses_direct(error: &io::Error) -> bool {
    not_offered(error)
}

/// Whether an error means that the system does not support the call here, and says nothing about the data. Network
/// shares, FUSE and the file systems of virtual machines lack many calls.
pub fn not_offered(error: &io::Error) -> bool {
    #[cfg(unix)]
    if let Some(code) = error.raw_os_error() {
        return [libc::EINVAL, libc::ENOSYS, libc::ENOTSUP, libc::EOPNOTSUPP, libc::ENOTTY].contains(&code);
    }
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// Waits until a file is on the disk. Returns false if the file system does not support that.
pub fn sync_file(file: &File) -> io::Result<bool> {
    let synced = file.sync_all();
    // On macOS the standard library calls F_FULLFSYNC, which is stronger than fsync, and which network file systems
    // lack.
    #[cfg(target_vendor = "apple")]
    let synced = synced.or_else(|error| if not_offered(&error) { Ok(rustix::fs::fsync(file)?) } else { Err(error) });
    match synced {
        Ok(()) => Ok(true),
        Err(error) if not_offered(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Syncs a folder, so that the names in it survive a power cut. On Windows, many network shares and FUSE, folders
/// cannot be synced. There this does nothing; the files themselves have been synced anyway.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        // The codes include those for a folder that may be written but not read, which cannot be opened.
        let no_folders = |error: &io::Error| {
            let code = error.raw_os_error();
            [libc::EACCES, libc::EPERM, libc::EISDIR].map(Some).contains(&code) || not_offered(error)
        };
        let folder = match File::open(path) {
            Err(error) if no_folders(&error) => return Ok(()),
            folder => folder?,
        };
        match folder.sync_all() {
            Err(error) if no_folders(&error) || error.raw_os_error() == Some(libc::EBADF) => Ok(()),
            synced => synced,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        Ok(())
    }
}

/// Renames a file, and replaces a file that has the new name. If the file system does not support that, or the two
/// names are on different disks, the file is copied. Then a reader may see an incomplete file, which the caller has to
/// allow for.
pub fn rename(from: &Path, to: &Path, sync: bool) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if not_offered(&error) || error.kind() == io::ErrorKind::CrossesDevices => {
            std::fs::copy(from, to)?;
            if sync {
                sync_file(&File::options().write(true).open(to)?)?;
            }
            std::fs::remove_file(from)
        }
        renamed => renamed,
    }
}

/// The machine's memory in bytes, or the lowest memory limit of our cgroups if that is lower.
///
/// `None` if neither can be read.
pub fn memory_limit() -> Option<u64> {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
    });
    total.into_iter().chain(cgroup_limits()).min()
}

/// The limits of every cgroup, version 1 and 2, from our own up to the root.
fn cgroup_limits() -> Vec<u64> {
    let mut limits = Vec::new();
    for line in std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default().lines() {
        // hierarchy:controllers:path; version 2 has hierarchy 0 and no controllers
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (roots, file): (&[&str], _) = if controllers.is_empty() {
            (&["/sys/fs/cgroup", "/sys/fs/cgroup/unified"], "memory.max")
        } else if controllers.split(',').any(|c| c == "memory") {
            (&["/sys/fs/cgroup/memory"], "memory.limit_in_bytes")
        } else {
            continue;
        };
        for root in roots {
            // Inside a container the path may not exist below the mount. Then the root of the mount has our limit.
            let ours = Path::new(path.trim_start_matches('/'));
            for ancestor in ours.ancestors() {
                let text = std::fs::read_to_string(Path::new(root).join(ancestor).join(file));
                limits.extend(text.ok().and_then(|text| text.trim().parse::<u64>().ok()));
            }
        }
    }
    limits
}

#[cfg(target_os = "linux")]
mod imp {
    use super::{File, Path, io};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;

    fn direct_options() -> io::Result<std::fs::OpenOptions> {
        let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).map_err(io::Error::other)?;
        let mut options = File::options();
        options.custom_flags(direct);
        Ok(options)
    }

    /// Opens an existing file for direct writes; the file system may refuse.
    pub fn open_direct(path: &Path) -> io::Result<File> {
        direct_options()?.write(true).open(path)
    }

    /// Opens the file behind a descriptor a second time, for direct reads; the file system may refuse.
    pub fn reopen_direct(file: &File) -> io::Result<File> {
        direct_options()?.read(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))
    }

    /// Reserves `len` bytes on disk, so that later writes cannot run out of space. If the file system cannot reserve
    /// space, only the length is set. Never shortens a file.
    pub fn preallocate(file: &File, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let reserve = || rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len);
        match rustix::io::retry_on_intr(reserve).map_err(io::Error::from) {
            // Container sandboxes forbid a call with EPERM.
            Err(error) if super::not_offered(&error) || error.raw_os_error() == Some(libc::EPERM) => {
                if file.metadata()?.len() < len { file.set_len(len) } else { Ok(()) }
            }
            reserved => reserved,
        }
    }

    /// Bytes that an unprivileged process may still write below `path`; `None` if the file system does not tell.
    pub fn free_space(path: &Path) -> Option<u64> {
        let stat = rustix::fs::statvfs(path).ok()?;
        (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Bytes on disk that a file already holds (less than its length where it has holes).
    pub fn allocated(file: &File) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(file.metadata()?.blocks() * 512)
    }

    /// Whether a file is on a local file system, where mappings are known to be safe and fast.
    pub fn is_local(file: &File) -> bool {
        // From the manual page of statfs(2): ext2/3/4, XFS, Btrfs, tmpfs, ramfs, overlayfs, ZFS, F2FS, bcachefs.
        const LOCAL: [u64; 9] = [
            0xEF53,
            0x5846_5342,
            0x9123_683E,
            0x0102_1994,
            0x8584_58F6,
            0x794C_7630,
            0x2FC1_2FC1,
            0xF2F5_2010,
            0xCA45_1A4E,
        ];
        rustix::fs::fstatfs(file).is_ok_and(|stat| LOCAL.contains(&(stat.f_type as u64 & 0xFFFF_FFFF)))
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use super::{File, Path, io};

    /// Not offered here.
    pub fn open_direct(_: &Path) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Not offered here.
    pub fn reopen_direct(_: &File) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Sets the length; never shortens a file.
    pub fn preallocate(file: &File, len: u64) -> io::Result<()> {
        if file.metadata()?.len() < len { file.set_len(len) } else { Ok(()) }
    }

    /// Not known here.
    pub fn free_space(_: &Path) -> Option<u64> {
        None
    }

    /// The file's length.
    pub fn allocated(file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    /// Not known here, so mapping is never chosen automatically.
    pub fn is_local(_: &File) -> bool {
        false
    }
}

pub use imp::{allocated, free_space, is_local, open_direct, preallocate, reopen_direct};
