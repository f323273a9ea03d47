//! Tells what kind of folder a place is, and opens it accordingly.

use crate::checkpoint::{Checkpoint, lora, vector};
use crate::control::Control;
use crate::error::Result;
use crate::format::adapter_config;
use crate::storage::place::Place;

/// What a folder holds, by the files that are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A full model, or any folder that is not one of the other two kinds.
    Checkpoint,
    /// A vector that `extract` wrote.
    Vector,
    /// A PEFT adapter.
    Adapter,
}

impl Kind {
    /// The kind of a folder. A vector is recognised by its description. A folder with an adapter config is an adapter
    /// unless it also holds a full model: then the adapter was merged.
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

    /// Its name in a sentence.
    pub const fn with_article(self) -> &'static str {
        match self {
            Self::Checkpoint => "a checkpoint",
            Self::Vector => "a vector",
            Self::Adapter => "an adapter",
        }
    }

    /// Its name in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Vector => "vector",
            Self::Adapter => "adapter",
        }
    }
}

/// Opens a donor: a checkpoint or an adapter. `like` is a model with the same layers as an adapter's base, if there is
/// one.
///
/// # Errors
/// As [`Checkpoint::open`]. A vector cannot be a donor.
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
        Kind::Vector => vector::open(place, control),
        Kind::Checkpoint | Kind::Adapter => Checkpoint::open(place, control),
    }
}
