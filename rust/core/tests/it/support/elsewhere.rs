//! A folder elsewhere, kept in memory: it counts what it is asked for, and can fail or stall. And checkpoints to put there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::support::seeded::numbers;
use serde_json::{Map, Value, json};
use taskvec_core::control::Control;
use taskvec_core::plan::Plan;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::options::{Alpha, Options};
use taskvec_core::storage::place::{Origin, Place, Remote};
use taskvec_core::verbs::write;
use taskvec_core::{Error, Result};
use tempfile::TempDir;

/// What it was asked for.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Files and ranges, in order.
    pub fetched: Vec<(String, Range<u64>)>,
    pub moved: u64,
    pub wanted: Vec<String>,
    pub local: Vec<String>,
}

impl Log {
    /// The requests for files whose name ends so.
    pub fn of(&self, ending: &str) -> usize {
        self.fetched.iter().filter(|(name, _)| name.ends_with(ending)).count()
    }
}

/// A fault at the nth request (counted from 0) after so many of its bytes, though never after all.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub request: usize,
    pub after: u64,
    pub corrupt: bool,
}

#[derive(Debug)]
pub struct Elsewhere {
    files: Vec<(String, u64)>,
    /// The first bytes of each; nobody may ask for what is behind them.
    content: Vec<Vec<u8>>,
    streams: bool,
    /// Where files are once they have arrived.
    root: PathBuf,
    piece: usize,
    fault: Option<Fault>,
    log: Mutex<Log>,
    /// Files are a while on their way: calls for which they are not yet there.
    late: AtomicUsize,
    /// Fetches of shards wait while it is set, handing over empty pieces; downloads do not come.
    pub stalled: AtomicBool,
    waiting: AtomicUsize,
    at_once: AtomicUsize,
    most: AtomicUsize,
}

impl Elsewhere {
    /// All files below a folder.
    pub fn of(root: &Path, streams: bool) -> Self {
        let mut names = Vec::new();
        list(root, "", &mut names);
        let files = names.into_iter().map(|name| (name.clone(), fs::read(root.join(&name)).unwrap())).collect();
        Self { root: root.to_owned(), ..Self::holding(files, streams) }
    }

    /// Files given with their first bytes, which are all unless `sized` says more.
    pub fn holding(files: Vec<(String, Vec<u8>)>, streams: bool) -> Self {
        let listed = files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect();
        Self {
            files: listed,
            content: files.into_iter().map(|(_, bytes)| bytes).collect(),
            streams,
            root: PathBuf::new(),
            piece: 100_001,
            fault: None,
            log: Mutex::default(),
            late: AtomicUsize::new(2),
            stalled: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        }
    }

    /// The listing says that a file is as long as this.
    pub fn sized(mut self, name: &str, size: u64) -> Self {
        self.files.iter_mut().find(|(listed, _)| listed == name).unwrap().1 = size;
        self
    }

    pub fn with_fault(mut self, fault: Option<Fault>) -> Self {
        self.fault = fault;
        self
    }

    pub fn log(&self) -> Log {
        self.log.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        *self.log.lock().unwrap() = Log::default();
    }

    /// The most requests that were under way at the same time.
    pub fn most_at_once(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// Waits until so many requests are held up; if they never are, lets everything go, so that the test can end.
    pub fn until_waiting(&self, count: usize) {
        let begun = Instant::now();
        while self.waiting.load(Ordering::SeqCst) < count {
            if begun.elapsed() > Duration::from_secs(20) {
                self.stalled.store(false, Ordering::SeqCst);
                panic!("{} requests are held up, not {count}", self.waiting.load(Ordering::SeqCst));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn serve(&self, file: usize, range: Range<u64>, take: &mut (dyn FnMut(&[u8]) -> Result<()> + Send)) -> Result<()> {
        let number = {
            let mut log = self.log.lock().unwrap();
            log.fetched.push((self.files[file].0.clone(), range.clone()));
            log.fetched.len() - 1
        };
        let held_up = self.files[file].0.ends_with(".safetensors");
        let fault = self.fault.filter(|fault| fault.request == number);
        let mut at = range.start;
        while at < range.end {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            while held_up && self.stalled.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
                if let Err(stopped) = take(&[]) {
                    self.waiting.fetch_sub(1, Ordering::SeqCst);
                    return Err(stopped);
                }
            }
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            let mut to = range.end.min(at + self.piece as u64);
            if let Some(Fault { after, corrupt, .. }) = fault {
                to = to.min(range.start + after.min(range.end - range.start - 1));
                if at == to {
                    return Err(Error::Remote { corrupt, source: format!("request {number} failed").into() });
                }
            }
            self.log.lock().unwrap().moved += to - at;
            take(&self.content[file][at as usize..to as usize])?;
            at = to;
        }
        Ok(())
    }
}

fn list(folder: &Path, below: &str, names: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = format!("{below}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() { list(&path, &format!("{name}/"), names) } else { names.push(name) }
    }
}

impl Remote for Elsewhere {
    fn files(&self) -> &[(String, u64)] {
        &self.files
    }

    fn streams(&self) -> bool {
        self.streams
    }

    fn fetch(&self, file: usize, range: Range<u64>, take: &mut (dyn FnMut(&[u8]) -> Result<()> + Send)) -> Result<()> {
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let served = self.serve(file, range, take);
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        served
    }

    fn want(&self, file: usize) -> Result<()> {
        assert!(!self.streams, "what is streamed is not downloaded");
        self.log.lock().unwrap().wanted.push(self.files[file].0.clone());
        Ok(())
    }

    fn local(&self, file: usize) -> Result<Option<PathBuf>> {
        assert!(!self.streams, "what is streamed is not downloaded");
        if self.stalled.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(20));
            return Ok(None);
        }
        if self.late.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |late| late.checked_sub(1)).is_ok() {
            return Ok(None);
        }
        let name = self.files[file].0.clone();
        let path = self.root.join(&name);
        self.log.lock().unwrap().local.push(name);
        Ok(Some(path))
    }
}

/// A place on the Hub that this serves; the Hub knows SHA-256 sums of the files named.
pub fn place(remote: &Arc<Elsewhere>, known: &[(&str, &str)]) -> Place {
    let sha256: BTreeMap<_, _> = known.iter().map(|(name, sum)| (name.to_string(), sum.to_string())).collect();
    let origin = Origin { repo: "org/name".into(), commit: "c".repeat(40), subfolder: None, sha256 };
    Place {
        root: "org/name@main".into(),
        name: Some("org/name".into()),
        origin: Some(origin),
        remote: Some(Arc::clone(remote) as Arc<dyn Remote>),
    }
}

/// Finite numbers of a type.
pub fn values(seed: u64, dtype: &str, count: usize) -> Vec<u8> {
    let mut number = numbers(seed);
    (0..count)
        .flat_map(|_| match dtype {
            "BF16" => half::bf16::from_f32(number()).to_le_bytes().to_vec(),
            "F16" => half::f16::from_f32(number()).to_le_bytes().to_vec(),
            "F32" => number().to_le_bytes().to_vec(),
            "U8" => vec![(number() * 200.0) as i8 as u8],
            other => panic!("{other}"),
        })
        .collect()
}

/// Name, type, shape.
pub type Tensor = (&'static str, &'static str, &'static [usize]);

/// The bytes of a safetensors file with the tensors in this order, its header `pad` spaces longer than it has to be.
pub fn shard(tensors: &[Tensor], pad: usize, data: impl Fn(&Tensor) -> Vec<u8>) -> Vec<u8> {
    let (mut entries, mut bytes) = (Map::new(), Vec::new());
    for tensor in tensors {
        let made = data(tensor);
        let offsets = [bytes.len(), bytes.len() + made.len()];
        entries.insert(tensor.0.into(), json!({"dtype": tensor.1, "shape": tensor.2, "data_offsets": offsets}));
        bytes.extend(made);
    }
    let header = format!("{}{}", Value::Object(entries), " ".repeat(pad));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat()
}

/// A seed for a tensor: its name's, so that equal names have equal values in checkpoints of one seed.
pub fn seed_of(seed: u64, name: &str) -> u64 {
    name.bytes().fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Writes a checkpoint of one or several shards, an odd number of spaces behind their headers. `lm_head.weight` repeats
/// the embedding, and config.json says so.
pub fn checkpoint(folder: &Path, seed: u64, shards: &[&[Tensor]]) {
    fs::create_dir_all(folder).unwrap();
    let data = |&(name, dtype, shape): &Tensor| {
        let name = if name == HEAD { EMBEDDING } else { name };
        values(seed_of(seed, name), dtype, shape.iter().product())
    };
    let mut map = Map::new();
    for (number, tensors) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_owned(),
            count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        fs::write(folder.join(&name), shard(tensors, number * 2 + 1, data)).unwrap();
        map.extend(tensors.iter().map(|(tensor, ..)| (tensor.to_string(), Value::from(name.clone()))));
    }
    if shards.len() > 1 {
        let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
        fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }
    fs::write(folder.join("config.json"), r#"{"tie_word_embeddings": true}"#).unwrap();
    fs::write(folder.join("tokenizer.json"), "{}").unwrap();
}

const ROLES: [&str; 3] = ["target", "minuend", "subtrahend"];

/// A target, and donors that are sharded and ordered in other ways, one of them in F32: everything is combined, cut by
/// the blocks' edges, and a tied head is stored where it can be.
pub struct Family(TempDir);

impl Family {
    pub fn new() -> Self {
        const B: Tensor = ("b.weight", "BF16", &[3, 500_001]);
        const C: Tensor = ("c.bias", "BF16", &[7]);
        const D: Tensor = ("d.weight", "BF16", &[1_100_000]);
        const E: Tensor = (EMBEDDING, "BF16", &[700, 1001]);
        const H: Tensor = (HEAD, "BF16", &[700, 1001]);
        const F: [Tensor; 4] = [
            ("b.weight", "F32", &[3, 500_001]),
            ("c.bias", "F32", &[7]),
            ("d.weight", "F32", &[1_100_000]),
            (EMBEDDING, "F32", &[700, 1001]),
        ];
        let folder = TempDir::new().unwrap();
        let root = folder.path();
        checkpoint(&root.join("target"), 1, &[&[E, B], &[C, D, H]]);
        checkpoint(&root.join("minuend"), 2, &[&[D, H, C, E, B]]);
        checkpoint(&root.join("subtrahend"), 3, &[&F[..1], &F[1..3], &F[3..]]);
        Self(folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Target, minuend and subtrahend from elsewhere, each streamed or not.
    pub fn remotes(&self, streams: [bool; 3]) -> [Arc<Elsewhere>; 3] {
        [0, 1, 2].map(|number| Arc::new(Elsewhere::of(&self.path(ROLES[number]), streams[number])))
    }

    /// The local folders.
    pub fn here(&self) -> [Place; 3] {
        ROLES.map(|role| self.path(role).into())
    }

    pub fn transfer(&self, places: [Place; 3], options: Options) -> Result<Plan> {
        let [target, minuend, subtrahend] = places;
        let alpha = Alpha::new("0.7", 0.7).unwrap();
        Plan::new(Request::Transfer { target, minuend, subtrahend, alpha }, options, &Control::default())
    }

    /// Writes from the local folders, for comparison.
    pub fn local_run(&self) -> PathBuf {
        let out = self.path("local");
        let plan = self.transfer(self.here(), Options::default()).unwrap();
        write::run(&plan, &out, "card", &Control::default()).unwrap();
        out
    }
}

pub fn places(remotes: &[Arc<Elsewhere>; 3]) -> [Place; 3] {
    [0, 1, 2].map(|number| place(&remotes[number], &[]))
}

/// Both folders hold the same files, byte for byte, manifest apart.
#[track_caller]
pub fn same_output(a: &Path, b: &Path) {
    let names = |folder: &Path| {
        let mut names = Vec::new();
        list(folder, "", &mut names);
        names
    };
    assert_eq!(names(a), names(b));
    for name in names(a).into_iter().filter(|name| !matches!(name.as_str(), "taskvec.json" | "vector.json")) {
        assert!(fs::read(a.join(&name)).unwrap() == fs::read(b.join(&name)).unwrap(), "{name}");
    }
}

pub fn manifest(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("taskvec.json")).unwrap()).unwrap()
}
