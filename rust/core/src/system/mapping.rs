//! A file mapped read-only, window by window: paged in before it is touched, let go after.

#![allow(unsafe_code, reason = "mapping a file is unsafe: another process may change it")]

use std::fs::File;
use std::io;

use memmap2::{Advice, Mmap, MmapOptions, UncheckedAdvice};

use crate::system::sigbus::Watch;

/// A whole input file, mapped.
#[derive(Debug)]
pub struct Mapping {
    // Declared first, so dropped first: the range must not be watched once it is unmapped.
    watch: Watch,
    map: Mmap,
}

impl Mapping {
    /// Maps `len` bytes, the file's length when it was opened.
    pub fn new(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: the bytes are only ever read, as plain integers, so a concurrent change can give wrong numbers but no
        // invalid value; the file's identity is looked at again before a job ends. A page that vanishes raises SIGBUS,
        // which `Watch` turns into a flag.
        let map = unsafe { MmapOptions::new().len(len).map(file)? };
        let watch = Watch::new(map.as_ptr() as usize, len)?;
        Ok(Self { watch, map })
    }

    /// Bytes `[begin, begin + len)`, paged in by one system call where the kernel can (5.14 and newer).
    pub fn window(&self, begin: usize, len: usize) -> io::Result<&[u8]> {
        let window = self.map.get(begin..begin + len).ok_or(io::ErrorKind::UnexpectedEof)?;
        match self.map.advise_range(Advice::PopulateRead, begin, len) {
            // What would be a signal when touched. Other refusals (an older kernel) leave it to the touch itself.
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(window),
        }
    }

    /// Lets go of a window's pages: they stay in the page cache but no longer count as ours.
    pub fn release(&self, begin: usize, len: usize) {
        // SAFETY: the mapping is shared, read-only and file-backed: a page dropped here comes back from the file with
        // the same bytes, so slices other windows still hold stay valid.
        let advised = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, begin, len) };
        // Advice only: without it the pages stay until the mapping goes.
        drop(advised);
    }

    /// Whether a page was lost under us (the file was truncated or the disk failed).
    pub fn damaged(&self) -> bool {
        self.watch.hit()
    }
}
