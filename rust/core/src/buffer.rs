//! Memory whose address suits direct reads and writes.

use crate::os::DIRECT_ALIGNMENT;

/// A fixed number of zeroed bytes at an aligned address.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// Reserves `len` bytes; pages are taken from the system as they are touched.
    pub fn new(len: usize) -> Self {
        let bytes = vec![0; len + DIRECT_ALIGNMENT];
        let start = bytes.as_ptr().align_offset(DIRECT_ALIGNMENT);
        Self { bytes, start, len }
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}
