//! The plan of a job, made from headers alone: which tensors are combined, where the result goes, and how many bytes of
//! input, memory and disk the job needs.
//!
//! May import `source` and what is below it. A new option, and what it means for tensors, belongs here.

mod adapters;
pub mod alpha;
pub mod budget;
pub mod claims;
pub mod document;
pub mod inputs;
pub mod layers;
pub mod layout;
pub mod matching;
pub mod operands;
pub mod options;
pub mod output;
pub mod parts;
pub mod request;
pub mod sweep;
pub mod terms;
pub mod views;

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

use crate::NUMERIC_SPEC;
use crate::checkpoint::shard::{OnDisk, Store};
use crate::codec::scaled::encode::Scales;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::blocks::BLOCK;
use crate::numeric::dtype::Float;
use crate::numeric::stats::Stats;
use crate::plan::budget::{Budget, Need};
use crate::plan::inputs::{Input, Inputs, Origin, Request};
use crate::plan::layers::LayerFactor;
use crate::plan::layout::Layout;
use crate::plan::matching::SameBytes;
use crate::plan::matching::problems::Problem;
use crate::plan::options::{Options, RoundingMode};
use crate::plan::output::Output;
use crate::source::Io;
use crate::system::allocator;

/// The warning about a vector that is 0 everywhere.
pub const NOTHING: &str = "the vector is 0 everywhere, so nothing changes: both donors hold the same values, or an adapter was never trained; check that these are the folders that you meant";

/// What a job takes that its layout does not tell.
#[derive(Clone, Copy, Debug)]
struct Beside {
    /// How many outputs are computed from one read.
    outputs: usize,
    /// Bytes for each block of a window.
    block: u64,
    /// Bytes for each tensor of the output.
    tensor: u64,
}

impl Beside {
    const NOTHING: Self = Self { outputs: 1, block: 0, tensor: 0 };
}

/// How many tensors get which treatment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Tensors that get arithmetic.
    pub combined: u64,
    /// Tensors copied byte for byte.
    pub copied: u64,
    /// Tensors that only change their type.
    pub converted: u64,
    /// Tensors copied byte for byte from a donor.
    pub grafted: u64,
    /// Elements that get arithmetic.
    pub elements: u64,
}

/// A job that is planned; nothing has been written yet.
#[derive(Debug)]
pub struct Plan {
    /// The verb and its inputs, as requested.
    pub request: Request,
    /// The options, as requested.
    pub options: Options,
    /// The opened inputs.
    pub inputs: Inputs,
    /// Where every byte of the output goes; empty if there are problems.
    pub layout: Layout,
    /// Why the inputs do not fit together; empty if they do.
    pub problems: Vec<Problem>,
    /// What was copied unchanged or decided by a policy, in sentences.
    pub notes: Vec<String>,
    /// What the user should check, as far as it is known before weights are read.
    pub warnings: Vec<String>,
    /// Pairs of tensors to compare before writing.
    pub same: Vec<SameBytes>,
    /// For each `--alpha-rule`, the number of tensors whose factor it decides.
    pub rule_counts: Vec<u64>,
    /// The factor of every layer, with `--schedule`.
    pub layers: Vec<LayerFactor>,
    /// How many tensors get which treatment.
    pub counts: Counts,
    /// How inputs are read; never `auto`.
    pub io: Io,
    /// Why they are read in this way.
    pub io_reason: String,
    /// Bytes that will be read from the inputs' tensors.
    pub read_bytes: u64,
    /// Memory: threads, windows and their buffers.
    pub budget: Budget,
}

impl Plan {
    /// Opens the inputs, matches them and lays the output out.
    ///
    /// # Errors
    /// Malformed inputs, impossible options, or too small a memory budget. Inputs that do not fit together are not an
    /// error here: see [`Plan::require_fit`].
    pub fn new(request: Request, options: Options, control: &Control) -> Result<Self> {
        let inputs = Self::open(&request, &options, control)?;
        Self::build(request, options, inputs, Beside::NOTHING)
    }

    /// As [`Plan::new`], for a job that delivers its windows to a consumer in memory (a live model). The buffers that
    /// are handed over are part of the budget.
    ///
    /// # Errors
    /// As [`Plan::new`], and if the options ask for another element type: a live model keeps its own.
    pub fn live(request: Request, options: Options, control: &Control) -> Result<Self> {
        if options.dtype.is_some() {
            return Err(Error::Usage("a live model keeps its dtype; leave dtype out".into()));
        }
        let inputs = Self::open(&request, &options, control)?;
        // Each packet has the results and the originals.
        Self::build(request, options, inputs, Beside { block: 2 * BLOCK, ..Beside::NOTHING })
    }

    /// As [`Plan::new`], for a job that keeps the figures of so many variants for every tensor. They are part of the
    /// budget.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn survey(request: Request, options: Options, variants: usize, control: &Control) -> Result<Self> {
        let inputs = Self::open(&request, &options, control)?;
        let tensor = (variants * size_of::<Stats>()) as u64;
        Self::build(request, options, inputs, Beside { tensor, ..Beside::NOTHING })
    }

    /// Opens the inputs, after the checks that need none of them.
    fn open(request: &Request, options: &Options, control: &Control) -> Result<Inputs> {
        options.check()?;
        if let Request::Apply { vectors, .. } = request
            && vectors.len() > 1
            && !options.alpha_rules.is_empty()
        {
            return Err(Error::Usage(
                "--alpha-rule works with one vector only; apply several one after the other, or give each an --alpha"
                    .into(),
            ));
        }
        Inputs::open(request, options, control)
    }

    fn build(request: Request, options: Options, inputs: Inputs, beside: Beside) -> Result<Self> {
        let mut found = matching::match_inputs(&inputs, &options)?;
        found.problems.extend(claims::problems(&options.claims, &inputs, &found));
        let matches = if found.problems.is_empty() { std::mem::take(&mut found.matches) } else { Vec::new() };
        let layout = Layout::new(&inputs, matches, &options)?;
        allocator::give_back();
        let checkpoints: Vec<_> = inputs.list.iter().map(|input| &*input.checkpoint).collect();
        let (io, io_reason) = options.io.resolve(&checkpoints);
        let mut need = Need::of(&inputs, &layout, io);
        need.outputs = beside.outputs as u64;
        need.block_delivered = beside.block;
        need.fixed += layout.tensors.len() as u64 * beside.tensor + (need.outputs - 1) * layout.new_headers();
        let budget = Budget::new(&need, (options.budget(), options.most()), options.threads()?)?;
        found.notes.extend(streamed(&inputs));
        let mut plan = Self {
            request,
            options,
            layout,
            problems: found.problems,
            notes: found.notes,
            warnings: nothing(&inputs),
            same: found.same,
            rule_counts: found.rule_counts,
            layers: found.layers,
            counts: Counts::default(),
            io,
            io_reason,
            read_bytes: need.read,
            budget,
            inputs,
        };
        plan.count()?;
        Ok(plan)
    }

    fn count(&mut self) -> Result<()> {
        let mut rounded = 0;
        for plan in &self.layout.tensors {
            if !plan.terms.is_empty() {
                self.counts.combined += 1;
                self.counts.elements += plan.combined();
                rounded += u64::from(plan.dtype != Float::F32.dtype());
            } else if plan.from.input != 0 {
                self.counts.grafted += 1;
            } else if !self.inputs.is_kept(plan) {
                self.counts.converted += 1;
                rounded += u64::from(plan.dtype != Float::F32.dtype());
            } else {
                self.counts.copied += 1;
            }
        }
        let stochastic = self.options.rounding == RoundingMode::Stochastic && self.inputs.output == Output::Checkpoint;
        if stochastic && rounded == 0 && self.counts.combined > 0 {
            return Err(Error::Usage(
                "--rounding stochastic has nothing to round: every combined tensor of the output is F32; leave it out or add --dtype bf16".into(),
            ));
        }
        Ok(())
    }

    /// Fails with the first kind of problem, if there is any.
    pub fn require_fit(&self) -> Result<()> {
        let told = matching::problems::told(&self.problems);
        let Some(first) = told.first() else { return Ok(()) };
        let tensor = first.tensor.as_ref().map_or(String::new(), |name| format!("tensor `{name}`: "));
        let more = match told.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} more; `taskvec check` lists them)"),
        };
        // The messages of claims begin with their file already.
        let file =
            if first.message.starts_with(first.file.as_str()) { String::new() } else { format!("{}: ", first.file) };
        Err(Error::Mismatch(format!("{file}{tensor}{}{more}", first.message)))
    }

    /// A digest of everything that decides the output's bytes. A run continues an interrupted one only if both have the
    /// same.
    pub fn id(&self) -> u128 {
        let inputs: Vec<Value> = self.inputs.list.iter().map(identity).collect();
        let tied: Vec<_> = self.inputs.origins.iter().map(|(origin, _)| vector_tied(origin)).collect();
        let spec = (env!("CARGO_PKG_VERSION"), NUMERIC_SPEC);
        let id = json!([spec, self.request.verb(), self.recipe(), inputs, tied, self.layout.packed]);
        xxh3_128(id.to_string().as_bytes())
    }

    /// A digest of the first input's files as they are on the disk. It changes if somebody changes or replaces them.
    pub fn base_id(&self) -> u128 {
        xxh3_128(identity(&self.inputs.list[0]).to_string().as_bytes())
    }

    /// The options that decide the output's bytes, for the manifest.
    pub fn recipe(&self) -> Value {
        let options = &self.options;
        let alpha = |alpha: &crate::plan::options::Alpha| json!({"text": alpha.text, "bits": format!("0x{:08x}", alpha.value.to_bits())});
        let alphas: Vec<Value> = self.inputs.origins.iter().filter_map(|(_, a)| a.as_ref().map(alpha)).collect();
        let rules: Vec<Value> = options
            .alpha_rules
            .iter()
            .map(|rule| json!({"pattern": rule.pattern.as_str(), "alpha": alpha(&rule.alpha)}))
            .collect();
        let patterns = |list: &[regex::Regex]| list.iter().map(|p| p.as_str().to_owned()).collect::<Vec<_>>();
        let stochastic = options.rounding == RoundingMode::Stochastic;
        let mut recipe = json!({
            "alpha": alphas,
            "alpha_rules": rules,
            "dtype": options.dtype.map(|float| float.dtype().name()),
            "rounding": if stochastic { "stochastic" } else { "nearest" },
            "seed": stochastic.then_some(options.seed),
            "vocab": if options.vocab == crate::plan::options::Vocab::Common { "common" } else { "strict" },
            "include": patterns(&options.include),
            "exclude": patterns(&options.exclude),
            "strip_prefix": options.prefixes,
        });
        // Only if given, so that the manifests of runs without it stay as they were.
        if let Some(base) = &options.base {
            recipe["base"] = base.as_str().into();
        }
        if !options.maps.is_empty() {
            recipe["map"] = options.maps.iter().map(|pair| pair.text.as_str()).collect();
        }
        if let Some(scales) = options.requantise {
            recipe["requantise"] = if scales == Scales::Keep { "keep" } else { "fresh" }.into();
        }
        if let Some(schedule) = &options.schedule {
            recipe["schedule"] = schedule.text.as_str().into();
        }
        if !self.inputs.grafts.is_empty() {
            let take = |(input, list): &(u32, Vec<regex::Regex>)| json!({"donor": self.inputs.list[*input as usize].role, "take": patterns(list)});
            return json!({"grafts": self.inputs.grafts.iter().map(take).collect::<Vec<_>>()});
        }
        if let Request::Randomize { seed, .. } = self.request {
            recipe["seed"] = seed.into();
        }
        recipe
    }
}

/// A warning for each summand that is known to be 0 everywhere.
fn nothing(inputs: &Inputs) -> Vec<String> {
    let empty = inputs.origins.iter().filter(|(origin, _)| inputs.is_nothing(origin));
    if inputs.origins.len() == 1 {
        return empty.map(|_| NOTHING.to_owned()).collect();
    }
    let input = |origin: &Origin| match *origin {
        Origin::Pair { minuend, .. } => minuend,
        Origin::Vector { dense, .. } => dense,
    };
    empty
        .map(|(origin, _)| &inputs.list[input(origin) as usize])
        .map(|input| format!("{} ({}) is 0 everywhere and adds nothing", input.role, input.checkpoint.label))
        .collect()
}

/// Whether the donors of a vector tied their output head, as far as its description says.
fn vector_tied(origin: &Origin) -> Option<bool> {
    match origin {
        Origin::Pair { .. } => None,
        Origin::Vector { tied, .. } => *tied,
    }
}

/// A note on what cannot be verified about streamed inputs.
fn streamed(inputs: &Inputs) -> Option<String> {
    let streams = inputs.list.iter().filter(|input| input.checkpoint.place.streams());
    let roles: Vec<&str> = streams.map(|input| input.role.as_str()).collect();
    (!roles.is_empty()).then(|| {
        format!(
            "{} streamed: the position and length of every range are checked, but the SHA-256 of a whole file cannot be",
            roles.join(", ")
        )
    })
}

/// What distinguishes one state of an input from another: its files and its configuration.
fn identity(input: &Input) -> Value {
    let place = &input.checkpoint.place;
    let shards: Vec<Value> = input
        .checkpoint
        .shards
        .iter()
        .map(|shard| {
            let digest = format!("{:032x}", shard.header_digest);
            match &shard.store {
                Store::Disk(OnDisk { identity: i, .. }) => {
                    json!([
                        shard.name,
                        i.device,
                        i.inode,
                        i.size,
                        i.mtime_ns.to_string(),
                        i.ctime_ns.to_string(),
                        digest
                    ])
                }
                // Also whether it is streamed: then its SHA-256 was not checked, and the manifest says so.
                Store::Remote { remote, .. } => {
                    let commit = place.origin.as_ref().map(|origin| &origin.commit);
                    json!([shard.name, shard.size, commit, place.sha256(&shard.name), remote.streams(), digest])
                }
            }
        })
        .collect();
    // The configuration says whether the output head is tied, and that decides bytes too.
    let config = input.checkpoint.config.raw.as_deref().map(|raw| format!("{:032x}", xxh3_128(raw)));
    // And the scale of an adapter's factors.
    let adapter = input.checkpoint.adapter.as_ref().map(|adapter| format!("{:032x}", adapter.digest));
    json!([input.role, shards, config, adapter])
}
