//! The folder in which an output is built, and the renames that move it into place. No file that a loader would open
//! appears in the output before all of them are complete.

mod apart;
mod joined;

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::{clutter, vector};
use crate::error::{Error, Result};
use crate::output::manifest;
pub use crate::output::staging::apart::{apart_from_inputs, job_apart};
pub use crate::output::staging::joined::Reservation;
use crate::plan::output::MANIFEST;
use crate::system::files::try_lock;
use crate::system::os;

/// The staging folder. It is inside the output folder, so that renames stay on one file system.
pub const PARTIAL: &str = ".taskvec-partial";
const COMMIT: &str = "commit.json";
const LOCK: &str = "lock";
const JOURNAL: &str = "journal";

/// An output that is being written; locked against a second run.
#[derive(Debug)]
pub struct Staging {
    out: PathBuf,
    folder: PathBuf,
    /// The output folder and its parents, as far as this run created them; the deepest first.
    made: Vec<PathBuf>,
    sync: bool,
    /// The lock file. The lock ends when the file is closed, by us or by the system if the process dies.
    lock: File,
    /// The journal, elsewhere, if others write to the folder at the same time: see [`Staging::join`].
    own_journal: Option<PathBuf>,
}

/// Written when only renames are left to do, so that the next run can finish an interrupted commit.
#[derive(Serialize, Deserialize)]
struct Commit {
    plan: String,
    job: String,
    files: Vec<String>,
}

impl Staging {
    /// Creates or reopens `OUT/.taskvec-partial`, and locks it.
    ///
    /// # Errors
    /// `OUT` is, contains or is inside an input; or it exists and may not be overwritten; or another run is writing
    /// there.
    pub fn open(out: &Path, inputs: &[&Path], overwrite: bool, sync: bool, plan: u128) -> Result<Self> {
        apart_from_inputs(out, inputs)?;
        require_new(out, overwrite, plan)?;
        let staging = Self::lock(out, sync, false)?;
        joined::not_reserved(&staging.folder)?;
        Ok(staging)
    }

    /// Creates or reopens the folder and locks it: for this run alone, or shared with others that share it.
    fn lock(out: &Path, sync: bool, shared: bool) -> Result<Self> {
        let folder = out.join(PARTIAL);
        if folder.is_symlink() {
            // The folder that the link points to is not ours, so it must not be cleared.
            return Err(Error::Usage(format!("{} is a link; remove it, or choose another folder", folder.display())));
        }
        let named = out.ancestors().filter(|path| !path.as_os_str().is_empty());
        let made: Vec<PathBuf> = named.take_while(|path| !path.exists()).map(Path::to_owned).collect();
        let path = folder.join(LOCK);
        let opened = fs::create_dir_all(&folder).map_err(Error::io(&folder, "create")).and_then(|()| {
            let mut options = File::options();
            options.write(true).create(true).truncate(false).open(&path).map_err(Error::io(&path, "create"))
        });
        let locked = opened.and_then(|lock| {
            let got = try_lock(&lock, shared).map_err(Error::io(&path, "lock"))?;
            Ok(got.then_some(lock))
        });
        match locked {
            Ok(Some(lock)) => Ok(Self { out: out.to_owned(), folder, made, sync, lock, own_journal: None }),
            Ok(None) => {
                let busy = io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another taskvec run is writing there; wait for it or choose another folder",
                );
                Err(Error::io(out, "write")(busy))
            }
            Err(error) => {
                // Files that were there before stay: an earlier run may be continued from them.
                let _ = if made.is_empty() { fs::remove_dir(&folder) } else { fs::remove_dir_all(&folder) };
                made.iter().for_each(|path| drop(fs::remove_dir(path)));
                Err(error)
            }
        }
    }

    /// Where a file of the output is built.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join("files").join(name)
    }

    /// A file of the staging folder that is not part of the output.
    pub fn scratch(&self) -> &Path {
        &self.folder
    }

    /// The path of the journal.
    pub fn journal(&self) -> PathBuf {
        self.own_journal.clone().unwrap_or_else(|| self.folder.join(JOURNAL))
    }

    /// Whether an earlier run of this plan was interrupted during its renames.
    pub fn interrupted_commit(&self, plan: u128) -> bool {
        read_commit(&self.folder, plan).is_some()
    }

    /// Removes what an earlier run of another plan left, except for the lock; nothing if others write here too.
    pub fn clear(&self) -> Result<()> {
        if self.own_journal.is_none() {
            self.clear_but_lock()?;
        }
        let files = self.folder.join("files");
        fs::create_dir_all(&files).map_err(Error::io(&files, "create"))
    }

    /// Removes everything but the lock; the note of a commit last, because it says that the output is in place.
    fn clear_but_lock(&self) -> Result<()> {
        for entry in fs::read_dir(&self.folder).map_err(Error::io(&self.folder, "list"))?.flatten() {
            let path = entry.path();
            if entry.file_name() != LOCK && entry.file_name() != COMMIT {
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(Error::io(&path, "remove"))?;
            }
        }
        let commit = self.folder.join(COMMIT);
        match fs::remove_file(&commit) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(&commit, "remove")(error)),
            _ => Ok(()),
        }
    }

    /// Writes a small file of the output.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write_with(name, |out| out.write_all(bytes))
    }

    /// As [`Staging::write`], for a file that is too long to be held in memory.
    pub fn write_with(&self, name: &str, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io(parent, "create"))?;
        }
        let mut file = BufWriter::new(File::create(&path).map_err(Error::io(&path, "create"))?);
        write(&mut file).and_then(|()| file.flush()).map_err(Error::io(&path, "write"))?;
        self.sync_file(file.get_ref(), &path)
    }

    /// Removes everything that this run created. Called if the inputs are bad, so that nothing of it can be reused.
    pub fn discard(self) {
        let made = self.made.clone();
        // Best effort: the error that led here is the one to report.
        let _ = self.remove();
        for path in made {
            let _ = fs::remove_dir(path);
        }
    }

    /// Removes the staging folder. No file in it may be open by then, not even the lock: on Windows and on NFS the name
    /// of an open file stays, and so does its folder. The lock is closed last, so that the folder is unlocked only
    /// briefly.
    ///
    /// After a commit this waits until all outputs of the job are in place. Up to then a second run must be able to tell
    /// that this one is.
    pub fn remove(self) -> Result<()> {
        self.clear_but_lock()?;
        drop(self.lock);
        fs::remove_dir_all(&self.folder).map_err(Error::io(&self.folder, "remove"))
    }

    /// Moves `files` into place in the order given, which ends with the manifest. `job` stands for the plans of all
    /// outputs of the job.
    pub fn commit(&self, plan: u128, job: u128, files: Vec<String>) -> Result<()> {
        self.sync_tree(&self.folder.join("files"))?;
        let commit = Commit { plan: hex(plan), job: hex(job), files };
        let path = self.folder.join(COMMIT);
        let bytes = serde_json::to_vec(&commit).map_err(|error| Error::io(&path, "write")(error.into()))?;
        let mut file = File::create(&path).map_err(Error::io(&path, "create"))?;
        file.write_all(&bytes).map_err(Error::io(&path, "write"))?;
        self.sync_file(&file, &path)?;
        // The file is about to be removed, and some systems refuse to remove an open file.
        drop(file);
        self.sync_folder(&self.folder)?;
        self.finish_commit(&commit.files)
    }

    /// Finishes a commit that an earlier run began.
    pub fn resume_commit(&self, plan: u128) -> Result<()> {
        let files = read_commit(&self.folder, plan).unwrap_or_default();
        self.finish_commit(&files)
    }

    fn finish_commit(&self, files: &[String]) -> Result<()> {
        self.remove_stale(files)?;
        let (manifest, others) = files.split_last().map_or((None, files), |(last, others)| (Some(last), others));
        let mut folders = BTreeSet::from([self.out.clone()]);
        for name in others {
            folders.insert(self.put_in_place(name)?);
        }
        // The manifest states that all files are there, so it must not reach the disk before the others.
        for folder in &folders {
            self.sync_folder(folder)?;
        }
        if let Some(name) = manifest {
            self.put_in_place(name)?;
            self.sync_folder(&self.out)?;
        }
        Ok(())
    }

    /// Renames one file into the output and returns the folder it is in now.
    fn put_in_place(&self, name: &str) -> Result<PathBuf> {
        let (from, to) = (self.path(name), self.out.join(name));
        let folder = to.parent().unwrap_or(&self.out).to_owned();
        fs::create_dir_all(&folder).map_err(Error::io(&folder, "create"))?;
        match os::rename(&from, &to, self.sync) {
            // The staged file is gone, but the output has it: an interrupted run has already moved it.
            Err(error) if error.kind() != io::ErrorKind::NotFound || !to.exists() => {
                Err(Error::io(&to, "put in place")(error))
            }
            _ => Ok(folder),
        }
    }

    /// Removes the files of an overwritten output, so that none stays beside the new ones: first those that make it
    /// loadable, then those that its manifest names, and weights and indexes that no manifest names.
    fn remove_stale(&self, files: &[String]) -> Result<()> {
        let mut old: Vec<String> =
            [MANIFEST, vector::FILE].iter().flat_map(|name| manifest::file_names(&self.out.join(name))).collect();
        for entry in fs::read_dir(&self.out).map_err(Error::io(&self.out, "list"))?.flatten() {
            old.extend(
                entry
                    .file_name()
                    .into_string()
                    .ok()
                    .filter(|n| n.ends_with(".safetensors") || n.ends_with(".safetensors.index.json")),
            );
        }
        let staged = |name: &str| self.path(name).exists();
        let new: HashSet<&str> = files.iter().map(String::as_str).collect();
        let first = ["config.json", "model.safetensors.index.json", MANIFEST, vector::FILE].map(String::from);
        for name in first.into_iter().chain(old) {
            // A file that this very commit has already put in place is new, not stale.
            if new.contains(name.as_str()) && !staged(&name) {
                continue;
            }
            let path = self.out.join(&name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(&path, "remove")(error)),
                _ => {}
            }
        }
        self.sync_folder(&self.out)
    }

    fn sync_tree(&self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).map_err(Error::io(folder, "list"))?.flatten() {
            if entry.path().is_dir() {
                self.sync_tree(&entry.path())?;
            }
        }
        self.sync_folder(folder)
    }

    fn sync_file(&self, file: &File, path: &Path) -> Result<()> {
        if self.sync {
            os::sync_file(file).map_err(Error::io(path, "sync"))?;
        }
        Ok(())
    }

    /// Syncs a folder, so that its renames and new names survive a power cut.
    fn sync_folder(&self, folder: &Path) -> Result<()> {
        if self.sync { os::sync_folder(folder).map_err(Error::io(folder, "sync")) } else { Ok(()) }
    }
}

/// Refuses an output that exists and may not be overwritten, unless this plan's own commit was interrupted there.
fn require_new(out: &Path, overwrite: bool, plan: u128) -> Result<()> {
    if !out.exists() || overwrite || read_commit(&out.join(PARTIAL), plan).is_some() {
        return Ok(());
    }
    let content = |name: &OsStr| name != PARTIAL && !clutter::is_of_the_system(&name.to_string_lossy());
    let mut entries = fs::read_dir(out).map_err(Error::io(out, "list"))?.flatten();
    if entries.any(|entry| content(&entry.file_name())) {
        let out = out.display();
        return Err(Error::Usage(format!("{out} exists and is not empty; choose another folder or add --overwrite")));
    }
    Ok(())
}

/// Whether a run of this job has moved this output into place and has not removed its staging folder yet.
pub fn is_committed(out: &Path, job: u128) -> bool {
    parse_commit(&out.join(PARTIAL)).is_some_and(|commit| commit.job == hex(job))
}

/// Whether this output is in place and its staging folder is removed, or as good as removed.
pub fn is_in_place(out: &Path) -> bool {
    let folder = out.join(PARTIAL);
    out.join(MANIFEST).exists() && !folder.join(JOURNAL).exists() && !folder.join(COMMIT).exists()
}

fn hex(id: u128) -> String {
    format!("{id:032x}")
}

fn parse_commit(folder: &Path) -> Option<Commit> {
    serde_json::from_slice(&fs::read(folder.join(COMMIT)).ok()?).ok()
}

fn read_commit(folder: &Path, plan: u128) -> Option<Vec<String>> {
    parse_commit(folder).filter(|commit| commit.plan == hex(plan)).map(|commit| commit.files)
}
