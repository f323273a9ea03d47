//! What the fuzz targets share: a folder in memory, and what holds for every message.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use taskvec_core::storage::place::{Place, Remote};
use taskvec_core::{Error, Result};

/// The longest message: a name that is cut, and a shape of 64 dimensions with their 20 digits.
const LONGEST: usize = 4_096;

/// A file in memory: its first bytes, then zeros up to its size.
#[derive(Debug)]
pub struct Content {
    /// The bytes that differ from zero.
    pub start: Vec<u8>,
    /// Its length in bytes.
    pub size: u64,
}

impl From<Vec<u8>> for Content {
    fn from(start: Vec<u8>) -> Self {
        let size = start.len() as u64;
        Self { start, size }
    }
}

/// A folder in memory, so that no run waits for a disk.
#[derive(Debug, Default)]
pub struct Folder {
    names: Vec<(String, u64)>,
    contents: Vec<Content>,
}

impl Folder {
    /// Puts a file into it; a second one of the same name is left out.
    pub fn add(&mut self, name: &str, content: impl Into<Content>) {
        let content = content.into();
        if self.names.iter().all(|(other, _)| other != name) {
            self.names.push((name.to_owned(), content.size));
            self.contents.push(content);
        }
    }

    /// The folder as an input of a job, under this name.
    pub fn place(self, name: &str) -> Place {
        Place { root: PathBuf::from(name), name: None, origin: None, remote: Some(Arc::new(self)) }
    }
}

impl Remote for Folder {
    fn files(&self) -> &[(String, u64)] {
        &self.names
    }

    fn streams(&self) -> bool {
        false
    }

    fn fetch(&self, file: usize, range: Range<u64>, take: &mut (dyn FnMut(&[u8]) -> Result<()> + Send)) -> Result<()> {
        let Content { start, size } = &self.contents[file];
        assert!(range.start <= range.end && range.end <= *size, "asks for {range:?} of a file of {size} bytes");
        let length = start.len() as u64;
        let (begin, end) = (range.start.min(length), range.end.min(length));
        take(&start[begin as usize..end as usize])?;
        let zeros = (range.end - range.start) - (end - begin);
        assert!(zeros <= 1 << 28, "reads {zeros} bytes of data that no header could hold");
        take(&vec![0; zeros as usize])
    }

    fn want(&self, _: usize) -> Result<()> {
        Ok(())
    }

    fn local(&self, _: usize) -> Result<Option<PathBuf>> {
        panic!("a plan is made from headers alone, and no file is downloaded for it");
    }
}

/// What an error says must be fit for a terminal, whatever the file holds: one line, and not endless.
pub fn check_error(error: &Error) {
    let text = error.to_string();
    check_text(&text);
    assert!(text.len() <= LONGEST, "a message of {} bytes: {text}", text.len());
}

/// A sentence of a report: one line without control characters.
pub fn check_text(text: &str) {
    assert!(!text.chars().any(char::is_control), "control characters in {text:?}");
}
