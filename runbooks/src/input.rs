//! Values given to a runbook from outside, made into what the runbook declared.

use std::collections::BTreeMap;
use std::fmt;

use crate::duration;
use crate::id::Host;
use crate::problem::name_help;
use crate::runbook::{Input, InputType};
use crate::value::{Type, Value};

/// Text longer than this is refused unless the input says otherwise.
pub const MAX_LENGTH: usize = 4096;
/// Lists longer than this are refused unless the input says otherwise.
pub const MAX_ITEMS: usize = 256;

/// What is wrong with one given input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputProblem {
    /// The input's name, as given or declared.
    pub input: String,
    /// What is wrong with it.
    pub message: String,
    /// What to give instead.
    pub help: Option<String>,
}

impl fmt::Display for InputProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "input `{}`: {}", self.input, self.message)?;
        self.help.iter().try_for_each(|help| write!(f, " ({help})"))
    }
}

impl std::error::Error for InputProblem {}

/// Binds what was given to what is declared: types, limits, defaults and unknown names; all problems at once.
///
/// An absent or empty value takes the default. A list is given as text with commas between its items.
pub fn bind(
    declared: &BTreeMap<String, Input>,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Value>, Vec<InputProblem>> {
    let mut problems = Vec::new();
    for name in given.keys().filter(|name| !declared.contains_key(*name)) {
        problems.push(InputProblem {
            input: shown(name),
            message: "the runbook has no such input".to_owned(),
            help: name_help(name, declared.keys().map(String::as_str)),
        });
    }
    let mut bound = BTreeMap::new();
    for (name, input) in declared {
        let text = given.get(name).filter(|text| !text.is_empty()).or(input.default.as_ref());
        let value = match text {
            Some(text) => convert(&input.kind, text),
            None => Err("a value is required".to_owned()),
        };
        match value {
            Ok(value) => {
                bound.insert(name.clone(), value);
            }
            Err(message) => {
                let help = (!input.description.is_empty()).then(|| input.description.clone());
                problems.push(InputProblem { input: name.clone(), message, help });
            }
        }
    }
    if problems.is_empty() { Ok(bound) } else { Err(problems) }
}

impl InputType {
    /// The type an expression sees.
    pub fn ty(&self) -> Type {
        match self {
            InputType::String { .. }
            | InputType::Path { .. }
            | InputType::Host
            | InputType::Enum { .. }
            | InputType::Secret => Type::String,
            InputType::Int { .. } => Type::Int,
            InputType::Number { .. } => Type::Number,
            InputType::Bool => Type::Bool,
            InputType::Duration { .. } => Type::Duration,
            InputType::List { of, .. } => Type::List(Box::new(of.ty())),
        }
    }

    /// As written in a runbook.
    pub fn name(&self) -> &'static str {
        match self {
            InputType::String { .. } => "string",
            InputType::Int { .. } => "int",
            InputType::Number { .. } => "number",
            InputType::Bool => "bool",
            InputType::Duration { .. } => "duration",
            InputType::Path { .. } => "path",
            InputType::Host => "host",
            InputType::Enum { .. } => "enum",
            InputType::List { .. } => "list",
            InputType::Secret => "secret",
        }
    }
}

/// Makes one value of its type from text, or says why not.
pub(crate) fn convert(kind: &InputType, text: &str) -> Result<Value, String> {
    let odd = || format!("`{}`", shown(text));
    match kind {
        InputType::String { pattern, max_length } => {
            no_nul(text)?;
            if text.chars().count() > *max_length {
                return Err(format!("longer than {max_length} characters"));
            }
            matches_pattern(pattern.as_deref(), text)?;
            Ok(Value::String(text.to_owned()))
        }
        InputType::Int { min, max } => {
            let value: i64 = text.parse().map_err(|_| format!("{} is not a whole number", odd()))?;
            within(value, *min, *max, |limit| limit.to_string())?;
            Ok(Value::Int(value))
        }
        InputType::Number { min, max } => {
            let plain = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
            let value = text.parse::<f64>().ok().filter(|value| plain && value.is_finite());
            let value = value.ok_or_else(|| format!("{} is not a number", odd()))?;
            within(value, *min, *max, |limit| limit.to_string())?;
            Ok(Value::Number(value))
        }
        InputType::Bool => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(format!("{} is neither `true` nor `false`", odd())),
        },
        InputType::Duration { min, max } => {
            let value = duration::parse(text).map_err(|error| error.to_string())?;
            within(value, *min, *max, duration::format)?;
            Ok(Value::Duration(value))
        }
        InputType::Path { pattern } => {
            if text.chars().any(char::is_control) {
                return Err("a path must not contain control characters".to_owned());
            }
            if !text.starts_with('/') {
                return Err(format!("{} is not an absolute path", odd()));
            }
            if text.split('/').any(|part| part == "..") {
                return Err(format!("{} contains `..`", odd()));
            }
            if text.len() > MAX_LENGTH {
                return Err(format!("longer than {MAX_LENGTH} bytes"));
            }
            matches_pattern(pattern.as_deref(), text)?;
            Ok(Value::String(text.to_owned()))
        }
        InputType::Host => {
            let host: Host = text.parse().map_err(|error: crate::id::NotAHost| error.to_string())?;
            Ok(Value::String(host.as_str().to_owned()))
        }
        InputType::Enum { of } => {
            if of.iter().any(|one| one == text) {
                Ok(Value::String(text.to_owned()))
            } else {
                let help = name_help(text, of.iter().map(String::as_str)).unwrap_or_default();
                Err(format!("{} is not one of its values; {help}", odd()))
            }
        }
        InputType::List { of, max_length } => {
            let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
            if items.len() > *max_length {
                return Err(format!("{} items, at most {max_length} are allowed", items.len()));
            }
            let values = items
                .iter()
                .enumerate()
                .map(|(at, item)| convert(of, item).map_err(|message| format!("item {}: {message}", at + 1)));
            values.collect::<Result<_, _>>().map(Value::List)
        }
        InputType::Secret => {
            let good = !text.is_empty()
                && text.len() <= 200
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_.-".contains(&b));
            if good {
                Ok(Value::String(text.to_owned()))
            } else {
                Err("not the name of a secret: use letters, digits, `/`, `_`, `.` and `-`".to_owned())
            }
        }
    }
}

fn no_nul(text: &str) -> Result<(), String> {
    if text.contains('\0') { Err("contains a NUL character".to_owned()) } else { Ok(()) }
}

fn within<T: PartialOrd + Copy>(
    value: T,
    min: Option<T>,
    max: Option<T>,
    show: impl Fn(T) -> String,
) -> Result<(), String> {
    if let Some(min) = min.filter(|min| value < *min) {
        return Err(format!("{} is less than its minimum {}", show(value), show(min)));
    }
    if let Some(max) = max.filter(|max| value > *max) {
        return Err(format!("{} is more than its maximum {}", show(value), show(max)));
    }
    Ok(())
}

fn matches_pattern(pattern: Option<&str>, text: &str) -> Result<(), String> {
    let Some(pattern) = pattern else { return Ok(()) };
    let regex = anchored(pattern).map_err(|error| format!("its pattern `{pattern}` is broken: {error}"))?;
    if regex.is_match(text) {
        Ok(())
    } else {
        Err(format!("`{}` does not match its pattern `{pattern}`", shown(text)))
    }
}

/// A pattern is always matched against the whole text.
pub(crate) fn anchored(pattern: &str) -> Result<regex_lite::Regex, regex_lite::Error> {
    // The pattern must stand by itself, so that `a)|(b` cannot escape the anchors.
    limited_regex(pattern)?;
    limited_regex(&format!(r"\A(?:{pattern})\z"))
}

/// A regular expression of bounded size, as all patterns of the language are.
///
/// # Errors
/// When it is broken or too large.
pub fn limited_regex(pattern: &str) -> Result<regex_lite::Regex, regex_lite::Error> {
    regex_lite::RegexBuilder::new(pattern).size_limit(256 * 1024).nest_limit(32).build()
}

fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    crate::problem::visible(short.as_bytes()) + dots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(kind: InputType, default: Option<&str>) -> Input {
        Input { kind, default: default.map(str::to_owned), description: String::new() }
    }

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_absent_or_empty_value_takes_the_default() {
        let declared = BTreeMap::from([(
            "max".to_owned(),
            input(InputType::Int { min: Some(50), max: Some(95) }, Some("85")),
        )]);
        for pairs in [&[][..], &[("max", "")][..]] {
            assert_eq!(bind(&declared, &given(pairs)).unwrap()["max"], Value::Int(85));
        }
        assert_eq!(bind(&declared, &given(&[("max", "90")])).unwrap()["max"], Value::Int(90));
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let declared = BTreeMap::from([
            ("max".to_owned(), input(InputType::Int { min: Some(50), max: Some(95) }, None)),
            ("mount".to_owned(), input(InputType::Path { pattern: None }, None)),
            (
                "unit".to_owned(),
                input(InputType::String { pattern: Some("[a-z]+".into()), max_length: 8 }, None),
            ),
        ]);
        let problems =
            bind(&declared, &given(&[("max", "99"), ("mout", "/x"), ("unit", "a b")])).unwrap_err();
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "input `mout`: the runbook has no such input (did you mean `mount`?)",
                "input `max`: 99 is more than its maximum 95",
                "input `mount`: a value is required",
                "input `unit`: `a b` does not match its pattern `[a-z]+`",
            ]
        );
    }

    #[test]
    fn hostile_values_are_refused_by_type() {
        let refused = [
            (InputType::Path { pattern: None }, "var"),
            (InputType::Path { pattern: None }, "/var/../etc"),
            (InputType::Path { pattern: None }, "/a\nb"),
            (InputType::Host, "$(touch x)"),
            (InputType::Host, "-oProxyCommand=x"),
            (InputType::Bool, "yes"),
            (InputType::Number { min: None, max: None }, "nan"),
            (InputType::Number { min: None, max: None }, "inf"),
            (InputType::Int { min: None, max: None }, "1e3"),
            (InputType::String { pattern: None, max_length: 9 }, "a\0b"),
            (InputType::String { pattern: Some("a|b".into()), max_length: 9 }, "ax"),
            (InputType::String { pattern: Some("a".into()), max_length: 9 }, "a\n"),
            (InputType::Enum { of: vec!["red".into()] }, "blue"),
            (InputType::Duration { min: None, max: None }, "5"),
            (InputType::Secret, "hunter2!"),
        ];
        for (kind, text) in refused {
            assert!(convert(&kind, text).is_err(), "{kind:?} took {text:?}");
        }
    }

    #[test]
    fn a_pattern_cannot_leave_its_anchors() {
        assert!(anchored("a)|(b").is_err());
    }

    #[test]
    fn lists_are_text_with_commas() {
        let kind = InputType::List { of: Box::new(InputType::Int { min: None, max: None }), max_length: 3 };
        assert_eq!(convert(&kind, "1, 2").unwrap(), Value::List(vec![Value::Int(1), Value::Int(2)]));
        assert!(convert(&kind, "1,2,3,4").is_err());
        assert!(convert(&kind, "1,x").is_err());
    }
}
