//! A checkpoint folder under construction.

use std::fs;
use std::path::{Path, PathBuf};

use taskvec_core::Error;
use taskvec_core::checkpoint::Checkpoint;
use taskvec_core::control::Control;
use tempfile::TempDir;

/// A folder under construction; shards are written by the `safetensors` crate.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A shard of one-dimensional f32 tensors of two elements.
    pub fn shard(&self, name: &str, tensors: &[&str]) -> PathBuf {
        let view = || safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2], &[0; 8]).unwrap();
        let tensors: Vec<_> = tensors.iter().map(|name| (name.to_string(), view())).collect();
        self.put(name, safetensors::serialize(tensors, None).unwrap())
    }

    pub fn index(&self, weight_map: &[(&str, &str)]) {
        let map: serde_json::Map<_, _> = weight_map.iter().map(|(a, b)| (a.to_string(), (*b).into())).collect();
        self.put("model.safetensors.index.json", serde_json::json!({"metadata": {}, "weight_map": map}).to_string());
    }

    /// Two sound shards and their index.
    pub fn sharded() -> Self {
        let folder = Self::new();
        folder.shard("m-1.safetensors", &["b", "a"]);
        folder.shard("m-2.safetensors", &["c"]);
        folder.index(&[("c", "m-2.safetensors"), ("a", "m-1.safetensors"), ("b", "m-1.safetensors")]);
        folder
    }

    pub fn open(&self) -> Result<Checkpoint, Error> {
        open(self.path())
    }

    #[track_caller]
    pub fn refused(&self, parts: &[&str]) {
        let error = self.open().expect_err("should be refused");
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        let message = error.to_string();
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }
}

/// Opens a checkpoint at a path.
pub fn open(path: &Path) -> Result<Checkpoint, Error> {
    Checkpoint::open(&path.into(), &Control::default())
}
