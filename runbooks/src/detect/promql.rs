//! What can be told of a rule's expression without understanding it: how far back it looks, whose samples it reads, and
//! what cannot be told.
//!
//! Deliberately missing: a parser of PromQL. An expression that Prometheus would refuse is read as far as it goes.

use std::collections::BTreeSet;
use std::time::Duration;

use super::document::span;
use super::matcher::{Matcher, Op};

/// What an expression says of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reading {
    /// The longest range it looks back over, ranges within subqueries added up.
    pub(super) window: Duration,
    /// It is `absent_over_time(…[window])` and nothing else: true exactly when the window is empty.
    pub(super) absent: bool,
    /// It says what will be, and so may be true before there is a symptom.
    pub(super) predicts: bool,
    /// What it reads.
    pub(super) selectors: Vec<Selector>,
    /// What makes the time from the symptom untold.
    pub(super) unsure: BTreeSet<&'static str>,
}

/// Samples that it reads.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selector {
    /// Empty where it is not named.
    pub(super) metric: String,
    /// What is demanded of the label `job`.
    pub(super) job: Vec<Matcher>,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    /// A number or a length of time.
    Number(String),
    Text(String),
    Sign(char),
}

/// Words that are followed by labels in parentheses.
const TAKE_LABELS: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Words that name no metric.
const KEYWORDS: &[&str] = &[
    "and",
    "or",
    "unless",
    "atan2",
    "bool",
    "offset",
    "start",
    "end",
    "inf",
    "nan",
    "fill",
    "fill_left",
    "fill_right",
];

pub(super) fn read(expr: &str) -> Reading {
    let tokens = tokens(expr);
    let mut reader =
        Reader { tokens: &tokens, at: 0, reading: Reading::default(), open: vec![Group::default()] };
    while reader.at < tokens.len() {
        reader.step();
    }
    let windows = reader.open.iter().map(|group| group.longest).max();
    let mut reading = reader.reading;
    reading.window = reading.window.max(windows.unwrap_or_default());
    reading.absent = is_wrapped_in(&tokens, "absent_over_time") && reading.window > Duration::ZERO;
    reading
}

/// One level of parentheses.
#[derive(Default)]
struct Group {
    longest: Duration,
    /// How far the operand before this token looks back.
    last: Duration,
}

struct Reader<'t> {
    tokens: &'t [Token],
    at: usize,
    reading: Reading,
    open: Vec<Group>,
}

impl Reader<'_> {
    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead)
    }

    fn group(&mut self) -> &mut Group {
        if self.open.is_empty() {
            self.open.push(Group::default());
        }
        let last = self.open.len() - 1;
        &mut self.open[last]
    }

    fn step(&mut self) {
        let token = self.tokens[self.at].clone();
        self.at += 1;
        match token {
            Token::Sign('(') => self.open.push(Group::default()),
            Token::Sign(')') => {
                let closed = self.open.pop().unwrap_or_default();
                let group = self.group();
                group.last = closed.longest;
                group.longest = group.longest.max(closed.longest);
            }
            Token::Sign('[') => {
                let window = match self.peek(0) {
                    Some(Token::Number(text)) => length(text),
                    Some(_) | None => None,
                };
                self.skip_to(']');
                match window {
                    Some(window) => {
                        let group = self.group();
                        group.last = group.last.saturating_add(window);
                        group.longest = group.longest.max(group.last);
                    }
                    None => {
                        self.reading.unsure.insert("how long one of its ranges is");
                    }
                }
            }
            Token::Sign('{') => self.selector(None),
            Token::Sign('@') => {
                self.reading.unsure.insert("what `@` does to it");
            }
            Token::Word(word) => self.word(&word),
            Token::Sign(_) | Token::Number(_) | Token::Text(_) => {}
        }
    }

    fn word(&mut self, word: &str) {
        let lower = word.to_ascii_lowercase();
        let opens = self.peek(0) == Some(&Token::Sign('('));
        let label_words = matches!(self.peek(0), Some(Token::Word(next)) if TAKE_LABELS.contains(&next.to_ascii_lowercase().as_str()));
        if TAKE_LABELS.contains(&lower.as_str()) {
            if opens {
                self.skip_to(')');
            }
        } else if lower == "offset" {
            self.reading.unsure.insert("what its `offset`, a comparison with the past, does to it");
        } else if lower == "predict_linear" && opens {
            self.reading.predicts = true;
            self.reading.unsure.insert(
                "how early it is: `predict_linear` looks ahead, and may be true before there is a symptom",
            );
        } else if !opens && !label_words && !KEYWORDS.contains(&lower.as_str()) {
            if self.peek(0) == Some(&Token::Sign('{')) {
                self.at += 1;
                self.selector(Some(word));
            } else {
                self.select(word.to_owned(), Vec::new());
            }
        }
    }

    fn select(&mut self, metric: String, job: Vec<Matcher>) {
        self.group().last = Duration::ZERO;
        self.reading.selectors.push(Selector { metric, job });
    }

    /// What stands in braces, the opening one being read.
    fn selector(&mut self, metric: Option<&str>) {
        let (mut metric, mut job) = (metric.map(str::to_owned).unwrap_or_default(), Vec::new());
        let mut name: Option<String> = None;
        let mut signs = String::new();
        while let Some(token) = self.peek(0).cloned() {
            self.at += 1;
            match token {
                Token::Sign('}') => break,
                Token::Sign(',') => {
                    // A text that stands alone is the metric's name.
                    metric = name.take().unwrap_or(metric);
                }
                Token::Sign(sign) => signs.push(sign),
                Token::Text(value) if !signs.is_empty() => {
                    let op = Op::of(&std::mem::take(&mut signs));
                    match (name.take().as_deref(), op) {
                        (Some("job"), Some(op)) => job.push(Matcher::new("job", op, &value)),
                        (Some("__name__"), Some(Op::Equal)) => metric = value,
                        (Some(_) | None, Some(_) | None) => {}
                    }
                }
                Token::Text(text) | Token::Word(text) | Token::Number(text) => name = Some(text),
            }
        }
        let metric = name.unwrap_or(metric);
        self.select(metric, job);
    }

    fn skip_to(&mut self, end: char) {
        while let Some(token) = self.peek(0) {
            let found = *token == Token::Sign(end);
            self.at += 1;
            if found {
                break;
            }
        }
    }
}

/// `5m`, or seconds without a unit.
fn length(text: &str) -> Option<Duration> {
    let seconds = || text.parse::<f64>().ok().and_then(|it| Duration::try_from_secs_f64(it).ok());
    span(text).or_else(seconds).filter(|it| *it <= crate::duration::LONGEST)
}

/// Whether the whole expression is one call of this function.
fn is_wrapped_in(tokens: &[Token], function: &str) -> bool {
    if !matches!(tokens, [Token::Word(word), Token::Sign('('), ..] if word == function) {
        return false;
    }
    let mut depth = 0usize;
    let closes = tokens.iter().skip(1).position(|token| {
        match token {
            Token::Sign('(') => depth += 1,
            Token::Sign(')') => depth = depth.saturating_sub(1),
            Token::Sign(_) | Token::Word(_) | Token::Number(_) | Token::Text(_) => {}
        }
        depth == 0
    });
    closes.is_some_and(|at| at + 2 == tokens.len())
}

fn tokens(expr: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expr;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '"' | '\'' | '`' => {
                let (text, taken) = quoted(rest, c);
                tokens.push(Token::Text(text));
                taken
            }
            c if c.is_alphabetic() || c == '_' => {
                let end = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
                let taken = rest.find(end).unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..taken].to_owned()));
                taken
            }
            c if c.is_ascii_digit() || c == '.' => {
                let taken = rest.find(|c: char| !(c.is_alphanumeric() || c == '.')).unwrap_or(rest.len());
                tokens.push(Token::Number(rest[..taken].to_owned()));
                taken
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token::Sign(c));
                }
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    tokens
}

/// The text that a quote opens, and how many bytes it takes with its quotes.
pub(super) fn quoted(from: &str, quote: char) -> (String, usize) {
    let mut text = String::new();
    let mut chars = from.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return (text, at + c.len_utf8());
        }
        match (c, quote) {
            ('\\', '"' | '\'') => match chars.next().map(|(_, c)| c) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(c @ ('\\' | '"' | '\'')) => text.push(c),
                Some(c) => text.extend(['\\', c]),
                None => {}
            },
            (c, _) => text.push(c),
        }
    }
    (text, from.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(expr: &str) -> u64 {
        read(expr).window.as_secs()
    }

    #[test]
    fn the_longest_look_back_is_found_and_nested_ones_add_up() {
        for (expr, seconds) in [
            ("up == 0", 0),
            ("rate(errors_total[5m]) > 1", 300),
            ("sum by (job) (rate(a[5m])) / sum by (job) (rate(b{x=\"[9h]\"}[1m])) > 0.1", 300),
            ("max_over_time(rate(x[5m])[1h:1m]) > 3", 3900),
            ("(a[1h] or b[2h])", 7200),
            ("min_over_time((rate(x[5m]) + rate(y[10m]))[30m:]) > 1", 2400),
            ("rate(x[300]) # [9h]\n> 1", 300),
            ("rate(x[5m]) + y > 0 and z[1m]", 300),
            ("))) rate(x[5m]", 300),
        ] {
            assert_eq!(window(expr), seconds, "{expr}");
        }
        assert!(read("rate(x[$__interval])").unsure.contains("how long one of its ranges is"));
    }

    #[test]
    fn it_is_said_what_cannot_be_told() {
        assert!(read("x - x offset 1h > 5").unsure.iter().any(|it| it.contains("offset")));
        assert!(read("predict_linear(x[6h], 4*3600) < 0").unsure.iter().any(|it| it.contains("looks ahead")));
        assert!(read("offset_total > 1").unsure.is_empty());
        assert!(read("absent_over_time(up{job=\"a\"}[2m])").absent);
        assert!(!read("absent_over_time(up[2m]) or up == 0").absent);
        assert!(!read("absent(up)").absent);
    }

    #[test]
    fn metrics_and_jobs_are_those_of_its_selectors() {
        let reading = read(
            "sum without(cpu) (rate(node_cpu{job=\"node\",mode='idle'}[5m])) > on (job) group_left(x) {__name__=\"up\",job=~\"n.*\"} or {\"my.metric\", a=\"b\"} and vector(1) > bool 2e3",
        );
        let told = |it: &Selector| {
            format!("{} {}", it.metric, it.job.iter().map(ToString::to_string).collect::<String>())
        };
        let selectors: Vec<String> = reading.selectors.iter().map(told).collect();
        assert_eq!(selectors, ["node_cpu job=\"node\"", "up job=~\"n.*\"", "my.metric "]);
    }

    #[test]
    fn nothing_that_is_written_makes_it_panic() {
        for expr in [
            "",
            "[",
            "]",
            "{",
            "}",
            "(((",
            ")))",
            "\"",
            "'\\",
            "a[",
            "a{b",
            "a{b=",
            "é[5m]",
            "a[99999999999y]",
            "@",
            "\u{0}",
        ] {
            read(expr);
        }
    }
}
