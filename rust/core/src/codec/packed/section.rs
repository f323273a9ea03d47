//! Sections of a frame: bytes of a known length, through zstd where that makes them shorter; and numbers.

use zstd_safe::{CCtx, CParameter, DCtx};

/// Compresses sections.
pub struct Compressor {
    context: CCtx<'static>,
    room: Vec<u8>,
}

impl Compressor {
    /// One for sections of up to `longest` bytes.
    pub fn new(longest: usize) -> Self {
        let mut context = CCtx::create();
        for parameter in [CParameter::CompressionLevel(1), CParameter::ContentSizeFlag(false)] {
            // Both parameters are within their bounds, so that they cannot be refused.
            let _ = context.set_parameter(parameter);
        }
        Self { context, room: vec![0; zstd_safe::compress_bound(longest)] }
    }

    /// A section's stored form.
    pub fn compress<'a>(&'a mut self, bytes: &'a [u8]) -> &'a [u8] {
        match self.context.compress2(&mut self.room[..], bytes) {
            Ok(len) if len < bytes.len() => &self.room[..len],
            _ => bytes,
        }
    }

    /// About the length of a section's stored form, less a fifth: from every eighth part of it.
    pub fn estimate(&mut self, bytes: &[u8]) -> usize {
        const PART: usize = 1 << 10;
        let sample: Vec<u8> = bytes.chunks(PART).step_by(8).flatten().copied().collect();
        self.compress(&sample).len() * bytes.len() / sample.len().max(1) * 4 / 5
    }

    /// Appends a section: the length of its stored form, and that.
    pub fn append(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let stored = self.compress(bytes);
        write_number(stored.len(), out);
        out.extend_from_slice(stored);
    }
}

/// Appends a number, seven bits a byte, lowest first; the highest bit says that more follow.
pub fn write_number(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// What is left to read of a frame.
pub struct Rest<'a>(pub &'a [u8]);

impl<'a> Rest<'a> {
    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    /// The next bytes.
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next number, if it is at most `most`.
    pub fn number(&mut self, most: usize) -> Option<usize> {
        let mut number = 0;
        // No number of a frame has more than 21 bits.
        for shift in [0, 7, 14] {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                // A last byte of zero is a longer way to write the same number.
                return (number <= most && (byte > 0 || shift == 0)).then_some(number);
            }
        }
        None
    }

    /// Reads the next section into `out`, which it must fill exactly.
    pub fn section(&mut self, context: &mut DCtx, out: &mut [u8]) -> Option<()> {
        let len = self.number(out.len())?;
        let stored = self.bytes(len)?;
        if len == out.len() {
            out.copy_from_slice(stored);
            return Some(());
        }
        // One frame and nothing behind it: zstd would go on with another, or pass over one that is to be skipped.
        let one = zstd_safe::find_frame_compressed_size(stored).ok()?;
        let got = context.decompress(out, stored).ok()?;
        (one == len && got == out.len()).then_some(())
    }
}
