//! Text of strangers as messages show it.

/// A name from an untrusted file as messages show it: in backticks, control characters escaped, cut when endless.
pub fn quote(name: &str) -> String {
    format!("`{}`", cut(&name.escape_debug().to_string(), 160))
}

/// What the JSON parser found, fit for a message: it may repeat text of the file.
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
