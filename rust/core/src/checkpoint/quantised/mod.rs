//! Quantised checkpoints: stored codes and scales become logical tensors, named, shaped and ordered as in the same
//! checkpoint without quantisation. Their values are f32.
//!
//! The headers tell how a weight is stored. The config is a claim: it names the method, and it offers block sizes. What
//! fits no reading, or two, is refused by name.

pub mod claim;
mod parts;
mod reading;
pub mod units;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use self::claim::Claim;
use self::parts::{Coded, Companions, coded, is_companion, of_activations, scaled_names};
use crate::checkpoint::{Checkpoint, Shape, Tensor, descriptions, one_of};
use crate::codec::derived::Made;
use crate::codec::scaled::{Codes, Format, Scaled, Start};
use crate::error::{Error, Result};
use crate::numeric::dtype::Dtype;
use crate::system::files::read_exact_at;
use crate::text::quote;

/// ModelOpt's description of its quantisation, if `config.json` has none.
pub const MODELOPT: &str = "hf_quant_config.json";
/// The longest such description that is read.
const MAX_MODELOPT: u64 = 16 << 20;
/// The advice at the end of errors about parts that do not fit each other.
const AGAIN: &str = "download or save the checkpoint again";
/// The advice at the end of errors about formats that are not read.
const UNQUANTISED: &str = "use the unquantised checkpoint";

/// What becomes of tensors that are only parts of quantised weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// They are left out, as in a checkpoint that is not quantised.
    Dropped,
    /// They stay among the tensors, for an output that is quantised in the same way.
    Kept,
}

/// Why the weights of a quantised checkpoint are not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Its method is not known: the name.
    Method(String),
    /// One of its weights is stored in a way that is not read.
    Weight {
        /// The file of its codes.
        file: String,
        /// The name of its codes.
        tensor: String,
        /// What is not read, and what to do.
        what: String,
    },
}

/// Why a checkpoint is not folded.
enum Stop {
    Unread(Unread),
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Replaces the tensors of a quantised checkpoint by logical ones. A checkpoint that is not quantised stays as it is,
/// and so does one that is quantised in a way that taskvec does not read; then [`Checkpoint::unread`] says why.
///
/// # Errors
/// Parts of a weight that do not belong together: no scales or too many, or scales without a weight.
pub fn fold(checkpoint: &mut Checkpoint, parts: Parts) -> Result<()> {
    match try_fold(checkpoint, parts) {
        Ok(()) => Ok(()),
        Err(Stop::Error(error)) => Err(error),
        Err(Stop::Unread(unread)) => {
            checkpoint.unread = Some(unread);
            Ok(())
        }
    }
}

fn try_fold(checkpoint: &mut Checkpoint, parts: Parts) -> std::result::Result<(), Stop> {
    let Some(Roles { roles, weights, method }) = roles(checkpoint)? else { return Ok(()) };
    checkpoint.unread = None;
    if weights.is_empty() {
        let label = &checkpoint.label;
        let note = format!("{label}: config.json says that the weights are quantised ({method}), but none are");
        checkpoint.notes.push(note);
        return Ok(());
    }
    let notes = notes(checkpoint, &roles, &weights);
    let (mut tensors, mut made) = (Vec::with_capacity(roles.len()), Vec::with_capacity(roles.len()));
    for (tensor, role) in std::mem::take(&mut checkpoint.tensors).into_iter().zip(roles) {
        match role {
            Role::Plain => {
                tensors.push(tensor);
                made.push(Made::Stored);
            }
            Role::Part(_) if parts == Parts::Dropped => {}
            Role::Part(_) => {
                tensors.push(tensor);
                made.push(Made::Part);
            }
            Role::Weight(weight) => {
                let Weight { name, shape, scaled } = weights[weight as usize].clone();
                let name = if name == tensor.name.len() { tensor.name } else { tensor.name[..name].into() };
                let bytes = shape.iter().product::<u64>() * 4;
                let Start { shard, begin } = scaled.codes;
                tensors.push(Tensor { name, dtype: Dtype::F32, shape, shard, begin, bytes });
                made.push(Made::Scaled(scaled));
            }
        }
    }
    if parts == Parts::Dropped {
        descriptions::leave_out_quantised(checkpoint);
    }
    checkpoint.compute(tensors, made, notes);
    Ok(())
}

/// What a stored tensor is.
#[derive(Clone, Copy)]
enum Role {
    /// A tensor of its own.
    Plain,
    /// A part of the weight whose codes are this tensor. `None` if it is of no use without quantisation, and belongs to
    /// no one weight.
    Part(Option<u32>),
    /// The codes of the weight of this number.
    Weight(u32),
}

/// A logical tensor.
#[derive(Clone)]
struct Weight {
    /// The length of its name, with which that of its codes begins.
    name: usize,
    shape: Shape,
    scaled: Scaled,
}

/// What the tensors of a quantised checkpoint are.
struct Roles {
    roles: Vec<Role>,
    weights: Vec<Weight>,
    method: String,
}

/// Works out what every tensor is; `None` if the checkpoint is not quantised.
fn roles(checkpoint: &Checkpoint) -> std::result::Result<Option<Roles>, Stop> {
    let Some(claim) = claim(checkpoint)? else { return Ok(None) };
    if !claim.is_known() {
        return Err(Stop::Unread(Unread::Method(claim.method)));
    }
    let mut folding = Folding { roles: vec![Role::Plain; checkpoint.tensors.len()], ..Folding::default() };
    for (place, tensor) in checkpoint.tensors.iter().enumerate() {
        let coded = coded(tensor).map_err(|what| refused(checkpoint, tensor, &what))?;
        if let Some(coded) = coded {
            folding.weight(checkpoint, &claim, place, &coded)?;
        }
    }
    // Only now, because what a tensor shows is said by its name.
    if let Some(what) = claim.unread {
        return Err(Stop::Unread(Unread::Method(format!("{} with {what}", claim.method))));
    }
    let Folding { mut roles, weights, .. } = folding;
    for (place, tensor) in checkpoint.tensors.iter().enumerate() {
        if !matches!(roles[place], Role::Plain) {
            continue;
        }
        if let Some(module) = of_activations(&tensor.name) {
            let codes =
                ["", ".weight", ".weight_packed", "_blocks"].map(|end| checkpoint.find(&format!("{module}{end}")));
            let is_weight = |at: &u32| matches!(roles[*at as usize], Role::Weight(_));
            roles[place] = Role::Part(codes.into_iter().flatten().find(is_weight));
        } else if is_companion(tensor) {
            let what = format!("it is a part of a quantised weight that is not there; {AGAIN}");
            return Err(corrupt(checkpoint, tensor, &what).into());
        } else if let Some(plain) = scaled_names(&tensor.name).iter().find(|name| checkpoint.find(name).is_some()) {
            let what = format!("it is the scale of {}, which is not quantised; {AGAIN}", quote(plain));
            return Err(corrupt(checkpoint, tensor, &what).into());
        }
    }
    Ok(Some(Roles { roles, weights, method: claim.method }))
}

/// What is found out about the stored tensors. Weights have formats and shapes in common.
#[derive(Default)]
struct Folding {
    /// What each stored tensor is.
    roles: Vec<Role>,
    weights: Vec<Weight>,
    formats: HashSet<Arc<Format>>,
    shapes: HashSet<Shape>,
}

/// What the checkpoint claims about itself; `None` if it claims nothing.
fn claim(checkpoint: &Checkpoint) -> std::result::Result<Option<Claim>, Stop> {
    if let Some(said) = &checkpoint.config.quantisation {
        return Ok(Some(Claim::parse(said)));
    }
    // Also beside weights that are not quantised, such a file may lie.
    let scaled = |coded: Coded| !Companions::of(checkpoint, &coded).scales.is_empty();
    let quantised = |tensor: &&Tensor| coded(tensor).is_ok_and(|coded| coded.is_some_and(scaled));
    let Some(tensor) = checkpoint.tensors.iter().find(quantised) else { return Ok(None) };
    let Some(bytes) = checkpoint.place.read(MODELOPT, MAX_MODELOPT)? else {
        let what = "it is quantised, but config.json does not say how (quantization_config)";
        return Err(refused(checkpoint, tensor, what));
    };
    let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let method = "modelopt".to_owned();
    Ok(Some(Claim { method, ..Claim::parse(said.get("quantization").unwrap_or(&Value::Null)) }))
}

impl Folding {
    /// Works out one weight, and marks its parts.
    fn weight(
        &mut self,
        checkpoint: &Checkpoint,
        claim: &Claim,
        place: usize,
        coded: &Coded,
    ) -> std::result::Result<(), Stop> {
        let tensor = &checkpoint.tensors[place];
        let companions = Companions::of(checkpoint, coded);
        let at = |place: u32| &checkpoint.tensors[place as usize];
        if let Some(unread) = companions.unread {
            let what = format!("it is quantised with {}, which taskvec does not read", quote(&at(unread).name));
            return Err(refused(checkpoint, tensor, &what));
        }
        let scale = match companions.scales[..] {
            [scale] => scale,
            [] => {
                let what = format!("it holds {} codes, but no tensor holds its scales; {AGAIN}", tensor.dtype);
                return Err(corrupt(checkpoint, tensor, &what).into());
            }
            [one, other, ..] => {
                let names = [one, other].map(|scale| quote(&at(scale).name));
                let what = format!("both {} and {} may be its scales; {AGAIN}", names[0], names[1]);
                return Err(corrupt(checkpoint, tensor, &what).into());
            }
        };
        let (shape, stride) = dimensions(checkpoint, tensor, coded, companions.shape)?;
        let parts = reading::Parts {
            codes: coded.codes,
            stored: tensor.dtype,
            shape: &shape,
            stride,
            scale: at(scale).dtype,
            scale_shape: &at(scale).shape,
            global: companions.global.map(|(_, global)| global),
        };
        let mut format = reading::format(&parts, claim).map_err(|what| refused(checkpoint, tensor, &what))?;
        let mut shape = shape;
        if coded.codes == Codes::E2m1 && format.columns % format.block[1].min(32) != 0 {
            let what = format!("its rows of {} codes do not fill whole groups", format.columns);
            return Err(refused(checkpoint, tensor, &what));
        }
        if coded.blocks {
            format.transposed = true;
            let last = shape.len() - 1;
            shape.swap(last - 1, last);
        }
        if let Some((global, _)) = companions.global
            && !(at(global).dtype == Dtype::F32 && at(global).elements() == 1)
        {
            let (dtype, shape) = (at(global).dtype, &at(global).shape);
            let what =
                format!("its second scale is {dtype} of shape {shape:?}, and only one F32 for the tensor is read");
            return Err(refused(checkpoint, tensor, &what));
        }
        let format = match self.formats.get(&format) {
            Some(known) => Arc::clone(known),
            None => {
                let new = Arc::new(format);
                self.formats.insert(Arc::clone(&new));
                new
            }
        };
        let start = |tensor: &Tensor| Start { shard: tensor.shard, begin: tensor.begin };
        let global = companions.global.map(|(place, _)| start(at(place)));
        let scaled = Scaled { format, codes: start(tensor), scales: start(at(scale)), global };
        if checkpoint.get(coded.weight).is_some_and(|other| !std::ptr::eq(other, tensor)) {
            let what = format!("it holds the codes of {}, which is also stored itself; {AGAIN}", quote(coded.weight));
            return Err(corrupt(checkpoint, tensor, &what).into());
        }
        let name = coded.weight.len();
        self.roles[place] = Role::Weight(self.weights.len() as u32);
        let shape = one_of(&mut self.shapes, &shape);
        self.weights.push(Weight { name, shape, scaled });
        let others = [Some(scale), companions.global.map(|(place, _)| place), companions.shape];
        others.into_iter().flatten().for_each(|part| self.roles[part as usize] = Role::Part(Some(place as u32)));
        Ok(())
    }
}

/// The dimensions of a weight's codes, and how many codes a stored row has. Rows of integers are padded to whole words,
/// so that only a tensor beside them tells their length.
fn dimensions(checkpoint: &Checkpoint, tensor: &Tensor, coded: &Coded, said: Option<u32>) -> Result<(Vec<u64>, u64)> {
    let mut shape = coded.shape.clone();
    let stride = shape.last().copied().unwrap_or(0);
    let Some(said) = said.map(|place| &checkpoint.tensors[place as usize]) else { return Ok((shape, stride)) };
    let size = match said.dtype {
        Dtype::I32 => 4,
        Dtype::I64 => 8,
        _ => 0,
    };
    let misfit = |what: String| corrupt(checkpoint, said, &format!("{what}; {AGAIN}"));
    if size == 0 || said.shape[..] != [2] {
        return Err(misfit(format!("it is {} of shape {:?} instead of two integers", said.dtype, said.shape)));
    }
    // The values of a remote file would take a request for each tensor. Padding has never been seen there.
    let Some(disk) = checkpoint.shard(said).on_disk() else { return Ok((shape, stride)) };
    let mut bytes = [0; 16];
    read_exact_at(&disk.file, &mut bytes[..2 * size], said.begin).map_err(Error::io(&disk.path, "read"))?;
    let value = |at: usize| {
        let mut word = [0; 8];
        word[..size].copy_from_slice(&bytes[at * size..][..size]);
        u64::from_le_bytes(word)
    };
    let (rows, columns) = (value(0), value(1));
    let own = shape.len().checked_sub(2).map(|at| shape[at]);
    let padded = if coded.codes == Codes::Int4 { columns.div_ceil(8) * 8 } else { columns };
    if own != Some(rows) || padded != stride || columns == 0 {
        return Err(misfit(format!(
            "it says {rows} rows of {columns} columns, but {} has shape {:?}",
            quote(&tensor.name),
            tensor.shape
        )));
    }
    shape.pop();
    shape.push(columns);
    Ok((shape, stride))
}

/// Notes for the report: how many weights have which format, and what is not used.
fn notes(checkpoint: &Checkpoint, roles: &[Role], weights: &[Weight]) -> Vec<String> {
    let parts = checkpoint.tensors.iter().zip(roles).filter(|(_, role)| matches!(role, Role::Part(_)));
    let dropped: Vec<&str> = parts.map(|(part, _)| &*part.name).filter(|name| of_activations(name).is_some()).collect();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for weight in weights {
        *counts.entry(weight.scaled.format.to_string()).or_default() += 1;
    }
    let label = &checkpoint.label;
    let mut notes: Vec<String> = counts
        .into_iter()
        .map(|(format, count)| format!("{label}: {count} weight(s) in {format}, read as the exact f32 values"))
        .collect();
    if let Some(first) = dropped.first() {
        notes.push(format!(
            "{label}: {} tensor(s) about quantised activations or caches, not used: {}{}",
            dropped.len(),
            quote(first),
            if dropped.len() > 1 { " and others" } else { "" }
        ));
    }
    notes
}

fn corrupt(checkpoint: &Checkpoint, tensor: &Tensor, what: &str) -> Error {
    Error::corrupt(&checkpoint.shard(tensor).path, format!("tensor {}: {what}", quote(&tensor.name)))
}

fn refused(checkpoint: &Checkpoint, tensor: &Tensor, what: &str) -> Stop {
    Stop::Unread(Unread::Weight {
        file: checkpoint.shard(tensor).path.display().to_string(),
        tensor: tensor.name.to_string(),
        what: format!("{what}; {UNQUANTISED}"),
    })
}
