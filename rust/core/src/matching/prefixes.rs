//! Names that differ by a wrapper's prefix alone: which `--strip-prefix` would make them fit.

use std::collections::{BTreeSet, HashSet};

use super::Matcher;
use crate::options::Options;
use crate::tie;

/// How the messages of names that have no counterpart begin.
pub(super) const NO_COUNTERPART: [&str; 3] =
    ["the target has no tensor of this name", "the minuend has this tensor but", "the subtrahend has this tensor but"];

impl Matcher<'_> {
    /// Adds the prefixes to give to every problem of a name without a counterpart, if they mend all of these.
    pub(super) fn suggest_prefixes(&mut self) {
        let missing = |message: &str| NO_COUNTERPART.iter().any(|start| message.starts_with(start));
        if !self.found.problems.iter().any(|problem| missing(&problem.message)) {
            return;
        }
        let inputs = self.inputs.list.iter().filter(|input| !input.role.ends_with("exceptions"));
        let names: Vec<Vec<&str>> =
            inputs.map(|input| input.checkpoint.tensors.iter().map(|tensor| tensor.name.as_str()).collect()).collect();
        let Some(prefixes) = suggestion(&names, self.options) else { return };
        let given: Vec<String> = prefixes.iter().map(|prefix| format!("--strip-prefix {prefix}")).collect();
        let given = given.join(" ");
        for problem in self.found.problems.iter_mut().filter(|problem| missing(&problem.message)) {
            problem.message += &format!("; the names differ by a prefix alone, so give {given}");
        }
    }
}

/// The prefixes that make the names of every input fit the first one's.
fn suggestion(names: &[Vec<&str>], options: &Options) -> Option<Vec<String>> {
    let (first, others) = names.split_first()?;
    let mut all: BTreeSet<String> = options.prefixes.iter().cloned().collect();
    for other in others {
        if !fit(first, other, options) {
            all.extend(between(first, other, options)?);
        }
    }
    let wanted = with(options, all);
    others.iter().all(|other| fit(first, other, &wanted)).then_some(wanted.prefixes)
}

/// The options with these prefixes. The longest comes first, because the first that matches is taken off.
fn with(options: &Options, prefixes: impl IntoIterator<Item = String>) -> Options {
    let mut prefixes: Vec<String> = prefixes.into_iter().collect();
    prefixes.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    Options { prefixes, ..options.clone() }
}

/// What precedes the longest ending, cut at a dot, that one name of each input has in common.
fn between(first: &[&str], other: &[&str], options: &Options) -> Option<Vec<String>> {
    let known: HashSet<&str> = first.iter().copied().collect();
    let stray = other.iter().find(|name| !known.contains(*name) && !tie::is_head(name))?;
    let mut tried = HashSet::new();
    for name in first {
        let parts = name.rsplit('.').zip(stray.rsplit('.')).take_while(|(a, b)| a == b);
        let common = parts.map(|(part, _)| part.len() + 1).sum::<usize>().saturating_sub(1);
        let pair = [name, stray].map(|name| name[..name.len() - common.min(name.len())].to_owned());
        if common == 0 || !tried.insert(pair.clone()) {
            continue;
        }
        let wanted = with(options, pair.into_iter().filter(|prefix| !prefix.is_empty()));
        if fit(first, other, &wanted) {
            return Some(wanted.prefixes);
        }
    }
    None
}

/// Whether every selected name has its counterpart in the first input, and no two become one.
fn fit(first: &[&str], other: &[&str], options: &Options) -> bool {
    let known: HashSet<&str> = first.iter().map(|name| options.strip(name)).collect();
    let taken: HashSet<&str> = other.iter().map(|name| options.strip(name)).collect();
    let has = |name: &&str| known.contains(name) || tie::is_head(name) || !options.selects(name);
    known.len() == first.len() && taken.len() == other.len() && taken.iter().all(has)
}
