//! What inputs, outputs, evidence and facts are made of.

use std::collections::BTreeMap;
use std::time::Duration;

/// A value of the expression language.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing: JSON's and CEL's `null`.
    Null,
    /// True or false.
    Bool(bool),
    /// A signed 64-bit integer.
    Int(i64),
    /// A finite double.
    Number(f64),
    /// Text.
    String(String),
    /// A length of time.
    Duration(Duration),
    /// A list.
    List(Vec<Value>),
    /// A map with text keys.
    Map(BTreeMap<String, Value>),
}

/// The type of an expression, an input or an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Not known before it runs: the result of `json()`, for instance.
    Any,
    /// Only `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// Signed 64-bit integer.
    Int,
    /// Double.
    Number,
    /// Text.
    String,
    /// Length of time.
    Duration,
    /// A list of one type.
    List(Box<Type>),
    /// A map from text to one type.
    Map(Box<Type>),
    /// A map whose fields are known: a fact, `inputs`, a step's outputs.
    Record(BTreeMap<String, Type>),
}

impl Value {
    /// The text a template puts in for it; lists, maps and null have none.
    pub fn text(&self) -> Option<String> {
        match self {
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(value) => Some(value.to_string()),
            Value::Number(value) => Some(value.to_string()),
            Value::String(value) => Some(value.clone()),
            Value::Duration(value) => Some(crate::duration::format(*value)),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// What it is, in words: `a text`.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Int(_) => "a whole number",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Duration(_) => "a length of time",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// As it would be written in an expression; the same value is always written the same way.
    pub fn literal(&self) -> String {
        match self {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Number(value) => format!("{value:?}"),
            Value::String(value) => quoted(value),
            Value::Duration(value) => format!("duration({})", quoted(&crate::duration::format(*value))),
            Value::List(items) => {
                format!("[{}]", items.iter().map(Value::literal).collect::<Vec<_>>().join(", "))
            }
            Value::Map(map) => {
                let entries: Vec<String> =
                    map.iter().map(|(key, value)| format!("{}: {}", quoted(key), value.literal())).collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }

    /// From JSON. A number without a fraction that fits is a whole number; a longer one is a double.
    pub fn from_json(json: serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Value::Int(whole),
                (None, Some(number)) => Value::Number(number),
                (None, None) => Value::String(number.to_string()),
            },
            serde_json::Value::String(text) => Value::String(text),
            serde_json::Value::Array(items) => Value::List(items.into_iter().map(Value::from_json).collect()),
            serde_json::Value::Object(map) => {
                Value::Map(map.into_iter().map(|(key, value)| (key, Value::from_json(value))).collect())
            }
        }
    }

    /// To JSON. A length of time becomes its text.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Number(value) => serde_json::Number::from_f64(*value)
                .map_or(serde_json::Value::Null, serde_json::Value::Number),
            Value::String(value) => value.clone().into(),
            Value::Duration(value) => crate::duration::format(*value).into(),
            Value::List(items) => items.iter().map(Value::to_json).collect(),
            Value::Map(map) => serde_json::Value::Object(
                map.iter().map(|(key, value)| (key.clone(), value.to_json())).collect(),
            ),
        }
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

impl Type {
    /// What it is, in words: `a text`.
    pub fn named(&self) -> &'static str {
        match self {
            Type::Any => "of no known type",
            Type::Null => "null",
            Type::Bool => "true or false",
            Type::Int => "a whole number",
            Type::Number => "a number",
            Type::String => "a text",
            Type::Duration => "a length of time",
            Type::List(_) => "a list",
            Type::Map(_) | Type::Record(_) => "a map",
        }
    }
}
