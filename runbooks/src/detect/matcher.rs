//! Label matchers, as PromQL and Alertmanager write them, and what they say of labels that are only partly known.

use std::collections::BTreeMap;
use std::fmt;

use regex_lite::Regex;

use super::promql::quoted;

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Equal,
    NotEqual,
    Like,
    NotLike,
}

impl Op {
    pub(super) fn of(text: &str) -> Option<Op> {
        match text {
            "=" => Some(Op::Equal),
            "!=" => Some(Op::NotEqual),
            "=~" => Some(Op::Like),
            "!~" => Some(Op::NotLike),
            _ => None,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Op::Equal => "=",
            Op::NotEqual => "!=",
            Op::Like => "=~",
            Op::NotLike => "!~",
        }
    }
}

/// What is demanded of one label. A label that is not there is `""`.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    pub(super) label: String,
    op: Op,
    value: String,
    /// Absent where the expression is one that is not understood here.
    regex: Option<Regex>,
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.label, self.op, &self.value) == (&other.label, other.op, &other.value)
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.label, self.op.text(), self.value)
    }
}

/// What is known of the labels of an alert before there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(pub(super) BTreeMap<String, String>);

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holds {
    No,
    /// It hangs on a label that is known only when the alert fires.
    Perhaps,
    Yes,
}

impl Matcher {
    pub(super) fn new(label: &str, op: Op, value: &str) -> Matcher {
        let regex = match op {
            Op::Equal | Op::NotEqual => None,
            Op::Like | Op::NotLike => Regex::new(&format!("^(?s:{value})$")).ok(),
        };
        Matcher { label: label.to_owned(), op, value: value.to_owned(), regex }
    }

    /// Whether a value fits; `None` where its regular expression is not understood here.
    pub(super) fn fits(&self, value: &str) -> Option<bool> {
        match self.op {
            Op::Equal => Some(value == self.value),
            Op::NotEqual => Some(value != self.value),
            Op::Like => self.regex.as_ref().map(|regex| regex.is_match(value)),
            Op::NotLike => self.regex.as_ref().map(|regex| !regex.is_match(value)),
        }
    }

    /// Whether labels of which some are known fit.
    pub(super) fn holds(&self, labels: &Labels) -> Holds {
        match labels.0.get(&self.label).and_then(|value| self.fits(value)) {
            Some(true) => Holds::Yes,
            Some(false) => Holds::No,
            None => Holds::Perhaps,
        }
    }
}

/// Reads what Alertmanager takes: `a="b"`, `a=~b`, several in one text with commas, in braces or not.
pub(super) fn parse(text: &str) -> Result<Vec<Matcher>, String> {
    let inner = text.trim();
    let inner = inner.strip_prefix('{').map_or(inner, |inner| inner.strip_suffix('}').unwrap_or(inner));
    let mut matchers = Vec::new();
    let mut rest = inner.trim_start();
    while !rest.is_empty() {
        let bad =
            || format!("`{text}` is no matcher: write `label=\"value\"`, or `!=`, `=~`, `!~` instead of `=`");
        let op = rest.find(['=', '!']).ok_or_else(bad)?;
        let label = rest[..op].trim();
        let label = label.trim_matches('"');
        rest = &rest[op..];
        let width =
            if rest.starts_with("=~") || rest.starts_with("!=") || rest.starts_with("!~") { 2 } else { 1 };
        let op = rest.get(..width).and_then(Op::of).filter(|_| !label.is_empty()).ok_or_else(bad)?;
        rest = rest[width..].trim_start();
        let value = if rest.starts_with('"') {
            let (value, taken) = quoted(rest, '"');
            rest = &rest[taken..];
            value
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let value = rest[..end].trim().to_owned();
            rest = &rest[end..];
            value
        };
        matchers.push(Matcher::new(label, op, &value));
        rest = rest.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(rest) => rest.trim_start(),
            None if rest.is_empty() => rest,
            None => return Err(bad()),
        };
    }
    Ok(matchers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_read_as_alertmanager_writes_them() {
        for (text, expected) in [
            ("severity=critical", "severity=\"critical\""),
            ("severity = \"critical\"", "severity=\"critical\""),
            ("{a=\"b\", c=~\"d|e\" , f!=g}", "a=\"b\" c=~\"d|e\" f!=\"g\""),
            ("a!~\"x,y\"", "a!~\"x,y\""),
            ("a=", "a=\"\""),
            ("\"my.label\"=\"x\"", "my.label=\"x\""),
            ("{}", ""),
        ] {
            let read: Vec<String> = parse(text).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(read.join(" "), expected, "{text}");
        }
        for text in ["severity", "=x", "a=\"b\" c", "a==\"b"] {
            assert!(parse(text).is_err() || text == "a==\"b", "{text}");
        }
    }

    #[test]
    fn a_regular_expression_is_anchored_and_a_label_that_is_not_there_is_empty() {
        let like = Matcher::new("a", Op::Like, "x|y");
        assert_eq!((like.fits("x"), like.fits("xy"), like.fits("")), (Some(true), Some(false), Some(false)));
        assert_eq!(Matcher::new("a", Op::NotLike, "x").fits(""), Some(true));
        assert_eq!(Matcher::new("a", Op::Like, "\\p{Greek}").fits("x"), None, "it is not understood here");
        let known = Labels([("a".to_owned(), "x".to_owned())].into());
        assert_eq!(like.holds(&known), Holds::Yes);
        assert_eq!(Matcher::new("a", Op::Equal, "z").holds(&known), Holds::No);
        assert_eq!(Matcher::new("b", Op::Equal, "").holds(&known), Holds::Perhaps);
    }
}
