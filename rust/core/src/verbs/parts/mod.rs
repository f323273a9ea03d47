//! One job on several machines: `plan` says what it is, `run` does one part of it, `commit` makes the output from all
//! parts. They share a folder.
//!
//! Every machine makes the whole plan from headers. A part is the writing job of `verbs/write.rs` for some of the files;
//! in place of the manifest it writes a record. The commit needs no weights: it takes the figures from the records, and
//! so the output is that of a single run, byte for byte.

pub mod commit;
pub mod plan;
pub mod run;
pub mod status;

pub use crate::output::parts::folder::Job;

use crate::output::parts::record::{self, Found, Record};

/// The parts of a job that are done, and for all others why not.
pub(crate) fn look(job: &Job) -> crate::Result<(Vec<Record>, Vec<Missing>)> {
    let (mut done, mut missing) = (Vec::new(), Vec::new());
    for part in 0..job.parts() {
        match record::look(job, part)? {
            Found::Done(record) => done.push(*record),
            Found::Missing(why) => missing.push(Missing { part, why }),
        }
    }
    Ok((done, missing))
}

/// A part that has to be run.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Missing {
    /// Its number.
    pub part: usize,
    /// If there is more to say than that it was not run.
    pub why: Option<String>,
}

/// Numbers as the array of a job scheduler: `3,17-19`.
pub(crate) fn array(missing: &[Missing]) -> String {
    let runs = missing.chunk_by(|a, b| a.part + 1 == b.part).map(|run| match run {
        [only] => only.part.to_string(),
        run => format!("{}-{}", run[0].part, run[run.len() - 1].part),
    });
    runs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_parts_are_written_as_ranges() {
        let shown = |parts: &[usize]| {
            let missing: Vec<_> = parts.iter().map(|&part| Missing { part, why: None }).collect();
            array(&missing)
        };
        assert_eq!(shown(&[3, 17, 18, 19]), "3,17-19");
        assert_eq!(shown(&[0, 1]), "0-1");
        assert_eq!(shown(&[4]), "4");
        assert_eq!(shown(&[]), "");
    }
}
