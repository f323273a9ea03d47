//! The exceptions of a vector, collected before they are written to `vector-exceptions.safetensors`.
//!
//! Their number is known only at the end. Until then indices and values are collected in two files, in the order of the
//! tensors. At the end both files are copied after a header: first every tensor's indices, then every tensor's values.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::control::Control;
use crate::engine::window::Found;
use crate::error::{Error, Result};
use crate::format::blocks::BLOCK;
use crate::format::header::Header;
use crate::numeric::dtype::Dtype;
use crate::output::tally::Tally;
use crate::system::os;

/// The spool files.
#[derive(Debug)]
pub struct Spool {
    index: (PathBuf, File),
    value: (PathBuf, File),
    /// How many each tensor has.
    pub tally: Tally,
}

impl Spool {
    /// Opens the spool in the staging folder; an earlier run's content is kept until [`Spool::cut`].
    pub fn open(folder: &Path) -> Result<Self> {
        let open = |name: &str| -> Result<(PathBuf, File)> {
            let path = folder.join(name);
            let mut options = File::options();
            let file = options.read(true).write(true).create(true).truncate(false).open(&path);
            Ok((path.clone(), file.map_err(Error::io(&path, "create"))?))
        };
        Ok(Self { index: open("spool.index")?, value: open("spool.value")?, tally: Tally::default() })
    }

    /// Adds a window's exceptions.
    pub fn append(&mut self, found: &Found) -> Result<()> {
        self.tally.add(&found.counts);
        for ((path, file), bytes) in [(&mut self.index, &found.index), (&mut self.value, &found.value)] {
            file.write_all(bytes).map_err(Error::io(path, "write"))?;
        }
        Ok(())
    }

    /// Takes over a record of an earlier run if the spool still holds its exceptions; returns whether it does.
    /// `digests` has, in place of the bytes, the XXH3-64 digests from the journal.
    pub fn recall(&mut self, digests: &Found) -> Result<bool> {
        let count: u64 = digests.counts.iter().map(|(_, count)| count).sum();
        for ((_, file), size, wanted) in [(&mut self.index, 8, &digests.index), (&mut self.value, 4, &digests.value)] {
            let mut bytes = Vec::new();
            let got = Read::by_ref(file).take(count * size).read_to_end(&mut bytes);
            if got.is_err() || bytes.len() as u64 != count * size || xxh3_64(&bytes).to_le_bytes() != wanted[..] {
                return Ok(false);
            }
        }
        self.tally.add(&digests.counts);
        Ok(true)
    }

    /// Cuts off what follows the records taken over.
    pub fn cut(&mut self) -> Result<()> {
        let total = self.tally.total();
        for ((path, file), size) in [(&mut self.index, 8), (&mut self.value, 4)] {
            file.set_len(total * size)
                .and_then(|()| file.seek(SeekFrom::Start(total * size)))
                .map_err(Error::io(path, "write"))?;
        }
        Ok(())
    }

    /// Writes the exceptions file. `name` gives a tensor's name from its index in the layout.
    pub fn write<'n>(
        &mut self,
        path: &Path,
        name: impl Fn(u32) -> &'n str,
        sync: bool,
        control: &Control,
    ) -> Result<()> {
        let entries: Vec<(String, Dtype, [u64; 1])> = [("index", Dtype::I64), ("value", Dtype::F32)]
            .into_iter()
            .flat_map(|(part, dtype)| {
                self.tally.counts().iter().map(move |&(tensor, count)| (part, dtype, tensor, count))
            })
            .map(|(part, dtype, tensor, count)| (format!("{}.{part}", name(tensor)), dtype, [count]))
            .collect();
        let entries: Vec<(&str, Dtype, &[u64])> =
            entries.iter().map(|(name, dtype, shape)| (&name[..], *dtype, &shape[..])).collect();
        let mut out = File::create(path).map_err(Error::io(path, "create"))?;
        out.write_all(&Header::write(&entries, &[])).map_err(Error::io(path, "write"))?;
        let mut buffer = vec![0; BLOCK as usize];
        for (from, file) in [&mut self.index, &mut self.value] {
            file.rewind().map_err(Error::io(from, "read"))?;
            loop {
                control.check()?;
                let got = file.read(&mut buffer).map_err(Error::io(from, "read"))?;
                if got == 0 {
                    break;
                }
                out.write_all(&buffer[..got]).map_err(Error::io(path, "write"))?;
            }
        }
        if sync {
            os::sync_file(&out).map_err(Error::io(path, "sync"))?;
        }
        Ok(())
    }
}
