//! `--map FROM=TO`: changes of the donors' names that the user asks for.

use std::borrow::Cow;
use std::collections::HashMap;

use regex::{Captures, Regex};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::plan::inputs::Inputs;
use crate::plan::options::{Options, parse_pattern};
use crate::text::quote;

/// One pair.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The pair as it was given.
    pub text: String,
    from: Regex,
    to: Vec<Piece>,
}

/// A piece of a replacement.
#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    /// What a group of the pattern matched.
    Group(usize),
}

impl Pair {
    /// Reads `FROM=TO`. Names have no `=`, so that the last one separates the two.
    ///
    /// # Errors
    /// There is no `=`, the pattern is not one, or the replacement names a group that the pattern does not have.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((from, to)) = text.rsplit_once('=').filter(|(from, _)| !from.is_empty()) else {
            let shown = quote(text);
            return Err(Error::Usage(format!(
                "--map {shown} is not of the form FROM=TO; write it as '^model\\.=layers.'"
            )));
        };
        let from = parse_pattern("--map", from)?;
        let to = pieces(to, &from).map_err(|what| Error::Usage(format!("--map `{text}`: {what}")))?;
        Ok(Self { text: text.to_owned(), from, to })
    }

    /// The name with every match of the pattern replaced; `None` if there is no match.
    fn replaced(&self, name: &str) -> Option<String> {
        let new = |found: &Captures| {
            let piece = |piece: &Piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Group(number) => found.get(*number).map_or(String::new(), |group| group.as_str().to_owned()),
            };
            self.to.iter().map(piece).collect::<String>()
        };
        match self.from.replace_all(name, new) {
            Cow::Borrowed(_) => None,
            Cow::Owned(new) => Some(new),
        }
    }
}

/// The pieces of a replacement: `$1` or `${1}` is a group, `$$` a dollar sign. Digits after a dollar sign are all of
/// the number, so that `$1x` is the first group and an x.
fn pieces(text: &str, from: &Regex) -> std::result::Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let (mut rest, mut plain) = (text, String::new());
    while let Some(at) = rest.find('$') {
        plain += &rest[..at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            plain.push('$');
            rest = after;
            continue;
        }
        let (inner, braces) = rest.strip_prefix('{').map_or((rest, false), |inner| (inner, true));
        let digits = inner.len() - inner.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let after = if braces { inner[digits..].strip_prefix('}') } else { Some(&inner[digits..]) };
        let (Ok(number), Some(after)) = (inner[..digits].parse::<usize>(), after) else {
            return Err(
                "a `$` in the replacement is followed by the number of a group, as in `$1`, or by another `$`".into()
            );
        };
        if number >= from.captures_len() {
            return Err(format!("the pattern has no group {number}; put what it should keep in round brackets"));
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Group(number));
        rest = after;
    }
    plain += rest;
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

/// The new names of a donor's tensors, by index; notes which pairs had a match.
///
/// # Errors
/// Two names become equal.
fn changes(donor: &Checkpoint, options: &Options, used: &mut [bool]) -> Result<HashMap<u32, String>> {
    let mut changed: HashMap<u32, String> = HashMap::new();
    for (at, tensor) in (0..).zip(&donor.tensors) {
        let mut name = options.strip(&tensor.name);
        let mut any = false;
        for (pair, used) in options.maps.iter().zip(&mut *used) {
            if let Some(new) = pair.replaced(&name) {
                (name, any, *used) = (Cow::Owned(new), true, true);
            }
        }
        if any {
            changed.insert(at, name.into_owned());
        }
    }
    if changed.is_empty() {
        return Ok(changed);
    }
    let mut seen: HashMap<Cow<'_, str>, u32> = HashMap::with_capacity(donor.tensors.len());
    for (at, tensor) in (0..).zip(&donor.tensors) {
        let name = changed.get(&at).map_or_else(|| options.strip(&tensor.name), |name| name.as_str().into());
        let selected = options.selects(&name);
        if let Some(other) = seen.insert(name.clone(), at).filter(|_| selected) {
            let names = [other, at].map(|at| quote(&donor.tensors[at as usize].name));
            return Err(Error::Usage(format!(
                "{}: --map gives the tensors {} and {} one name, {}; change the pairs so that names stay different",
                donor.shard(tensor).path.display(),
                names[0],
                names[1],
                quote(&name)
            )));
        }
    }
    Ok(changed)
}

/// Changes the names of all donors.
///
/// # Errors
/// A pair that matches no name, or two names that become equal.
pub fn align(inputs: &mut Inputs, options: &Options) -> Result<()> {
    if options.maps.is_empty() {
        return Ok(());
    }
    let mut used = vec![false; options.maps.len()];
    for donor in super::donors(inputs) {
        let changed = changes(donor.checkpoint(inputs), options, &mut used)?;
        if !changed.is_empty() {
            let note = format!("{} names changed by --map", changed.len());
            donor.rename(inputs, changed, &note);
        }
    }
    match options.maps.iter().zip(used).find(|(_, used)| !used) {
        Some((pair, _)) => Err(Error::Usage(format!(
            "--map `{}` matches no name of a donor's tensor; see `taskvec inspect` for the names",
            pair.text
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn replaced(pair: &str, name: &str) -> Option<String> {
        Pair::parse(pair).unwrap().replaced(name)
    }

    #[test]
    fn every_match_is_replaced() {
        assert_eq!(replaced("^model\\.=", "model.model.x").unwrap(), "model.x");
        assert_eq!(replaced("a=b", "a.a.c").unwrap(), "b.b.c");
        assert_eq!(replaced("a=b", "c"), None);
        assert_eq!(replaced("^=model.", "x").unwrap(), "model.x");
    }

    #[test]
    fn a_dollar_sign_is_a_group_or_itself() {
        // The group of this number, not one called `1x`.
        assert_eq!(replaced(r"(\d)\.(\d)=$2x${1}y$$1", "3.4").unwrap(), "4x3y$1");
        // A group that took no part is nothing.
        assert_eq!(replaced("(a)?b=[$1]$0", "b").unwrap(), "[]b");
        // What follows the last equals sign replaces.
        assert_eq!(replaced("a=b=c", "a=b").unwrap(), "c");
        for bad in ["a", "=a", "(=a", "a=$", "a=$x", "a=$1", "a=${0", "a=${}", "(a)=$99999999999999999999"] {
            assert!(matches!(Pair::parse(bad), Err(Error::Usage(_))), "{bad}");
        }
    }
}
