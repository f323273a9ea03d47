//! What kind of folder a place is, and opening it as that.

use crate::checkpoint::{Checkpoint, lora, vector};
use crate::control::Control;
use crate::error::Result;
use crate::format::adapter_config;
use crate::storage::place::Place;

/// What a folder holds, by the files that are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole model, or a folder that is neither of the other two.
    Checkpoint,
    /// A vector that `extract` wrote.
    Vector,
    /// A PEFT adapter.
    Adapter,
}

impl Kind {
    /// The kind of a folder. A vector says so itself; an adapter that was merged has a whole model beside its config.
    ///
    /// # Errors
    /// The folder's files cannot be listed.
    pub fn of(place: &Place) -> Result<Self> {
        let whole = || Ok(place.has("model.safetensors")? || place.has("model.safetensors.index.json")?);
        Ok(if place.has(vector::FILE)? {
            Self::Vector
        } else if place.has(adapter_config::FILE)? && !whole()? {
            Self::Adapter
        } else {
            Self::Checkpoint
        })
    }

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Vector => "vector",
            Self::Adapter => "adapter",
        }
    }
}

/// Opens a donor: a checkpoint, or an adapter. `like` is the model whose layers an adapter's ΔW is for, if there is one.
///
/// # Errors
/// As [`Checkpoint::open`]; a vector is not a donor of a pair.
pub fn donor(place: &Place, like: Option<&Checkpoint>, control: &Control) -> Result<Checkpoint> {
    match Kind::of(place)? {
        Kind::Adapter => lora::open(place, like, control),
        Kind::Checkpoint | Kind::Vector => Checkpoint::open(place, control),
    }
}

/// Opens a checkpoint or a vector, whichever it is. An adapter is refused: its factors are not the weights of a model.
///
/// # Errors
/// As [`Checkpoint::open`].
pub fn weights(place: &Place, control: &Control) -> Result<Checkpoint> {
    match Kind::of(place)? {
        Kind::Vector => Checkpoint::open_weights(place, vector::STEM, control),
        Kind::Checkpoint | Kind::Adapter => Checkpoint::open(place, control),
    }
}
