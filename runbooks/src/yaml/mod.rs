//! Bytes to a tree that knows where it stands.
//!
//! Two readers, each trusted for one thing. `saphyr-parser` walks the events first: it says where everything stands and is
//! where all that runbooks do without is refused (anchors, aliases, merge keys, tags, directives, a second document, keys
//! that are not text, the same key twice). Only what passed goes to `serde_yaml`, which says what type each scalar has. The two trees
//! must have the same shape; if they ever disagree the file is refused, so no disagreement can become a meaning.
//!
//! Before either of them, the bytes themselves: size, UTF-8, and characters that nobody can see.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the values of serde_yaml are not ours; an unknown one is refused"
)]

mod characters; // bytes to text without invisible characters
mod index; // text to events to a tree of places
pub(crate) mod quoting; // what to write when YAML takes an expression for something else

use index::{Place, PlaceKind};

use crate::expr::At;
use crate::expr::Mapped;
use crate::problem::{Problem, Severity};

/// The largest file, in bytes.
pub(crate) const MAX_BYTES: usize = 256 * 1024;
/// The deepest nesting; a runbook needs six.
pub(crate) const MAX_NESTING: usize = 32;

/// One value of the file.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    pub(crate) at: At,
    /// Where it ends, in bytes.
    pub(crate) until: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum NodeKind {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: At,
    pub(crate) until: usize,
    pub(crate) value: Node,
}

#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) value: ScalarValue,
    /// Its text and where each line of it stands; for a number the text as written.
    pub(crate) text: Mapped,
    /// Written without quotes on one line, and followed by ` #`, which cut the rest of the line off.
    pub(crate) cut: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ScalarValue {
    Null,
    Bool(bool),
    Int(i64),
    Number(f64),
    Text,
}

impl Node {
    /// What it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.kind {
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => "a map",
            NodeKind::Scalar(scalar) => match scalar.value {
                ScalarValue::Null => "nothing",
                ScalarValue::Bool(_) => "true or false",
                ScalarValue::Int(_) => "a whole number",
                ScalarValue::Number(_) => "a number",
                ScalarValue::Text => "a text",
            },
        }
    }

    /// The span of its first line: what a caret can mark.
    pub(crate) fn span(&self) -> (At, usize) {
        (self.at, self.until)
    }
}

/// The file as a text and as a tree.
pub(crate) struct Document {
    pub(crate) text: String,
    pub(crate) root: Node,
}

/// Reads the bytes.
pub(crate) fn read(bytes: &[u8]) -> Result<Document, Vec<Problem>> {
    let text = characters::check(bytes)?;
    let places = index::index(text)?;
    let decoded: serde_yaml::Value = match serde_yaml::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            let (line, column) = error.location().map_or((1, 1), |place| (place.line(), place.column()));
            let at = index::at_line_column(text, line, column);
            return Err(vec![problem(
                "yaml-syntax",
                at,
                at.offset,
                format!("this is not YAML: {error}"),
                None,
            )]);
        }
    };
    match join(places, decoded) {
        Ok(root) => Ok(Document { text: text.to_owned(), root }),
        Err(at) => Err(vec![problem(
            "yaml-ambiguous",
            at,
            at.offset,
            "this can be read in two ways".to_owned(),
            Some("put the text into quotes".to_owned()),
        )]),
    }
}

pub(crate) fn problem(
    code: &'static str,
    at: At,
    until: usize,
    message: String,
    help: Option<String>,
) -> Problem {
    let span = at.offset..until.max(at.offset);
    Problem { code, severity: Severity::Error, message, line: at.line, column: at.column, span, help }
}

/// Puts places and types together; the error is where they differ.
fn join(place: Place, value: serde_yaml::Value) -> Result<Node, At> {
    let Place { kind, at, until } = place;
    let kind = match (kind, value) {
        (PlaceKind::List(places), serde_yaml::Value::Sequence(values)) if places.len() == values.len() => {
            let nodes = places.into_iter().zip(values).map(|(place, value)| join(place, value));
            NodeKind::List(nodes.collect::<Result<_, _>>()?)
        }
        (PlaceKind::Map(places), serde_yaml::Value::Mapping(map)) if places.len() == map.len() => {
            let mut entries = Vec::with_capacity(places.len());
            for (entry, (key, value)) in places.into_iter().zip(map) {
                let key = match key {
                    serde_yaml::Value::String(key) if key == entry.key => key,
                    _ => return Err(entry.at),
                };
                let value = join(entry.value, value)?;
                entries.push(Entry { key, at: entry.at, until: entry.until, value });
            }
            NodeKind::Map(entries)
        }
        (PlaceKind::Scalar { text, quoted, cut }, value) => {
            let value = match value {
                serde_yaml::Value::Null if !quoted => ScalarValue::Null,
                serde_yaml::Value::Bool(value) if !quoted => ScalarValue::Bool(value),
                serde_yaml::Value::Number(number) if !quoted => match (number.as_i64(), number.as_f64()) {
                    (Some(whole), _) => ScalarValue::Int(whole),
                    // One between the largest signed and the largest unsigned number would lose its last digits.
                    (None, Some(number)) if number_is_exact(&text.text) => ScalarValue::Number(number),
                    (None, Some(_) | None) => return Err(at),
                },
                serde_yaml::Value::String(read) if read == text.text => ScalarValue::Text,
                _ => return Err(at),
            };
            NodeKind::Scalar(Scalar { value, text, cut })
        }
        (PlaceKind::List(_) | PlaceKind::Map(_), _) => return Err(at),
    };
    Ok(Node { kind, at, until })
}

fn number_is_exact(written: &str) -> bool {
    !written.trim_start_matches(['+', '-']).bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests;
