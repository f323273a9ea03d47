//! Digests. The digest of a file is the XXH3-128 of its blocks' XXH3-128 digests, in order. SHA-256 is optional.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::control::Control;
use crate::error::{Error, Result};

/// The size of a block in bytes. Blocks of the output files are the unit of digests, statistics and resuming.
pub const BLOCK: u64 = 1 << 20;

/// XXH3-128 (seed 0) of one block.
pub fn block(bytes: &[u8]) -> u128 {
    xxh3_128(bytes)
}

/// Computes the digest of a file from its block digests, given in order.
#[derive(Clone, Default)]
pub struct FileDigest(Xxh3);

impl FileDigest {
    /// Adds the next block's digest, as 16 big-endian bytes (XXH3's canonical form).
    pub fn add(&mut self, block: u128) {
        self.0.update(&block.to_be_bytes());
    }

    /// The digest so far, as 32 hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:032x}", self.0.digest128())
    }
}

/// The digest of bytes in memory, as if they were a file.
pub fn of_bytes(bytes: &[u8]) -> String {
    let mut digest = FileDigest::default();
    // An empty file has no blocks.
    for chunk in bytes.chunks(BLOCK as usize) {
        digest.add(block(chunk));
    }
    digest.hex()
}

/// The digest of a file on disk, and its length.
pub fn of_file(path: &Path, control: &Control) -> Result<(String, u64)> {
    let mut file = File::open(path).map_err(Error::io(path, "read"))?;
    let (mut digest, mut size) = (FileDigest::default(), 0);
    let mut buffer = Vec::new();
    loop {
        control.check()?;
        buffer.clear();
        Read::by_ref(&mut file).take(BLOCK).read_to_end(&mut buffer).map_err(Error::io(path, "read"))?;
        if buffer.is_empty() {
            return Ok((digest.hex(), size));
        }
        digest.add(block(&buffer));
        size += buffer.len() as u64;
        control.add(buffer.len() as u64);
    }
}

/// SHA-256 of a whole file, as 64 hexadecimal digits.
pub fn sha256(path: &Path, control: &Control) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path, "read"))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BLOCK as usize];
    loop {
        control.check()?;
        let got = file.read(&mut buffer).map_err(Error::io(path, "read"))?;
        if got == 0 {
            break;
        }
        hash.update(&buffer[..got]);
        control.add(got as u64);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
