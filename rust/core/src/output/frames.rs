//! The files of a packed vector, or some of them. Frames are written in their order, behind a space that the header gets at the end, when
//! the length of every frame is known.

use std::ops::Range;

use crate::checkpoint::Tensor;
use crate::codec::packed::frame::longest;
use crate::codec::packed::palette::MOST;
use crate::engine::window::{FrameRecord, Outcome};
use crate::error::{Error, Result};
use crate::format::blocks::{self, BLOCK};
use crate::format::header::{Header, MAX_HEADER};
use crate::format::packed_table::{self, Entry};
use crate::numeric::dtype::Dtype;
use crate::output::sink::Sink;
use crate::output::staging::Staging;
use crate::output::tally::Tally;
use crate::plan::Plan;
use crate::plan::layout::TensorPlan;
use crate::plan::operands::float;
use crate::system::buffer::Buffer;
use crate::system::os::DIRECT_ALIGNMENT;

/// The files that are being written.
pub struct Frames<'a> {
    plan: &'a Plan,
    /// The files that are written, as indices in the layout.
    range: Range<usize>,
    files: Vec<File>,
    /// What was written of every block of these files, in order.
    records: Vec<FrameRecord>,
    /// The exceptions that were found; their values are in the frames.
    pub tally: Tally,
    /// Bytes that wait to be written: from a multiple of their size in the current file on.
    buffer: Buffer,
}

struct File {
    sink: Sink,
    /// Bytes of the space for the header.
    header: u64,
    /// Bytes so far, the space for the header included.
    len: u64,
}

/// Bytes that are written at once.
const PART: u64 = 1 << 20;

impl<'a> Frames<'a> {
    /// Creates the files, or opens those of an earlier run.
    pub fn open(plan: &'a Plan, range: Range<usize>, staging: &Staging) -> Result<Self> {
        let open = |file: usize| {
            let header = longest_header(plan, file)?;
            let sink = Sink::open(&staging.path(&plan.layout.files[file].name), 0)?;
            Ok(File { sink, header, len: header })
        };
        let files = range.clone().map(open).collect::<Result<_>>()?;
        let buffer = Buffer::new(PART as usize + DIRECT_ALIGNMENT);
        Ok(Self { plan, range, files, records: Vec::new(), tally: Tally::default(), buffer })
    }

    /// Adds the frames of the next window.
    pub fn append(&mut self, outcome: &Outcome) -> Result<()> {
        let mut rest = &outcome.frames[..];
        let file = self.current();
        for block in &outcome.blocks {
            let (frame, after) = rest.split_at(block.frame.bytes as usize);
            rest = after;
            self.write(file, frame)?;
            self.records.push(block.frame);
        }
        self.tally.add(&outcome.found.counts);
        // The next window may be of another file.
        if self.current() != file {
            self.flush(file)?;
        }
        Ok(())
    }

    /// The number of the block that comes next.
    fn next(&self) -> u64 {
        self.plan.layout.first_block(self.range.start) + self.records.len() as u64
    }

    /// The file that the next block belongs to, as an index in `files`; one past the last at the end.
    fn current(&self) -> usize {
        self.plan.layout.file_of(self.next()) - self.range.start
    }

    fn write(&mut self, file: usize, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let File { sink, len, .. } = &mut self.files[file];
            let filled = *len % PART;
            let (now, later) = bytes.split_at(bytes.len().min((PART - filled) as usize));
            self.buffer.bytes()[filled as usize..][..now.len()].copy_from_slice(now);
            *len += now.len() as u64;
            bytes = later;
            if *len % PART == 0 {
                sink.write(*len - PART, self.buffer.bytes(), PART as usize)?;
            }
        }
        Ok(())
    }

    /// Writes what waits of a file that gets no more frames.
    fn flush(&mut self, file: usize) -> Result<()> {
        let File { sink, len, .. } = &self.files[file];
        match *len % PART {
            0 => Ok(()),
            filled => sink.write(*len - filled, self.buffer.bytes(), filled as usize),
        }
    }

    /// Takes over the frames of an earlier run's window, if the files still hold them; returns whether they do.
    pub fn recall(&mut self, outcome: &Outcome) -> Result<bool> {
        let mut ends: Vec<u64> = self.files.iter().map(|file| file.len).collect();
        for (block, record) in (self.next()..).zip(&outcome.blocks) {
            let file = self.plan.layout.file_of(block) - self.range.start;
            let mut frame = vec![0; record.frame.bytes as usize];
            let read = self.files[file].sink.read(ends[file], &mut frame);
            if !read || blocks::block(&frame) != record.digest {
                return Ok(false);
            }
            ends[file] += frame.len() as u64;
        }
        for (file, end) in self.files.iter_mut().zip(ends) {
            file.len = end;
        }
        self.records.extend(outcome.blocks.iter().map(|block| block.frame));
        self.tally.add(&outcome.found.counts);
        Ok(true)
    }

    /// Goes on behind what was taken over: the start of the part that is not full is read again.
    pub fn go_on(&mut self) -> Result<()> {
        let file = self.current();
        let Some(File { sink, len, .. }) = self.files.get(file) else { return Ok(()) };
        let filled = *len % PART;
        // The space for the header has not been written, and need not be there.
        sink.read(*len - filled, &mut self.buffer.bytes()[..filled as usize]);
        Ok(())
    }

    /// Writes the headers, and waits for the disk with `sync`. Returns whether the disk has everything.
    pub fn finish(&mut self, sync: bool) -> Result<bool> {
        let mut synced = true;
        for (file, File { sink, header, len }) in self.range.clone().zip(&self.files) {
            let entries = entries(self.plan, file, |place, plan| {
                let from = self.first_frame(file, plan) as usize;
                let records = &self.records[from..from + plan.frames() as usize];
                let magnitudes = records.first().map_or(0, |first| first.magnitudes);
                let palette = |record: &FrameRecord| 2 * u32::from(record.magnitudes);
                let lengths = records.iter().map(|record| record.bytes - palette(record)).collect();
                let counts = self.tally.counts();
                let found = counts.binary_search_by_key(&place, |&(tensor, _)| tensor as usize);
                let wide = found.is_ok_and(|at| counts[at].1 > 0);
                (lengths, wide, magnitudes)
            });
            let bytes = header_of(&entries, others(self.plan, file), Some(*header))
                .ok_or_else(|| Error::Usage("the header of a packed file is longer than its space".into()))?;
            sink.write_small(0, &bytes)?;
            synced &= sink.finish(*len, sync)?;
        }
        Ok(synced)
    }

    /// The place of a tensor's first frame in `records`.
    fn first_frame(&self, file: usize, plan: &TensorPlan) -> u64 {
        let first = self.plan.layout.first_block(self.range.start);
        self.plan.layout.files[file].first_block - first + plan.begin / BLOCK
    }

    /// Whether writes bypassed the page cache.
    pub fn is_direct(&self) -> bool {
        self.files.iter().all(|file| file.sink.is_direct())
    }
}

/// The table of a file's tensors. `known` gives lengths of frames, whether any value is wide, and the magnitudes of the
/// palette, for each tensor by its index in the layout.
fn entries<'p>(
    plan: &'p Plan,
    file: usize,
    mut known: impl FnMut(usize, &TensorPlan) -> (Vec<u32>, bool, u8),
) -> Vec<(&'p str, Entry)> {
    let (first, last) = plan.layout.files[file].tensors;
    let entry = |place: usize| {
        let this = &plan.layout.tensors[place];
        let tensor: &'p Tensor = &plan.inputs.base().tensors[this.tensor as usize];
        let shape = plan.inputs.output.shape(tensor, this.elements);
        let (lengths, wide, magnitudes) = known(place, this);
        (tensor.name.as_str(), Entry { float: float(this.dtype), shape, wide, magnitudes, lengths })
    };
    (first..last).map(entry).collect()
}

/// What the header of the dense form would say beside its tensors.
fn others(plan: &Plan, file: usize) -> &[(String, String)] {
    let base = plan.inputs.base();
    let first = plan.layout.tensors.get(plan.layout.files[file].tensors.0);
    first.map_or(&[], |first| &base.shard(&base.tensors[first.tensor as usize]).metadata)
}

/// A file's header, filled up to `space` if there is one; `None` if it does not fit.
fn header_of(entries: &[(&str, Entry)], others: &[(String, String)], space: Option<u64>) -> Option<Vec<u8>> {
    let shapes: Vec<[u64; 1]> = entries.iter().map(|(_, entry)| [entry.bytes()]).collect();
    let mut end = 0;
    let positions = shapes.iter().map(|[len]| {
        end += len;
        [end - len, end]
    });
    let table: Vec<_> = entries.iter().zip(positions).map(|((name, entry), at)| (*name, at, entry)).collect();
    let tensors: Vec<_> =
        entries.iter().zip(&shapes).map(|((name, _), shape)| (*name, Dtype::U8, &shape[..])).collect();
    let mut bytes = Header::write(&tensors, &packed_table::metadata(&table, others));
    if let Some(space) = space {
        let missing = space.checked_sub(bytes.len() as u64)?;
        bytes.extend(std::iter::repeat_n(b' ', missing as usize));
        bytes[..8].copy_from_slice(&(space - 8).to_le_bytes());
    }
    Some(bytes)
}

/// The length of a file's header if every frame and every palette were as long as they may be: then no number in it has
/// more digits.
fn longest_header(plan: &Plan, file: usize) -> Result<u64> {
    let longest = entries(plan, file, |_, plan| {
        let each = BLOCK / (plan.dtype.bits() / 8);
        let length = |frame: u64| longest(each.min(plan.elements - frame * each)) as u32;
        ((0..plan.frames()).map(length).collect(), false, MOST as u8)
    });
    let bytes = header_of(&longest, others(plan, file), None).unwrap_or_default();
    if bytes.len() as u64 > MAX_HEADER {
        let name = &plan.layout.files[file].name;
        let what = format!("the header of {name} would be longer than {MAX_HEADER} bytes; use --encoding dense");
        return Err(Error::Usage(what));
    }
    Ok(bytes.len() as u64)
}
