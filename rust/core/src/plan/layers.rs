//! How α varies over the layers of a model (`--schedule`).
//!
//! A tensor's layer is the first number that is a whole part of its name, with parts on both sides: in
//! `model.layers.3.mlp.up_proj.weight` it is layer 3 of the stack `model.layers`. A model may have several stacks.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::plan::alpha::Alpha;

/// Factors of α from the first layer of a stack to its last.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// As written.
    pub text: String,
    first: f64,
    /// Added from the first layer to the last.
    rise: f64,
    /// For tensors that belong to no layer.
    outside: f64,
}

impl FromStr for Schedule {
    type Err = Error;

    /// Reads `linear:A,B`, from A·α at the first layer to B·α at the last, or `lines:A,B`, which is LiNeS
    /// (arXiv 2410.17146): A + B·ℓ/(L − 1) at layer ℓ of L, and A outside of layers.
    fn from_str(text: &str) -> Result<Self> {
        let refused = || {
            Error::Usage(format!(
                "--schedule `{text}` is not a schedule; write it as linear:A,B (factors of α at the first and the last layer) or as lines:A,B (A + B·ℓ/(L − 1) at layer ℓ of L), with finite numbers"
            ))
        };
        let (kind, numbers) = text.split_once(':').ok_or_else(refused)?;
        let (first, second) = numbers.split_once(',').ok_or_else(refused)?;
        let number = |text: &str| text.trim().parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(refused);
        let (first, second) = (number(first)?, number(second)?);
        let text = text.to_owned();
        match kind {
            "linear" => Ok(Self { text, first, rise: second - first, outside: 1.0 }),
            "lines" => Ok(Self { text, first, rise: second, outside: first }),
            _ => Err(refused()),
        }
    }
}

impl Schedule {
    /// The factor of a tensor in this layer of a stack of so many, or in none.
    fn factor(&self, layer: Option<(u64, u64)>) -> f64 {
        match layer {
            None => self.outside,
            Some((_, 0 | 1)) => self.first,
            Some((layer, layers)) => self.first + self.rise * (layer as f64 / (layers - 1) as f64),
        }
    }
}

/// The layer that a tensor belongs to: the name of its stack, and its number.
fn layer(name: &str) -> Option<(&str, u64)> {
    let mut end = name.find('.')?;
    loop {
        let part = &name[end + 1..];
        let next = part.find('.')?;
        if let Ok(number) = part[..next].parse()
            && part.as_bytes()[0].is_ascii_digit()
        {
            return Some((&name[..end], number));
        }
        end += 1 + next;
    }
}

/// A schedule on the stacks of one model.
#[derive(Debug)]
pub struct Scheduled {
    schedule: Schedule,
    /// How many layers each stack has: one more than the highest number.
    stacks: BTreeMap<String, u64>,
}

/// The factor of one layer, as a plan shows it.
#[derive(Clone, Debug, Serialize)]
pub struct LayerFactor {
    stack: String,
    layer: u64,
    factor: f64,
}

impl Scheduled {
    /// Finds the stacks among the names of a model's tensors.
    ///
    /// # Errors
    /// No tensor belongs to a layer.
    pub fn new<'a>(schedule: &Schedule, names: impl Iterator<Item = &'a str>) -> Result<Self> {
        let mut stacks = BTreeMap::new();
        for (stack, number) in names.filter_map(layer) {
            let layers = stacks.entry(stack.to_owned()).or_default();
            *layers = number.saturating_add(1).max(*layers);
        }
        if stacks.is_empty() {
            return Err(Error::Usage(format!(
                "--schedule {} needs layers, but no tensor of the target has a number in its name; use --alpha-rule",
                schedule.text
            )));
        }
        Ok(Self { schedule: schedule.clone(), stacks })
    }

    /// The factor of a tensor.
    pub fn factor(&self, name: &str) -> f64 {
        let place = layer(name).and_then(|(stack, number)| Some((number, *self.stacks.get(stack)?)));
        self.schedule.factor(place)
    }

    /// Refuses factors with which α would leave the range of f32.
    ///
    /// # Errors
    /// One of them does.
    pub fn require_finite(&self, alpha: &Alpha) -> Result<()> {
        let Schedule { text, first, rise, outside } = &self.schedule;
        if [*first, first + rise, *outside].iter().all(|&factor| alpha.times(factor).is_finite()) {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "--schedule {text} times alpha {} is too large for f32, in which the arithmetic is done",
            alpha.text
        )))
    }

    /// Every layer's factor, of the first 10,000 layers of a stack: a name may hold any number.
    pub fn layers(&self) -> Vec<LayerFactor> {
        let of = |(stack, &layers): (&String, &u64)| {
            let factor = move |layer| self.schedule.factor(Some((layer, layers)));
            let stack = stack.clone();
            (0..layers.min(10_000)).map(move |layer| LayerFactor { stack: stack.clone(), layer, factor: factor(layer) })
        };
        self.stacks.iter().flat_map(of).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_the_first_number_between_two_parts() {
        assert_eq!(layer("model.layers.3.mlp.experts.7.up.weight"), Some(("model.layers", 3)));
        assert_eq!(layer("h.0.attn.weight"), Some(("h", 0)));
        for none in
            ["model.embed_tokens.weight", "lm_head.weight", "3.weight", "a.3", "a", "", "a.+3.b", "a.-3.b", "a.3x.b"]
        {
            assert_eq!(layer(none), None, "{none}");
        }
    }
}
