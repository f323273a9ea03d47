//! Layers that one input keeps in one tensor and another in several: experts one by one or all together, the projections
//! of attention apart or fused.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Matcher;
use crate::plan::inputs::At;

/// What an input has of a group of layers that has no counterpart under its names.
struct Part {
    first: At,
    tensors: u64,
    elements: u64,
}

impl Matcher<'_> {
    /// Says once that inputs have another layout, in place of a problem for each of its tensors.
    ///
    /// Told by the numbers: the same module holds as many elements in both, but in another number of tensors.
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
        self.found.problems[first].message = message;
        let (mut place, mut moved) = (0, HashMap::new());
        self.found.problems.retain(|_| {
            let keep = place == first || !said.contains(&place);
            if keep {
                moved.insert(place, moved.len());
            }
            place += 1;
            keep
        });
        // What is left without a counterpart for other reasons keeps its problem, at its new place.
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

/// What the tensors of a fused and of a separate layout have in common: all experts of a layer, or the module above.
fn group(name: &str) -> String {
    if let Some(at) = name.find("experts.") {
        return name[..at + "experts".len()].to_owned();
    }
    let module = name.rsplit_once('.').map_or("", |(module, _)| module);
    module.rsplit_once('.').map_or("", |(above, _)| above).to_owned()
}

/// Whether two inputs have as much in a group, in another number of tensors.
fn differ(parts: &HashMap<u32, Part>) -> bool {
    let all: Vec<&Part> = parts.values().collect();
    all.iter().any(|a| all.iter().any(|b| a.elements == b.elements && a.tensors != b.tensors))
}
