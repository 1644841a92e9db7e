//! The words of an expression.

use super::{ExprProblem, Source};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Name(String),
    /// Not negative here; up to 2^63, because a minus may follow.
    Int(u64),
    Number(f64),
    Text(String),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

impl Token {
    pub(super) fn shown(&self) -> String {
        match self {
            Token::Name(name) => format!("`{name}`"),
            Token::Int(value) => format!("`{value}`"),
            Token::Number(value) => format!("`{value}`"),
            Token::Text(_) => "a text".to_owned(),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::End => "the end".to_owned(),
        }
    }
}

/// A word and where it stands in the text, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Word {
    pub(super) token: Token,
    pub(super) from: usize,
    pub(super) to: usize,
}

const SIGNS: [&str; 26] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")",
    "[", "]", "{", "}", "=", "&",
];

/// Splits the text; the last word is [`Token::End`].
pub(super) fn words(source: &Source<'_>) -> Result<Vec<Word>, ExprProblem> {
    let text = source.text();
    let problem = |from: usize, to: usize, message: String, help: Option<&str>| ExprProblem {
        code: "expression-syntax",
        at: source.at(from),
        until: source.at(to).offset,
        message,
        help: help.map(str::to_owned),
    };
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if c.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let (token, length) = if let Some(quoted) = quoted(rest) {
            let (value, length) =
                quoted.map_err(|(offset, message)| problem(at + offset, at + offset + 1, message, None))?;
            (Token::Text(value), length)
        } else if c.is_ascii_alphabetic() || c == '_' {
            let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            (Token::Name(rest[..length].to_owned()), length)
        } else if c.is_ascii_digit() || (c == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            number(rest).map_err(|(length, message)| problem(at, at + length, message, None))?
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            if matches!(*sign, "=" | "&") {
                let help = if *sign == "=" { "compare with `==`" } else { "write `&&`" };
                return Err(problem(at, at + 1, format!("`{sign}` is not an operator"), Some(help)));
            }
            (Token::Sign(sign), sign.len())
        } else {
            let help = match c {
                '|' => Some("write `||`"),
                '$' => Some("this place takes a bare expression: leave out `${{` and `}}`"),
                '“' | '”' | '‘' | '’' => Some("use straight quotes"),
                _ => None,
            };
            return Err(problem(at, at + c.len_utf8(), format!("unexpected character `{c}`"), help));
        };
        words.push(Word { token, from: at, to: at + length });
        at += length;
    }
    words.push(Word { token: Token::End, from: at, to: at });
    Ok(words)
}

fn number(rest: &str) -> Result<(Token, usize), (usize, String)> {
    let digits = |from: usize| {
        rest[from..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |length| from + length)
    };
    if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
        let length = 2 + hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        let value = u64::from_str_radix(&rest[2..length], 16).ok();
        let value = value.filter(|value| *value <= i64::MAX as u64);
        return value.map(|value| (Token::Int(value), length)).ok_or((length, too_large(&rest[..length])));
    }
    let mut end = digits(0);
    let mut whole = true;
    if rest[end..].starts_with('.') && rest[end + 1..].starts_with(|c: char| c.is_ascii_digit()) {
        whole = false;
        end = digits(end + 1);
    }
    if rest[end..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
        if rest[end + 1 + sign..].starts_with(|c: char| c.is_ascii_digit()) {
            whole = false;
            end = digits(end + 1 + sign);
        }
    }
    let text = &rest[..end];
    if let Some(next) = rest[end..].chars().next().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
        let message = match next {
            'u' | 'U' => format!("`{text}{next}`: there are no unsigned numbers here, write `{text}`"),
            's' | 'm' | 'h' => format!("a length of time is written `duration(\"{text}{next}\")`"),
            _ => format!("`{text}{next}` is not a number"),
        };
        return Err((end + 1, message));
    }
    if whole {
        let value = text.parse::<u64>().ok().filter(|value| *value <= 1 << 63);
        value.map(|value| (Token::Int(value), end)).ok_or((end, too_large(text)))
    } else {
        let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
        value.map(|value| (Token::Number(value), end)).ok_or((end, too_large(text)))
    }
}

fn too_large(text: &str) -> String {
    format!("`{text}` is too large a number")
}

type Quoted = Result<(String, usize), (usize, String)>;

/// Reads a text if one begins here: its value, and its length in the source.
fn quoted(rest: &str) -> Option<Quoted> {
    let raw = rest.starts_with(['r', 'R']) && rest[1..].starts_with(['"', '\'']);
    if rest.starts_with(['b', 'B']) && rest[1..].starts_with(['"', '\'']) {
        return Some(Err((0, "there are no bytes here: leave out the `b`".to_owned())));
    }
    let begin = usize::from(raw);
    let quote = rest[begin..].chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let triple: String = std::iter::repeat_n(quote, 3).collect();
    let end = if rest[begin..].starts_with(&triple) { triple } else { quote.to_string() };
    let mut at = begin + end.len();
    let mut value = String::new();
    loop {
        let left = &rest[at..];
        if left.starts_with(&end) {
            return Some(Ok((value, at + end.len())));
        }
        match left.chars().next() {
            None => return Some(Err((0, format!("the text that {end} opens is never closed")))),
            Some('\n' | '\r') if end.len() == 1 => {
                return Some(Err((0, format!("the text that {end} opens is not closed on its line"))));
            }
            Some('\\') if !raw => match escape(&left[1..]) {
                Ok((c, length)) => {
                    value.push(c);
                    at += 1 + length;
                }
                Err(message) => return Some(Err((at, message))),
            },
            Some(c) => {
                value.push(c);
                at += c.len_utf8();
            }
        }
    }
}

/// What follows a backslash: the character, and how many bytes spell it.
fn escape(rest: &str) -> Result<(char, usize), String> {
    let c = rest.chars().next().ok_or("a backslash ends the text")?;
    let simple = match c {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'v' => '\u{b}',
        '\\' | '\'' | '"' | '`' | '?' => c,
        'x' | 'X' => return coded(&rest[1..], 2, 16).map(|c| (c, 3)),
        'u' => return coded(&rest[1..], 4, 16).map(|c| (c, 5)),
        'U' => return coded(&rest[1..], 8, 16).map(|c| (c, 9)),
        '0'..='3' => return coded(rest, 3, 8).map(|c| (c, 3)),
        other => {
            return Err(format!("`\\{other}` is not an escape: write `\\\\` for a backslash, or r\"…\""));
        }
    };
    Ok((simple, 1))
}

fn coded(rest: &str, digits: usize, base: u32) -> Result<char, String> {
    rest.get(..digits)
        .filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()))
        .and_then(|code| u32::from_str_radix(code, base).ok())
        .and_then(char::from_u32)
        .ok_or_else(|| "this escape names no character".to_owned())
}
