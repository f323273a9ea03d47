//! The journal of an unfinished job: which blocks are done, in order. Each record has its own checksum.
//!
//! Records are appended without waiting for the disk. That is safe because a record is only a claim: a second run reads
//! the blocks themselves and compares digests. If the end of the journal is torn or missing, its blocks are computed
//! again.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::codec::scaled::encode::Requantised;
use crate::engine::window::{BlockRecord, Found, FrameRecord, Outcome, Rescaled};
use crate::error::{Error, Result};
use crate::numeric::stats::Stats;

const MAGIC: &[u8; 16] = b"taskvec journal3";
const START: u64 = 32;
/// Far more than any record has. A larger length can only come from a torn record.
const MAX_RECORD: u32 = 1 << 30;

/// The open journal, positioned at its end.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Starts a new journal for a plan.
    pub fn create(path: &Path, plan: u128) -> Result<Self> {
        let mut options = File::options();
        let mut file =
            options.read(true).write(true).create(true).truncate(true).open(path).map_err(Error::io(path, "create"))?;
        file.write_all(MAGIC).and_then(|()| file.write_all(&plan.to_le_bytes())).map_err(Error::io(path, "write"))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Opens the journal of an earlier run of the same plan. `None` if there is none, or if it belongs to another plan.
    pub fn open(path: &Path, plan: u128) -> Result<Option<Self>> {
        let mut file = match File::options().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(path, "open")(error)),
        };
        let mut start = [0; START as usize];
        let whole =
            file.read_exact(&mut start).is_ok() && start[..16] == MAGIC[..] && start[16..] == plan.to_le_bytes();
        Ok(whole.then(|| Self { path: path.to_owned(), file }))
    }

    /// Whether the journal has any record that a second run could use.
    pub fn has_records(path: &Path) -> bool {
        path.metadata().is_ok_and(|meta| meta.len() > START)
    }

    /// Appends the outcome of one window.
    pub fn append(&mut self, outcome: &Outcome) -> Result<()> {
        let payload = encode(outcome);
        let mut record = Vec::with_capacity(payload.len() + 12);
        record.extend((payload.len() as u32).to_le_bytes());
        record.extend(xxh3_64(&payload).to_le_bytes());
        record.extend(payload);
        self.file.write_all(&record).map_err(Error::io(&self.path, "write"))
    }

    /// Calls `each` with every valid record in order, and with the offset after it, until `each` returns false.
    pub fn replay(&mut self, mut each: impl FnMut(Outcome, u64) -> Result<bool>) -> Result<()> {
        self.file.seek(SeekFrom::Start(START)).map_err(Error::io(&self.path, "read"))?;
        let mut reader = BufReader::new(&self.file);
        let mut at = START;
        while let Some(payload) = read_record(&mut reader) {
            at += payload.len() as u64 + 12;
            let Some(outcome) = decode(&payload) else { break };
            if !each(outcome, at)? {
                break;
            }
        }
        Ok(())
    }

    /// Cuts the journal at an offset; the next record is appended there.
    pub fn truncate(&mut self, at: u64) -> Result<()> {
        let at = at.max(START);
        self.file
            .set_len(at)
            .and_then(|()| self.file.seek(SeekFrom::Start(at)))
            .map_err(Error::io(&self.path, "write"))?;
        Ok(())
    }
}

/// The next record's payload; `None` at the end, or if the record is torn.
fn read_record(reader: &mut impl Read) -> Option<Vec<u8>> {
    let mut head = [0; 12];
    reader.read_exact(&mut head).ok()?;
    let (len, sum) = head.split_at(4);
    let len = u32::from_le_bytes(len.try_into().ok()?);
    if len > MAX_RECORD {
        return None;
    }
    let mut payload = Vec::new();
    let got = reader.take(u64::from(len)).read_to_end(&mut payload).ok()?;
    (got == len as usize && xxh3_64(&payload).to_le_bytes() == sum).then_some(payload)
}

fn encode(outcome: &Outcome) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((outcome.blocks.len() as u32).to_le_bytes());
    for block in &outcome.blocks {
        bytes.extend(block.digest.to_le_bytes());
        bytes.extend(block.frame.bytes.to_le_bytes());
        bytes.push(block.frame.magnitudes);
        bytes.extend((block.stats.len() as u32).to_le_bytes());
        for (tensor, stats) in &block.stats {
            bytes.extend(tensor.to_le_bytes());
            bytes.extend(stats.to_bytes());
        }
        bytes.extend((block.requantised.len() as u32).to_le_bytes());
        for (tensor, figures) in &block.requantised {
            bytes.extend(tensor.to_le_bytes());
            bytes.extend(figures.to_bytes());
        }
    }
    // Scales are listed in runs: where all of them change, there are many.
    let runs = outcome.rescaled.chunk_by(|a, b| a.tensor == b.tensor && a.index + 1 == b.index);
    bytes.extend((runs.clone().count() as u32).to_le_bytes());
    for run in runs {
        bytes.extend(run[0].tensor.to_le_bytes());
        bytes.extend(run[0].index.to_le_bytes());
        bytes.extend((run.len() as u32).to_le_bytes());
        run.iter().for_each(|scale| bytes.extend(scale.bytes));
    }
    bytes.extend((outcome.found.counts.len() as u32).to_le_bytes());
    for (tensor, count) in &outcome.found.counts {
        bytes.extend(tensor.to_le_bytes());
        bytes.extend(count.to_le_bytes());
    }
    // The exceptions themselves are in the spool files; the digests tell whether they are still intact there. Frames are
    // in the weight files, as other blocks are.
    bytes.extend(xxh3_64(&outcome.found.index).to_le_bytes());
    bytes.extend(xxh3_64(&outcome.found.value).to_le_bytes());
    for (tensor, measured) in &outcome.measured {
        bytes.extend(tensor.to_le_bytes());
        bytes.extend((measured.len() as u32).to_le_bytes());
        bytes.extend(measured);
    }
    bytes
}

/// The inverse of [`encode`]; the exceptions' digests come back in place of their bytes.
fn decode(payload: &[u8]) -> Option<Outcome> {
    let mut rest = payload;
    let blocks = (0..u32::from_le_bytes(take(&mut rest)?))
        .map(|_| {
            let digest = u128::from_le_bytes(take(&mut rest)?);
            let length = u32::from_le_bytes(take(&mut rest)?);
            let [magnitudes] = take(&mut rest)?;
            let frame = FrameRecord { bytes: length, magnitudes };
            let stats = (0..u32::from_le_bytes(take(&mut rest)?))
                .map(|_| Some((u32::from_le_bytes(take(&mut rest)?), Stats::from_bytes(&take(&mut rest)?))))
                .collect::<Option<_>>()?;
            let requantised = (0..u32::from_le_bytes(take(&mut rest)?))
                .map(|_| Some((u32::from_le_bytes(take(&mut rest)?), Requantised::from_bytes(&take(&mut rest)?))))
                .collect::<Option<_>>()?;
            Some(BlockRecord { digest, frame, stats, requantised })
        })
        .collect::<Option<_>>()?;
    let mut rescaled = Vec::new();
    for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
        let (tensor, first) = (u32::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
        for index in (first..).take(u32::from_le_bytes(take(&mut rest)?) as usize) {
            rescaled.push(Rescaled { tensor, index, bytes: take(&mut rest)? });
        }
    }
    let counts = (0..u32::from_le_bytes(take(&mut rest)?))
        .map(|_| Some((u32::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?))))
        .collect::<Option<_>>()?;
    let index = take::<8>(&mut rest)?.to_vec();
    let value = take::<8>(&mut rest)?.to_vec();
    let found = Found { counts, index, value };
    let mut measured = Vec::new();
    while !rest.is_empty() {
        let (tensor, length) = (u32::from_le_bytes(take(&mut rest)?), u32::from_le_bytes(take(&mut rest)?));
        let (bytes, left) = rest.split_at_checked(length as usize)?;
        rest = left;
        measured.push((tensor, bytes.to_vec()));
    }
    Some(Outcome { blocks, found, frames: Vec::new(), rescaled, measured })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}
