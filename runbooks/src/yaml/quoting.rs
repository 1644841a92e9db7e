//! What to write when YAML takes an expression or a command for something else.
//!
//! `!` begins a tag, `&` an anchor, `*` an alias, `"` and `'` a quoted text that ends at the next one, `[` and `{` a list or a map,
//! `%`, `@` and a backquote are reserved; `: ` makes a map and ` #` a comment. All of them are plain text inside quotes.

/// The quoted form of the value on this line, if there is a value that wants quotes.
pub(crate) fn help(line: &str) -> Option<String> {
    let (lead, value) = split(line)?;
    let value = value.trim();
    if value.is_empty() {
        return None;
    }
    let in_flow = lead.contains(['{', '[']) || value.starts_with(['{', '[']);
    if value.contains("{{") && in_flow && !value.starts_with("[\"${{") {
        return Some("put a text with `${{ … }}` into quotes: \"${{ … }}\"".to_owned());
    }
    let wants = value.starts_with(['!', '&', '*', '"', '\'', '[', '{', '%', '@', '`', '|', '>'])
        || value.contains(": ")
        || value.contains(" #");
    wants.then(|| format!("quote the whole value: `{}{}`", lead.trim_start(), quoted(value)))
}

/// The value in the quotes that need the fewest changes.
pub(crate) fn quoted(value: &str) -> String {
    if !value.contains('\'') {
        format!("'{value}'")
    } else if !value.contains(['"', '\\']) {
        format!("\"{value}\"")
    } else {
        format!("'{}'", value.replace('\'', "''"))
    }
}

/// `- key: value` to `- key: ` and `value`, `- value` to `- ` and `value`.
fn split(line: &str) -> Option<(&str, &str)> {
    let mut at = line.len() - line.trim_start().len();
    while line[at..].starts_with("- ") {
        at += 2 + line[at + 2..].len() - line[at + 2..].trim_start().len();
    }
    let key = line[at..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).unwrap_or(0);
    let rest = &line[at + key..];
    if key > 0 && rest.starts_with(": ") {
        let blanks = rest[1..].len() - rest[1..].trim_start().len();
        at += key + 1 + blanks;
    } else if at == 0 {
        return None;
    }
    Some((&line[..at], &line[at..]))
}
