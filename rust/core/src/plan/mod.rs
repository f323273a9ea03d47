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
pub mod merge;
pub mod operands;
pub mod options;
pub mod output;
pub mod parts;
pub mod request;
pub mod sweep;
pub mod terms;
pub mod views;

use crate::codec::derived::Made;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::format::blocks::BLOCK;
use crate::numeric::dtype::Float;
use crate::numeric::stats::Stats;
use crate::plan::budget::{Budget, Need};
use crate::plan::inputs::{Inputs, Origin, Request};
use crate::plan::layers::LayerFactor;
use crate::plan::layout::Layout;
use crate::plan::matching::problems::Problem;
use crate::plan::matching::{Matching, SameBytes};
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
        if request.document().is_some() {
            merge::check_options(options)?;
        }
        Inputs::open(request, options, control)
    }

    /// Matches the inputs, and lays the output out unless there are problems.
    fn matched(request: &Request, options: &Options, inputs: &mut Inputs) -> Result<(Matching, Layout)> {
        let mut ways = None;
        let mut found = match request.document() {
            Some(document) => {
                let (found, outline, how) = merge::match_inputs(document, inputs)?;
                inputs.outline = Some(outline.into());
                ways = Some(how);
                found
            }
            None => matching::match_inputs(inputs, options)?,
        };
        found.problems.extend(claims::problems(&options.claims, inputs, &found));
        let matches = if found.problems.is_empty() { std::mem::take(&mut found.matches) } else { Vec::new() };
        let layout = match ways {
            Some(ways) => Layout::of_merge(inputs, matches, ways),
            None => Layout::new(inputs, matches, options)?,
        };
        allocator::give_back();
        Ok((found, layout))
    }

    fn build(request: Request, options: Options, mut inputs: Inputs, beside: Beside) -> Result<Self> {
        let (mut found, layout) = Self::matched(&request, &options, &mut inputs)?;
        let checkpoints: Vec<_> = inputs.list.iter().map(|input| &*input.checkpoint).collect();
        let (io, io_reason) = options.io.resolve(&checkpoints);
        let mut need = Need::of(&inputs, &layout, io);
        need.outputs = beside.outputs as u64;
        need.block_delivered = beside.block;
        need.fixed += layout.tensors.len() as u64 * beside.tensor + (need.outputs - 1) * layout.new_headers();
        need.fixed += request.document().map_or(0, merge::Document::memory);
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
        let note = on_grids(&plan.inputs).filter(|_| plan.counts.combined > 0);
        plan.notes.extend(note);
        Ok(plan)
    }

    fn count(&mut self) -> Result<()> {
        let mut rounded = 0;
        for plan in &self.layout.tensors {
            if plan.is_combined() {
                self.counts.combined += 1;
                self.counts.elements += plan.combined();
                rounded += u64::from(plan.dtype != Float::F32.dtype());
            } else if plan.from.input != 0 && self.inputs.outline.is_none() {
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

/// A note on donors whose values are rounded to the grids of their formats.
fn on_grids(inputs: &Inputs) -> Option<String> {
    let scaled = |input: &&inputs::Input| {
        let made = input.checkpoint.made.iter().flatten();
        made.filter(|made| matches!(made, Made::Scaled(_))).count() > 0
    };
    let roles: Vec<&str> = inputs.list.iter().skip(1).filter(scaled).map(|input| input.role.as_str()).collect();
    (!roles.is_empty()).then(|| {
        format!(
            "{}: quantised; how much of the vector is rounding noise of its donors' formats is measured by the run, and by `taskvec advise` (not for matrices that are stored transposed)",
            roles.join(", ")
        )
    })
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
