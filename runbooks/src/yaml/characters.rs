//! Bytes to text: not too large, UTF-8, and nothing in it that nobody can see.

use super::{MAX_BYTES, problem};
use crate::expr::At;
use crate::problem::{Problem, is_direction_control};

/// No more than so many problems of this kind are told.
const ENOUGH: usize = 20;

/// The text, without a byte-order mark at its begin.
pub(super) fn check(bytes: &[u8]) -> Result<&str, Vec<Problem>> {
    let start = At { offset: 0, line: 1, column: 1 };
    let one = |code, at: At, message: String, help: Option<&str>| {
        Err(vec![problem(code, at, at.offset + 1, message, help.map(str::to_owned))])
    };
    if bytes.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, at most {MAX_BYTES} are allowed", bytes.len());
        return one("too-large", start, message, Some("split it into several runbooks"));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return one("not-utf8", start, "the file is in UTF-16".to_owned(), Some("save it as UTF-8"));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let offset = error.valid_up_to();
            let before = String::from_utf8_lossy(&bytes[..offset]);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            let message = format!("byte {offset} (0x{:02x}) is not UTF-8", bytes[offset]);
            return one("not-utf8", At { offset, line, column }, message, Some("save the file as UTF-8"));
        }
    };
    let problems = invisible(text);
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(text)
}

fn invisible(text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let (mut line, mut column) = (1, 0);
    let mut indentation = true;
    let mut content_yet = false;
    for (offset, c) in text.char_indices() {
        column += 1;
        let code = u32::from(c);
        let found = match c {
            '\u{feff}' if offset == 0 => None,
            '\u{feff}' => Some((
                "hidden-character",
                format!("byte-order mark U+{code:04X} inside the file"),
                "remove it",
            )),
            '\t' if indentation && column == 1 && !blank_line(&text[offset..]) => {
                Some(("tab-indentation", "a tab cannot indent".to_owned(), "indent with spaces"))
            }
            '\t' | '\n' | '\r' => None,
            '\u{85}' | '\u{2028}' | '\u{2029}' => Some((
                "hidden-character",
                format!("the line break U+{code:04X} means different things to different readers"),
                "use an ordinary line break",
            )),
            c if c.is_control() => {
                Some(("hidden-character", format!("control character U+{code:04X}"), "remove it"))
            }
            c if is_direction_control(c) => Some((
                "hidden-character",
                format!(
                    "U+{code:04X} changes the direction of text, so that it shows something else than it does"
                ),
                "remove it",
            )),
            '\u{200b}' | '\u{2060}' | '\u{ad}' => {
                Some(("hidden-character", format!("invisible character U+{code:04X}"), "remove it"))
            }
            c if indentation && c != ' ' && c.is_whitespace() => Some((
                "hidden-character",
                format!("U+{code:04X} is no space and cannot indent"),
                "indent with spaces",
            )),
            '%' if column == 1 && !content_yet => Some((
                "yaml-directive",
                "a YAML directive".to_owned(),
                "remove it: runbooks are YAML 1.2 without directives",
            )),
            _ => None,
        };
        if let Some((code, message, help)) = found {
            let at = At { offset, line, column };
            problems.push(problem(code, at, offset + c.len_utf8(), message, Some(help.to_owned())));
            if problems.len() == ENOUGH {
                break;
            }
        }
        content_yet |= indentation && !matches!(c, ' ' | '\n' | '\r' | '\t' | '#' | '%' | '\u{feff}');
        indentation = match c {
            '\n' => true,
            ' ' | '\t' => indentation,
            '\u{feff}' if offset == 0 => true,
            _ => false,
        };
        if c == '\n' || (c == '\r' && !text[offset + 1..].starts_with('\n')) {
            (line, column, indentation) = (line + 1, 0, true);
        }
    }
    problems
}

fn blank_line(text: &str) -> bool {
    text.split(['\n', '\r']).next().is_none_or(|line| line.trim().is_empty())
}
