//! Making text from untrusted files safe to print in messages.

/// A name from an untrusted file, for a message: in backticks, with control characters escaped, and cut if very long.
pub fn quote(name: &str) -> String {
    format!("`{}`", cut(&name.escape_debug().to_string(), 160))
}

/// An error of the JSON parser, for a message. It may quote text of the file, so control characters are replaced.
pub fn brief(error: &serde_json::Error) -> String {
    let printable: String =
        error.to_string().chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    cut(&printable, 320)
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
