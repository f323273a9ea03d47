//! A staging folder to which the workers of a job write at the same time, each its own files. A note in it says which
//! job has it.
//!
//! Workers share the lock of the folder, so that no run of another command writes there. Nobody removes what others
//! wrote: two workers on the same part write the same bytes to the same places.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::output::staging::{COMMIT, JOURNAL, LOCK, PARTIAL, Staging, apart_from_inputs, is_committed, require_new};
use crate::system::files::write_whole;

/// The note of the job that has a staging folder.
const RESERVED: &str = "job.json";

/// Which job writes an output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reservation {
    /// The job's identity, in hexadecimal digits.
    pub id: String,
    /// The job's folder, for messages.
    pub folder: PathBuf,
}

impl Reservation {
    fn number(&self) -> u128 {
        u128::from_str_radix(&self.id, 16).unwrap_or(0)
    }

    fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(RESERVED)).ok()?).ok()
    }

    /// Fails if another job has the staging folder.
    fn require(&self, folder: &Path) -> Result<bool> {
        match Self::read(folder) {
            None => Ok(false),
            Some(found) if found.id == self.id => Ok(true),
            Some(found) => Err(taken(folder, &found)),
        }
    }

    fn write(&self, staging: &Staging) -> Result<()> {
        let path = staging.folder.join(RESERVED);
        let text = serde_json::to_vec(self).map_err(|error| Error::io(&path, "write")(error.into()))?;
        write_whole(&path, &text, staging.sync)
    }
}

fn taken(folder: &Path, found: &Reservation) -> Error {
    let (folder, job) = (folder.display(), found.folder.display());
    Error::Usage(format!("{folder} belongs to the job in {job}; commit that job, or delete {folder} to give it up"))
}

/// Fails if a job has the staging folder.
pub(super) fn not_reserved(folder: &Path) -> Result<()> {
    Reservation::read(folder).map_or(Ok(()), |found| Err(taken(folder, &found)))
}

impl Staging {
    /// Reserves an output for a job: removes what other commands left in the staging folder, and notes whose it is.
    ///
    /// # Errors
    /// As [`Staging::open`], and if another job has the output.
    pub fn reserve(out: &Path, overwrite: bool, sync: bool, job: &Reservation) -> Result<()> {
        require_new(out, overwrite, job.number())?;
        if job.require(&out.join(PARTIAL))? {
            return Ok(());
        }
        let staging = Self::lock(out, sync, false)?;
        staging.clear()?;
        job.write(&staging)
    }

    /// Opens the staging folder of a job for one of its workers, whose journal is elsewhere.
    ///
    /// # Errors
    /// The output is, contains or is inside an input; another command is writing or has been interrupted there; or it
    /// belongs to another job.
    pub fn join(out: &Path, inputs: &[&Path], sync: bool, job: &Reservation, journal: PathBuf) -> Result<Self> {
        apart_from_inputs(out, inputs)?;
        let mut staging = Self::lock(out, sync, true)?;
        if !job.require(&staging.folder)? {
            // Somebody removed the folder. It is made anew, unless another command has begun there since.
            if [JOURNAL, COMMIT, "files"].iter().any(|name| staging.folder.join(name).exists()) {
                let folder = staging.folder.display();
                return Err(Error::Usage(format!(
                    "{folder} holds an unfinished run of another command; finish that run, or delete {folder}"
                )));
            }
            job.write(&staging)?;
        }
        staging.own_journal = Some(journal);
        staging.clear()?;
        Ok(staging)
    }

    /// Removes the staging folder of a job that is committed, if the commit was stopped before it did so.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub fn sweep(out: &Path, job: &Reservation) -> Result<()> {
        let folder = out.join(PARTIAL);
        let only_lock =
            || fs::read_dir(&folder).is_ok_and(|mut all| all.all(|one| one.is_ok_and(|one| one.file_name() == LOCK)));
        if folder.exists() && (is_committed(out, job.number()) || job.require(&folder)? || only_lock()) {
            let staging = Self::lock(out, false, true)?;
            staging.remove()?;
        }
        Ok(())
    }

    /// Opens the staging folder of a job that is committed.
    ///
    /// # Errors
    /// As [`Staging::join`], and if the output exists and may not be overwritten.
    pub fn join_to_commit(
        out: &Path,
        inputs: &[&Path],
        (overwrite, sync): (bool, bool),
        job: &Reservation,
    ) -> Result<Self> {
        require_new(out, overwrite, job.number())?;
        Self::join(out, inputs, sync, job, PathBuf::new())
    }
}
