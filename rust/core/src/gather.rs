//! The reads of one window: neighbouring ranges of one file become one read.

use crate::error::{Error, Result};
use crate::inputs::{At, Inputs};
use crate::os::DIRECT_ALIGNMENT;
use crate::source::{self, Io, LONG, Source};

/// Open sources, by input and shard.
pub type Sources<'a> = Vec<Vec<Box<dyn Source + 'a>>>;

/// Opens every shard of every input.
pub fn open_sources(inputs: &Inputs, io: Io) -> Result<Sources<'_>> {
    let shards = inputs.list.iter().map(|input| &input.checkpoint.shards);
    shards.map(|shards| shards.iter().map(|shard| source::open(shard, io)).collect()).collect()
}

struct Run {
    input: usize,
    shard: usize,
    begin: u64,
    end: u64,
}

/// Where to find a range once the runs are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    run: usize,
    begin: u64,
    len: u64,
}

/// Collects ranges, then loads them. Kept by each worker and used again for every window.
#[derive(Default)]
pub struct Gather {
    runs: Vec<Run>,
    /// The last run of each input: ranges come in the output's order, which is nearly always the input's.
    last: Vec<Option<usize>>,
}

impl Gather {
    /// Forgets the last window.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.last.clear();
    }

    /// Asks for `len` bytes from byte `from` of a tensor.
    pub fn tensor(&mut self, inputs: &Inputs, at: At, from: u64, len: u64) -> Slot {
        let tensor = inputs.tensor(at);
        self.range(at.input as usize, tensor.shard as usize, tensor.begin + from, len)
    }

    /// Eight bytes of a tensor, read at once: for bisecting a sorted one.
    pub fn word(&self, inputs: &Inputs, sources: &Sources, at: At, from: u64) -> Result<[u8; 8]> {
        let tensor = inputs.tensor(at);
        let (input, shard, begin) = (at.input as usize, tensor.shard as usize, tensor.begin + from);
        let mut buffer = [0; 8];
        let mut word = [0; 8];
        let run = Run { input, shard, begin, end: begin + 8 };
        word.copy_from_slice(
            sources[input][shard].read(begin, 8, &mut buffer).map_err(|error| lost(inputs, &run, error))?,
        );
        Ok(word)
    }

    /// Asks for a range of a file.
    pub fn range(&mut self, input: usize, shard: usize, begin: u64, len: u64) -> Slot {
        if self.last.len() <= input {
            self.last.resize(input + 1, None);
        }
        if let Some(place) = self.last[input] {
            let run = &mut self.runs[place];
            if run.shard == shard && (run.begin..=run.end).contains(&begin) {
                run.end = run.end.max(begin + len);
                return Slot { run: place, begin, len };
            }
        }
        let run = self.runs.len();
        self.runs.push(Run { input, shard, begin, end: begin + len });
        self.last[input] = Some(run);
        Slot { run, begin, len }
    }

    /// Reads every run, into `buffer` or as slices of mappings.
    pub fn load<'a>(&'a self, inputs: &Inputs, sources: &'a Sources<'_>, buffer: &'a mut [u8]) -> Result<Loaded<'a>> {
        let mut rest = buffer;
        let mut slices = Vec::with_capacity(self.runs.len());
        for run in &self.runs {
            let source = &sources[run.input][run.shard];
            let len = usize::try_from(run.end - run.begin).unwrap_or(usize::MAX);
            let room = source.room(len);
            let skip = if room >= LONG { rest.as_ptr().align_offset(DIRECT_ALIGNMENT) } else { 0 };
            let (mine, after) = std::mem::take(&mut rest)[skip..].split_at_mut(room);
            rest = after;
            slices.push(source.read(run.begin, len, mine).map_err(|error| lost(inputs, run, error))?);
        }
        Ok(Loaded { runs: &self.runs, slices })
    }

    /// Lets go of mapped pages, and fails if one was lost while the window was worked on.
    pub fn release(&self, inputs: &Inputs, sources: &Sources) -> Result<()> {
        for run in &self.runs {
            let source = &sources[run.input][run.shard];
            if source.damaged() {
                return Err(lost(inputs, run, std::io::ErrorKind::UnexpectedEof.into()));
            }
            source.release(run.begin, usize::try_from(run.end - run.begin).unwrap_or(usize::MAX));
        }
        Ok(())
    }
}

/// An early end of an input means that somebody changed it; anything else is the system's answer.
fn lost(inputs: &Inputs, run: &Run, error: std::io::Error) -> Error {
    let path = &inputs.list[run.input].checkpoint.shards[run.shard].path;
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return Error::corrupt(
            path,
            "became shorter, or its disk failed, while it was read; restore it and start again",
        );
    }
    Error::io(path, "read")(error)
}

/// The bytes of a window.
pub struct Loaded<'a> {
    runs: &'a [Run],
    slices: Vec<&'a [u8]>,
}

impl Loaded<'_> {
    /// The bytes that were asked for.
    pub fn bytes(&self, slot: Slot) -> &[u8] {
        // Ranges lie inside their run, whose length fits memory.
        let from = (slot.begin - self.runs[slot.run].begin) as usize;
        &self.slices[slot.run][from..from + slot.len as usize]
    }
}
