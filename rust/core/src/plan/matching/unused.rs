//! Options that do nothing are refused.

use super::Matcher;
use crate::error::{Error, Result};

impl Matcher<'_> {
    /// Refuses a pattern that matches nothing: it is probably a typing error, and would silently change the result.
    pub(super) fn options_used(&self) -> Result<()> {
        // The tensors of an exceptions file belong to tensors of the vector, and are not selected by name.
        let inputs = || self.inputs.list.iter().filter(|input| !input.role.ends_with("exceptions"));
        let names = || inputs().flat_map(|input| &input.checkpoint.tensors).map(|t| self.options.strip(&t.name));
        let patterns = self.options.include.iter().map(|pattern| ("--include", pattern));
        for (option, pattern) in patterns.chain(self.options.exclude.iter().map(|pattern| ("--exclude", pattern))) {
            if !names().any(|name| pattern.is_match(&name)) {
                return Err(Error::Usage(format!(
                    "{option} `{pattern}` matches no tensor; see `taskvec inspect` for the names"
                )));
            }
        }
        for rule in &self.options.alpha_rules {
            if !names().any(|name| rule.pattern.is_match(&name)) {
                return Err(Error::Usage(format!(
                    "--alpha-rule `{}` matches no tensor; see `taskvec inspect` for the names",
                    rule.pattern
                )));
            }
        }
        Ok(())
    }
}
