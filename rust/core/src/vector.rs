//! A vector folder's own description, `vector.json`, as far as reading it back needs it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::error::{Error, Result};

/// The schema of `vector.json` that this version writes and reads.
pub const SCHEMA: &str = "taskvec/vector/1";
/// The file's name.
pub const FILE: &str = "vector.json";
/// The one encoding so far: bf16 (with exceptions) or f32 values in plain safetensors files.
pub const DENSE: &str = "dense";

/// The parts of `vector.json` that a job needs.
#[derive(Debug)]
pub struct VectorInfo {
    /// Elements whose exact difference lies in the exceptions file.
    pub exceptions: u64,
    /// Whether the donors' output head was their embedding.
    pub tied: Option<bool>,
    path: PathBuf,
}

#[derive(Deserialize)]
struct Document {
    schema: String,
    vector: Body,
}

#[derive(Deserialize)]
struct Body {
    encoding: String,
    exceptions: u64,
    tied: Option<bool>,
}

impl VectorInfo {
    /// Reads and checks `vector.json` of a vector folder.
    pub fn read(root: &Path) -> Result<Self> {
        let path = root.join(FILE);
        let bytes = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound if root.is_dir() => {
                Error::corrupt(root, format!("holds no {FILE}, so it is not a vector; `taskvec extract` makes one"))
            }
            _ => Error::io(&path, "read")(error),
        })?;
        let document: Document = serde_json::from_slice(&bytes).map_err(|error| {
            Error::corrupt(&path, format!("is not a vector description ({error}); extract the vector again"))
        })?;
        if document.schema != SCHEMA || document.vector.encoding != DENSE {
            let found = format!("{} with `{}` encoding", document.schema, document.vector.encoding);
            return Err(Error::corrupt(&path, format!("is {found}, which this version does not read; update taskvec")));
        }
        Ok(Self { exceptions: document.vector.exceptions, tied: document.vector.tied, path })
    }

    /// The exceptions file must hold what the description promises: for each tensor ascending indices and their values.
    pub fn check_exceptions(&self, file: &Checkpoint) -> Result<()> {
        let mut found = 0;
        for index in file.tensors.iter().filter(|tensor| tensor.name.ends_with(".index")) {
            let name = index.name.trim_end_matches(".index");
            let value = file.get(&format!("{name}.value"));
            let fits = index.dtype == Dtype::I64
                && value.is_some_and(|value| value.dtype == Dtype::F32 && value.shape == index.shape);
            if !fits {
                let path = &file.shard(index).path;
                return Err(Error::corrupt(
                    path,
                    format!(
                        "the exceptions of tensor `{name}` are not I64 indices with as many F32 values; extract the vector again"
                    ),
                ));
            }
            found += index.elements();
        }
        if found != self.exceptions {
            let what = format!(
                "promises {} exceptions but the exceptions file holds {found}; extract the vector again",
                self.exceptions
            );
            return Err(Error::corrupt(&self.path, what));
        }
        Ok(())
    }
}
