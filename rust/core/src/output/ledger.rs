//! What a writing job has finished so far, in the order of the output: digests, figures and exceptions. Each window is
//! also recorded in the journal, so that a second run can continue from there.

use std::fs::File;
use std::ops::Range;

use crate::codec::scaled::encode::Requantised;
use crate::control::{Control, Phase};
use crate::engine::window::{Outcome, Window};
use crate::error::Result;
use crate::format::blocks::{self, BLOCK, FileDigest};
use crate::numeric::stats::Stats;
use crate::output::frames::Frames;
use crate::output::journal::Journal;
use crate::output::rescale::Rescale;
use crate::output::sink::Sink;
use crate::output::spool::Spool;
use crate::output::staging::Staging;
use crate::output::tally::Tally;
use crate::plan::Plan;
use crate::plan::output::Output;
use crate::system::parallel;

/// The state of a job that a second run can continue from.
pub struct Ledger<'a> {
    plan: &'a Plan,
    /// The files of the layout that are written.
    files: Range<usize>,
    journal: Journal,
    /// What is written in the order of the windows.
    pub ordered: Ordered<'a>,
    /// The digest of each file of the layout.
    pub digests: Vec<FileDigest>,
    /// The figures of each tensor of the layout.
    pub stats: Vec<Stats>,
    /// What quantising again did to each tensor of the layout; empty if the plan does not.
    pub requantised: Vec<Requantised>,
    /// Scales that may change.
    rescale: Rescale,
    /// The number of the first block that is not finished, counted over all files of the layout.
    pub blocks: u64,
    /// What an earlier run measured of tensors of a merge.
    pub measured: Vec<(u32, Vec<u8>)>,
}

/// What a job writes in the order of its windows, beside the blocks that each window writes itself.
pub enum Ordered<'a> {
    /// Nothing, for a checkpoint.
    Nothing,
    /// The exceptions of a dense vector.
    Exceptions(Spool),
    /// All frames of a packed vector.
    Frames(Frames<'a>),
}

impl Ordered<'_> {
    fn append(&mut self, outcome: &Outcome) -> Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Exceptions(spool) => spool.append(&outcome.found),
            Self::Frames(frames) => frames.append(outcome),
        }
    }

    /// Takes over what an earlier run wrote for a window; returns whether it is still there.
    fn recall(&mut self, outcome: &Outcome) -> Result<bool> {
        match self {
            Self::Nothing => Ok(true),
            Self::Exceptions(spool) => spool.recall(&outcome.found),
            Self::Frames(frames) => frames.recall(outcome),
        }
    }

    /// Goes on behind what was taken over.
    fn go_on(&mut self) -> Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Exceptions(spool) => spool.cut(),
            Self::Frames(frames) => frames.go_on(),
        }
    }

    /// The exceptions of a vector, by tensor.
    pub fn exceptions(&self) -> Option<&Tally> {
        match self {
            Self::Nothing => None,
            Self::Exceptions(spool) => Some(&spool.tally),
            Self::Frames(frames) => Some(&frames.tally),
        }
    }
}

impl<'a> Ledger<'a> {
    /// Continues the journal of an earlier run, or starts a new one, for these files of the layout. `id` is that of the
    /// plan.
    ///
    /// Every block in the journal is read again and compared, because a power cut may have lost its bytes.
    pub fn open(
        (plan, id): (&'a Plan, u128),
        files: Range<usize>,
        staging: &Staging,
        control: &Control,
    ) -> Result<Self> {
        let path = staging.journal();
        let earlier = if plan.options.resume { Journal::open(&path, id)? } else { None };
        let going_on = earlier.is_some();
        let journal = match earlier {
            Some(journal) => journal,
            None => {
                staging.clear()?;
                Journal::create(&path, id)?
            }
        };
        let ordered = match plan.inputs.output {
            Output::Checkpoint => Ordered::Nothing,
            Output::Vector if plan.layout.packed => Ordered::Frames(Frames::open(plan, files.clone(), staging)?),
            Output::Vector => Ordered::Exceptions(Spool::open(staging.scratch())?),
        };
        let digests = vec![FileDigest::default(); plan.layout.files.len()];
        let stats = vec![Stats::default(); plan.layout.tensors.len()];
        let again = plan.options.requantise.is_some();
        let requantised = vec![Requantised::default(); if again { plan.layout.tensors.len() } else { 0 }];
        let measured = Vec::new();
        let rescale = if again { Rescale::of(plan) } else { Rescale::default() };
        let blocks = plan.layout.first_block(files.start);
        let mut ledger = Self { plan, files, journal, ordered, digests, stats, requantised, rescale, blocks, measured };
        if going_on {
            ledger.recall(staging, control)?;
        }
        Ok(ledger)
    }

    /// Takes over the blocks of an earlier run, up to the first whose bytes are not those that the journal claims.
    fn recall(&mut self, staging: &Staging, control: &Control) -> Result<()> {
        let mut claimed = Vec::new();
        self.journal.replay(|outcome, _| {
            claimed.extend(outcome.blocks.iter().map(|block| block.digest));
            Ok(true)
        })?;
        let (first, end) = [self.files.start, self.files.end].map(|file| self.plan.layout.first_block(file)).into();
        claimed.truncate(usize::try_from(end - first).unwrap_or(usize::MAX));
        // Frames are compared when they are taken over.
        let sound = match self.ordered {
            Ordered::Frames(_) => claimed.len() as u64,
            _ => self.sound_blocks(staging, &claimed, control)?,
        };
        let mut journal_end = 0;
        let Self { plan, journal, ordered, digests, stats, requantised, blocks, measured, .. } = self;
        journal.replay(|outcome, end| {
            let fits = *blocks + outcome.blocks.len() as u64 <= first + sound;
            if !fits || !ordered.recall(&outcome)? {
                return Ok(false);
            }
            take_over(plan, digests, (stats, requantised), blocks, &outcome);
            measured.extend(outcome.measured);
            journal_end = end;
            Ok(true)
        })?;
        self.journal.truncate(journal_end)?;
        self.ordered.go_on()
    }

    /// How many blocks, counted from the first of the files, hold the bytes that the journal claims.
    fn sound_blocks(&self, staging: &Staging, claimed: &[u128], control: &Control) -> Result<u64> {
        let layout = &self.plan.layout;
        control.begin(Phase::Resuming, claimed.len() as u64 * BLOCK);
        let mut sound = 0;
        let first = layout.first_block(self.files.start);
        let check = |at: u64, buffer: &mut Vec<u8>| -> Result<bool> {
            let block = first + at;
            let number = layout.file_of(block);
            let file = &layout.files[number];
            let (begin, end) = Window { file: 0, block, blocks: 1 }.range(file);
            buffer.resize((end - begin) as usize, 0);
            // A file that is missing or too short is not an error here: its blocks are computed again.
            let read = File::open(staging.path(&file.name))
                .is_ok_and(|f| crate::system::files::read_exact_at(&f, buffer, begin).is_ok());
            control.add(end - begin);
            if read {
                self.rescale.undo(self.plan, number, begin, buffer)?;
            }
            Ok(read && blocks::block(buffer) == claimed[at as usize])
        };
        let mut torn = false;
        parallel::ordered(control, self.plan.budget.threads, claimed.len() as u64, Vec::new, check, |_, good| {
            torn |= !good;
            sound += u64::from(!torn);
            Ok(())
        })?;
        Ok(sound)
    }

    /// Writes the scales of weights that are quantised again, once all windows are done.
    pub fn rescale(&mut self, staging: &Staging, sinks: &[Sink], control: &Control) -> Result<()> {
        if !self.requantised.is_empty() {
            let to = (self.files.clone(), staging, sinks);
            self.digests = self.rescale.finish(self.plan, to, &mut self.journal, control)?;
        }
        Ok(())
    }

    /// Adds the next window in order, and records it in the journal.
    pub fn append(&mut self, outcome: &Outcome) -> Result<()> {
        self.ordered.append(outcome)?;
        self.journal.append(outcome)?;
        let figures = (&mut self.stats[..], &mut self.requantised[..]);
        take_over(self.plan, &mut self.digests, figures, &mut self.blocks, outcome);
        Ok(())
    }
}

fn take_over(
    plan: &Plan,
    digests: &mut [FileDigest],
    (stats, requantised): (&mut [Stats], &mut [Requantised]),
    blocks: &mut u64,
    outcome: &Outcome,
) {
    for block in &outcome.blocks {
        digests[plan.layout.file_of(*blocks)].add(block.digest);
        for (tensor, figures) in &block.stats {
            stats[*tensor as usize].add(figures);
        }
        for (tensor, figures) in &block.requantised {
            requantised[*tensor as usize].add(figures);
        }
        *blocks += 1;
    }
}
