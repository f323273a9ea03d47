//! Layers that one input stores in one tensor and another input in several: the experts of a layer one by one or all
//! together, the projections of attention separate or fused.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Matcher;
use crate::plan::inputs::At;
use crate::plan::views::experts;
use crate::plan::views::obstacles::{self, Obstacle};

/// The tensors of one input in a group of layers that have no counterpart of the same name.
struct Part {
    first: At,
    tensors: u64,
    elements: u64,
}

impl Matcher<'_> {
    /// Reports once that two inputs have different layouts, instead of one problem for each tensor.
    ///
    /// A different layout is recognised by numbers: a module has the same number of elements in both inputs, but in
    /// another number of tensors.
    pub(super) fn name_other_layouts(&mut self) {
        let mut groups: BTreeMap<String, HashMap<u32, Part>> = BTreeMap::new();
        for at in self.unmatched.iter().map(|(at, _)| *at).chain(self.alone.iter().copied()) {
            let group = group(&self.options.strip(self.name(at)));
            if group.is_empty() {
                continue;
            }
            let elements = self.inputs.tensor(at).elements();
            let inputs = groups.entry(group).or_default();
            let part = inputs.entry(at.input).or_insert(Part { first: at, tensors: 0, elements: 0 });
            (part.tensors, part.elements) = (part.tensors + 1, part.elements + elements);
        }
        groups.retain(|_, parts| differ(parts));
        let said: HashSet<usize> = (self.unmatched.iter())
            .filter(|(at, _)| groups.contains_key(&group(&self.options.strip(self.name(*at)))))
            .map(|(_, place)| *place)
            .collect();
        let Some(&first) = said.iter().min() else { return };
        let message = self.layouts(&groups, first);
        self.say_once(&said, message);
    }

    /// Reports once what keeps a view from fitting, instead of one problem for each tensor that it concerns.
    pub(super) fn name_obstacles(&mut self) {
        if self.unmatched.is_empty() {
            return;
        }
        for Obstacle { inputs, keys, message } in obstacles::find(self.inputs, self.options) {
            let keys: Option<HashSet<String>> = keys.map(|keys| keys.into_iter().collect());
            let concerned = |at: At| {
                let name = || experts::key(self.options.strip(self.name(at)));
                // What lacks a counterpart in the donor is concerned as well.
                keys.as_ref().map_or_else(|| inputs.contains(&at.input), |keys| keys.contains(&*name()))
            };
            let said = self.unmatched.iter().filter(|(at, _)| concerned(*at)).map(|(_, place)| *place).collect();
            self.say_once(&said, message);
        }
    }

    /// Puts a message in the place of the first of some problems of tensors without a counterpart, and drops the others.
    fn say_once(&mut self, said: &HashSet<usize>, message: String) {
        let Some(&first) = said.iter().min() else { return };
        let problem = &mut self.found.problems[first];
        (problem.message, problem.many) = (message.into(), None);
        let (mut place, mut moved) = (0, HashMap::new());
        self.found.problems.retain(|_| {
            let keep = place == first || !said.contains(&place);
            if keep {
                moved.insert(place, moved.len());
            }
            place += 1;
            keep
        });
        // Tensors without a counterpart for other reasons keep their problems, whose indices have moved.
        self.unmatched.retain(|(_, place)| !said.contains(place));
        for (_, place) in &mut self.unmatched {
            *place = moved[place];
        }
    }

    fn layouts(&self, groups: &BTreeMap<String, HashMap<u32, Part>>, first: usize) -> String {
        let total = |input: u32| groups.values().filter_map(|parts| Some(parts.get(&input)?.tensors)).sum::<u64>();
        let at = self.unmatched.iter().find(|(_, place)| *place == first).map_or(0, |(at, _)| at.input);
        let parts = groups.values().find(|parts| parts.contains_key(&at));
        let other = parts.and_then(|parts| parts.iter().find(|(input, _)| **input != at));
        let role = |input: u32| &self.inputs.list[input as usize].role;
        let (there, example) = other
            .map_or((at, String::new()), |(input, part)| (*input, format!(" (such as `{}`)", self.name(part.first))));
        format!(
            "the {} stores in {} tensors the layers that the {} stores in {}{example}: one of the two has fused them, and taskvec does not convert between layouts; save both checkpoints with the same version of transformers, or leave these layers out (--exclude)",
            role(at),
            total(at),
            role(there),
            total(there),
        )
    }
}

/// The part of a name that a fused and a separate layout have in common: `….experts`, or the parent of the module.
fn group(name: &str) -> String {
    if let Some(at) = name.find("experts.") {
        return name[..at + "experts".len()].to_owned();
    }
    let module = name.rsplit_once('.').map_or("", |(module, _)| module);
    module.rsplit_once('.').map_or("", |(above, _)| above).to_owned()
}

/// Whether two inputs have equally many elements in a group, but another number of tensors.
fn differ(parts: &HashMap<u32, Part>) -> bool {
    let all: Vec<&Part> = parts.values().collect();
    all.iter().any(|a| all.iter().any(|b| a.elements == b.elements && a.tensors != b.tensors))
}
