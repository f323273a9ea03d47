//! `taskvec.options.Options`, read attribute by attribute.

use pyo3::prelude::*;
use taskvec_core::plan::options::{self, Alpha, AlphaRule, Claim};

use crate::errors::raise;

/// The Python dataclass, not checked yet.
#[derive(FromPyObject)]
pub struct PyOptions {
    memory: Option<u64>,
    threads: Option<usize>,
    dtype: Option<String>,
    rounding: String,
    seed: u64,
    vocab: String,
    include: Vec<String>,
    exclude: Vec<String>,
    alpha_rules: Vec<(String, String, f64)>,
    schedule: Option<String>,
    prefixes: Vec<String>,
    base: Option<String>,
    claims: Vec<(String, String, Option<u64>)>,
    io: String,
    sync: bool,
    sha256: bool,
    overwrite: bool,
    resume: bool,
}

impl PyOptions {
    /// Checks the options and converts them to those of the core.
    pub fn parse(&self) -> PyResult<options::Options> {
        self.convert().map_err(raise)
    }

    fn convert(&self) -> taskvec_core::Result<options::Options> {
        let patterns = |option, list: &[String]| {
            list.iter().map(|text| options::parse_pattern(option, text)).collect::<taskvec_core::Result<Vec<_>>>()
        };
        let rule = |(pattern, text, value): &(String, String, f64)| {
            let pattern = options::parse_pattern("--alpha-rule", pattern)?;
            Ok(AlphaRule { pattern, alpha: Alpha::new(text, *value)? })
        };
        Ok(options::Options {
            memory: self.memory,
            threads: self.threads,
            dtype: self.dtype.as_deref().map(options::parse_dtype).transpose()?,
            rounding: self.rounding.parse()?,
            seed: self.seed,
            vocab: self.vocab.parse()?,
            include: patterns("--include", &self.include)?,
            exclude: patterns("--exclude", &self.exclude)?,
            alpha_rules: self.alpha_rules.iter().map(rule).collect::<taskvec_core::Result<_>>()?,
            schedule: self.schedule.as_deref().map(str::parse).transpose()?,
            prefixes: self.prefixes.clone(),
            base: self.base.clone(),
            claims: self.claims.iter().cloned().map(|(file, message, row)| Claim { file, message, row }).collect(),
            io: self.io.parse()?,
            sync: self.sync,
            sha256: self.sha256,
            overwrite: self.overwrite,
            resume: self.resume,
        })
    }
}

/// Converts a factor from Python: its text and its number.
pub fn alpha((text, value): (String, f64)) -> PyResult<Alpha> {
    Alpha::new(&text, value).map_err(raise)
}
