//! An output is never written where an input is.

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// Refuses an output that is, is inside or contains an input, because writing it could destroy what is being read.
pub fn apart_from_inputs(out: &Path, inputs: &[&Path]) -> Result<()> {
    apart(out, "output", inputs, "input")
}

/// Refuses a job's folder that is, is inside or contains an input or the output.
pub fn job_apart(job: &Path, inputs: &[&Path], out: &Path) -> Result<()> {
    apart(job, "job", inputs, "input")?;
    apart(job, "job", &[out], "output")
}

fn apart(path: &Path, what: &str, others: &[&Path], kind: &str) -> Result<()> {
    if path.exists() && !path.is_dir() {
        return Err(Error::Usage(format!("{} is a file, but the {what} has to be a folder", path.display())));
    }
    let ours = resolve(path)?;
    for other in others {
        let theirs = resolve(other)?;
        let relation = match (ours.starts_with(&theirs), theirs.starts_with(&ours)) {
            (true, true) => "is",
            (true, false) => "is inside",
            (false, true) => "contains",
            (false, false) => continue,
        };
        return Err(Error::Usage(format!(
            "{} {relation} the {kind} {}; choose another folder",
            path.display(),
            other.display()
        )));
    }
    Ok(())
}

/// The real path, also of a file that does not exist yet. It is resolved part by part, because `..` after a link leads
/// to the parent of the link's target, and after a folder that does not exist yet to the parent of that folder.
fn resolve(path: &Path) -> Result<PathBuf> {
    let whole = std::path::absolute(path).map_err(Error::io(path, "resolve"))?;
    let mut real = PathBuf::new();
    for part in whole.components() {
        match part {
            Component::ParentDir => drop(real.pop()),
            Component::Normal(name) => {
                real.push(name);
                real = real.canonicalize().unwrap_or(real);
            }
            part => real.push(part),
        }
    }
    Ok(real)
}
