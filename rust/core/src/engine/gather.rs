//! The reads of one window. Neighbouring ranges of one file are merged into one read.

use crate::checkpoint::shard::Shard;
use crate::codec::derived::Encoded;
use crate::codec::ranges::Read;
use crate::control::Control;
use crate::error::Result;
use crate::plan::inputs::{At, Inputs};
use crate::source::lanes::Lanes;
use crate::source::{self, Io, LONG, Source};
use crate::system::os::DIRECT_ALIGNMENT;

/// The open inputs of a job.
pub struct Sources<'a> {
    /// By input and shard.
    shards: Vec<Vec<Box<dyn Source + 'a>>>,
    /// Fetch the streamed inputs ahead of the windows; `None` if no input is streamed.
    lanes: Option<Lanes<'a>>,
}

impl<'a> Sources<'a> {
    /// Opens every shard of every input. Each read of a streamed input is a request of its own, unless there are lanes.
    pub fn open(inputs: &'a Inputs, io: Io, control: &'a Control) -> Result<Self> {
        let shards = inputs.list.iter().map(|input| &input.checkpoint.shards);
        let open = |shards: &'a Vec<Shard>| shards.iter().map(|shard| source::open(shard, io, control)).collect();
        Ok(Self { shards: shards.map(open).collect::<Result<_>>()?, lanes: None })
    }

    /// Adds lanes, which fetch streamed inputs ahead of the windows.
    pub fn with(self, lanes: Lanes<'a>) -> Self {
        Self { lanes: Some(lanes), ..self }
    }

    /// Runs `job`, which computes the windows, while the lanes fetch for it.
    pub fn serve<R>(&self, job: impl FnOnce() -> Result<R>) -> Result<R> {
        match &self.lanes {
            Some(lanes) => lanes.serve(job),
            None => job(),
        }
    }

    fn source(&self, run: &Run) -> &(dyn Source + 'a) {
        &*self.shards[run.input][run.shard]
    }
}

/// One read of one shard, merged from neighbouring ranges.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Index of the input.
    pub input: usize,
    /// Index of its shard.
    pub shard: usize,
    /// The first byte.
    pub begin: u64,
    /// One past the last.
    pub end: u64,
}

/// Where to find a range once the runs are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    run: usize,
    begin: u64,
    len: u64,
}

/// Collects ranges, then loads them. Each worker keeps one and reuses it for every window.
#[derive(Default)]
pub struct Gather {
    /// The number of the window that is read for. `None` for other reads, which do not go through a lane.
    window: Option<u64>,
    runs: Vec<Run>,
    /// The last run of each input. Only this one can grow: ranges come in the output's order, which is nearly always
    /// the order of the input.
    last: Vec<Option<usize>>,
}

impl Gather {
    /// Clears all ranges. `window` is the number of the next window, or `None` for reads that belong to no window.
    pub fn clear(&mut self, window: Option<u64>) {
        self.window = window;
        self.runs.clear();
        self.last.clear();
    }

    /// Asks for the bytes that elements `[first, end)` of a float tensor are decoded from.
    pub fn operand<'p>(&mut self, inputs: &'p Inputs, at: At, first: u64, end: u64) -> Encoded<'p, Slot> {
        inputs.operand(at, first, end).map(|read| self.read(at, *read))
    }

    fn read(&mut self, at: At, Read { shard, begin, len }: Read) -> Slot {
        self.range(at.input as usize, shard as usize, begin, len)
    }

    /// Asks for `len` bytes from byte `from` of a tensor.
    pub fn tensor(&mut self, inputs: &Inputs, at: At, from: u64, len: u64) -> Slot {
        let tensor = inputs.tensor(at);
        self.range(at.input as usize, tensor.shard as usize, tensor.begin + from, len)
    }

    /// Reads eight bytes of a tensor immediately, for a binary search in sorted indices.
    pub fn word(&self, inputs: &Inputs, sources: &Sources, at: At, from: u64) -> Result<[u8; 8]> {
        let tensor = inputs.tensor(at);
        let begin = tensor.begin + from;
        let run = Run { input: at.input as usize, shard: tensor.shard as usize, begin, end: begin + 8 };
        let (mut buffer, mut word) = ([0; 8], [0; 8]);
        word.copy_from_slice(sources.source(&run).read(begin, 8, &mut buffer)?);
        Ok(word)
    }

    /// The reads, in the order in which they will be done.
    pub fn runs(&self) -> &[Run] {
        &self.runs
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

    /// Bytes of buffer that loading may take.
    pub fn room(&self, sources: &Sources) -> usize {
        let len = |run: &Run| usize::try_from(run.end - run.begin).unwrap_or(usize::MAX);
        self.runs.iter().map(|run| sources.source(run).room(len(run)) + DIRECT_ALIGNMENT).sum()
    }

    /// Reads every run, into `buffer` or as a slice of a mapping.
    pub fn load<'a>(&'a self, sources: &'a Sources<'_>, buffer: &'a mut [u8]) -> Result<Loaded<'a>> {
        let mut rest = buffer;
        let mut slices = Vec::with_capacity(self.runs.len());
        for run in &self.runs {
            let source = sources.source(run);
            let len = usize::try_from(run.end - run.begin).unwrap_or(usize::MAX);
            let room = source.room(len);
            let skip = if room >= LONG { rest.as_ptr().align_offset(DIRECT_ALIGNMENT) } else { 0 };
            let (mine, after) = std::mem::take(&mut rest)[skip..].split_at_mut(room);
            rest = after;
            let lane = sources.lanes.as_ref().and_then(|lanes| lanes.get(run.input)).zip(self.window);
            slices.push(match lane {
                Some((lane, window)) if lane.read(window, run.shard, run.begin, &mut mine[..len])? => &mine[..len],
                _ => source.read(run.begin, len, mine)?,
            });
        }
        Ok(Loaded { runs: &self.runs, slices })
    }

    /// Releases mapped pages. Fails if a page was lost while the window was computed.
    pub fn release(&self, sources: &Sources) -> Result<()> {
        self.runs.iter().try_for_each(|run| {
            let len = usize::try_from(run.end - run.begin).unwrap_or(usize::MAX);
            sources.source(run).release(run.begin, len)
        })
    }
}

/// The bytes that a window has read.
pub struct Loaded<'a> {
    runs: &'a [Run],
    slices: Vec<&'a [u8]>,
}

impl Loaded<'_> {
    /// The bytes that were asked for.
    pub fn bytes(&self, slot: Slot) -> &[u8] {
        // A range is inside its run, and the length of a run fits in memory.
        let from = (slot.begin - self.runs[slot.run].begin) as usize;
        &self.slices[slot.run][from..from + slot.len as usize]
    }
}
