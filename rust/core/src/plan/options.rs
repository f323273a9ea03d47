//! The options of a job, checked as far as that is possible without the inputs.

mod json;

use std::borrow::Cow;
use std::str::FromStr;

use regex::Regex;
use serde::Deserialize;

use crate::checkpoint::vector::Encoding;
use crate::codec::scaled::encode::Scales;
use crate::error::{Error, Result};
use crate::numeric::dtype::Float;
pub use crate::plan::alpha::Alpha;
use crate::plan::layers::Schedule;
use crate::plan::views::map::Pair;
use crate::source::Io;

/// `--alpha-rule 'REGEX=α'`.
#[derive(Clone, Debug)]
pub struct AlphaRule {
    /// Searched for in tensor names.
    pub pattern: Regex,
    /// The factor of the tensors for which this is the last rule that matches.
    pub alpha: Alpha,
}

/// How f32 results become elements of the output's type (`--rounding`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoundingMode {
    /// To nearest, ties to even.
    #[default]
    Nearest,
    /// At random without bias; reproducible from the seed, the tensor's name and the element's index.
    Stochastic,
}

impl FromStr for RoundingMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "nearest" => Ok(Self::Nearest),
            "stochastic" => Ok(Self::Stochastic),
            _ => Err(Error::Usage(format!("--rounding is nearest or stochastic, not `{text}`"))),
        }
    }
}

/// What to do about vocabularies of different size (`--vocab`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vocab {
    /// Refuse.
    #[default]
    Strict,
    /// Combine the leading rows that all inputs have; the target's other rows stay.
    Common,
}

impl FromStr for Vocab {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "strict" => Ok(Self::Strict),
            "common" => Ok(Self::Common),
            _ => Err(Error::Usage(format!("--vocab is strict or common, not `{text}`"))),
        }
    }
}

/// Reads `--scales`.
pub(super) fn parse_scales(text: &str) -> Result<Scales> {
    match text {
        "keep" => Ok(Scales::Keep),
        "fresh" => Ok(Scales::Fresh),
        _ => Err(Error::Usage(format!("--scales is keep or fresh, not `{text}`"))),
    }
}

/// Reads `--dtype`.
pub(super) fn parse_dtype(text: &str) -> Result<Float> {
    match text {
        "bf16" => Ok(Float::Bf16),
        "f16" => Ok(Float::F16),
        "f32" => Ok(Float::F32),
        _ => Err(Error::Usage(format!("--dtype is one of bf16, f16, f32, not `{text}`"))),
    }
}

/// Compiles a pattern of `--include`, `--exclude` or `--alpha-rule`.
pub(super) fn parse_pattern(option: &str, text: &str) -> Result<Regex> {
    Regex::new(text).map_err(|error| {
        let why = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
        Error::Usage(format!("{option} `{text}` is not a regular expression: {why}"))
    })
}

/// A name without these prefixes. Each is removed once from the start, in whatever order they occur there.
///
/// A prefix that begins with an underscore, such as FSDP's `_fsdp_wrapped_module.`, is an attribute that a wrapper puts
/// between a module and its parts. It is removed from every position in the name.
pub fn strip_prefixes<'a>(name: &'a str, prefixes: &[String]) -> Cow<'a, str> {
    if prefixes.is_empty() {
        return name.into();
    }
    let mut rest = name;
    let mut left: Vec<&str> = prefixes.iter().map(String::as_str).filter(|prefix| !prefix.is_empty()).collect();
    while let Some(at) = left.iter().position(|prefix| rest.starts_with(prefix)) {
        rest = &rest[left[at].len()..];
        if !is_inner(left[at]) {
            left.remove(at);
        }
    }
    let mut found = Cow::Borrowed(rest);
    for prefix in left.into_iter().filter(|prefix| is_inner(prefix)) {
        let within = format!(".{prefix}");
        while found.contains(&within) {
            found = found.replace(&within, ".").into();
        }
    }
    found
}

fn is_inner(prefix: &str) -> bool {
    prefix.starts_with('_')
}

/// An objection of configs and tokenizers, made before the headers were read: see [`crate::plan::claims`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The file that it is about.
    pub file: String,
    /// One sentence: what is wrong and what to do.
    pub message: String,
    /// The first vocabulary row that means another token. `None` if the claim concerns all tensors.
    pub row: Option<u64>,
}

/// The options shared by the writing verbs. `Default` is what the command line does without options.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes for buffers and headers; by default 256 MiB, or a quarter of the available memory if that is less.
    pub memory: Option<u64>,
    /// Threads that compute at the same time; by default one per core.
    pub threads: Option<usize>,
    /// Element type of every float tensor of the output; by default that of the target's tensor.
    pub dtype: Option<Float>,
    /// How the values of a vector are stored.
    pub encoding: Encoding,
    /// How results are rounded.
    pub rounding: RoundingMode,
    /// Whether a quantised target is quantised again, and how scales are chosen; `None` writes bf16.
    pub requantise: Option<Scales>,
    /// Seed of stochastic rounding.
    pub seed: u64,
    /// What to do about vocabularies of different size.
    pub vocab: Vocab,
    /// If not empty, only tensors whose names match one of these are combined.
    pub include: Vec<Regex>,
    /// Tensors whose names match one of these are not combined.
    pub exclude: Vec<Regex>,
    /// Factors by tensor name; the last match wins.
    pub alpha_rules: Vec<AlphaRule>,
    /// How the factors vary over layers; a rule's factor stays as it is.
    pub schedule: Option<Schedule>,
    /// Wrapper prefixes (`module.`) to remove from tensor names before they are matched: see [`strip_prefixes`].
    pub prefixes: Vec<String>,
    /// How names of the donors' tensors are changed, after that, before they are matched (`--map`).
    pub maps: Vec<Pair>,
    /// The base model of the adapters among the donors, whatever their own configs say (`--base`).
    pub base: Option<String>,
    /// Objections from configs and tokenizers.
    pub claims: Vec<Claim>,
    /// How inputs are read.
    pub io: Io,
    /// Wait until the disk has the output.
    pub sync: bool,
    /// Add SHA-256 of inputs and outputs to the manifest.
    pub sha256: bool,
    /// Replace an existing output.
    pub overwrite: bool,
    /// Continue an interrupted run of the same job.
    pub resume: bool,
    /// Count problems by kind in a plan's document, and do not list them all: see [`crate::plan::matching::problems::told`].
    pub kinds: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: None,
            threads: None,
            dtype: None,
            encoding: Encoding::default(),
            rounding: RoundingMode::default(),
            requantise: None,
            seed: 0,
            vocab: Vocab::default(),
            include: Vec::new(),
            exclude: Vec::new(),
            alpha_rules: Vec::new(),
            schedule: None,
            prefixes: Vec::new(),
            maps: Vec::new(),
            base: None,
            claims: Vec::new(),
            io: Io::default(),
            sync: true,
            sha256: false,
            overwrite: false,
            resume: true,
            kinds: false,
        }
    }
}

/// The least default budget. With less, the headers of a large checkpoint would not fit.
const LEAST_DEFAULT: u64 = 16 << 20;

impl Options {
    /// The budget in bytes.
    pub fn budget(&self) -> u64 {
        self.memory.unwrap_or_else(|| {
            let quarter = crate::system::os::memory_limit().map_or(u64::MAX, |limit| limit / 4);
            quarter.clamp(LEAST_DEFAULT, 256 << 20)
        })
    }

    /// The most that a budget may grow to for inputs that need more: as much as was asked for, or if nothing was, two
    /// thirds of the memory. Headers of hundreds of thousands of tensors need more than a quarter of a small one.
    pub fn most(&self) -> u64 {
        self.memory.unwrap_or_else(|| crate::system::os::memory_limit().map_or(u64::MAX, |limit| limit / 3 * 2))
    }

    /// The number of computing threads.
    pub fn threads(&self) -> Result<usize> {
        match self.threads {
            Some(0) => Err(Error::Usage("--threads has to be at least 1".into())),
            Some(threads) => Ok(threads),
            None => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        }
    }

    /// Whether `--include` and `--exclude` let a tensor take part.
    pub fn selects(&self, name: &str) -> bool {
        (self.include.is_empty() || self.include.iter().any(|pattern| pattern.is_match(name)))
            && !self.exclude.iter().any(|pattern| pattern.is_match(name))
    }

    /// The rule that decides a tensor's factor, as an index in `alpha_rules`.
    pub fn rule(&self, name: &str) -> Option<usize> {
        self.alpha_rules.iter().rposition(|rule| rule.pattern.is_match(name))
    }

    /// A tensor's name without wrappers' prefixes.
    pub fn strip<'a>(&self, name: &'a str) -> Cow<'a, str> {
        strip_prefixes(name, &self.prefixes)
    }

    /// Refuses options that contradict each other.
    pub fn check(&self) -> Result<()> {
        self.threads()?;
        if self.rounding == RoundingMode::Stochastic && self.dtype == Some(Float::F32) {
            return Err(Error::Usage(
                "--rounding stochastic has nothing to round with --dtype f32; leave one of them out".into(),
            ));
        }
        if self.requantise.is_some() && self.dtype.is_some() {
            return Err(Error::Usage("--requantise keeps every type of the target; leave --dtype out".into()));
        }
        Ok(())
    }
}
