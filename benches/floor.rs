//! The floor under `target + α·(minuend − subtrahend)`: reads every byte of its inputs, writes one output, computes
//! nothing. What a transfer takes beyond this is its own doing.
//!
//!     rustc -O --edition 2024 floor.rs
//!     floor OUT IN [IN …] [--threads 2] [--read mmap|pread|direct] [--write buffered|direct] [--fsync]
//!
//! Inputs are folders with shards of the same names; OUT becomes a copy of the first one's. Shards of the others may be
//! shorter (quantised ones): then they are read in proportion. Prints one line of JSON. Linux only, standard library only.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::fs::{File, OpenOptions, create_dir_all, read_dir};
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Large enough that a system call costs nothing beside it, small enough that all threads' buffers stay small.
const WINDOW: usize = 4 << 20;
/// What direct reads and writes must be multiples of, on every disk met so far.
const ALIGNMENT: usize = 4096;
#[cfg(not(target_arch = "aarch64"))]
const O_DIRECT: i32 = 0o40000;
#[cfg(target_arch = "aarch64")]
const O_DIRECT: i32 = 0o200000;
const PROT_READ: i32 = 1;
const MAP_SHARED: i32 = 1;
const MADV_DONTNEED: i32 = 4;
const MADV_POPULATE_READ: i32 = 22;

unsafe extern "C" {
    fn mmap(address: *mut u8, length: usize, protection: i32, flags: i32, file: i32, offset: i64) -> *mut u8;
    fn madvise(address: *mut u8, length: usize, advice: i32) -> i32;
    fn fallocate(file: i32, mode: i32, offset: i64, length: i64) -> i32;
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Mmap,
    Pread,
    Buffered,
    Direct,
}

struct Options {
    output: PathBuf,
    inputs: Vec<PathBuf>,
    threads: usize,
    read: Mode,
    write: Mode,
    fsync: bool,
}

fn parse() -> Option<Options> {
    let (mut threads, mut read, mut write, mut fsync) = (2, Mode::Mmap, Mode::Buffered, false);
    let mut folders = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--threads" => threads = arguments.next()?.parse().ok()?,
            "--read" => {
                read = match arguments.next()?.as_str() {
                    "mmap" => Mode::Mmap,
                    "pread" => Mode::Pread,
                    "direct" => Mode::Direct,
                    _ => return None,
                }
            }
            "--write" => {
                write = match arguments.next()?.as_str() {
                    "buffered" => Mode::Buffered,
                    "direct" => Mode::Direct,
                    _ => return None,
                }
            }
            "--fsync" => fsync = true,
            _ => folders.push(PathBuf::from(argument)),
        }
    }
    (folders.len() >= 2).then(|| Options { output: folders.remove(0), inputs: folders, threads, read, write, fsync })
}

/// One input file: mapped, or read into a buffer.
struct Input {
    file: File,
    length: usize,
    map: Option<&'static [u8]>,
}

impl Input {
    fn open(path: &Path, mode: Mode) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true);
        if mode == Mode::Direct {
            options.custom_flags(O_DIRECT);
        }
        let file = options.open(path)?;
        let length = file.metadata()?.len() as usize;
        let map = if mode == Mode::Mmap {
            // SAFETY: a fresh shared mapping of the whole file, checked below and never unmapped; nobody writes to a
            // benchmark's inputs while it runs.
            let start = unsafe { mmap(std::ptr::null_mut(), length, PROT_READ, MAP_SHARED, file.as_raw_fd(), 0) };
            if start as isize == -1 {
                return Err(Error::last_os_error());
            }
            // SAFETY: `start` is the mapping's first byte, and `length` what was mapped.
            Some(unsafe { std::slice::from_raw_parts(start, length) })
        } else {
            None
        };
        Ok(Self { file, length, map })
    }

    /// Touches every byte of a window; leaves the window in `buffer` when `keep` asks for it or reading needs it.
    fn read(&self, buffer: &mut [u8], at: usize, length: usize, keep: bool) -> Result<()> {
        let Some(map) = self.map else {
            return self.fill(buffer, at, length);
        };
        let window = &map[at..at + length];
        let start = window.as_ptr().cast_mut();
        // SAFETY: both calls are about whole pages of a mapping that lives for ever, and change no contents; windows
        // begin on page boundaries. The first saves a fault every few pages and may fail on old kernels, the second
        // keeps the resident set small.
        unsafe { madvise(start, length, MADV_POPULATE_READ) };
        if keep {
            buffer[..length].copy_from_slice(window);
        } else {
            // One byte a cache line moves the line.
            std::hint::black_box(window.iter().step_by(64).fold(0u8, |sum, byte| sum ^ byte));
        }
        // SAFETY: as above.
        unsafe { madvise(start, length, MADV_DONTNEED) };
        Ok(())
    }

    /// Reads at least `length` bytes; a direct read asks for whole blocks and gets less at the end of the file.
    fn fill(&self, buffer: &mut [u8], at: usize, length: usize) -> Result<()> {
        let asked = length.next_multiple_of(ALIGNMENT);
        let mut done = 0;
        while done < length {
            match self.file.read_at(&mut buffer[done..asked], (at + done) as u64)? {
                0 => return Err(Error::other("an input ended early: do all inputs have the same size?")),
                read => done += read,
            }
        }
        Ok(())
    }
}

struct Shard {
    inputs: Vec<Input>,
    output: File,
    length: usize,
}

impl Shard {
    fn open(options: &Options, name: &str) -> Result<Self> {
        let inputs: Result<Vec<_>> =
            options.inputs.iter().map(|folder| Input::open(&folder.join(name), options.read)).collect();
        let inputs = inputs?;
        let length = inputs[0].file.metadata()?.len() as usize;
        let mut flags = OpenOptions::new();
        flags.create(true).write(true).truncate(true);
        if options.write == Mode::Direct {
            flags.custom_flags(O_DIRECT);
        }
        let output = flags.open(options.output.join(name))?;
        // SAFETY: a plain system call on an open file. Its failure is no matter: the file then grows as it is written.
        unsafe { fallocate(output.as_raw_fd(), 0, 0, length as i64) };
        Ok(Self { inputs, output, length })
    }

    fn copy(&self, buffers: &mut [&mut [u8]], at: usize, write: Mode) -> Result<()> {
        let length = WINDOW.min(self.length - at);
        for (number, (input, buffer)) in self.inputs.iter().zip(buffers.iter_mut()).enumerate() {
            // The part of a shorter input that is as far along, from a page on.
            let along = |at: usize| match (at as u128 * input.length as u128 / self.length as u128) as usize {
                all if all == input.length => all,
                some => some / ALIGNMENT * ALIGNMENT,
            };
            let (from, to) = (along(at), along(at + length));
            if from < to {
                input.read(buffer, from, to - from, number == 0)?;
            }
        }
        let padded = if write == Mode::Direct { length.next_multiple_of(ALIGNMENT) } else { length };
        self.output.write_all_at(&buffers[0][..padded], at as u64)
    }

    fn finish(&self, options: &Options) -> Result<()> {
        if options.write == Mode::Direct {
            self.output.set_len(self.length as u64)?;
        }
        if options.fsync { self.output.sync_all() } else { Ok(()) }
    }
}

/// An aligned buffer for direct reads and writes, which lives until the program ends.
fn buffer() -> &'static mut [u8] {
    let layout = Layout::from_size_align(WINDOW, ALIGNMENT).expect("constants that fit");
    // SAFETY: the layout is not empty; the memory is zeroed, owned by the slice alone and never freed.
    unsafe {
        let start = alloc_zeroed(layout);
        if start.is_null() {
            handle_alloc_error(layout);
        }
        std::slice::from_raw_parts_mut(start, WINDOW)
    }
}

/// Bytes read and written.
fn run(options: &Options) -> Result<(usize, usize)> {
    create_dir_all(&options.output)?;
    let mut shards = Vec::new();
    for entry in read_dir(&options.inputs[0])? {
        let name = entry?.file_name().into_string().expect("shard names are ASCII");
        if name.ends_with(".safetensors") {
            shards.push(Shard::open(options, &name)?);
        }
    }
    // One queue over all shards: no thread waits at the end of a file.
    let windows: Vec<(&Shard, usize)> =
        shards.iter().flat_map(|shard| (0..shard.length).step_by(WINDOW).map(move |at| (shard, at))).collect();
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        let mut buffers: Vec<&mut [u8]> = options.inputs.iter().map(|_| buffer()).collect();
        while let Some((shard, at)) = windows.get(next.fetch_add(1, Ordering::Relaxed)) {
            shard.copy(&mut buffers, *at, options.write)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker panicked"))
    })?;
    shards.iter().try_for_each(|shard| shard.finish(options))?;
    let read = shards.iter().flat_map(|shard| &shard.inputs).map(|input| input.length).sum();
    Ok((read, shards.iter().map(|shard| shard.length).sum()))
}

fn main() {
    let Some(options) = parse() else {
        eprintln!(
            "usage: floor OUT IN [IN …] [--threads N] [--read mmap|pread|direct] [--write buffered|direct] [--fsync]"
        );
        std::process::exit(2);
    };
    let start = Instant::now();
    match run(&options) {
        Ok((read, written)) => {
            let seconds = start.elapsed().as_secs_f64();
            println!("{{\"seconds\": {seconds:.3}, \"read\": {read}, \"written\": {written}}}");
        }
        Err(error) => {
            eprintln!("floor: {error}");
            std::process::exit(4);
        }
    }
}
