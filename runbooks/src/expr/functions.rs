//! What an expression can call.

use crate::value::Type;

/// The functions, and the methods written after a dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// Characters of a text, items of a list, entries of a map.
    Size,
    /// Text (blanks around it ignored) or a number to a whole number.
    Int,
    /// Text or a whole number to a number.
    Double,
    /// Any scalar to text.
    String,
    /// `"true"` and `"false"` to a condition.
    Bool,
    /// `"30s"` to a length of time.
    Duration,
    /// Text to what it says in JSON.
    Json,
    /// Text without blanks around it.
    Trim,
    /// Text to its lines, without an empty last one.
    Lines,
    /// The first group of the first match, or the whole match; no match is an error.
    Regex,
    Contains,
    StartsWith,
    EndsWith,
    /// Whether a pattern matches somewhere in the text.
    Matches,
}

impl Function {
    const ALL: [Function; 14] = [
        Function::Size,
        Function::Int,
        Function::Double,
        Function::String,
        Function::Bool,
        Function::Duration,
        Function::Json,
        Function::Trim,
        Function::Lines,
        Function::Regex,
        Function::Contains,
        Function::StartsWith,
        Function::EndsWith,
        Function::Matches,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Function::Size => "size",
            Function::Int => "int",
            Function::Double => "double",
            Function::String => "string",
            Function::Bool => "bool",
            Function::Duration => "duration",
            Function::Json => "json",
            Function::Trim => "trim",
            Function::Lines => "lines",
            Function::Regex => "regex",
            Function::Contains => "contains",
            Function::StartsWith => "startsWith",
            Function::EndsWith => "endsWith",
            Function::Matches => "matches",
        }
    }

    pub(super) fn named(name: &str) -> Option<Function> {
        Function::ALL.into_iter().find(|function| function.name() == name)
    }

    /// Whether it is written after a dot: `text.contains("x")`.
    pub(super) fn is_method(self) -> bool {
        match self {
            Function::Contains | Function::StartsWith | Function::EndsWith | Function::Matches => true,
            Function::Size
            | Function::Int
            | Function::Double
            | Function::String
            | Function::Bool
            | Function::Duration
            | Function::Json
            | Function::Trim
            | Function::Lines
            | Function::Regex => false,
        }
    }

    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        Function::ALL.into_iter().filter(|function| !function.is_method()).map(Function::name)
    }

    pub(super) fn methods() -> impl Iterator<Item = &'static str> {
        Function::ALL.into_iter().filter(|function| function.is_method()).map(Function::name)
    }

    /// How many arguments it takes, the text before the dot included.
    pub(super) fn arity(self) -> usize {
        match self {
            Function::Size
            | Function::Int
            | Function::Double
            | Function::String
            | Function::Bool
            | Function::Duration
            | Function::Json
            | Function::Trim
            | Function::Lines => 1,
            Function::Regex
            | Function::Contains
            | Function::StartsWith
            | Function::EndsWith
            | Function::Matches => 2,
        }
    }

    /// The place of the argument that is a pattern.
    pub(super) fn pattern_at(self) -> Option<usize> {
        matches!(self, Function::Regex | Function::Matches).then_some(1)
    }

    /// Whether an argument may have this type.
    pub(super) fn takes(self, ty: &Type) -> bool {
        let scalar = matches!(ty, Type::Bool | Type::Int | Type::Number | Type::String | Type::Duration);
        let text = matches!(ty, Type::String);
        let sized = matches!(ty, Type::String | Type::List(_) | Type::Map(_) | Type::Record(_));
        let number = matches!(ty, Type::Int | Type::Number | Type::String);
        *ty == Type::Any
            || match self {
                Function::Size => sized,
                Function::Int | Function::Double => number,
                Function::String => scalar,
                Function::Bool => text || *ty == Type::Bool,
                Function::Duration => text || *ty == Type::Duration,
                Function::Json
                | Function::Trim
                | Function::Lines
                | Function::Regex
                | Function::Contains
                | Function::StartsWith
                | Function::EndsWith
                | Function::Matches => text,
            }
    }

    /// What [`Function::takes`] accepts, in words.
    pub(super) fn wants(self) -> &'static str {
        match self {
            Function::Size => "a text, a list or a map",
            Function::Int | Function::Double => "a text or a number",
            Function::String => "a text, a number, a condition or a length of time",
            Function::Bool
            | Function::Duration
            | Function::Json
            | Function::Trim
            | Function::Lines
            | Function::Regex
            | Function::Contains
            | Function::StartsWith
            | Function::EndsWith
            | Function::Matches => "a text",
        }
    }

    pub(super) fn gives(self) -> Type {
        match self {
            Function::Size | Function::Int => Type::Int,
            Function::Double => Type::Number,
            Function::String | Function::Trim | Function::Regex => Type::String,
            Function::Bool
            | Function::Contains
            | Function::StartsWith
            | Function::EndsWith
            | Function::Matches => Type::Bool,
            Function::Duration => Type::Duration,
            Function::Json => Type::Any,
            Function::Lines => Type::List(Box::new(Type::String)),
        }
    }
}
