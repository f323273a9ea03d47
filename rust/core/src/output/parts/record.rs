//! The record of a part that is done (`taskvec/part/1`): its files with their digests, and the figures of its tensors.
//!
//! The second line of a record is the digest of the first. A record that is torn or altered counts as missing.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::codec::scaled::encode::Requantised;
use crate::error::{Error, Result};
use crate::format::blocks;
use crate::numeric::stats::Stats;
use crate::output::manifest::FileEntry;
use crate::output::parts::folder::{Job, MOST};
use crate::output::staging::{PARTIAL, is_committed};
use crate::plan::document::to_text;
use crate::system::files::{Identity, open_regular, read_whole, write_whole};

const SCHEMA: &str = "taskvec/part/1";

/// What a part wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    schema: String,
    job: String,
    part: usize,
    /// Its files, in the order of the plan.
    pub files: Vec<Written>,
    /// Figures of its tensors, in the order of the layout: [`Stats::to_bytes`] in base64.
    stats: String,
    /// What quantising again did to them; empty if the plan does not.
    requantised: String,
    /// Its exceptions, by tensor of the layout.
    pub exceptions: Vec<(u32, u64)>,
    /// SHA-256 of inputs' shards that this part read for the manifest: input, shard, digest.
    pub input_sha256: Vec<(usize, usize, String)>,
    /// How it was done: none of this is in the manifest.
    pub how: How,
}

/// How a part was done.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct How {
    /// Whether writes bypassed the page cache.
    pub direct: bool,
    /// False if syncing was requested but the file system does not support it.
    pub synced: bool,
    /// Bytes that were kept from interrupted attempts.
    pub resumed: u64,
}

/// A file that a part wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Written {
    /// What the manifest says about it.
    #[serde(flatten)]
    pub entry: FileEntry,
    /// When it was last written to, in nanoseconds since 1970: tells whether anybody has touched it since.
    pub mtime_ns: String,
}

/// What is known of a part.
pub enum Found {
    /// It is done, and its files are as the record says.
    Done(Box<Record>),
    /// It has to be run; why, if there is more to say than that it was not run.
    Missing(Option<String>),
}

impl Record {
    /// The record of a part, once it is computed and nothing writes to its files any more.
    ///
    /// # Errors
    /// A file cannot be looked at.
    pub fn new(
        job: &Job,
        part: usize,
        files: Vec<FileEntry>,
        (stats, requantised): (&[Stats], &[Requantised]),
        exceptions: &[(u32, u64)],
        input_sha256: Vec<(usize, usize, String)>,
        how: How,
    ) -> Result<Self> {
        let written = |entry: FileEntry| {
            let path = place(job, &entry.name);
            let found = Identity::of(&open_regular(&path)?, &path)?;
            Ok(Written { entry, mtime_ns: found.mtime_ns.to_string() })
        };
        Ok(Self {
            schema: SCHEMA.into(),
            job: job.id_text().into(),
            part,
            files: files.into_iter().map(written).collect::<Result<_>>()?,
            stats: STANDARD.encode(stats.iter().flat_map(Stats::to_bytes).collect::<Vec<u8>>()),
            requantised: STANDARD.encode(requantised.iter().flat_map(Requantised::to_bytes).collect::<Vec<u8>>()),
            exceptions: exceptions.to_vec(),
            input_sha256,
            how,
        })
    }

    /// The figures of the part's tensors.
    ///
    /// # Errors
    /// There are not as many as there are tensors.
    pub fn figures(&self, job: &Job, tensors: &Range<usize>) -> Result<(Vec<Stats>, Vec<Requantised>)> {
        let decode = |text: &str| STANDARD.decode(text).unwrap_or_default();
        let (stats, again) = (decode(&self.stats), decode(&self.requantised));
        let (stats, stats_rest) = stats.as_chunks();
        let (again, again_rest) = again.as_chunks();
        let whole = stats_rest.is_empty() && again_rest.is_empty() && stats.len() == tensors.len();
        if !whole || !(again.is_empty() || again.len() == tensors.len()) {
            return Err(stranger(&path(job, self.part), self.part));
        }
        let requantised = again.iter().map(Requantised::from_bytes).collect();
        Ok((stats.iter().map(Stats::from_bytes).collect(), requantised))
    }

    /// Whether another attempt at the same part came to the same result.
    fn agrees(&self, other: &Self) -> bool {
        let files = |record: &Self| -> Vec<_> {
            record.files.iter().map(|file| (file.entry.size, file.entry.xxh3_128.clone())).collect()
        };
        (files(self), &self.stats, &self.requantised, &self.exceptions)
            == (files(other), &other.stats, &other.requantised, &other.exceptions)
    }

    /// Writes the record. If there is one already, it has to agree, and this one takes its place: the files may have been
    /// written to once more.
    ///
    /// # Errors
    /// The records do not agree, or the folder cannot be written.
    pub fn publish(&self, job: &Job) -> Result<()> {
        let path = path(job, self.part);
        if let Some(earlier) = read(&path)?
            && earlier.job == self.job
            && !self.agrees(&earlier)
        {
            let what = format!(
                "says that part {} has other bytes than were computed just now, which cannot be: check the memory and the disks of these machines, delete the record, and run the part again",
                self.part
            );
            return Err(Error::corrupt(&path, what));
        }
        let text = to_text(self)?;
        write_whole(&path, format!("{text}\n{}\n", blocks::of_bytes(text.as_bytes())).as_bytes(), true)
    }
}

/// Where the record of a part is.
pub fn path(job: &Job, part: usize) -> PathBuf {
    job.records().join(Job::part_name(part) + "json")
}

/// The path of a file of the output that is not committed, or only in part.
fn place(job: &Job, name: &str) -> PathBuf {
    let staged = job.document.out.join(PARTIAL).join("files").join(name);
    if !staged.exists() && is_committed(&job.document.out, job.id()) { job.document.out.join(name) } else { staged }
}

/// Looks whether a part is done.
///
/// # Errors
/// Its record is not of this job.
pub fn look(job: &Job, part: usize) -> Result<Found> {
    let planned = job.planned(part)?;
    let path = path(job, part);
    let Some(record) = read(&path)? else {
        let damaged = path.exists().then(|| format!("{}: the record is damaged", path.display()));
        return Ok(Found::Missing(damaged));
    };
    if record.job != job.id_text() {
        let path = path.display();
        return Err(Error::Mismatch(format!("{path}: belongs to another plan; delete it, and run part {part} again")));
    }
    let names = record.files.iter().map(|file| &file.entry.name);
    if record.part != part || !names.eq(planned.iter().map(|(name, _)| name)) {
        return Err(stranger(&path, part));
    }
    for Written { entry, mtime_ns } in &record.files {
        let staged = place(job, &entry.name);
        let why = match open_regular(&staged).and_then(|file| Identity::of(&file, &staged)) {
            Ok(found) if found.size == entry.size && found.mtime_ns.to_string() == *mtime_ns => continue,
            Ok(_) => "was changed after its part was done",
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => "is gone",
            Err(error) => return Err(error),
        };
        return Ok(Found::Missing(Some(format!("{}: {why}", staged.display()))));
    }
    Ok(Found::Done(Box::new(record)))
}

/// The record in a file; `None` if there is none, or if it is torn or altered.
fn read(path: &Path) -> Result<Option<Record>> {
    let bytes = match read_whole(path, MOST) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(None) };
    let Some((record, sum)) = text.strip_suffix('\n').and_then(|text| text.split_once('\n')) else { return Ok(None) };
    if blocks::of_bytes(record.as_bytes()) != sum {
        return Ok(None);
    }
    Ok(serde_json::from_str(record).ok().filter(|record: &Record| record.schema == SCHEMA))
}

fn stranger(path: &Path, part: usize) -> Error {
    let path = path.display();
    Error::Mismatch(format!("{path}: does not describe part {part} of this job; delete it, and run the part again"))
}
