//! A job's folder and its plan (`taskvec/job/1`).

use std::fs::{self, File};
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Error, Result};
use crate::format::blocks;
use crate::output::staging::Reservation;
use crate::plan::document::to_text;
use crate::plan::parts::identity::Identity;
use crate::system::files::{read_whole, try_lock, write_whole};

const PLAN: &str = "plan.json";
const DONE: &str = "done.json";
const SCHEMA: &str = "taskvec/job/1";
const DONE_SCHEMA: &str = "taskvec/commit/1";
/// Far more than a plan or a record has.
pub(super) const MOST: u64 = 1 << 30;

/// The plan of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    schema: String,
    /// XXH3-128 of this document with an empty `id`.
    id: String,
    /// The folder that the job writes.
    pub out: PathBuf,
    /// For each part its first file and how many it has, in the order of [`Identity::files`].
    parts: Vec<(usize, usize)>,
    /// What decides the bytes of the output.
    pub identity: Identity,
    /// The text of the output's `README.md`.
    pub card: String,
    /// What the caller needs to open the inputs again.
    pub asked: Value,
}

impl Document {
    /// A plan of parts that are these runs of files.
    ///
    /// # Errors
    /// A path has no form in JSON.
    pub fn new(identity: Identity, parts: &[Range<usize>], out: &Path, card: &str, asked: Value) -> Result<Self> {
        let parts = parts.iter().map(|files| (files.start, files.len())).collect();
        let (schema, out, card) = (SCHEMA.into(), out.to_owned(), card.to_owned());
        let mut document = Self { schema, id: String::new(), out, parts, identity, card, asked };
        document.id = document.digest()?;
        Ok(document)
    }

    /// The identity of the job, in hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn digest(&self) -> Result<String> {
        let without = Self { id: String::new(), ..self.clone() };
        Ok(format!("{:032x}", xxh3_128(to_text(&without)?.as_bytes())))
    }

    /// Reads a plan that was written by this version.
    fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let damaged = || Error::corrupt(path, "is damaged, or was changed after it was written; plan anew");
        let value: Value = serde_json::from_slice(bytes).map_err(|_| damaged())?;
        let version = value["identity"]["taskvec"].as_str().unwrap_or_default();
        if value["schema"] != SCHEMA || version.is_empty() {
            return Err(Error::corrupt(path, "is not the plan of a job; name the folder that `taskvec plan` wrote"));
        }
        let ours = env!("CARGO_PKG_VERSION");
        if version != ours {
            let path = path.display();
            return Err(Error::Mismatch(format!(
                "{path}: was planned by taskvec {version}, but this is taskvec {ours}; use the same version on every machine"
            )));
        }
        let document: Self = serde_json::from_value(value).map_err(|_| damaged())?;
        if document.digest()? != document.id { Err(damaged()) } else { Ok(document) }
    }
}

/// What is left of a job once it is committed.
#[derive(Serialize, Deserialize)]
struct Done {
    schema: String,
    job: String,
    /// The name of the manifest in the output.
    manifest: String,
    xxh3_128: String,
    result: Value,
}

/// A job in its folder.
#[derive(Debug)]
pub struct Job {
    /// The folder.
    pub root: PathBuf,
    /// Its plan.
    pub document: Document,
}

impl Job {
    /// Opens a job that was planned.
    ///
    /// # Errors
    /// There is no plan, or it is damaged, or another version of taskvec wrote it.
    pub fn open(root: &Path) -> Result<Self> {
        let path = root.join(PLAN);
        let document = Document::parse(&read_whole(&path, MOST)?, &path)?;
        Ok(Self { root: root.to_owned(), document })
    }

    /// Opens the job that is in a folder already; `None` if the folder is new.
    ///
    /// # Errors
    /// As [`Job::open`], and if the folder holds anything else.
    pub fn existing(root: &Path) -> Result<Option<Self>> {
        match Self::open(root) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            found => return found.map(Some),
        }
        let ours = |name: &str| matches!(name, "parts" | "attempts") || name.starts_with(&format!(".{PLAN}"));
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        match entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).find(|name| !ours(name)) {
            Some(name) => Err(Error::Usage(format!(
                "{} contains {name} and no plan of a job; choose another folder for the job",
                root.display()
            ))),
            None => Ok(None),
        }
    }

    /// Makes the folder of a new job, without its plan.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn create(root: &Path, document: Document) -> Result<Self> {
        let job = Self { root: root.to_owned(), document };
        for folder in [job.records(), job.attempts()] {
            fs::create_dir_all(&folder).map_err(Error::io(&folder, "create"))?;
        }
        Ok(job)
    }

    /// Removes the folder of a job without a plan.
    pub fn discard(&self) {
        // Best effort, and only what is empty: the error that led here is the one to report.
        [self.records(), self.attempts(), self.root.clone()].iter().for_each(|folder| drop(fs::remove_dir(folder)));
    }

    /// Writes the plan. From then on the job can be run.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn publish(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.document)
            .map_err(|error| Error::io(&self.plan_path(), "write")(error.into()))?;
        write_whole(&self.plan_path(), format!("{text}\n").as_bytes(), true)
    }

    /// The file with the plan.
    pub fn plan_path(&self) -> PathBuf {
        self.root.join(PLAN)
    }

    pub(super) fn records(&self) -> PathBuf {
        self.root.join("parts")
    }

    /// The folder with the journals of attempts.
    pub fn attempts(&self) -> PathBuf {
        self.root.join("attempts")
    }

    /// How the files of a part begin in [`Job::attempts`], and its record.
    pub fn part_name(part: usize) -> String {
        format!("part-{part:05}.")
    }

    /// The identity of the job, as a number.
    pub fn id(&self) -> u128 {
        u128::from_str_radix(&self.document.id, 16).unwrap_or(0)
    }

    /// The identity of the job, as text.
    pub fn id_text(&self) -> &str {
        &self.document.id
    }

    /// The note that reserves the output.
    pub fn reservation(&self) -> Reservation {
        Reservation { id: self.document.id.clone(), folder: self.root.clone() }
    }

    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.document.parts.len()
    }

    /// The files of a part.
    ///
    /// # Errors
    /// There is no such part.
    pub fn files(&self, part: usize) -> Result<Range<usize>> {
        match self.document.parts.get(part) {
            Some(&(first, count)) => Ok(first..first + count),
            None => Err(Error::Usage(format!(
                "there is no part {part}: the job in {} has the parts 0 to {}",
                self.root.display(),
                self.parts() - 1
            ))),
        }
    }

    /// The names and planned lengths of a part's files.
    ///
    /// # Errors
    /// As [`Job::files`].
    pub fn planned(&self, part: usize) -> Result<&[(String, u64)]> {
        let files = self.files(part)?;
        self.document
            .identity
            .files
            .get(files)
            .ok_or_else(|| Error::corrupt(&self.plan_path(), "is damaged; plan anew"))
    }

    /// Locks one part for this worker; `None` if another worker has it.
    ///
    /// # Errors
    /// The lock cannot be made.
    pub fn lock_part(&self, part: usize) -> Result<Option<File>> {
        self.lock(&self.attempts().join(Self::part_name(part) + "lock"))
    }

    /// Locks the commit; `None` if it is being done.
    ///
    /// # Errors
    /// The lock cannot be made.
    pub fn lock_commit(&self) -> Result<Option<File>> {
        self.lock(&self.root.join("commit.lock"))
    }

    fn lock(&self, path: &Path) -> Result<Option<File>> {
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).open(path).map_err(Error::io(path, "create"))?;
        let got = try_lock(&file, false).map_err(Error::io(path, "lock"))?;
        Ok(got.then_some(file))
    }

    /// The result of the commit, if the job is committed.
    ///
    /// # Errors
    /// The output is not what was committed, any more.
    pub fn done(&self) -> Result<Option<Value>> {
        let path = self.root.join(DONE);
        let bytes = match read_whole(&path, MOST) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let done: Option<Done> = serde_json::from_slice(&bytes).ok();
        let Some(done) = done.filter(|done| done.schema == DONE_SCHEMA && done.job == self.document.id) else {
            let path = path.display();
            return Err(Error::Mismatch(format!("{path}: is not of this job; delete it, and commit again")));
        };
        let manifest = self.document.out.join(&done.manifest);
        match read_whole(&manifest, MOST) {
            Ok(bytes) if blocks::of_bytes(&bytes) == done.xxh3_128 => Ok(Some(done.result)),
            _ => Err(Error::Mismatch(format!(
                "{}: is not what the job in {} committed, any more; plan a new job",
                manifest.display(),
                self.root.display()
            ))),
        }
    }

    /// Notes that the job is committed, with the result of the commit.
    ///
    /// # Errors
    /// The manifest cannot be read, or the note not written.
    pub fn note_done(&self, manifest: &str, result: Value) -> Result<()> {
        let bytes = read_whole(&self.document.out.join(manifest), MOST)?;
        let (job, manifest) = (self.document.id.clone(), manifest.to_owned());
        let done = Done { schema: DONE_SCHEMA.into(), job, manifest, xxh3_128: blocks::of_bytes(&bytes), result };
        write_whole(&self.root.join(DONE), to_text(&done)?.as_bytes(), true)
    }
}
