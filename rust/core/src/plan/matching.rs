//! Matches the tensors of all inputs by name. The few known differences between checkpoints are handled by named
//! policies.
//!
//! Nothing is dropped silently: every tensor of every input is combined, copied with a note, or named in a problem.

mod copies;
mod graft;
mod layouts;
mod names;
mod prefixes;
pub mod problems;
mod unused;
mod vectors;
mod views;

use std::collections::HashSet;

use self::problems::{COUNT, EXAMPLES, Problem};
pub use self::vectors::vector_dtype;
use self::views::{Difference, View};
use crate::checkpoint::{Tensor, tied};
use crate::error::Result;
use crate::numeric::dtype::Kind;
use crate::plan::inputs::{At, Inputs, Origin};
use crate::plan::layers::{LayerFactor, Scheduled};
use crate::plan::options::{Alpha, Options, Vocab};
use crate::plan::output::Output;
use crate::plan::terms::{TermPlan, Terms};
use crate::text::Name;

/// What is done with one tensor of the first input.
#[derive(Clone, Debug)]
pub struct Match {
    /// Its index among the first input's tensors, which gives its name and shape.
    pub tensor: u32,
    /// The tensor whose values it starts from: itself, the embedding that a tied head repeats, or a donor's that is
    /// grafted.
    pub from: At,
    /// The summands; empty if the tensor is only copied or converted.
    pub terms: Terms,
}

/// Two tensors of one input that must hold the same bytes. If they do not, the run stops before writing.
#[derive(Clone, Copy, Debug)]
pub struct SameBytes {
    /// An output head that is stored although it is tied, or a copy that multi-token prediction keeps.
    pub head: At,
    /// The embedding, or the head, that it repeats.
    pub embedding: At,
}

/// The result of matching.
#[derive(Debug, Default)]
pub struct Matching {
    /// The first input's tensors, in its order. For `extract`, only those that the vector holds.
    pub matches: Vec<Match>,
    /// Why the inputs do not fit; empty if they do.
    pub problems: Vec<Problem>,
    /// What was copied unchanged or decided by a policy, in sentences.
    pub notes: Vec<String>,
    /// Pairs of tensors to compare before writing.
    pub same: Vec<SameBytes>,
    /// For each `--alpha-rule`, the number of tensors whose factor it decides.
    pub rule_counts: Vec<u64>,
    /// The factor of every layer, with `--schedule`.
    pub layers: Vec<LayerFactor>,
}

struct Matcher<'a> {
    inputs: &'a Inputs,
    options: &'a Options,
    found: Matching,
    groups: Vec<(&'static str, Vec<&'a str>)>,
    /// Tensors without a counterpart, each with the index of the problem that reports it.
    unmatched: Vec<(At, usize)>,
    /// Tensors that only the target has.
    alone: Vec<At>,
    schedule: Option<Scheduled>,
    /// What problems have in common.
    texts: HashSet<Name>,
}

/// Matches all inputs of a job. Problems are collected and not returned as errors, because `check` shows all of them.
///
/// # Errors
/// A pattern of the options that matches no tensor.
pub fn match_inputs(inputs: &Inputs, options: &Options) -> Result<Matching> {
    let rule_counts = vec![0; options.alpha_rules.len()];
    let schedule = scheduled(inputs, options)?;
    let layers = schedule.as_ref().map_or(Vec::new(), Scheduled::layers);
    let found = Matching { rule_counts, layers, ..Matching::default() };
    let (groups, unmatched, alone, texts) = Default::default();
    let mut matcher = Matcher { inputs, options, found, groups, unmatched, alone, schedule, texts };
    if !inputs.grafts.is_empty() {
        matcher.graft()?;
        matcher.write_notes();
        return Ok(matcher.found);
    }
    matcher.quantised();
    let mut views: Vec<_> = inputs.origins.iter().map(|(origin, _)| matcher.view(origin)).collect();
    match inputs.output {
        Output::Checkpoint => matcher.combine(&mut views),
        Output::Vector => matcher.vector(&mut views),
    }
    matcher.options_used()?;
    matcher.name_obstacles();
    matcher.name_other_layouts();
    matcher.suggest_prefixes();
    matcher.write_notes();
    Ok(matcher.found)
}

/// The schedule of the options, on the target's stacks.
fn scheduled(inputs: &Inputs, options: &Options) -> Result<Option<Scheduled>> {
    let Some(schedule) = &options.schedule else { return Ok(None) };
    let names: Vec<_> = inputs.base().tensors.iter().map(|tensor| options.strip(&tensor.name)).collect();
    let schedule = Scheduled::new(schedule, names.iter().map(AsRef::as_ref))?;
    for alpha in inputs.origins.iter().filter_map(|(_, alpha)| alpha.as_ref()) {
        schedule.require_finite(alpha)?;
    }
    Ok(Some(schedule))
}

impl<'a> Matcher<'a> {
    fn name(&self, at: At) -> &'a str {
        &self.inputs.tensor(at).name
    }

    fn problem(&mut self, at: At, message: impl AsRef<str>) {
        let file = self.text(&self.inputs.path(at).display().to_string());
        let (tensor, message) = (Some(self.inputs.tensor(at).name.clone()), self.text(message.as_ref()));
        self.found.problems.push(Problem { file, tensor, message, many: None });
    }

    /// A problem with a tensor that another input lacks. `what` completes the sentence about all such tensors: "… tensors
    /// of the minuend {what}, such as …".
    fn unmatched(&mut self, at: At, what: &str, advice: &str, message: &str) {
        let place = self.found.problems.len();
        self.unmatched.push((at, place));
        self.problem(at, message);
        let role = &self.inputs.list[at.input as usize].role;
        let many = format!("{COUNT} tensors of the {role} {what}, such as {EXAMPLES}; {advice}");
        self.found.problems[place].many = Some(self.text(&many));
    }

    /// A text that many problems have in common.
    fn text(&mut self, text: &str) -> Name {
        match self.texts.get(text) {
            Some(known) => known.clone(),
            None => {
                let new = Name::from(text);
                self.texts.insert(new.clone());
                new
            }
        }
    }

    /// Remembers a tensor for a note that names its group.
    fn note(&mut self, group: &'static str, name: &'a str) {
        match self.groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, names)) => names.push(name),
            None => self.groups.push((group, vec![name])),
        }
    }

    fn write_notes(&mut self) {
        for (group, names) in &self.groups {
            let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
            let shown = names[..names.len().min(3)].join(", ");
            self.found.notes.push(format!("{} {group}: {shown}{more}", names.len()));
        }
        for input in &self.inputs.list {
            let (role, checkpoint) = (&input.role, &input.checkpoint);
            self.found.notes.extend(checkpoint.notes.iter().cloned());
            if !checkpoint.left_out.is_empty() && role == "target" {
                self.found.notes.push(format!("left out of the output: {}", checkpoint.left_out.join(", ")));
            }
        }
    }

    /// Reports inputs that are quantised, unless the options select only tensors that are not.
    fn quantised(&mut self) {
        for input in &self.inputs.list {
            let Some(unread) = &input.checkpoint.unread else { continue };
            let tensors = &input.checkpoint.tensors;
            let module = |name: &'a str| name.rsplit_once('.').map_or("", |(module, _)| module);
            let coded = tensors.iter().filter(|tensor| tensor.dtype.float().is_none());
            let coded: HashSet<&str> = coded.map(|tensor| module(&tensor.name)).collect();
            let takes_part = |tensor: &&Tensor| self.options.selects(&self.options.strip(&tensor.name));
            // All selected tensors are floats, and no tensor of the same module holds codes, so they are not the scales
            // of a quantised weight: these are plain values.
            let plain = tensors.iter().filter(takes_part).all(|tensor| !coded.contains(module(&tensor.name)));
            let chosen = !self.options.include.is_empty() || !self.options.exclude.is_empty();
            if chosen && plain {
                continue;
            }
            self.found.problems.push(Problem::unread(input, unread));
        }
    }

    /// The number of leading elements that all of these tensors have. Adds a problem if their shapes differ, except for
    /// vocabulary rows with `--vocab common`.
    fn common_elements(&mut self, tensors: &[At]) -> Option<u64> {
        let shape = |at: At| &self.inputs.tensor(at).shape;
        let first = tensors[0];
        // No model has a tensor of this shape: its checkpoint was saved wrongly. Each problem names the file that holds
        // it.
        let hollow: Vec<At> = tensors.iter().copied().filter(|&at| *shape(at) == [0]).collect();
        if !hollow.is_empty() && hollow.len() < tensors.len() {
            for at in hollow {
                self.problem(at, "its shape is [0]: DeepSpeed ZeRO-3 saved this checkpoint without gathering its weights; make it whole with zero_to_fp32.py, or save it again with stage3_gather_16bit_weights_on_model_save");
            }
            return None;
        }
        let Some(&other) = tensors.iter().find(|&&at| shape(at) != shape(first)) else {
            return Some(self.inputs.tensor(first).elements());
        };
        let (a, b) = (shape(first), shape(other));
        let role = |at: At| &self.inputs.list[at.input as usize].role;
        let shapes = format!("{a:?} in the {} but {b:?} in the {}", role(first), role(other));
        let rows_alone = tied::is_vocabulary(self.name(first))
            && tensors.iter().all(|&at| shape(at).len() == a.len() && !a.is_empty() && shape(at)[1..] == a[1..]);
        if !rows_alone {
            self.problem(first, format!("its shape is {shapes}; these checkpoints do not have the same architecture"));
            return None;
        }
        if self.options.vocab == Vocab::Strict {
            self.problem(
                first,
                format!("its vocabulary rows differ: {shapes}; --vocab common combines the leading rows that all inputs have"),
            );
            return None;
        }
        let rows = tensors.iter().map(|&at| shape(at)[0]).min().unwrap_or(0);
        let group = "vocabulary tensor(s) combined over the rows that all inputs have";
        let elements = rows * a[1..].iter().product::<u64>();
        self.note(group, self.name(first));
        Some(elements)
    }

    /// Whether both sides of a difference are floats; adds a problem if not.
    fn floats(&mut self, difference: &Difference) -> bool {
        for at in [Some(difference.minuend), difference.subtrahend].into_iter().flatten() {
            let dtype = self.inputs.tensor(at).dtype;
            if dtype.float().is_none() {
                self.problem(at, format!("it is {dtype} here, which is not combined (only BF16, F16 and F32 are); exclude it (--exclude) or convert the checkpoint"));
                return false;
            }
        }
        true
    }

    /// Whether an integer tensor seems to hold codes of a quantised format, and is not just a buffer: it is a matrix,
    /// and named like weights, packed blocks or scales.
    fn looks_quantised(&self, at: At) -> bool {
        const PARTS: [&str; 7] = ["weight", "qweight", "qzeros", "weight_packed", "_packed", "blocks", "scales"];
        let tensor = self.inputs.tensor(at);
        tensor.shape.len() >= 2 && PARTS.iter().any(|part| tensor.name.ends_with(part))
    }

    fn combine(&mut self, views: &mut [View<'a>]) {
        for at in self.tensors(0) {
            if self.inputs.is_part(at) {
                self.found.matches.push(Match { tensor: at.tensor, from: at, terms: Terms::default() });
                continue;
            }
            let embedding = tied::tied_embedding(self.inputs.base(), at.tensor);
            if embedding.is_some() {
                self.drop_tied(at);
            }
            let embedding = embedding.map(|tensor| At { tensor, ..at });
            let base = embedding.or_else(|| self.follows(at, views)).unwrap_or(at);
            let name = self.options.strip(self.name(base));
            let terms = self.terms(base, &name, views);
            self.found.matches.push(Match { tensor: at.tensor, from: base, terms });
        }
        for (view, (origin, _)) in views.iter().zip(&self.inputs.origins) {
            for difference in view.differences().into_iter().filter(|difference| !difference.used) {
                let name = self.options.strip(self.name(difference.minuend));
                if !self.options.selects(&name) {
                    continue;
                }
                // A tied target may store a tensor of this name, and then "no tensor of this name" would be wrong.
                let tied = tied::is_head(&name) && self.inputs.base().config.tied == Some(true);
                if !tied {
                    self.unmatched(
                        difference.minuend,
                        "are not in the target",
                        "exclude them (--exclude) if the target does not need them",
                        "the target has no tensor of this name; exclude it (--exclude) if the target does not need it",
                    );
                } else if !self.repeats_embeddings(origin, &difference) {
                    self.problem(difference.minuend, "the target has no separate output head, because it ties the head to the embedding; exclude this one (--exclude) if the target's head should stay tied");
                }
            }
        }
    }

    /// The factor of a tensor: that of its rule, or the vector's as the schedule has it at the tensor's layer.
    fn alpha(&self, name: &str, rule: Option<usize>, alpha: Option<&Alpha>) -> Option<f32> {
        if let Some(rule) = rule {
            return Some(self.options.alpha_rules[rule].alpha.value);
        }
        match &self.schedule {
            Some(schedule) => alpha.map(|alpha| alpha.times(schedule.factor(name))),
            None => alpha.map(|alpha| alpha.value),
        }
    }

    fn terms(&mut self, base: At, name: &str, views: &mut [View<'a>]) -> Terms {
        let dtype = self.inputs.tensor(base).dtype;
        let selected = self.options.selects(name);
        let rule = self.options.rule(name);
        let problems = self.found.problems.len();
        let (mut terms, mut present, mut untied) = (Vec::new(), false, false);
        for (view, (origin, alpha)) in views.iter_mut().zip(&self.inputs.origins) {
            let Some(difference) = view.get(name) else {
                untied |= tied::is_head(name) && self.donors_tied(origin, view);
                continue;
            };
            (difference.used, present) = (true, true);
            let difference = *difference;
            let alpha = self.alpha(name, rule, alpha.as_ref());
            let Some(alpha) = alpha.filter(|_| selected) else { continue };
            if dtype.kind() == Kind::Integer {
                if self.inputs.tensor(difference.minuend).dtype.kind() != Kind::Integer {
                    self.problem(base, format!("it is {dtype} in the target but a float in the donors; these checkpoints do not have the same architecture"));
                } else if self.looks_quantised(base) {
                    self.problem(base, format!("its {dtype} values look like codes of a quantised format, and arithmetic on codes has no meaning; use the unquantised checkpoint"));
                }
                continue;
            }
            let whole = [Some(base), Some(difference.minuend), difference.subtrahend];
            let whole: Vec<At> = whole.into_iter().flatten().collect();
            let Some(elements) = self.common_elements(&whole) else { continue };
            if alpha == 0.0 {
                continue;
            }
            if let Some(why) = self.not_requantised(base, elements) {
                self.problem(base, why);
            } else if dtype.float().is_none() {
                self.problem(base, format!("it is {dtype} in the target, which is not combined (only BF16, F16 and F32 are); exclude it (--exclude) or convert the checkpoint"));
            } else if self.floats(&difference) {
                let Difference { minuend, subtrahend, exceptions, .. } = difference;
                terms.push(TermPlan { minuend, subtrahend, exceptions, alpha, elements });
            }
        }
        if let Some(rule) = rule.filter(|_| present && selected) {
            self.found.rule_counts[rule] += 1;
        }
        let shown = self.name(base);
        if untied && selected && !present {
            self.problem(base, "the target stores an output head, but the donors tie theirs to the embedding; exclude it (--exclude) to keep the target's head as it is, or set tie_word_embeddings to true in the target's config.json if its head is a copy of the embedding");
        } else if !present {
            self.alone.push(base);
            self.note("tensor(s) only in the target, copied", shown);
        } else if !selected {
            self.note("tensor(s) not selected by --include/--exclude, copied", shown);
        } else if self.found.problems.len() > problems {
            // Its problem has been reported already.
        } else if dtype.kind() == Kind::Integer {
            self.note("integer tensor(s), copied", shown);
        } else if terms.is_empty() {
            self.note("tensor(s) with alpha 0, kept", shown);
        }
        terms.into()
    }

    /// Why a tensor of a target that is quantised again cannot be; `None` if it can, or is not quantised.
    fn not_requantised(&self, at: At, elements: u64) -> Option<String> {
        let scaled = self.options.requantise.and_then(|_| self.inputs.scaled(at))?;
        let whole = elements == self.inputs.tensor(at).elements();
        let why = if whole { scaled.can_be_requantised().err()? } else { "only some of its rows would be" };
        Some(format!("it is not quantised again, because {why}; exclude it (--exclude), or leave --requantise out"))
    }

    /// Whether donors without a stored output head tie it to the embedding. Many configurations leave the flag to the
    /// architecture's default. Then an embedding without a head shows that the head is tied.
    fn donors_tied(&self, origin: &Origin, view: &View) -> bool {
        let flag = match *origin {
            Origin::Pair { minuend, .. } => self.inputs.list[minuend as usize].checkpoint.config.tied,
            Origin::Vector { tied, .. } => tied,
        };
        flag.unwrap_or_else(|| view.minuends().any(|at| tied::is_vocabulary(&self.options.strip(self.name(at)))))
    }
}
