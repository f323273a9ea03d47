//! The factor of a vector.

use crate::error::{Error, Result};

/// A scale factor: what the user wrote, and the f32 that the arithmetic uses.
#[derive(Clone, Debug, PartialEq)]
pub struct Alpha {
    /// The number as the user wrote it.
    pub text: String,
    /// `f32(float(text))`, the value that torch would use.
    pub value: f32,
    /// The number before it was rounded.
    number: f64,
}

impl Alpha {
    /// Rounds a Python float to f32. A number that would become infinite or 0 is refused.
    pub fn new(text: &str, value: f64) -> Result<Self> {
        let narrow = rounded(value);
        if !value.is_finite() {
            return Err(Error::Usage(format!("alpha is `{text}`; it has to be a finite number")));
        }
        if !narrow.is_finite() {
            return Err(Error::Usage(format!("alpha `{text}` is too large for f32, in which the arithmetic is done")));
        }
        if narrow == 0.0 && value != 0.0 {
            return Err(Error::Usage(format!(
                "alpha `{text}` is too small: in f32, in which the arithmetic is done, it is 0"
            )));
        }
        Ok(Self { text: text.to_owned(), value: narrow, number: value })
    }

    /// How far the number is from 0.
    pub fn size(&self) -> f64 {
        self.number.abs()
    }

    /// α times a factor, in f64 and rounded once to f32.
    pub fn times(&self, factor: f64) -> f32 {
        rounded(self.number * factor)
    }
}

/// The nearest f32: the one rounding of α.
fn rounded(value: f64) -> f32 {
    value as f32
}
