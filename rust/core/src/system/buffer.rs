//! Memory whose address suits direct reads and writes, and which goes back to the system when it is dropped.

use memmap2::MmapMut;

/// A fixed number of zeroed bytes on pages of their own.
///
/// An allocator may keep what is freed for later: jobs that follow each other in one process, as in a live model, would
/// hold several budgets.
#[derive(Debug)]
pub struct Buffer(MmapMut);

impl Buffer {
    /// Reserves `len` bytes; pages are taken from the system as they are touched.
    pub fn new(len: usize) -> Self {
        // Out of memory is not reported as an error: any other allocation would fail as well.
        Self(MmapMut::map_anon(len).unwrap_or_else(|error| panic!("no memory for a buffer of {len} bytes: {error}")))
    }

    /// The bytes, for several readers.
    pub fn view(&self) -> &[u8] {
        &self.0
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
