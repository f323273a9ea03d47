//! A streamed input: its bytes are fetched ahead of the windows that will read them, in bounded memory, and never
//! written to the disk.
//!
//! There is one lane for each streamed input. Its schedule lists, window by window, the ranges that will be read.
//! Ranges are cut into chunks at multiples of [`CHUNK`] bytes of the file; chunks are numbered in the order of their
//! first use.
//!
//! ```text
//! fetching thread (several):
//!     request = the next chunks that follow each other in a file
//!     for each chunk of the request, as its bytes arrive:
//!         wait until chunk number < lowest chunk that still has readers + capacity
//!         fill a buffer, hand it to the readers
//! worker, for each range that its window reads:
//!     for each chunk of the range: wait until it is filled, copy the bytes, count one reader less
//!     a chunk without readers gives its buffer back
//! ```
//!
//! While a fetching thread waits, it reads nothing from its connection, so the sender slows down by itself.
//!
//! Why this cannot deadlock. Windows are taken in order, and each reads its chunks in order. Take the lowest window
//! that has not read everything, and the chunk c that it waits for. A chunk below c that still has readers is shared
//! with a later range. A range shares only the last two chunks at the time when it is scheduled, and the later range
//! was scheduled after c: so such a chunk is c − 1 or higher. With a capacity of two or more, c may therefore be
//! filled. The same holds for all requests before that of c, and for the chunks before c in its own request, so none of
//! their threads waits for room.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::system::buffer::Buffer;

/// The grid of a file, and the size of a buffer.
pub const CHUNK: u64 = 1 << 20;
/// The least capacity of a lane, in chunks.
pub const LEAST: u64 = 2;
/// A request asks for at least so many bytes, if so many follow each other in a file. Then the round trip hardly
/// matters.
pub const REQUEST: u64 = 64 << 20;
/// How often a waiting thread checks whether the job should stop.
const TICK: Duration = Duration::from_millis(100);

/// A range of a shard that a window reads in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Index of the shard.
    pub shard: usize,
    /// The first byte.
    pub begin: u64,
    /// One past the last.
    pub end: u64,
}

/// What the windows of a job read from one input: each call returns the next window's number and its ranges, in the
/// order of the reads. Numbers ascend. Windows that read nothing from the input may be left out.
pub type Schedule<'a> = Box<dyn FnMut() -> Result<Option<(u64, Vec<Reading>)>> + Send + 'a>;

/// One streamed input.
pub struct Lane<'a> {
    capacity: u64,
    control: &'a Control,
    stopped: AtomicBool,
    state: Mutex<State<'a>>,
    changed: Condvar,
}

struct State<'a> {
    schedule: Schedule<'a>,
    /// The last window that was scheduled. Once `at_end` is set, all windows are scheduled.
    scheduled: Option<u64>,
    at_end: bool,
    /// The scheduled chunks, from the lowest that still has readers on.
    chunks: VecDeque<Chunk>,
    /// The number of the first of them.
    lowest: u64,
    /// The number of the first chunk that is in no request yet.
    next: u64,
    /// Ranges that are scheduled and not yet read: window, range, and number of its first chunk.
    reads: VecDeque<(u64, Reading, u64)>,
    /// Buffers that are not in use.
    free: Vec<Buffer>,
    /// How many buffers there are, in use or not.
    made: usize,
}

struct Chunk {
    shard: usize,
    begin: u64,
    end: u64,
    /// How many reads of it are still to come.
    readers: u32,
    bytes: Option<Arc<Buffer>>,
}

impl Chunk {
    fn new(shard: usize, begin: u64, end: u64) -> Self {
        Self { shard, begin, end: end.min(cell_end(begin)), readers: 1, bytes: None }
    }

    /// Whether `next` follows directly in the same file.
    fn is_before(&self, next: &Self) -> bool {
        self.shard == next.shard && self.end == next.begin
    }
}

/// Where the cell of the [`CHUNK`] grid that contains this byte ends.
fn cell_end(at: u64) -> u64 {
    (at / CHUNK + 1) * CHUNK
}

/// The chunks that one request asks for.
struct Request {
    shard: usize,
    bytes: Range<u64>,
    first: u64,
    /// One past the last.
    end: u64,
}

impl<'a> Lane<'a> {
    /// A lane that holds at most `capacity` chunks.
    pub fn new(schedule: Schedule<'a>, capacity: u64, control: &'a Control) -> Self {
        let state = State {
            schedule,
            scheduled: None,
            at_end: false,
            chunks: VecDeque::new(),
            lowest: 0,
            next: 0,
            reads: VecDeque::new(),
            free: Vec::new(),
            made: 0,
        };
        Self {
            capacity: capacity.max(LEAST),
            control,
            stopped: AtomicBool::new(false),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Fetches everything that is scheduled, until it is all fetched or the lane is stopped. Several threads may call
    /// this at the same time. `fetch` delivers exactly the bytes of a range of a shard, in order.
    pub fn serve(
        &self,
        fetch: impl Fn(usize, Range<u64>, &mut (dyn FnMut(&[u8]) -> Result<()> + Send)) -> Result<()>,
    ) -> Result<()> {
        while let Some(Request { shard, bytes, first, end }) = self.request()? {
            let mut filling = Filling { lane: self, number: first, end, buffer: None };
            fetch(shard, bytes, &mut |piece| filling.take(piece))?;
        }
        Ok(())
    }

    /// Waits for the bytes of a shard from `begin` on, and fills `buffer` with them. Returns false if window `window`
    /// was not scheduled to read this range.
    pub fn read(&self, window: u64, shard: usize, begin: u64, buffer: &mut [u8]) -> Result<bool> {
        let end = begin + buffer.len() as u64;
        let wanted = Reading { shard, begin, end };
        let mut state = self.lock();
        let mut number = loop {
            self.check()?;
            if let Some(place) = state.reads.iter().position(|&(of, reading, _)| of == window && reading == wanted)
                && let Some((.., first)) = state.reads.remove(place)
            {
                break first;
            }
            if state.at_end || state.scheduled.is_some_and(|scheduled| scheduled >= window) {
                return Ok(false);
            }
            state = self.wait(state);
        };
        let mut at = begin;
        while at < end {
            let (bytes, from, to) = loop {
                self.check()?;
                let chunk = &state.chunks[(number - state.lowest) as usize];
                if let Some(bytes) = &chunk.bytes {
                    break (Arc::clone(bytes), chunk.begin, chunk.end.min(end));
                }
                state = self.wait(state);
            };
            drop(state);
            let range = (at - from) as usize..(to - from) as usize;
            buffer[(at - begin) as usize..(to - begin) as usize].copy_from_slice(&bytes.view()[range]);
            drop(bytes);
            state = self.lock();
            state.was_read(number);
            self.changed.notify_all();
            (at, number) = (to, number + 1);
        }
        Ok(true)
    }

    /// Wakes all waiting threads; their calls fail.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// How many buffers there are, in use or not.
    pub fn buffers(&self) -> usize {
        self.lock().made
    }

    fn check(&self) -> Result<()> {
        if self.stopped.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { self.control.check() }
    }

    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'b>(&self, state: MutexGuard<'b, State<'a>>) -> MutexGuard<'b, State<'a>> {
        self.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until there is room for the first chunk of the next request, and returns the request. `None` if everything
    /// was requested.
    fn request(&self) -> Result<Option<Request>> {
        let mut state = self.lock();
        loop {
            self.check()?;
            let before = (state.scheduled, state.at_end);
            let request = state.request();
            // Readers may be waiting until their window is scheduled. They are woken only if the schedule has advanced:
            // otherwise the threads that wait here would wake each other without end.
            if (state.scheduled, state.at_end) != before {
                self.changed.notify_all();
            }
            let Some(request) = request? else { return Ok(None) };
            if request.first < state.lowest + self.capacity {
                state.next = request.end;
                return Ok(Some(request));
            }
            state = self.wait(state);
        }
    }

    /// Waits until there is room for a chunk, and returns a buffer for it and its length.
    fn room(&self, number: u64) -> Result<(Buffer, usize)> {
        let mut state = self.lock();
        loop {
            self.check()?;
            if number < state.lowest + self.capacity {
                let chunk = &state.chunks[(number - state.lowest) as usize];
                let len = (chunk.end - chunk.begin) as usize;
                let buffer = state.free.pop().unwrap_or_else(|| {
                    state.made += 1;
                    Buffer::new(CHUNK as usize)
                });
                return Ok((buffer, len));
            }
            state = self.wait(state);
        }
    }

    fn deliver(&self, number: u64, buffer: Buffer) {
        let mut state = self.lock();
        let place = (number - state.lowest) as usize;
        state.chunks[place].bytes = Some(Arc::new(buffer));
        self.changed.notify_all();
    }
}

impl State<'_> {
    /// The next request, as long as possible. Advances the schedule as far as necessary.
    fn request(&mut self) -> Result<Option<Request>> {
        loop {
            // The last two chunks may still grow and get more readers, so they are not requested yet.
            let closed = if self.at_end { self.chunks.len() } else { self.chunks.len().saturating_sub(2) };
            let first = (self.next - self.lowest) as usize;
            let (mut end, mut bytes) = (first, 0);
            while end < closed && bytes < REQUEST && (end == first || self.chunks[end - 1].is_before(&self.chunks[end]))
            {
                bytes += self.chunks[end].end - self.chunks[end].begin;
                end += 1;
            }
            if bytes >= REQUEST || end < closed || self.at_end {
                return Ok((end > first).then(|| Request {
                    shard: self.chunks[first].shard,
                    bytes: self.chunks[first].begin..self.chunks[end - 1].end,
                    first: self.next,
                    end: self.lowest + end as u64,
                }));
            }
            match (self.schedule)()? {
                None => self.at_end = true,
                Some((window, readings)) => {
                    for reading in readings.into_iter().filter(|reading| reading.begin < reading.end) {
                        let first = self.add(reading);
                        self.reads.push_back((window, reading, first));
                    }
                    self.scheduled = Some(window);
                }
            }
        }
    }

    /// Schedules a range, and returns the number of its first chunk. Its other chunks follow.
    fn add(&mut self, Reading { shard, begin, end }: Reading) -> u64 {
        let (first, mut at) = self.join(shard, begin, end);
        while at < end {
            self.chunks.push_back(Chunk::new(shard, at, end));
            at = cell_end(at);
        }
        self.lowest + first as u64
    }

    /// Lets a range share the last two chunks if it begins in them. Returns the index of its first chunk in `chunks`,
    /// and the byte from which it needs new chunks.
    fn join(&mut self, shard: usize, begin: u64, end: u64) -> (usize, u64) {
        let len = self.chunks.len();
        let open = (self.next - self.lowest) as usize;
        for place in len.saturating_sub(2).max(open)..len {
            let chunk = &self.chunks[place];
            let cell = cell_end(chunk.begin);
            if chunk.shard != shard || !(chunk.begin..=chunk.end).contains(&begin) || begin >= cell {
                continue;
            }
            // If the range continues after this cell, the next chunk has to continue there, too.
            let is_last = place + 1 == len;
            if end > cell && !is_last && !(chunk.end == cell && chunk.is_before(&self.chunks[place + 1])) {
                continue;
            }
            let last = if end > cell && !is_last { place + 1 } else { place };
            let mut at = begin;
            for chunk in self.chunks.range_mut(place..=last) {
                let cell = cell_end(chunk.begin);
                chunk.end = chunk.end.max(end.min(cell));
                chunk.readers += 1;
                at = end.min(cell);
            }
            return (place, at);
        }
        (len, begin)
    }

    /// Counts one reader less. After the last reader, the buffer becomes free, and the lowest chunks without readers
    /// are removed.
    fn was_read(&mut self, number: u64) {
        let chunk = &mut self.chunks[(number - self.lowest) as usize];
        chunk.readers -= 1;
        if chunk.readers == 0 {
            // Readers drop their reference before they call this, so ours is the only one left.
            self.free.extend(chunk.bytes.take().and_then(|bytes| Arc::try_unwrap(bytes).ok()));
        }
        while self.chunks.front().is_some_and(|chunk| chunk.readers == 0) {
            self.chunks.pop_front();
            self.lowest += 1;
        }
    }
}

/// Fills the chunks of one request as their bytes arrive.
struct Filling<'l, 'a> {
    lane: &'l Lane<'a>,
    number: u64,
    end: u64,
    /// The chunk that is being filled: its buffer, how many bytes it needs, and how many it has.
    buffer: Option<(Buffer, usize, usize)>,
}

impl Filling<'_, '_> {
    fn take(&mut self, mut piece: &[u8]) -> Result<()> {
        self.lane.check()?;
        while !piece.is_empty() && self.number < self.end {
            let (mut buffer, len, got) = match self.buffer.take() {
                Some(begun) => begun,
                None => {
                    let (buffer, len) = self.lane.room(self.number)?;
                    (buffer, len, 0)
                }
            };
            let (now, rest) = piece.split_at(piece.len().min(len - got));
            buffer.bytes()[got..got + now.len()].copy_from_slice(now);
            piece = rest;
            if got + now.len() < len {
                self.buffer = Some((buffer, len, got + now.len()));
            } else {
                self.lane.deliver(self.number, buffer);
                self.number += 1;
            }
        }
        Ok(())
    }
}
