//! Changes to members of a JSON text that leave every other byte as it is.

use std::borrow::Cow;
use std::ops::Range;

use crate::numeric::dtype::Float;

/// What is done with a member of an object.
pub enum Edit {
    /// It stays.
    Keep,
    /// Its value is replaced.
    Replace(Cow<'static, [u8]>),
    /// It is taken out.
    Remove,
}

/// The name of a type in a config, in quotes.
pub const fn name(dtype: Float) -> Cow<'static, [u8]> {
    Cow::Borrowed(match dtype {
        Float::Bf16 => b"\"bfloat16\"",
        Float::F16 => b"\"float16\"",
        Float::F32 => b"\"float32\"",
    })
}

/// The text with the edits that `edit` wants for members of the config: those of the top level and of sub-configs, each
/// with its path (its key is the last of it) and its value. The text has been parsed before, so it is valid JSON and its depth is bounded.
pub fn edited(text: &[u8], edit: &dyn Fn(&[String], &[u8]) -> Edit) -> Vec<u8> {
    let mut walk = Walk { text, edit, path: Vec::new(), changes: Vec::new() };
    walk.value(skip_space(text, 0), true);
    // Changes inside a member that is taken out fall away with it.
    walk.changes.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
    let (mut out, mut done) = (Vec::with_capacity(text.len() + 64), 0);
    for (range, new) in walk.changes {
        if range.end <= done {
            continue;
        }
        out.extend_from_slice(&text[done..range.start.max(done)]);
        out.extend_from_slice(&new);
        done = range.end;
    }
    out.extend_from_slice(&text[done..]);
    out
}

struct Walk<'a> {
    text: &'a [u8],
    edit: &'a dyn Fn(&[String], &[u8]) -> Edit,
    /// The keys of the objects around the present value.
    path: Vec<String>,
    /// Ranges of the text, and what replaces them.
    changes: Vec<(Range<usize>, Cow<'static, [u8]>)>,
}

impl Walk<'_> {
    /// Passes the value that begins at `at`, and returns where it ends.
    fn value(&mut self, at: usize, in_config: bool) -> usize {
        let text = self.text;
        let (close, object) = match text.get(at) {
            Some(b'{') => (b'}', true),
            Some(b'[') => (b']', false),
            Some(b'"') => return string_end(text, at),
            _ => {
                let ends = |byte: &u8| b",]} \t\r\n".contains(byte);
                return text.iter().skip(at).position(ends).map_or(text.len(), |length| at + length);
            }
        };
        let mut at = skip_space(text, at + 1);
        // Where the last member that stays ends.
        let mut kept = None;
        while text.get(at).is_some_and(|&byte| byte != close) {
            let start = at;
            let mut key = String::new();
            if object {
                let end = string_end(text, at);
                key = serde_json::from_slice(&text[at..end]).unwrap_or_default();
                // Past the colon.
                at = skip_space(text, skip_space(text, end) + 1);
            }
            let sub_config = in_config && key.ends_with("_config") && key != "quantization_config";
            let begin = at;
            self.path.push(key);
            at = self.value(begin, sub_config);
            let end = at;
            at = skip_space(text, at);
            let last = text.get(at) != Some(&b',');
            if !last {
                at = skip_space(text, at + 1);
            }
            let edit = if in_config && object { (self.edit)(&self.path, &text[begin..end]) } else { Edit::Keep };
            self.path.pop();
            match edit {
                Edit::Keep => kept = Some(end),
                Edit::Replace(new) => {
                    self.changes.push((begin..end, new));
                    kept = Some(end);
                }
                // With the comma after it, or if it is the last one, with that before it.
                Edit::Remove if !last => self.changes.push((start..at, Cow::Borrowed(b""))),
                Edit::Remove => self.changes.push((kept.unwrap_or(start)..end, Cow::Borrowed(b""))),
            }
            if last {
                break;
            }
        }
        (at + 1).min(text.len())
    }
}

/// The position after the quote that closes the string which opens at `at`.
pub fn string_end(text: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => break,
            b'\\' => at += 1,
            _ => {}
        }
    }
    at.min(text.len())
}

fn skip_space(text: &[u8], at: usize) -> usize {
    text.iter().skip(at).position(|byte| !b" \t\r\n".contains(byte)).map_or(text.len(), |length| at + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(text: &str) -> String {
        let last = |path: &[String]| path.last().is_some_and(|key| key.starts_with('x'));
        let edit = |path: &[String], _: &[u8]| if last(path) { Edit::Remove } else { Edit::Keep };
        String::from_utf8_lossy(&edited(text.as_bytes(), &edit)).into_owned()
    }

    #[test]
    fn members_are_taken_out_with_one_comma() {
        for (text, wanted) in [
            (r#"{"x": {"a": [1]}, "b": 2}"#, r#"{"b": 2}"#),
            (r#"{"b": 2 , "x": 1 }"#, r#"{"b": 2 }"#),
            (r#"{"b": 2, "x": 1, "x2": 3}"#, r#"{"b": 2}"#),
            (r#"{"x": 1, "b": 2, "x2": 3, "c": 4}"#, r#"{"b": 2, "c": 4}"#),
            (r#"{ "x": 1, "x2": 2 }"#, r#"{  }"#),
            (
                r#"{"text_config": {"x": {"y": 1}, "k": "x"}, "a": {"x": 1}}"#,
                r#"{"text_config": {"k": "x"}, "a": {"x": 1}}"#,
            ),
            (r#"{"a": [1, {"x": 1}], "x": "}"}"#, r#"{"a": [1, {"x": 1}]}"#),
        ] {
            assert_eq!(without(text), wanted, "{text}");
        }
    }
}
