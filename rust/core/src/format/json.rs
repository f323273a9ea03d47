//! JSON objects read strictly: the order is kept, and duplicate keys are refused.
//!
//! If two readers disagree on which of two equal keys counts, one file can show them two different models.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::text::quote;

/// The members of a JSON object in the order of the text. A key that occurs twice (after decoding escapes) is an error.
#[derive(Debug)]
pub struct Pairs<V>(pub Vec<(String, V)>);

/// A type for the values of an object's members. Which form is read may depend on the key.
pub trait Member<'de>: Sized {
    /// Reads the value of `key` from `object`.
    fn read<A: MapAccess<'de>>(key: &str, object: &mut A) -> Result<Self, A::Error>;
}

impl<'de> Member<'de> for String {
    fn read<A: MapAccess<'de>>(_: &str, object: &mut A) -> Result<Self, A::Error> {
        object.next_value()
    }
}

impl<'de> Member<'de> for Value {
    fn read<A: MapAccess<'de>>(_: &str, object: &mut A) -> Result<Self, A::Error> {
        object.next_value()
    }
}

impl<'de, V: Member<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

struct PairsVisitor<V>(PhantomData<V>);

impl<'de, V: Member<'de>> Visitor<'de> for PairsVisitor<V> {
    type Value = Pairs<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Pairs<V>, A::Error> {
        let mut pairs = Vec::new();
        while let Some(key) = object.next_key::<String>()? {
            let value = V::read(&key, &mut object).map_err(|error| within(&key, &error))?;
            pairs.push((key, value));
        }
        let mut seen = HashSet::with_capacity(pairs.len());
        if let Some((key, _)) = pairs.iter().find(|(key, _)| !seen.insert(key.as_str())) {
            return Err(twice(key));
        }
        Ok(Pairs(pairs))
    }
}

/// The error for a key that occurs twice.
pub fn twice<E: de::Error>(key: &str) -> E {
    E::custom(format_args!("the name {} occurs twice", quote(key)))
}

/// An error in the value of a key.
pub fn within<E: de::Error>(key: &str, error: &E) -> E {
    E::custom(format_args!("{}: {error}", quote(key)))
}
