//! Names that differ only by a wrapper's prefix: finds the `--strip-prefix` options that would make them match.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Matcher, Problem};
use crate::checkpoint::tied;
use crate::plan::options::Options;

impl Matcher<'_> {
    /// If there are prefixes that fix all names without a counterpart, adds them to the problems of these names.
    pub(super) fn suggest_prefixes(&mut self) {
        if self.unmatched.is_empty() {
            return;
        }
        let inputs = self.inputs.list.iter().filter(|input| !input.role.ends_with("exceptions"));
        let names: Vec<Vec<&str>> =
            inputs.map(|input| input.checkpoint.tensors.iter().map(|tensor| tensor.name.as_str()).collect()).collect();
        let Some(prefixes) = suggestion(&names, self.options) else { return };
        let given: Vec<String> = prefixes.iter().map(|prefix| format!("--strip-prefix {prefix}")).collect();
        let given = given.join(" ");
        let advice = format!("; the names differ only by a prefix, so give {given}");
        for place in self.unmatched.iter().map(|(_, place)| *place).collect::<Vec<_>>() {
            let Problem { message, many, .. } = self.found.problems[place].clone();
            self.found.problems[place].message = self.text(&format!("{message}{advice}"));
            self.found.problems[place].many = many.map(|many| self.text(&format!("{many}{advice}")));
        }
    }
}

/// The prefixes whose removal makes the names of every input match those of the first.
fn suggestion(names: &[Vec<&str>], options: &Options) -> Option<Vec<String>> {
    let (first, others) = names.split_first()?;
    let mut wanted = with(options, options.prefixes.iter().cloned().chain(wrappers(names)));
    for other in others {
        if !fit(first, other, &wanted) {
            wanted = between(first, other, &wanted)?;
        }
    }
    others.iter().all(|other| fit(first, other, &wanted)).then_some(wanted.prefixes)
}

/// The attributes in which wrappers keep a module: parts of names that begin with an underscore.
fn wrappers(names: &[Vec<&str>]) -> BTreeSet<String> {
    let parts = names.iter().flatten().flat_map(|name| name.split('.').rev().skip(1));
    parts.filter(|part| part.starts_with('_')).map(|part| format!("{part}.")).collect()
}

/// The options with these prefixes. The longest comes first, because the first that matches is removed.
fn with(options: &Options, prefixes: impl IntoIterator<Item = String>) -> Options {
    let prefixes: BTreeSet<String> = prefixes.into_iter().collect();
    let mut prefixes: Vec<String> = prefixes.into_iter().collect();
    prefixes.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    Options { prefixes, ..options.clone() }
}

/// Trying a pair of prefixes takes a walk over all names, and there may be nearly as many pairs as names.
const MOST_TRIED: usize = 8;

/// Looks for prefixes by which the names of two inputs differ. Takes a name of `other` without a counterpart, and
/// compares it with each name of `first`: what precedes the longest common ending, cut at a dot, may be a prefix. Of all
/// such pairs of prefixes, those of the longest endings are tried.
fn between(first: &[&str], other: &[&str], options: &Options) -> Option<Options> {
    let known: HashSet<Cow<'_, str>> = first.iter().map(|name| options.strip(name)).collect();
    let mut strays = other.iter().map(|name| options.strip(name));
    let stray = strays.find(|name| !known.contains(name) && !tied::is_head(name))?;
    // For each pair of prefixes, the longest ending that two names have in common.
    let mut pairs: HashMap<[&str; 2], usize> = HashMap::new();
    let names: Vec<Cow<'_, str>> = first.iter().map(|name| options.strip(name)).collect();
    for name in &names {
        let parts = name.rsplit('.').zip(stray.rsplit('.')).take_while(|(a, b)| a == b);
        let common = parts.map(|(part, _)| part.len() + 1).sum::<usize>().saturating_sub(1);
        if common > 0 {
            let pair = [name, &stray].map(|name| &name[..name.len() - common.min(name.len())]);
            pairs.insert(pair, common);
        }
    }
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_by(|(a, a_common), (b, b_common)| b_common.cmp(a_common).then_with(|| a.cmp(b)));
    pairs.into_iter().take(MOST_TRIED).find_map(|(pair, _)| {
        let prefixes = pair.into_iter().filter(|prefix| !prefix.is_empty()).map(str::to_owned);
        let wanted = with(options, prefixes.chain(options.prefixes.iter().cloned()));
        fit(first, other, &wanted).then_some(wanted)
    })
}

/// Whether every selected name has a counterpart in the first input, and no two names become equal.
fn fit(first: &[&str], other: &[&str], options: &Options) -> bool {
    let known: HashSet<Cow<'_, str>> = first.iter().map(|name| options.strip(name)).collect();
    let taken: HashSet<Cow<'_, str>> = other.iter().map(|name| options.strip(name)).collect();
    let has = |name: &Cow<'_, str>| known.contains(name) || tied::is_head(name) || !options.selects(name);
    known.len() == first.len() && taken.len() == other.len() && taken.iter().all(has)
}
