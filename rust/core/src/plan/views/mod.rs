//! Views: donors that hold the same weights under other names, or in other tensors, get the names and tensors of the
//! first input. So all later steps treat them like any other checkpoint.
//!
//! ```text
//! for each donor:
//!     change its names as --map says
//!     if exactly one known change of fronts makes all of its names meet: change them
//!     where experts are fused in one of the two inputs only: cut them, or join them
//! ```
//!
//! Nothing is guessed: what fits no view, or two, keeps its name, and matching says what is missing. A new view belongs
//! here.

pub mod experts;
pub mod map;
pub mod nested;
pub mod obstacles;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, Tensor};
use crate::codec::derived::Made;
use crate::error::{Error, Result};
use crate::plan::inputs::{Inputs, Origin};
use crate::plan::options::{Options, strip_prefixes};

/// One of a job's inputs that is matched with the first.
#[derive(Clone, Copy, Debug)]
pub struct Donor {
    /// Its index in [`Inputs::list`].
    pub number: usize,
    /// The index of its exceptions there, if it is a vector with exceptions.
    pub exceptions: Option<usize>,
}

/// The donors of a job, without the input that gives the output its layout.
pub fn donors(inputs: &Inputs) -> Vec<Donor> {
    let of = |(origin, _): &(Origin, _)| match *origin {
        Origin::Pair { minuend, subtrahend } => [Some((minuend, None)), Some((subtrahend, None))],
        Origin::Vector { dense, exceptions, .. } => [Some((dense, exceptions)), None],
    };
    let found = inputs.origins.iter().flat_map(of).flatten().filter(|(number, _)| *number > 0);
    let index = |number: u32| number as usize;
    found.map(|(number, exceptions)| Donor { number: index(number), exceptions: exceptions.map(index) }).collect()
}

/// Gives the donors the names and tensors of the first input, where a view fits.
///
/// # Errors
/// A `--map` or `--strip-prefix` that changes no name, or makes two names equal.
pub fn align(inputs: &mut Inputs, options: &Options) -> Result<()> {
    // Before any name is changed.
    prefixes_used(inputs, options)?;
    map::align(inputs, options)?;
    for donor in donors(inputs) {
        let first = Arc::clone(&inputs.list[0].checkpoint);
        let known = Names::of(&first, options);
        if donor.checkpoint(inputs).tensors.iter().all(|tensor| known.find(&options.strip(&tensor.name)).is_some()) {
            continue;
        }
        nested::align(inputs, donor, &first, options);
        experts::align(inputs, donor, &known, options);
    }
    Ok(())
}

/// Refuses a `--strip-prefix` that does nothing: it is probably a typing error.
fn prefixes_used(inputs: &Inputs, options: &Options) -> Result<()> {
    for prefix in &options.prefixes {
        let others: Vec<String> = options.prefixes.iter().filter(|other| *other != prefix).cloned().collect();
        let takes = |tensor: &Tensor| options.strip(&tensor.name) != strip_prefixes(&tensor.name, &others);
        if !inputs.list.iter().any(|input| input.checkpoint.tensors.iter().any(takes)) {
            return Err(Error::Usage(format!("--strip-prefix `{prefix}` occurs in no tensor's name; leave it out")));
        }
    }
    Ok(())
}

impl Donor {
    /// Its files.
    pub fn checkpoint(self, inputs: &Inputs) -> &Checkpoint {
        &inputs.list[self.number].checkpoint
    }

    /// Changes the names of some of its tensors, by index, and those of their exceptions.
    fn rename(self, inputs: &mut Inputs, names: HashMap<u32, String>, note: &str) {
        if let Some(number) = self.exceptions {
            let (dense, file) = (self.checkpoint(inputs), &inputs.list[number].checkpoint);
            let mut others = HashMap::new();
            for (&at, new) in &names {
                let old = &dense.tensors[at as usize].name;
                for end in ["index", "value"] {
                    others.extend(file.find(&format!("{old}.{end}")).map(|place| (place, format!("{new}.{end}"))));
                }
            }
            change(inputs, number, |file| file.rename(others));
        }
        let note = format!("{}: {note}", inputs.list[self.number].role);
        change(inputs, self.number, |donor| {
            donor.rename(names);
            donor.notes.push(note);
        });
    }

    /// Replaces its tensors, and if it is a vector with exceptions, theirs.
    fn replace(self, inputs: &mut Inputs, new: Tensors, exceptions: Option<Tensors>, note: &str) {
        if let Some((number, (tensors, made))) = self.exceptions.zip(exceptions) {
            change(inputs, number, |file| file.compute(tensors, made, Vec::new()));
        }
        let note = format!("{}: {note}", inputs.list[self.number].role);
        change(inputs, self.number, |donor| donor.compute(new.0, new.1, vec![note]));
    }
}

/// Tensors, and what each is computed from.
type Tensors = (Vec<Tensor>, Vec<Made>);

/// Changes an input. It was opened just now, so that nothing else shares it.
fn change(inputs: &mut Inputs, number: usize, how: impl FnOnce(&mut Checkpoint)) {
    if let Some(checkpoint) = Arc::get_mut(&mut inputs.list[number].checkpoint) {
        how(checkpoint);
    }
}

/// A checkpoint's tensors by their names without prefixes.
pub struct Names<'a> {
    checkpoint: &'a Checkpoint,
    /// `None` if there are no prefixes: then the checkpoint itself finds names.
    stripped: Option<HashMap<Cow<'a, str>, u32>>,
}

impl<'a> Names<'a> {
    /// The names of a checkpoint.
    pub fn of(checkpoint: &'a Checkpoint, options: &Options) -> Self {
        let stripped =
            || (0..).zip(&checkpoint.tensors).map(|(at, tensor)| (options.strip(&tensor.name), at)).collect();
        Self { checkpoint, stripped: (!options.prefixes.is_empty()).then(stripped) }
    }

    /// The index of the tensor of this name.
    pub fn find(&self, name: &str) -> Option<u32> {
        match &self.stripped {
            Some(names) => names.get(name).copied(),
            None => self.checkpoint.find(name),
        }
    }
}
