//! The opened checkpoints and vectors of one job, each with its role.

use std::path::Path;
use std::sync::Arc;

use regex::Regex;
use serde_json::Value;

use crate::checkpoint::open::{self, Kind};
use crate::checkpoint::vector::{Encoding, VectorInfo};
use crate::checkpoint::{Checkpoint, Tensor, descriptions, vector};
use crate::codec::derived::Made;
use crate::codec::scaled::Scaled;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::numeric::dtype::Dtype;
use crate::plan::adapters;
use crate::plan::layout::TensorPlan;
use crate::plan::merge::Outline;
use crate::plan::options::{Alpha, Options, parse_pattern};
use crate::plan::output::Output;
pub use crate::plan::request::Request;
use crate::plan::views;
use crate::storage::place::Place;
use crate::system::allocator;

/// A tensor of one of a job's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Index in [`Inputs::list`].
    pub input: u32,
    /// Index in that checkpoint's tensors.
    pub tensor: u32,
}

/// One opened input. A clone shares what was opened.
#[derive(Clone, Debug)]
pub struct Input {
    /// `target`, `minuend`, `subtrahend`, `vector` or `vector exceptions`; numbered if there are several vectors.
    pub role: String,
    /// Its files.
    pub checkpoint: Arc<Checkpoint>,
    /// Its description, if it is a vector.
    pub vector: Option<Arc<VectorInfo>>,
}

/// Where one summand of the result comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Two checkpoints that are subtracted while they are read.
    Pair {
        /// Index of the minuend in [`Inputs::list`].
        minuend: u32,
        /// Index of the subtrahend there.
        subtrahend: u32,
    },
    /// A vector folder.
    Vector {
        /// Index of its rounded values in [`Inputs::list`].
        dense: u32,
        /// Index of its exceptions there, if it has any.
        exceptions: Option<u32>,
        /// Whether the donors tied their output head to the embedding; `None` if unknown.
        tied: Option<bool>,
        /// Whether its manifest says that it is 0 everywhere.
        nothing: bool,
    },
}

/// What the description of a vector says about the model that it belongs to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// Whether the output head is tied to the embedding; `None` if unknown.
    pub tied: Option<bool>,
    /// The configuration, so that the vector can be checked against a target without its donors.
    pub config: Option<Value>,
}

/// Everything a job reads. The first input gives the output its layout. A clone shares what was opened.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// All open inputs.
    pub list: Vec<Input>,
    /// The summands, in order, with their factors (none for `extract`).
    pub origins: Vec<(Origin, Option<Alpha>)>,
    /// What the job writes.
    pub output: Output,
    /// Inputs whose tensors are grafted, each with the patterns of their names.
    pub grafts: Vec<(u32, Vec<Regex>)>,
    /// The tensors of the output, if they are not those of the first input: of a merge, once it is matched.
    pub outline: Option<Arc<Outline>>,
}

/// A target, with a note about code that it names and does not have.
fn with_code(mut target: Checkpoint) -> Checkpoint {
    target.notes.extend(descriptions::missing_code(&target.label, &target.sidecars, &target.config));
    target
}

impl Inputs {
    /// Opens every input and reads all headers.
    pub fn open(request: &Request, options: &Options, control: &Control) -> Result<Self> {
        let (list, origins, grafts) = Default::default();
        let mut inputs = Self { list, origins, output: Output::Checkpoint, grafts, outline: None };
        match request {
            Request::Extract { minuend, subtrahend } => {
                inputs.output = Output::Vector;
                inputs.pair(minuend, subtrahend, None, options, control)?;
            }
            Request::Transfer { target, minuend, subtrahend, alpha } => {
                inputs.target(target, options, control)?;
                inputs.pair(minuend, subtrahend, Some(alpha.clone()), options, control)?;
            }
            Request::Convert { vector } => {
                inputs.output = Output::Vector;
                inputs.vector(vector, "", None, control)?;
            }
            Request::Combine { vectors } => {
                inputs.output = Output::Vector;
                // None at all, or all times 0.
                if vectors.iter().all(|(_, alpha)| alpha.value == 0.0) {
                    let what = "combine needs at least one vector whose alpha is not 0: nothing would be left";
                    return Err(Error::Usage(what.into()));
                }
                inputs.vectors(vectors, control)?;
            }
            Request::Randomize { noise, vector, .. } => {
                inputs.output = Output::Vector;
                let dense = inputs.push("noise", Checkpoint::open(noise, control)?);
                inputs.vector(vector, "", None, control)?;
                // Only the numbers are read. The vector says what they stand for.
                let nothing = false;
                let tied = inputs.described().tied;
                inputs.origins = vec![(Origin::Vector { dense, exceptions: None, tied, nothing }, None)];
            }
            Request::Graft { target, donors } => {
                let target = with_code(Checkpoint::open_stored(target, control)?);
                inputs.push("target", target);
                for (number, (place, patterns)) in donors.iter().enumerate() {
                    let number = if donors.len() > 1 { format!(" {}", number + 1) } else { String::new() };
                    let donor = inputs.push(format!("donor{number}"), Checkpoint::open_stored(place, control)?);
                    let patterns = patterns.iter().map(|text| parse_pattern("--take", text));
                    inputs.grafts.push((donor, patterns.collect::<Result<_>>()?));
                }
            }
            Request::Merge { inputs: places, document } => {
                if places[document.sidecars].streams() {
                    let what = format!(
                        "the {} gives the merge its other files, so it cannot be streamed",
                        document.role(document.sidecars)
                    );
                    return Err(Error::Usage(what));
                }
                for (number, place) in places.iter().enumerate() {
                    let kind = Kind::of(place)?;
                    if kind != Kind::Checkpoint {
                        let what = format!("is {}, and a merge takes whole models only", kind.with_article());
                        return Err(Error::corrupt(&place.root, what));
                    }
                    let model = Checkpoint::open(place, control)?;
                    inputs.push(
                        document.role(number),
                        if number == document.sidecars { with_code(model) } else { model },
                    );
                }
            }
            Request::Read { target } => drop(inputs.push("target", Checkpoint::open(target, control)?)),
            Request::Apply { target, vectors } => {
                if vectors.is_empty() {
                    return Err(Error::Usage("apply needs at least one vector".into()));
                }
                inputs.target(target, options, control)?;
                inputs.vectors(vectors, control)?;
            }
        }
        let adapters = inputs.list.iter().any(|input| input.checkpoint.adapter.is_some());
        if options.base.is_some() && !adapters {
            return Err(Error::Usage("--base is for adapters, but no donor is an adapter; leave it out".into()));
        }
        views::align(&mut inputs, options)?;
        Ok(inputs)
    }

    /// The same inputs, with another factor for every vector.
    #[must_use]
    pub fn with_alpha(&self, new: &Alpha) -> Self {
        let origins = self.origins.iter().map(|(origin, _)| (origin.clone(), Some(new.clone()))).collect();
        Self { origins, ..self.clone() }
    }

    /// Opens the target: the checkpoint whose other files are copied to the output.
    fn target(&mut self, place: &Place, options: &Options, control: &Control) -> Result<()> {
        let mut target = match options.requantise {
            Some(_) => Checkpoint::open_with_parts(place, control)?,
            None => Checkpoint::open(place, control)?,
        };
        if options.requantise.is_some() && target.unread.is_none() && !target.is_quantised() {
            let root = place.root.display();
            return Err(Error::Usage(format!("{root}: the target is not quantised; leave --requantise out")));
        }
        target = with_code(target);
        self.push("target", target);
        Ok(())
    }

    fn vectors(&mut self, vectors: &[(Place, Alpha)], control: &Control) -> Result<()> {
        for (number, (place, alpha)) in vectors.iter().enumerate() {
            let number = if vectors.len() > 1 { format!(" {}", number + 1) } else { String::new() };
            self.vector(place, &number, Some(alpha.clone()), control)?;
        }
        Ok(())
    }

    /// What the description of a vector that is written takes over: from the minuend, or from the first of the vectors
    /// that it is computed from. Matching makes sure that their heads are tied alike; their configurations may differ in
    /// what says nothing about tensors.
    pub fn described(&self) -> Description {
        match self.list.iter().find_map(|input| input.vector.as_ref()) {
            Some(vector) => Description { tied: vector.tied, config: vector.config.clone() },
            None => {
                let config = &self.base().config;
                // Python reads a configuration with NaN or Infinity, but it is not JSON; such a one is left out.
                let text = config.raw.as_ref().and_then(|raw| serde_json::from_slice(raw).ok());
                Description { tied: config.tied, config: text }
            }
        }
    }

    fn push(&mut self, role: impl Into<String>, mut checkpoint: Checkpoint) -> u32 {
        self.share(&mut checkpoint);
        allocator::give_back();
        self.list.push(Input { role: role.into(), checkpoint: checkpoint.into(), vector: None });
        u32::try_from(self.list.len() - 1).unwrap_or(u32::MAX)
    }

    /// Lets a checkpoint have the names that it has in common with the open inputs from them.
    fn share(&self, checkpoint: &mut Checkpoint) {
        self.list.iter().for_each(|input| checkpoint.share(&input.checkpoint));
    }

    fn pair(
        &mut self,
        minuend: &Place,
        subtrahend: &Place,
        alpha: Option<Alpha>,
        options: &Options,
        control: &Control,
    ) -> Result<()> {
        // How an adapter's weights are stored is told by the layers of its base; for two adapters, by those of the
        // target.
        let target = self.list.first().map(|input| &*input.checkpoint);
        // Names are shared before the next input is opened, so that at most one has its own.
        let open = |place: &Place, like: Option<&Checkpoint>| {
            let mut donor = open::donor(place, like, control)?;
            self.share(&mut donor);
            allocator::give_back();
            Ok::<_, Error>(donor)
        };
        let (mut minuend, mut subtrahend) = if Kind::of(subtrahend)? == Kind::Adapter {
            let minuend = open(minuend, target)?;
            let like = if minuend.adapter.is_none() { Some(&minuend) } else { target };
            let subtrahend = open(subtrahend, like)?;
            (minuend, subtrahend)
        } else {
            let subtrahend = open(subtrahend, None)?;
            (open(minuend, Some(&subtrahend))?, subtrahend)
        };
        adapters::pair(&mut minuend, &mut subtrahend, options)?;
        let (minuend, subtrahend) = (self.push("minuend", minuend), self.push("subtrahend", subtrahend));
        self.origins.push((Origin::Pair { minuend, subtrahend }, alpha));
        Ok(())
    }

    fn vector(&mut self, place: &Place, number: &str, alpha: Option<Alpha>, control: &Control) -> Result<()> {
        debug_assert!(
            !place.streams(),
            "a vector is not streamed: where its exceptions are is known only from its bytes"
        );
        if Kind::of(place)? == Kind::Adapter {
            let what =
                "is an adapter, not a vector; `taskvec extract` makes one from it and its base, or another adapter";
            return Err(Error::corrupt(&place.root, what));
        }
        let info = VectorInfo::read(place)?;
        let dense = self.push(format!("vector{number}"), vector::open(place, control)?);
        let packed = self.list[dense as usize].checkpoint.made.is_some();
        if packed != (info.encoding == Encoding::Packed) && !self.list[dense as usize].checkpoint.tensors.is_empty() {
            return Err(info.not_as_described());
        }
        // Opened also if the description says that there are none: otherwise the file would be ignored silently.
        let exceptions = if (!packed && info.exceptions > 0) || place.has("vector-exceptions.safetensors")? {
            let checkpoint = Checkpoint::open_weights(place, "vector-exceptions", control)?;
            info.check_exceptions(&checkpoint, &self.list[dense as usize].checkpoint)?;
            Some(self.push(format!("vector{number} exceptions"), checkpoint))
        } else {
            None
        };
        let (tied, nothing) = (info.tied, info.nothing);
        self.list[dense as usize].vector = Some(info.into());
        self.origins.push((Origin::Vector { dense, exceptions, tied, nothing }, alpha));
        Ok(())
    }

    /// Whether an origin is known to be 0 everywhere, before any weights are read.
    pub fn is_nothing(&self, origin: &Origin) -> bool {
        match *origin {
            Origin::Pair { minuend, subtrahend } => {
                self.list[minuend as usize].checkpoint.is_same(&self.list[subtrahend as usize].checkpoint)
            }
            Origin::Vector { nothing, .. } => nothing,
        }
    }

    /// The input that gives the output its layout.
    pub fn base(&self) -> &Checkpoint {
        let input = self.outline.as_ref().map_or(0, |outline| outline.input);
        &self.list[input as usize].checkpoint
    }

    /// The name and the shape of a tensor of the output, by its index there: in a merge in the outline, else in the first
    /// input.
    pub fn outlined(&self, tensor: u32) -> &Tensor {
        let tensors = self.outline.as_ref().map_or(&self.base().tensors, |outline| &outline.tensors);
        &tensors[tensor as usize]
    }

    /// A tensor's header entry.
    pub fn tensor(&self, at: At) -> &Tensor {
        &self.list[at.input as usize].checkpoint.tensors[at.tensor as usize]
    }

    /// What a tensor is computed from, if it is not stored in a file itself.
    pub fn made(&self, at: At) -> Option<&Made> {
        let made = self.list[at.input as usize].checkpoint.made.as_ref()?;
        Some(&made[at.tensor as usize]).filter(|made| !matches!(made, Made::Stored | Made::Part | Made::Lists(_)))
    }

    /// The type in which a tensor is written if no other is asked for: its own, and bf16 if it is quantised.
    pub fn own_dtype(&self, at: At) -> Dtype {
        if self.scaled(at).is_some() { Dtype::BF16 } else { self.tensor(at).dtype }
    }

    /// Whether the output has a tensor's stored bytes, if nothing is added.
    pub fn is_kept(&self, plan: &TensorPlan) -> bool {
        plan.requantised || (self.scaled(plan.from).is_none() && self.tensor(plan.from).dtype == plan.dtype)
    }

    /// How a tensor is quantised, if it is.
    pub fn scaled(&self, at: At) -> Option<&Scaled> {
        match self.made(at) {
            Some(Made::Scaled(scaled)) => Some(scaled),
            _ => None,
        }
    }

    /// Whether a tensor is only a part of a quantised weight.
    pub fn is_part(&self, at: At) -> bool {
        let made = self.list[at.input as usize].checkpoint.made.as_ref();
        made.is_some_and(|made| matches!(made[at.tensor as usize], Made::Part))
    }

    /// The file that holds a tensor, or that holds what it is computed from.
    pub fn path(&self, at: At) -> &Path {
        let checkpoint = &self.list[at.input as usize].checkpoint;
        &checkpoint.shard(&checkpoint.tensors[at.tensor as usize]).path
    }
}
