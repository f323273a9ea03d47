//! A file mapped read-only. Each window's pages are loaded before they are used, and released afterwards.

#![allow(unsafe_code, reason = "mapping a file is unsafe: another process may change it")]

use std::fs::File;
use std::io;

use memmap2::{Advice, Mmap, MmapOptions, UncheckedAdvice};

use crate::system::sigbus::Watch;

/// A whole input file, mapped.
#[derive(Debug)]
pub struct Mapping {
    // Declared first, so that it is dropped first: the range must not be watched any more when it is unmapped.
    watch: Watch,
    map: Mmap,
}

impl Mapping {
    /// Maps `len` bytes, the file's length when it was opened.
    pub fn new(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: the bytes are only read, as plain integers, so a concurrent change can give wrong numbers but no
        // invalid value. The file's identity is checked again before a job ends. A page that is lost raises SIGBUS,
        // which `Watch` turns into a flag.
        let map = unsafe { MmapOptions::new().len(len).map(file)? };
        let watch = Watch::new(map.as_ptr() as usize, len)?;
        Ok(Self { watch, map })
    }

    /// Bytes `[begin, begin + len)`. Their pages are loaded by one system call if the kernel has it (5.14 and newer).
    pub fn window(&self, begin: usize, len: usize) -> io::Result<&[u8]> {
        let window = self.map.get(begin..begin + len).ok_or(io::ErrorKind::UnexpectedEof)?;
        match self.map.advise_range(Advice::PopulateRead, begin, len) {
            // Using these pages would raise SIGBUS. After any other error (an older kernel), pages are loaded when
            // used.
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(window),
        }
    }

    /// Releases a window's pages: they stay in the page cache, but no longer count as memory of this process.
    pub fn release(&self, begin: usize, len: usize) {
        // SAFETY: the mapping is shared, read-only and file-backed: a page dropped here comes back from the file with
        // the same bytes, so slices other windows still hold stay valid.
        let advised = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, begin, len) };
        // This is only advice: if it fails, the pages stay until the file is unmapped.
        drop(advised);
    }

    /// Whether a page was lost while it was mapped (the file was truncated, or the disk failed).
    pub fn damaged(&self) -> bool {
        self.watch.hit()
    }
}
