//! The scales of weights that are quantised again. They are far from their codes in the file, and known only once the
//! codes are computed.
//!
//! ```text
//! the windows        write the target's own scales; those that change are listed in the journal
//! at the end         write all scales again, first the target's own, then those of the journal
//!                    digest the blocks that hold scales again
//! a second run       compares these blocks as the windows wrote them, whether the end was reached or not
//! ```

use std::fs::File;

use crate::checkpoint::Checkpoint;
use crate::control::Control;
use crate::engine::window::Rescaled;
use crate::error::{Error, Result};
use crate::format::blocks::{self, BLOCK, FileDigest};
use crate::output::journal::Journal;
use crate::output::sink::Sink;
use crate::output::staging::Staging;
use crate::plan::Plan;
use crate::system::files::read_exact_at;

/// Where the scales of one weight are, in the target and in the output alike.
#[derive(Clone, Copy, Debug)]
struct Range {
    /// The weight, by index in the layout.
    tensor: u32,
    /// Index of the file.
    file: usize,
    begin: u64,
    end: u64,
    /// Bytes of one scale.
    size: u64,
}

impl Range {
    /// Writes those scales of a window that change, in ascending order: with those between them, because where blocks
    /// are small, there are many.
    fn change(&self, plan: &Plan, sink: &Sink, changed: &[Rescaled]) -> Result<()> {
        let [first, .., last] = changed else {
            return changed.iter().try_for_each(|only| {
                let bytes = &only.bytes[..self.size as usize];
                sink.write_small(self.begin + only.index * self.size, bytes)
            });
        };
        let begin = self.begin + first.index * self.size;
        let mut bytes = vec![0; ((last.index - first.index + 1) * self.size) as usize];
        read(plan.inputs.base(), self.file, begin, &mut bytes)?;
        for scale in changed {
            let place = ((scale.index - first.index) * self.size) as usize;
            bytes[place..][..self.size as usize].copy_from_slice(&scale.bytes[..self.size as usize]);
        }
        sink.write_small(begin, &bytes)
    }
}

/// The scales of all weights of a plan that are quantised again.
#[derive(Debug, Default)]
pub struct Rescale {
    /// By file and position.
    ranges: Vec<Range>,
    /// Places in `ranges` by weight.
    by_tensor: Vec<(u32, u32)>,
}

impl Rescale {
    /// The scales that a plan may change.
    pub fn of(plan: &Plan) -> Self {
        let mut ranges = Vec::new();
        for (tensor, this) in (0..).zip(&plan.layout.tensors) {
            let at = this.from;
            let Some(scaled) = plan.inputs.scaled(at).filter(|_| this.requantised && !this.terms.is_empty()) else {
                continue;
            };
            let (size, begin) = (scaled.format.scale.size(), scaled.scales.begin);
            let elements = plan.inputs.tensor(at).elements();
            let count = scaled.format.scale_of(elements.saturating_sub(1)) + 1;
            ranges.push(Range { tensor, file: scaled.scales.shard as usize, begin, end: begin + count * size, size });
        }
        ranges.sort_by_key(|range| (range.file, range.begin));
        let mut by_tensor: Vec<(u32, u32)> = (0..).zip(&ranges).map(|(at, range)| (range.tensor, at)).collect();
        by_tensor.sort_unstable();
        Self { ranges, by_tensor }
    }

    /// Those in bytes `[begin, end)` of a file.
    fn within(&self, file: usize, begin: u64, end: u64) -> &[Range] {
        let from = self.ranges.partition_point(|range| (range.file, range.end) <= (file, begin));
        let to = self.ranges.partition_point(|range| (range.file, range.begin) < (file, end));
        &self.ranges[from..to.max(from)]
    }

    /// Puts the target's own scales in place of those in a block of a file, so that the block is as its window wrote it.
    pub fn undo(&self, plan: &Plan, file: usize, begin: u64, block: &mut [u8]) -> Result<()> {
        let end = begin + block.len() as u64;
        for range in self.within(file, begin, end) {
            let (from, to) = (range.begin.max(begin), range.end.min(end));
            read(plan.inputs.base(), file, from, &mut block[(from - begin) as usize..(to - begin) as usize])?;
        }
        Ok(())
    }

    /// Writes all scales of these files, which have a sink each, and returns the digests of the files; those of others
    /// are empty. A weight is never in another part than its scales.
    pub fn finish(
        &self,
        plan: &Plan,
        (files, staging, sinks): (std::ops::Range<usize>, &Staging, &[Sink]),
        journal: &mut Journal,
        control: &Control,
    ) -> Result<Vec<FileDigest>> {
        let mut buffer = vec![0; BLOCK as usize];
        for range in self.ranges.iter().filter(|range| files.contains(&range.file)) {
            for from in (range.begin..range.end).step_by(BLOCK as usize) {
                control.check()?;
                let bytes = &mut buffer[..(range.end - from).min(BLOCK) as usize];
                read(plan.inputs.base(), range.file, from, bytes)?;
                sinks[range.file - files.start].write_small(from, bytes)?;
            }
        }
        let mut digests = vec![FileDigest::default(); plan.layout.files.len()];
        journal.replay(|outcome, _| {
            control.check()?;
            for changed in outcome.rescaled.chunk_by(|a, b| a.tensor == b.tensor) {
                let tensor = changed[0].tensor;
                let Ok(at) = self.by_tensor.binary_search_by_key(&tensor, |(known, _)| *known) else { continue };
                let range = &self.ranges[self.by_tensor[at].1 as usize];
                range.change(plan, &sinks[range.file - files.start], changed)?;
            }
            Ok(true)
        })?;
        let mut block = plan.layout.first_block(files.start);
        journal.replay(|outcome, _| {
            for record in outcome.blocks {
                let number = plan.layout.file_of(block);
                let file = &plan.layout.files[number];
                let begin = (block - file.first_block) * BLOCK;
                let end = (begin + BLOCK).min(file.len);
                block += 1;
                if self.within(number, begin, end).is_empty() {
                    digests[number].add(record.digest);
                    continue;
                }
                let path = staging.path(&file.name);
                let open = File::open(&path).map_err(Error::io(&path, "open"))?;
                let bytes = &mut buffer[..(end - begin) as usize];
                read_exact_at(&open, bytes, begin).map_err(Error::io(&path, "read"))?;
                digests[number].add(blocks::block(bytes));
            }
            Ok(true)
        })?;
        Ok(digests)
    }
}

/// Reads bytes of one of the target's shards, on this machine or elsewhere.
fn read(target: &Checkpoint, shard: usize, begin: u64, bytes: &mut [u8]) -> Result<()> {
    let shard = &target.shards[shard];
    if let Some(disk) = shard.on_disk() {
        return read_exact_at(&disk.file, bytes, begin).map_err(Error::io(&disk.path, "read"));
    }
    let (mut at, len) = (0, bytes.len() as u64);
    shard.fetch(begin..begin + len, &mut |piece| {
        bytes[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
        Ok(())
    })
}
