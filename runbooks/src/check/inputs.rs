//! `inputs:` what is given from outside.

use std::collections::BTreeMap;

use super::fields::Checker;
use crate::draft::{Draft, Named};
use crate::input::{MAX_ITEMS, MAX_LENGTH, anchored, convert};
use crate::runbook::{Input, InputType};
use crate::yaml::{Entry, NodeKind, Scalar, ScalarValue};

const TYPES: [&str; 10] =
    ["string", "int", "number", "bool", "duration", "path", "host", "enum", "list", "secret"];

/// The inputs that are right.
pub(super) fn check(checker: &mut Checker, draft: &Draft) -> BTreeMap<String, Input> {
    let mut inputs = BTreeMap::new();
    for named in &draft.inputs {
        let good = named.name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && named.name.len() <= 64
            && named.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !good {
            let shown = crate::problem::visible(named.name.as_bytes());
            let message = format!("`{shown}` cannot be an input's name");
            checker.error("wrong-name", named.at, named.until, message, Some("use letters, digits and `_`"));
            continue;
        }
        match input(checker, named) {
            Some(input) => {
                inputs.insert(named.name.clone(), input);
            }
            None => {
                checker.broken_inputs.insert(named.name.clone());
            }
        }
    }
    inputs
}

fn input(checker: &mut Checker, named: &Named) -> Option<Input> {
    let Some(ty) = named.fields.get("type") else {
        let message = format!("the input `{}` has no `type`", named.name);
        let help = format!("write `type:` and one of {}", TYPES.join(", "));
        checker.error("missing-key", named.at, named.until, message, Some(&help));
        return None;
    };
    let words: Vec<(&str, &str)> = TYPES.iter().map(|word| (*word, *word)).collect();
    let ty = checker.one_of(ty, &words)?;
    let kind = kind(checker, named, ty)?;
    let description = named
        .fields
        .get("description")
        .and_then(|entry| checker.text(&entry.value, "`description`").map(str::to_owned))
        .unwrap_or_default();
    let default = match named.fields.get("default") {
        None => None,
        Some(entry) if ty == "secret" => {
            checker.at_key(entry, "secret-in-text", "a secret has no default", Some("leave it out"));
            return None;
        }
        Some(entry) => Some(default(checker, entry, &kind)?),
    };
    Some(Input { kind, default, description })
}

fn kind(checker: &mut Checker, named: &Named, ty: &str) -> Option<InputType> {
    let allowed: &[&str] = match ty {
        "string" => &["pattern", "max_length"],
        "path" => &["pattern"],
        "int" | "number" | "duration" => &["min", "max"],
        "enum" => &["of"],
        "list" => &["of", "max_length"],
        _ => &[],
    };
    let mut sound = true;
    for key in ["pattern", "min", "max", "max_length", "of"] {
        if let Some(entry) = named.fields.get(key).filter(|_| !allowed.contains(&key)) {
            checker.at_key(entry, "wrong-key", format!("an input of type `{ty}` has no `{key}`"), None);
            sound = false;
        }
    }
    let pattern = match named.fields.get("pattern").filter(|_| allowed.contains(&"pattern")) {
        None => None,
        Some(entry) => {
            let pattern = checker.text(&entry.value, "`pattern`")?.to_owned();
            if let Err(error) = anchored(&pattern) {
                checker.at_value(
                    &entry.value,
                    "bad-pattern",
                    format!("the pattern is broken: {error}"),
                    None,
                );
                return None;
            }
            Some(pattern)
        }
    };
    let length = |checker: &mut Checker, most: usize| match named.fields.get("max_length") {
        None => Some(most),
        Some(entry) => checker.whole(entry, 1, 65_536).map(|length| length as usize),
    };
    let kind = match ty {
        "string" => InputType::String { pattern, max_length: length(checker, MAX_LENGTH)? },
        "path" => InputType::Path { pattern },
        "int" => {
            let (min, max) = (limit(checker, named, "min", whole)?, limit(checker, named, "max", whole)?);
            ordered(checker, named, min, max)?;
            InputType::Int { min, max }
        }
        "number" => {
            let (min, max) = (limit(checker, named, "min", number)?, limit(checker, named, "max", number)?);
            ordered(checker, named, min, max)?;
            InputType::Number { min, max }
        }
        "duration" => {
            let time = |checker: &mut Checker, entry: &Entry| checker.time(entry, 0);
            let (min, max) = (limit(checker, named, "min", time)?, limit(checker, named, "max", time)?);
            ordered(checker, named, min, max)?;
            InputType::Duration { min, max }
        }
        "bool" => InputType::Bool,
        "host" => InputType::Host,
        "secret" => InputType::Secret,
        "enum" => InputType::Enum { of: values(checker, named)? },
        "list" => {
            InputType::List { of: Box::new(items(checker, named)?), max_length: length(checker, MAX_ITEMS)? }
        }
        _ => return None,
    };
    sound.then_some(kind)
}

/// A limit that may be absent; nothing at all if it is wrong.
#[allow(clippy::option_option, reason = "absent and wrong are two things")]
fn limit<T>(
    checker: &mut Checker,
    named: &Named,
    key: &str,
    read: impl Fn(&mut Checker, &Entry) -> Option<T>,
) -> Option<Option<T>> {
    match named.fields.get(key) {
        None => Some(None),
        Some(entry) => read(checker, entry).map(Some),
    }
}

fn whole(checker: &mut Checker, entry: &Entry) -> Option<i64> {
    checker.whole(entry, i64::MIN, i64::MAX)
}

fn number(checker: &mut Checker, entry: &Entry) -> Option<f64> {
    match &entry.value.kind {
        NodeKind::Scalar(Scalar { value: ScalarValue::Int(value), .. }) => Some(*value as f64),
        NodeKind::Scalar(Scalar { value: ScalarValue::Number(value), .. }) if value.is_finite() => {
            Some(*value)
        }
        NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_) => {
            let message = format!("`{}` is a number, this is {}", entry.key, entry.value.kind());
            checker.at_value(&entry.value, "wrong-type", message, None);
            None
        }
    }
}

fn ordered<T: PartialOrd>(
    checker: &mut Checker,
    named: &Named,
    min: Option<T>,
    max: Option<T>,
) -> Option<()> {
    match (min, max, named.fields.get("min")) {
        (Some(min), Some(max), Some(entry)) if min > max => {
            checker.at_value(&entry.value, "wrong-value", "`min` is more than `max`", None);
            None
        }
        (_, _, _) => Some(()),
    }
}

fn values(checker: &mut Checker, named: &Named) -> Option<Vec<String>> {
    let Some(entry) = named.fields.get("of") else {
        let message = format!("the enum `{}` does not say which values it has", named.name);
        checker.error("missing-key", named.at, named.until, message, Some("write `of: [one, other]`"));
        return None;
    };
    let values = checker.texts(entry)?;
    if values.is_empty() || values.iter().any(String::is_empty) {
        checker.at_key(entry, "wrong-value", "an enum has values, and none of them is empty", None);
        return None;
    }
    Some(values)
}

fn items(checker: &mut Checker, named: &Named) -> Option<InputType> {
    let Some(entry) = named.fields.get("of") else {
        return Some(InputType::String { pattern: None, max_length: MAX_LENGTH });
    };
    let words = ["string", "int", "number", "bool", "duration", "path", "host"].map(|word| (word, word));
    Some(match checker.one_of(entry, &words)? {
        "int" => InputType::Int { min: None, max: None },
        "number" => InputType::Number { min: None, max: None },
        "bool" => InputType::Bool,
        "duration" => InputType::Duration { min: None, max: None },
        "path" => InputType::Path { pattern: None },
        "host" => InputType::Host,
        _ => InputType::String { pattern: None, max_length: MAX_LENGTH },
    })
}

fn default(checker: &mut Checker, entry: &Entry, kind: &InputType) -> Option<String> {
    let text = match (&entry.value.kind, kind) {
        (NodeKind::List(_), InputType::List { .. }) => {
            let items = checker.texts(entry)?;
            if items.iter().any(|item| item.contains(',')) {
                checker.at_value(
                    &entry.value,
                    "wrong-value",
                    "an item of a list cannot contain a comma",
                    None,
                );
                return None;
            }
            items.join(",")
        }
        (_, _) => checker.text(&entry.value, "`default`")?.to_owned(),
    };
    if let Err(message) = convert(kind, &text) {
        checker.at_value(&entry.value, "wrong-value", format!("the default does not fit: {message}"), None);
        return None;
    }
    Some(text)
}
