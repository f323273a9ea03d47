//! The experts of a layer, fused in one tensor or one by one.
//!
//! ```text
//! experts.gate_up_proj  [E, 2I, H]    [e, :I] is experts.e.gate_proj.weight  [I, H], [e, I:] is experts.e.up_proj.weight
//! experts.down_proj     [E, H, I]     [e]     is experts.e.down_proj.weight  [H, I]
//! ```
//!
//! So an expert's matrix is a range of the fused tensor. Where the fused one is transposed or has other rows in between,
//! it is not, and then there is no view. Shapes alone do not tell a square matrix from its transpose.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Donor, Names, Tensors};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::codec::derived::Made;
use crate::codec::joined::{Joined, List, Part};
use crate::codec::scaled::Format;
use crate::numeric::dtype::{Dtype, Float};
use crate::plan::inputs::{Input, Inputs, Origin};
use crate::plan::options::Options;

/// Models whose fused tensors are known not to be transposed.
const STRAIGHT: [&str; 2] = ["qwen3_5_moe", "qwen3_5_moe_text"];
/// Models whose fused tensors are known to be transposed.
const TRANSPOSED: [&str; 6] = ["qwen3_vl_moe", "qwen3_vl_moe_text", "llama4", "llama4_text", "aria", "aria_text"];
/// Models that alternate the rows of gate and up.
const INTERLEAVED: [&str; 2] = ["gpt_oss", "openai_privacy_filter"];

/// The ends of the names of fused tensors, and those of the matrices that each has for every expert.
const KINDS: [(&str, &[&str]); 2] =
    [(".gate_up_proj", &[".gate_proj.weight", ".up_proj.weight"]), (".down_proj", &[".down_proj.weight"])];

/// Why tensors of experts cannot be read as those of the other input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Another number of experts: in the fused tensor, and one by one.
    Count(u64, u64),
    /// The fused tensor is transposed.
    Transposed,
    /// The fused tensor has rows of gate and up in turn.
    Interleaved,
    /// The matrices are square, and nothing tells whether the fused tensor is transposed.
    Square,
    /// Scales of the fused tensor are for rows of several matrices.
    Blocks,
}

/// A fused tensor of one input, and the tensors that the other has in its place.
pub struct Pairing {
    /// Its index.
    pub fused: u32,
    /// The others, in the order of its rows.
    pub parts: Vec<u32>,
    /// Rows and columns of each of them.
    shape: [u64; 2],
    /// Why there is no view, if there is none.
    pub why: Option<Why>,
}

/// The name under which both layouts meet: that of the fused tensor.
pub fn key(name: Cow<'_, str>) -> Cow<'_, str> {
    let separate = |name: &str| {
        let at = name.find("experts.").map(|at| at + "experts".len())?;
        let number = name[at + 1..].find('.')?;
        if number == 0 || !name[at + 1..][..number].bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let end = &name[at + 1 + number..];
        KINDS.iter().find(|(_, ends)| ends.contains(&end)).map(|(fused, _)| format!("{}{fused}", &name[..at]))
    };
    separate(&name).map_or(name, Cow::Owned)
}

/// The part of a fused tensor's name before its end, and its kind.
fn fused(name: &str) -> Option<(&str, &'static [&'static str])> {
    let (end, parts) = KINDS.iter().find(|(end, _)| name.ends_with(end))?;
    let group = &name[..name.len() - end.len()];
    (group == "experts" || group.ends_with(".experts")).then_some((group, *parts))
}

/// The fused tensors of one input that the other has one by one. Only matrices of floats are considered.
pub fn pairings(one: &Input, other: &Checkpoint, known: &Names, options: &Options) -> Vec<Pairing> {
    let checkpoint = &*one.checkpoint;
    let types = model_types(one);
    let is = |list: &[&str]| types.iter().any(|name| list.contains(&name.as_str()));
    let mut found = Vec::new();
    for (at, tensor) in (0..).zip(&checkpoint.tensors) {
        let name = options.strip(&tensor.name);
        let Some((group, ends)) = fused(&name).filter(|_| known.find(&name).is_none()) else { continue };
        let expert = |number: u64| ends.iter().map(move |end| known.find(&format!("{group}.{number}{end}")));
        let parts: Vec<u32> = (0..).map_while(|number| expert(number).collect::<Option<Vec<_>>>()).flatten().collect();
        let shapes = || parts.iter().map(|&part| &other.tensors[part as usize]);
        let ([experts, a, b], Some([rows, columns])) = (&tensor.shape[..], shapes().next().map(|one| &one.shape[..]))
        else {
            continue;
        };
        let floats = tensor.dtype.float().is_some() && shapes().all(|part| part.dtype.float().is_some());
        if !floats || shapes().any(|part| part.shape[..] != [*rows, *columns]) {
            continue;
        }
        let (count, height) = ((parts.len() / ends.len()) as u64, ends.len() as u64 * rows);
        let (straight, transposed) = ([*a, *b] == [height, *columns], [*a, *b] == [*columns, height]);
        let why = if !straight && !transposed {
            continue;
        } else if *experts != count {
            Some(Why::Count(*experts, count))
        } else if is(&INTERLEAVED) || checkpoint.find(&format!("{}_bias", tensor.name)).is_some() {
            Some(Why::Interleaved)
        } else if !straight || (transposed && is(&TRANSPOSED)) {
            Some(Why::Transposed)
        } else if transposed && !is(&STRAIGHT) {
            Some(Why::Square)
        } else {
            None
        };
        found.push(Pairing { fused: at, parts, shape: [*rows, *columns], why });
    }
    found
}

/// What the config of a checkpoint, or that of the model that a vector belongs to, calls the model.
fn model_types(input: &Input) -> Vec<String> {
    let mut types = input.checkpoint.config.model_types.clone();
    let config = input.vector.as_ref().and_then(|vector| vector.config.as_ref());
    let inner = config.and_then(|config| config.as_object()).into_iter().flat_map(|config| config.values());
    let all = config.into_iter().chain(inner).filter_map(|config| config.get("model_type")?.as_str());
    types.extend(all.map(str::to_owned));
    types
}

/// Whether a donor is an adapter, or the base of one: its tensors are those that the adapter adapts.
fn is_adapted(inputs: &Inputs, donor: Donor) -> bool {
    let adapter = |number: u32| inputs.list[number as usize].checkpoint.adapter.is_some();
    inputs.origins.iter().any(|(origin, _)| match *origin {
        Origin::Pair { minuend, subtrahend } => {
            [minuend, subtrahend].contains(&(donor.number as u32)) && (adapter(minuend) || adapter(subtrahend))
        }
        Origin::Vector { .. } => false,
    })
}

/// What one donor's experts are read as.
pub struct View {
    /// The donor's fused tensors that are cut.
    pub cut: Vec<Pairing>,
    /// The fused tensors of the first input for which the donor's are joined.
    pub joined: Vec<Pairing>,
}

impl View {
    /// Looks for the view of a donor.
    pub fn of(inputs: &Inputs, donor: Donor, known: &Names, options: &Options) -> Self {
        if is_adapted(inputs, donor) {
            return Self { cut: Vec::new(), joined: Vec::new() };
        }
        let (first, input) = (&inputs.list[0], &inputs.list[donor.number]);
        let mut cut = pairings(input, &first.checkpoint, known, options);
        let joined = pairings(first, &input.checkpoint, &Names::of(&input.checkpoint, options), options);
        let mut formats = HashSet::new();
        for pairing in cut.iter_mut().filter(|pairing| pairing.why.is_none()) {
            let [rows, columns] = pairing.shape;
            let part = |row| cut_rows(&input.checkpoint, pairing.fused, [row, rows, columns], &mut formats);
            if (0..pairing.parts.len() as u64).map(|part| part * rows).map(part).any(|part| part.is_none()) {
                pairing.why = Some(Why::Blocks);
            }
        }
        Self { cut, joined }
    }
}

/// Gives a donor the experts' tensors of the first input, where that is possible.
pub fn align(inputs: &mut Inputs, donor: Donor, known: &Names, options: &Options) {
    let View { mut cut, mut joined } = View::of(inputs, donor, known, options);
    cut.retain(|pairing| pairing.why.is_none());
    joined.retain(|pairing| pairing.why.is_none());
    let first = Arc::clone(&inputs.list[0].checkpoint);
    if !cut.is_empty() {
        let note = format!("{} fused tensors of experts, read as one for each expert", cut.len());
        let exceptions = donor.exceptions.map(|number| &*inputs.list[number].checkpoint);
        let (new, others) = take_apart(donor.checkpoint(inputs), exceptions, &first, &cut);
        donor.replace(inputs, new, others, &note);
    }
    if !joined.is_empty() {
        let parts: usize = joined.iter().map(|pairing| pairing.parts.len()).sum();
        let note = format!("{parts} tensors of single experts, read as {} fused ones", joined.len());
        // Cutting has moved the tensors.
        if !cut.is_empty() {
            joined = View::of(inputs, donor, known, options).joined;
        }
        let exceptions = donor.exceptions.map(|number| &*inputs.list[number].checkpoint);
        let (new, others) = put_together(donor.checkpoint(inputs), exceptions, &first, &joined);
        donor.replace(inputs, new, others, &note);
    }
}

fn made(checkpoint: &Checkpoint, at: u32) -> Made {
    checkpoint.made.as_ref().map_or(Made::Stored, |made| made[at as usize].clone())
}

/// Some rows of a fused tensor: how many from which one on, counted over all experts. The name is left out. `None` if
/// they cannot be had alone.
fn cut_rows(
    checkpoint: &Checkpoint,
    fused: u32,
    [row, rows, columns]: [u64; 3],
    formats: &mut HashSet<Arc<Format>>,
) -> Option<(Tensor, Made)> {
    let whole = &checkpoint.tensors[fused as usize];
    let size = whole.dtype.bits() / 8;
    let (mut begin, mut shard) = (whole.begin, whole.shard);
    let made = match made(checkpoint, fused) {
        Made::Stored => {
            begin += row * columns * size;
            Made::Stored
        }
        Made::Zero => Made::Zero,
        Made::Packed(mut packed) => {
            packed.skip += row * columns;
            Made::Packed(packed)
        }
        Made::Scaled(scaled) => {
            let part = scaled.rows(row, rows, formats)?;
            (begin, shard) = (part.codes.begin, part.codes.shard);
            Made::Scaled(part)
        }
        Made::Part | Made::Product(_) | Made::Joined(_) | Made::Lists(_) => return None,
    };
    let (name, shape, bytes) = (String::new(), vec![rows, columns], rows * columns * size);
    let (name, shape) = (name.into(), shape.into());
    Some((Tensor { name, dtype: whole.dtype, shape, shard, begin, bytes }, made))
}

/// The tensors of a checkpoint, to which others are added.
fn copy(checkpoint: &Checkpoint) -> Tensors {
    (checkpoint.tensors.clone(), (0..).zip(&checkpoint.tensors).map(|(at, _)| made(checkpoint, at)).collect())
}

/// The tensors with the indices and the values of a tensor's exceptions, if it has any.
fn exact(file: Option<&Checkpoint>, name: &str) -> Option<[u32; 2]> {
    let find = |end: &str| file?.find(&format!("{name}.{end}"));
    Some([find("index")?, find("value")?])
}

/// Adds lists of exceptions for a tensor of this name.
fn add_lists(others: &mut Option<Tensors>, name: &str, lists: Vec<List>) {
    let (Some((tensors, made)), Some(first)) = (others, lists.first()) else { return };
    let places = [("index", first.index), ("value", first.value)];
    let count = lists.iter().map(|list| tensors[list.index as usize].elements()).sum();
    for (end, place) in places {
        let Tensor { dtype, shard, begin, .. } = tensors[place as usize];
        let bytes = count * dtype.bits() / 8;
        let (name, shape) = (format!("{name}.{end}").into(), vec![count].into());
        tensors.push(Tensor { name, dtype, shape, shard, begin, bytes });
    }
    made.extend([Made::Lists(lists.into()), Made::Stored]);
}

/// A donor's tensors, and those of its exceptions, with a tensor for each matrix of an expert in place of fused ones.
fn take_apart(
    donor: &Checkpoint,
    exceptions: Option<&Checkpoint>,
    first: &Checkpoint,
    cut: &[Pairing],
) -> (Tensors, Option<Tensors>) {
    let by_place: HashMap<u32, &Pairing> = cut.iter().map(|pairing| (pairing.fused, pairing)).collect();
    let (mut new, mut others) = (Tensors::default(), exceptions.map(copy));
    let mut formats = HashSet::new();
    for (at, tensor) in (0..).zip(&donor.tensors) {
        let Some(pairing) = by_place.get(&at) else {
            new.0.push(tensor.clone());
            new.1.push(made(donor, at));
            continue;
        };
        let [rows, columns] = pairing.shape;
        let exact = exact(exceptions, &tensor.name);
        for (row, &part) in (0..).step_by(rows as usize).zip(&pairing.parts) {
            let name = &first.tensors[part as usize].name;
            let Some((part, made)) = cut_rows(donor, at, [row, rows, columns], &mut formats) else { continue };
            new.0.push(Tensor { name: name.clone(), ..part });
            new.1.push(made);
            if let Some([index, value]) = exact {
                let skip = (row * columns).cast_signed();
                let list = List { index, value, skip, elements: 0..rows * columns, whole: tensor.elements() };
                add_lists(&mut others, name, vec![list]);
            }
        }
    }
    (new, others)
}

/// A donor's tensors, and those of its exceptions, with one fused tensor in place of those of single experts.
fn put_together(
    donor: &Checkpoint,
    exceptions: Option<&Checkpoint>,
    first: &Checkpoint,
    joined: &[Pairing],
) -> (Tensors, Option<Tensors>) {
    let joined = || joined.iter().filter(|pairing| pairing.why.is_none());
    let begins: HashMap<u32, &Pairing> = joined().map(|pairing| (pairing.parts[0], pairing)).collect();
    let taken: HashSet<u32> = joined().flat_map(|pairing| pairing.parts.iter().copied()).collect();
    let (mut new, mut others) = (Tensors::default(), exceptions.map(copy));
    for (at, tensor) in (0..).zip(&donor.tensors) {
        let Some(pairing) = begins.get(&at) else {
            if !taken.contains(&at) {
                new.0.push(tensor.clone());
                new.1.push(made(donor, at));
            }
            continue;
        };
        let part = |&part: &u32| {
            let Tensor { shard, begin, dtype, .. } = donor.tensors[part as usize];
            Part { shard, begin, float: dtype.float().unwrap_or(Float::F32), made: made(donor, part) }
        };
        let whole = &first.tensors[pairing.fused as usize];
        let mut types = pairing.parts.iter().map(|&part| donor.tensors[part as usize].dtype);
        let dtype = if types.all(|dtype| dtype == tensor.dtype) { tensor.dtype } else { Dtype::F32 };
        let (name, shape) = (whole.name.clone(), whole.shape.clone());
        let bytes = whole.elements() * dtype.bits() / 8;
        new.0.push(Tensor { name, dtype, shape, shard: tensor.shard, begin: tensor.begin, bytes });
        let each = pairing.shape.iter().product();
        new.1.push(Made::Joined(Joined::new(each, pairing.parts.iter().map(part).collect())));
        let list = |(start, &part): (u64, &u32)| {
            let [index, value] = exact(exceptions, &donor.tensors[part as usize].name)?;
            let skip = -start.cast_signed();
            Some(List { index, value, skip, elements: start..start + each, whole: each })
        };
        let starts = (0..).step_by(each as usize).zip(&pairing.parts);
        add_lists(&mut others, &whole.name, starts.filter_map(list).collect());
    }
    (new, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_have_one_name() {
        for (name, wanted) in [
            ("a.experts.0.gate_proj.weight", "a.experts.gate_up_proj"),
            ("experts.17.up_proj.weight", "experts.gate_up_proj"),
            ("a.experts.3.down_proj.weight", "a.experts.down_proj"),
            ("a.experts.gate_up_proj", "a.experts.gate_up_proj"),
        ] {
            assert_eq!(key(name.into()), wanted);
        }
        for other in [
            "a.experts.x.up_proj.weight",
            "a.experts.1.up_proj.bias",
            "a.shared_experts.up_proj.weight",
            "a.experts.1.w1.weight",
            "experts.",
            "a.experts..up_proj.weight",
        ] {
            assert_eq!(key(other.into()), other);
        }
        assert!(fused("a.shared_experts.down_proj").is_none());
        assert!(fused("experts.down_proj").is_some() && fused("a.experts.down_proj").is_some());
    }
}
