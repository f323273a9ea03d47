//! Where an input is: in a local folder, or in a remote folder whose files are fetched.
//!
//! Only names in the list of a remote folder are ever requested. They are checked here, because files get these names.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::system::files::read_whole;
use crate::text::quote;

/// A local or remote folder that holds an input.
#[derive(Clone, Debug)]
pub struct Place {
    /// The folder; for a remote folder, its name in messages (`org/name@revision:subfolder`).
    pub root: PathBuf,
    /// Its name for messages and manifests; by default the folder's own name.
    pub name: Option<String>,
    /// Where it is on the Hub, if that is known.
    pub origin: Option<Origin>,
    /// How its files are fetched; `None` for a local folder.
    pub remote: Option<Arc<dyn Remote>>,
}

/// A folder on the Hub, at one commit.
#[derive(Clone, Debug)]
pub struct Origin {
    /// `org/name`.
    pub repo: String,
    /// The commit. The files of a commit never change.
    pub commit: String,
    /// The folder inside the repository; `None` for its root.
    pub subfolder: Option<String>,
    /// SHA-256 by file name below the folder, as 64 hexadecimal digits. Only for files for which the Hub states it.
    pub sha256: BTreeMap<String, String>,
}

/// A remote folder. Its content never changes.
pub trait Remote: Debug + Send + Sync {
    /// Every file below the folder: its relative path with `/`, and its length in bytes.
    fn files(&self) -> &[(String, u64)];

    /// Whether shards are streamed: read range by range, and never stored as local files.
    fn streams(&self) -> bool;

    /// Fetches a range, and hands its bytes to `take`, in order and in pieces of any size. While it waits, it hands
    /// over empty pieces, so that the job can notice that it should stop.
    fn fetch(&self, file: usize, range: Range<u64>, take: &mut (dyn FnMut(&[u8]) -> Result<()> + Send)) -> Result<()>;

    /// Starts to download a file, unless that was started before. Calls come in the order in which files will be read.
    fn want(&self, file: usize) -> Result<()>;

    /// The path of the complete, checked file; `None` if it is not downloaded yet. Waits for it, but not much longer
    /// than a second, so that the job can check whether it should stop. Then the job asks again.
    fn local(&self, file: usize) -> Result<Option<PathBuf>>;
}

impl From<PathBuf> for Place {
    fn from(root: PathBuf) -> Self {
        Self { root, name: None, origin: None, remote: None }
    }
}

impl From<&Path> for Place {
    fn from(root: &Path) -> Self {
        root.to_owned().into()
    }
}

impl Place {
    /// The name of one of its files in messages; for a local folder, this is the file's path.
    pub fn path(&self, name: &str) -> PathBuf {
        match &self.remote {
            None => self.root.join(name),
            // Not a local path: its parts are joined by `/` on every system.
            Some(_) => format!("{}/{name}", self.root.display()).into(),
        }
    }

    /// Its name for messages and manifests. Fails if it is not a folder, or if it lists a file outside of it.
    pub fn label(&self) -> Result<String> {
        if let Some(remote) = &self.remote {
            for (name, _) in remote.files() {
                if !stays_below(name) {
                    let what = format!("lists the file {}, which is outside the folder; do not trust it", quote(name));
                    return Err(Error::corrupt(&self.root, what));
                }
            }
            return Ok(self.name.clone().unwrap_or_else(|| self.root.to_string_lossy().into_owned()));
        }
        let found = fs::metadata(&self.root).map_err(Error::io(&self.root, "open the folder"))?;
        if !found.is_dir() {
            let root = self.root.display();
            return Err(Error::Usage(format!("{root}: is a file; name the folder that holds it")));
        }
        let own = self.root.canonicalize().map_err(Error::io(&self.root, "open the folder"))?;
        let label = || own.file_name().unwrap_or(own.as_os_str()).to_string_lossy().into_owned();
        Ok(self.name.clone().unwrap_or_else(label))
    }

    /// Whether its shards are streamed: read range by range, and never stored as local files.
    pub fn streams(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.streams())
    }

    /// The index of a file in a remote folder's list, and its length in bytes. `None` for a local folder.
    pub fn listed(&self, name: &str) -> Option<(usize, u64)> {
        let files = self.remote.as_ref()?.files();
        files.iter().position(|(listed, _)| listed == name).map(|file| (file, files[file].1))
    }

    /// Whether it has a file of this name. A broken link counts as a file; opening it will report that it is broken.
    pub fn has(&self, name: &str) -> Result<bool> {
        if self.remote.is_some() {
            return Ok(self.listed(name).is_some());
        }
        let path = self.path(name);
        match fs::symlink_metadata(&path) {
            Err(error) if absent(&error) => Ok(false),
            found => found.map(|_| true).map_err(Error::io(&path, "look at the file")),
        }
    }

    /// The content of a small file; `None` if there is no file of this name. A file of more than `cap` bytes is
    /// refused.
    pub fn read(&self, name: &str, cap: u64) -> Result<Option<Vec<u8>>> {
        let path = self.path(name);
        let Some(remote) = &self.remote else {
            return match read_whole(&path, cap) {
                Err(Error::Io { source, .. }) if absent(&source) => Ok(None),
                read => read.map(Some),
            };
        };
        let Some((file, size)) = self.listed(name) else { return Ok(None) };
        if size > cap {
            let what = format!("has {size} bytes, but at most {cap} are allowed; put the real file there");
            return Err(Error::corrupt(&path, what));
        }
        let mut bytes = Vec::new();
        fetch(&**remote, file, 0..size, &path, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(Some(bytes))
    }

    /// The local path of one of its files. Waits until the file is downloaded.
    pub fn arrive(&self, name: &str, control: &Control) -> Result<PathBuf> {
        match (&self.remote, self.listed(name)) {
            (Some(remote), Some((file, _))) => arrive(&**remote, file, control),
            _ => Ok(self.path(name)),
        }
    }

    /// SHA-256 of one of its files, if the Hub states it.
    pub fn sha256(&self, name: &str) -> Option<&str> {
        self.origin.as_ref()?.sha256.get(name).map(String::as_str)
    }
}

/// [`Remote::fetch`], with a check that `take` gets exactly as many bytes as the range has. `path` is for messages.
pub fn fetch(
    remote: &dyn Remote,
    file: usize,
    range: Range<u64>,
    path: &Path,
    take: &mut (dyn FnMut(&[u8]) -> Result<()> + Send),
) -> Result<()> {
    let wanted = range.end - range.start;
    if wanted == 0 {
        return Ok(());
    }
    let lost = |got: u64| {
        let what = format!("{got} bytes came instead of the {wanted} that were requested; try again");
        Error::io(path, "fetch")(std::io::Error::new(ErrorKind::UnexpectedEof, what))
    };
    let mut got = 0;
    remote.fetch(file, range, &mut |piece| {
        got += piece.len() as u64;
        if got > wanted { Err(lost(got)) } else { take(piece) }
    })?;
    if got == wanted { Ok(()) } else { Err(lost(got)) }
}

/// Waits until a file is downloaded.
pub fn arrive(remote: &dyn Remote, file: usize, control: &Control) -> Result<PathBuf> {
    loop {
        control.check()?;
        if let Some(path) = remote.local(file)? {
            return Ok(path);
        }
    }
}

/// Whether an error means that the file does not exist. `NotADirectory` counts too: that the folder is not a folder is
/// reported when it is opened.
fn absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Whether a listed name means a file below the folder on every system, without `.` or `..` in its path.
fn stays_below(name: &str) -> bool {
    let parts = name.split('/').count();
    let normal = |part: Component| matches!(part, Component::Normal(_));
    !name.contains(char::is_control)
        && !name.split('/').any(|part| matches!(part, "" | "." | ".."))
        && Path::new(name).components().filter(|&part| normal(part)).count() == parts
}
