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
