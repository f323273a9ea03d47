//! Models with vision or sound hold a language model whose names have other fronts than those of the same language model
//! alone, and the fronts changed between versions of transformers.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::{Donor, experts};
use crate::checkpoint::{Checkpoint, tied};
use crate::plan::inputs::Inputs;
use crate::plan::options::Options;

/// The fronts of the names of one language model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Form {
    /// Of its layers, embedding and last norm.
    pub body: &'static str,
    /// Of its output head.
    head: &'static str,
}

/// All that are known.
const FORMS: [Form; 3] = [
    Form { body: "model.", head: "lm_head." },
    Form { body: "model.language_model.", head: "lm_head." },
    Form { body: "language_model.model.", head: "language_model.lm_head." },
];

/// The first or second part of names that belong to the other senses.
const SENSES: [&str; 9] = [
    "visual",
    "vision_tower",
    "vision_model",
    "vision_encoder",
    "multi_modal_projector",
    "mm_projector",
    "audio_tower",
    "embed_vision",
    "embed_audio",
];

/// Whether a tensor belongs to another sense than language.
fn is_of_senses(name: &str) -> bool {
    name.split('.').take(2).any(|part| SENSES.contains(&part))
}

/// A change of fronts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// What the names begin with.
    pub from: Form,
    /// What they begin with instead.
    pub to: Form,
}

impl Change {
    /// The options that would make it.
    pub fn as_options(&self) -> String {
        let pair = |from: &str, to: &str| format!("--map '^{}={to}'", regex::escape(from));
        let body = pair(self.from.body, self.to.body);
        if self.from.head == self.to.head { body } else { format!("{body} {}", pair(self.from.head, self.to.head)) }
    }

    /// The new name; `None` if it stays.
    fn of(&self, name: &str) -> Option<String> {
        let Self { from, to } = self;
        let body = name.strip_prefix(from.body);
        // The shortest front is also the beginning of a longer one.
        let body = body.filter(|rest| from.body != "model." || !rest.starts_with("language_model."));
        match (body, name.strip_prefix(from.head)) {
            (Some(rest), _) => Some(format!("{}{rest}", to.body)),
            (None, Some(rest)) if from.head != to.head => Some(format!("{}{rest}", to.head)),
            _ => None,
        }
    }
}

/// What changes of fronts do to a donor's names.
pub enum Found {
    /// The names meet as they are, or no change helps.
    Nothing,
    /// Exactly this change makes all of them meet; `None` if those of the language model meet as they are.
    Fits(Option<Change>),
    /// Each of these two makes all of them meet.
    Two(Change, Change),
    /// This change makes most of them meet: how many do not, and the first of these.
    Almost(Change, usize, String),
}

/// The names of the first input, as a donor's have to be.
struct Wanted<'a> {
    keys: HashSet<Cow<'a, str>>,
    options: &'a Options,
}

impl Wanted<'_> {
    /// Whether the first input has something of this name.
    fn has(&self, name: &str) -> bool {
        self.keys.contains(&experts::key(name.into()))
    }

    /// Whether nothing is missed under this name.
    fn meets(&self, name: &str) -> bool {
        self.has(name) || tied::is_head(name) || !self.options.selects(name)
    }
}

/// Looks for the change that makes all of a donor's names meet those of the first input.
fn look(donor: &Checkpoint, wanted: &Wanted) -> Found {
    let names: Vec<Cow<'_, str>> = donor.tensors.iter().map(|tensor| wanted.options.strip(&tensor.name)).collect();
    let mut names: Vec<&Cow<'_, str>> = names.iter().filter(|name| !is_of_senses(name)).collect();
    let as_they_are = names.iter().filter(|name| !wanted.meets(name)).count();
    if as_they_are == 0 {
        return Found::Fits(None);
    }
    // So that a name without a counterpart is found soon.
    names.reverse();
    let changes = FORMS.iter().flat_map(|&from| FORMS.iter().map(move |&to| Change { from, to }));
    let mut fitting = Vec::new();
    let mut almost: Option<(Change, usize, String)> = None;
    for change in changes.filter(|change| change.from != change.to) {
        let (mut met, mut missed, mut first) = (0, 0, None);
        for name in &names {
            let new = change.of(name);
            let shown = new.as_deref().unwrap_or(name);
            if !wanted.meets(shown) {
                missed += 1;
                first = Some(*name);
            } else if new.is_some() && wanted.has(shown) {
                met += 1;
            }
        }
        let all: HashSet<Cow<'_, str>> = match missed {
            0 => names.iter().map(|name| change.of(name).map_or_else(|| name.as_ref().into(), Cow::Owned)).collect(),
            _ => HashSet::new(),
        };
        match first {
            None if met > 0 && all.len() == names.len() => fitting.push(change),
            Some(first)
                if met > missed
                    && missed < as_they_are
                    && almost.as_ref().is_none_or(|(_, fewest, _)| missed < *fewest) =>
            {
                almost = Some((change, missed, first.to_string()));
            }
            _ => {}
        }
    }
    match (&fitting[..], almost) {
        ([only], _) => Found::Fits(Some(*only)),
        ([one, other, ..], _) => Found::Two(*one, *other),
        ([], Some((change, missed, first))) => Found::Almost(change, missed, first),
        ([], None) => Found::Nothing,
    }
}

fn wanted<'a>(first: &'a Checkpoint, options: &'a Options) -> Wanted<'a> {
    let keys = first.tensors.iter().map(|tensor| experts::key(options.strip(&tensor.name))).collect();
    Wanted { keys, options }
}

/// What changes of fronts would do to a donor's names.
pub fn find(donor: &Checkpoint, first: &Checkpoint, options: &Options) -> Found {
    look(donor, &wanted(first, options))
}

/// Changes the fronts of a donor's names, if there is exactly one way in which all of them meet.
pub fn align(inputs: &mut Inputs, donor: Donor, first: &Checkpoint, options: &Options) {
    let wanted = wanted(first, options);
    let Found::Fits(change) = look(donor.checkpoint(inputs), &wanted) else { return };
    let mut names = HashMap::new();
    for (at, tensor) in (0..).zip(&donor.checkpoint(inputs).tensors) {
        let name = options.strip(&tensor.name);
        let new = change.filter(|_| !is_of_senses(&name)).and_then(|change| change.of(&name));
        names.extend(new.map(|new| (at, new)));
    }
    if let Some(Change { from, to }) = change {
        donor.rename(inputs, names, &format!("names read with {} for {}", to.body, from.body));
    }
    senses(inputs, donor, &wanted);
}

/// Adds or takes off the front `model.` of the other senses, if all of them meet then.
fn senses(inputs: &mut Inputs, donor: Donor, wanted: &Wanted) {
    let mut names = HashMap::new();
    for (at, tensor) in (0..).zip(&donor.checkpoint(inputs).tensors) {
        let name = wanted.options.strip(&tensor.name);
        if !is_of_senses(&name) || wanted.has(&name) {
            continue;
        }
        let new = name.strip_prefix("model.").map_or_else(|| format!("model.{name}"), str::to_owned);
        if !wanted.has(&new) || donor.checkpoint(inputs).find(&new).is_some() {
            return;
        }
        names.insert(at, new);
    }
    let Some(new) = names.values().min() else { return };
    let (to, from) = if new.starts_with("model.") { ("with", "without") } else { ("without", "with") };
    let note = format!(
        "{} names beside the language model read {to} the front model., which are stored {from} it",
        names.len()
    );
    donor.rename(inputs, names, &note);
}
