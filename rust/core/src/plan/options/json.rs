//! The options as Python hands them over: one JSON document, checked once. `python/taskvec/options.py` writes it.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::plan::options::{Alpha, AlphaRule, Claim, Options, parse_dtype, parse_pattern, parse_scales};
use crate::plan::views::map::Pair;

/// A member that is missing or unknown is an error: the two sides are of different versions then.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    memory: Option<u64>,
    threads: Option<usize>,
    dtype: Option<String>,
    encoding: String,
    rounding: String,
    requantise: Option<String>,
    seed: u64,
    vocab: String,
    include: Vec<String>,
    exclude: Vec<String>,
    alpha_rules: Vec<Rule>,
    schedule: Option<String>,
    io: String,
    sync: bool,
    sha256: bool,
    overwrite: bool,
    resume: bool,
    kinds: bool,
    prefixes: Vec<String>,
    map: Vec<String>,
    base: Option<String>,
    claims: Vec<Claim>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    pattern: String,
    /// α as the user wrote it.
    text: String,
    /// α as Python prints the float: JSON has no Inf and NaN, which are refused in words of their own.
    number: String,
}

impl Options {
    /// Reads the document.
    ///
    /// # Errors
    /// An option that does not make sense, or a document of another version.
    pub fn from_json(text: &str) -> Result<Self> {
        let given: Document = serde_json::from_str(text)
            .map_err(|error| Error::Usage(format!("the options are not those of this version: {error}")))?;
        let patterns =
            |option, list: Vec<String>| list.iter().map(|text| parse_pattern(option, text)).collect::<Result<Vec<_>>>();
        let rule = |Rule { pattern, text, number }: Rule| {
            let number = number.parse().map_err(|_| Error::Usage(format!("alpha `{text}` is not a number")))?;
            Ok(AlphaRule { pattern: parse_pattern("--alpha-rule", &pattern)?, alpha: Alpha::new(&text, number)? })
        };
        Ok(Self {
            memory: given.memory,
            threads: given.threads,
            dtype: given.dtype.as_deref().map(parse_dtype).transpose()?,
            encoding: given.encoding.parse()?,
            rounding: given.rounding.parse()?,
            requantise: given.requantise.as_deref().map(parse_scales).transpose()?,
            seed: given.seed,
            vocab: given.vocab.parse()?,
            include: patterns("--include", given.include)?,
            exclude: patterns("--exclude", given.exclude)?,
            alpha_rules: given.alpha_rules.into_iter().map(rule).collect::<Result<_>>()?,
            schedule: given.schedule.as_deref().map(str::parse).transpose()?,
            prefixes: given.prefixes,
            maps: given.map.iter().map(|text| Pair::parse(text)).collect::<Result<_>>()?,
            base: given.base,
            claims: given.claims,
            io: given.io.parse()?,
            sync: given.sync,
            sha256: given.sha256,
            overwrite: given.overwrite,
            resume: given.resume,
            kinds: given.kinds,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn whole() -> Value {
        json!({
            "memory": 1, "threads": null, "dtype": "f16", "encoding": "dense", "rounding": "stochastic", "requantise": "fresh", "seed": u64::MAX, "vocab": "common",
            "include": ["a"], "exclude": [], "schedule": "linear:0,1", "io": "pread", "sync": false, "sha256": true,
            "overwrite": false, "resume": false, "kinds": false, "prefixes": ["p."], "map": ["a=b"], "base": null,
            "alpha_rules": [{"pattern": "b", "text": "0.1", "number": "0.1"}],
            "claims": [{"file": "f", "message": "m", "row": 3}],
        })
    }

    #[test]
    fn every_member_is_read_and_no_other() {
        let read = |document: &Value| Options::from_json(&document.to_string());
        let options = read(&whole()).unwrap();
        assert_eq!((options.memory, options.seed, options.sync, options.resume), (Some(1), u64::MAX, false, false));
        assert_eq!(options.alpha_rules[0].alpha, Alpha::new("0.1", 0.1).unwrap());
        assert_eq!((options.claims[0].row, options.prefixes.len()), (Some(3), 1));
        let mut more = whole();
        more["new"] = 1.into();
        assert!(read(&more).unwrap_err().to_string().contains("unknown field `new`"));
        for member in ["rounding", "seed", "include", "sync", "alpha_rules", "claims"] {
            let mut less = whole();
            less.as_object_mut().unwrap().remove(member);
            assert!(read(&less).unwrap_err().to_string().contains(&format!("missing field `{member}`")), "{member}");
        }
        let mut odd = whole();
        odd["alpha_rules"][0]["number"] = "nan".into();
        assert!(read(&odd).unwrap_err().to_string().contains("has to be a finite number"));
    }
}
