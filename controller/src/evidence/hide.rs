//! Text of a host, fit to be shown: control characters visible, what looks like a secret left out, never too long.

use std::sync::LazyLock;

use regex_lite::Regex;

/// What stands where something was left out.
const HIDDEN: &str = "***";

/// What gives a secret away, and what is left of it.
static SECRETS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    const NAMES: &str =
        "pass(?:word|wd|phrase)?|pwd|secret|token|credentials?|api[_-]?key|access[_-]?key|private[_-]?key";
    let patterns = [
        (r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{6,}".to_owned(), "$1 ***"),
        (
            format!(r#"(?i)([a-z0-9_.-]*(?:{NAMES})[a-z0-9_]*["']?\s*[:=]\s*)("[^"]*"|'[^']*'|[^\s,;&]+)"#),
            "$1***",
        ),
        (format!(r"(?i)(--?(?:{NAMES})\s+)\S+"), "$1***"),
        (r"(?i)(authorization\s*:\s*).+".to_owned(), "$1***"),
        (r"://[^/\s:@]*:[^/\s@]+@".to_owned(), "://***@"),
    ];
    // They are constants: a test makes each of them.
    patterns.into_iter().filter_map(|(pattern, left)| Some((Regex::new(&pattern).ok()?, left))).collect()
});

/// One line as it may be shown, at most so many characters of it.
pub fn plain(text: &str, most: usize) -> String {
    // Much longer than shown is not looked through.
    let text: String = text.chars().take(most.saturating_mul(2)).collect();
    let hidden =
        SECRETS.iter().fold(text, |text, (pattern, left)| pattern.replace_all(&text, *left).into_owned());
    let mut shown = String::new();
    for (count, c) in hidden.chars().enumerate() {
        if count == most {
            shown.push('…');
            break;
        }
        if invisible(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

/// Whether a character moves the cursor or the direction of writing instead of being seen.
fn invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Lines, without those of a private key.
pub(super) fn block<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let ends = |line: &str| line.contains("-----END") && line.contains("PRIVATE KEY");
    let begins = |line: &str| line.contains("-----BEGIN") && line.contains("PRIVATE KEY");
    let first = lines.iter().find(|line| ends(line) || begins(line));
    let mut key = first.is_some_and(|line| !begins(line));
    lines
        .iter()
        .map(|line| {
            key |= begins(line);
            let shown = if key { HIDDEN } else { line };
            key &= !line.contains("-----END");
            shown
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_left_out() {
        assert_eq!(SECRETS.len(), 5, "every pattern is one");
        for (text, shown) in [
            ("DB_PASSWORD=hunter2 retry", "DB_PASSWORD=*** retry"),
            (r#"{"api_key": "abc def", "n": 1}"#, r#"{"api_key": ***, "n": 1}"#),
            ("psql --password hunter2 -h db", "psql --password *** -h db"),
            ("Authorization: Basic dXNlcjpwYXNz", "Authorization: ***"),
            ("sent Bearer abcdef.ghi to it", "sent Bearer *** to it"),
            ("postgres://app:hunter2@db/x", "postgres://***@db/x"),
            ("91 % of /var/lib/tokens", "91 % of /var/lib/tokens"),
        ] {
            assert_eq!(plain(text, 200), shown);
        }
        let lines = ["a", "-----BEGIN RSA PRIVATE KEY-----", "MIIE", "-----END RSA PRIVATE KEY-----", "b"];
        assert_eq!(block(&lines), ["a", "***", "***", "***", "b"]);
        assert_eq!(block(&lines[2..]), ["***", "***", "b"]);
    }

    #[test]
    fn what_would_move_the_cursor_is_seen() {
        assert_eq!(plain("a\u{1b}[2J\u{202e}b", 80), "a\\u{1b}[2J\\u{202e}b");
        assert_eq!(plain("abcdef", 3), "abc…");
    }
}
