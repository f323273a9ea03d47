//! Why the inputs of a job do not fit together. There may be one problem for each of hundreds of thousands of tensors,
//! so what they have in common is in memory once, and people are told kinds of problems.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;

use crate::checkpoint::Unread;
use crate::format::config;
use crate::plan::inputs::Input;
use crate::text::{Name, quote, thousands};

/// One reason why the inputs do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file in which it was found.
    pub file: Name,
    /// The tensor; `None` if the problem is with the whole file or folder.
    pub tensor: Option<Name>,
    /// One sentence: what is wrong and what to do.
    pub message: Name,
    /// The sentence for many tensors that have this problem, with [`COUNT`] and [`EXAMPLES`] in it. `None` if there is no
    /// better one than that they have it.
    #[serde(skip)]
    pub many: Option<Name>,
}

/// What stands for the number of tensors in [`Problem::many`].
pub const COUNT: &str = "{count}";
/// What stands for some of their names.
pub const EXAMPLES: &str = "{examples}";

/// As many problems of a kind are told one by one, or of more as many tensors are named.
const EACH: usize = 3;
/// As many kinds are told.
const MOST_KINDS: usize = 20;

impl Problem {
    /// A problem with a whole file or folder.
    pub fn of_file(file: impl Into<Name>, message: impl Into<Name>) -> Self {
        Self { file: file.into(), tensor: None, message: message.into(), many: None }
    }

    /// A problem with an input whose quantised weights are not read.
    pub fn unread(input: &Input, unread: &Unread) -> Self {
        match unread {
            Unread::Method(method) => Self::of_file(
                input.checkpoint.place.path(config::FILE).display().to_string(),
                format!(
                    "the {} is quantised ({method}), a method that taskvec does not read; use the unquantised checkpoint",
                    input.role
                ),
            ),
            Unread::Weight { file, tensor, what } => {
                let tensor = Some(tensor.as_str().into());
                Self { tensor, ..Self::of_file(file.as_str(), what.as_str()) }
            }
        }
    }

    fn folder(&self) -> &str {
        Path::new(self.file.as_str()).parent().and_then(Path::to_str).unwrap_or(&self.file)
    }
}

/// The problems as people are told them: those that differ in the tensor alone are counted, and three of the tensors
/// are named.
pub fn told(problems: &[Problem]) -> Vec<Problem> {
    let mut kinds: Vec<(usize, Vec<&Problem>)> = Vec::new();
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    for problem in problems {
        let place = *places.entry((problem.folder(), &problem.message)).or_insert(kinds.len());
        if place == kinds.len() {
            kinds.push((0, Vec::new()));
        }
        let (count, first) = &mut kinds[place];
        *count += 1;
        if first.len() < EACH {
            first.push(problem);
        }
    }
    let more: usize = kinds.iter().skip(MOST_KINDS).map(|(count, _)| count).sum();
    let mut told = Vec::new();
    for (count, first) in kinds.iter().take(MOST_KINDS) {
        if *count > first.len() {
            told.push(counted(*count, first));
        } else {
            told.extend(first.iter().map(|&problem| problem.clone()));
        }
    }
    if let Some((_, first)) = kinds.get(MOST_KINDS) {
        let message = format!("{} more problems of other kinds; --verbose or --json lists them all", thousands(more));
        told.push(Problem::of_file(first[0].folder(), message));
    }
    told
}

/// One problem for so many of a kind.
fn counted(count: usize, first: &[&Problem]) -> Problem {
    let problem = first[0];
    let names: Vec<String> = first.iter().filter_map(|problem| problem.tensor.as_deref().map(quote)).collect();
    let (count, examples) = (thousands(count), names.join(", "));
    let message = match &problem.many {
        Some(many) => many.replace(COUNT, &count).replace(EXAMPLES, &examples),
        None => format!("{count} tensors, such as {examples}, have this problem: {}", problem.message),
    };
    let file = if first.iter().all(|other| other.file == problem.file) { &problem.file } else { problem.folder() };
    Problem::of_file(file, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(file: &str, tensor: &str, message: &str) -> Problem {
        Problem { tensor: Some(tensor.into()), ..Problem::of_file(file, message) }
    }

    #[test]
    fn few_are_told_one_by_one() {
        let few = ["a", "b", "c"].map(|name| problem("m/x", name, "odd"));
        assert_eq!(told(&few), few);
        assert_eq!(told(&[]), []);
    }

    #[test]
    fn many_are_counted_by_kind_and_folder() {
        let mut all: Vec<Problem> = (0..1234).map(|at| problem(&format!("m/{at}"), &at.to_string(), "odd")).collect();
        all.insert(1, problem("n/x", "other", "odd"));
        for (place, message) in [(0, "odd"), (1, "wrong")] {
            all.extend((0..4).map(|at| Problem {
                many: (place == 1).then(|| format!("{COUNT} are wrong: {EXAMPLES}").into()),
                ..problem(&format!("o{place}/x"), &at.to_string(), message)
            }));
        }
        let told: Vec<(String, String)> =
            told(&all).iter().map(|one| (one.file.to_string(), one.message.to_string())).collect();
        let wanted = [
            ("m", "1,234 tensors, such as `0`, `1`, `2`, have this problem: odd"),
            ("n/x", "odd"),
            ("o0/x", "4 tensors, such as `0`, `1`, `2`, have this problem: odd"),
            ("o1/x", "4 are wrong: `0`, `1`, `2`"),
        ];
        assert_eq!(told, wanted.map(|(file, message)| (file.to_owned(), message.to_owned())));
    }

    #[test]
    fn kinds_beyond_twenty_are_only_counted() {
        let all: Vec<Problem> = (0..25).map(|at| problem("m/x", "a", &format!("kind {at}"))).collect();
        let told = told(&all);
        assert_eq!(told.len(), 21);
        assert_eq!(told[20].message, "5 more problems of other kinds; --verbose or --json lists them all");
    }
}
