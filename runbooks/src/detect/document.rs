//! Other people's YAML: what its keys say, and on which line.
//!
//! `serde_yaml` says what a value is; `saphyr-parser` walks the same text only to tell lines. Anchors, aliases and merge
//! keys are read as Prometheus reads them, and only the first document counts, as there. Unknown keys are nobody's
//! business here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use saphyr_parser::{Event, Parser};
use serde::Deserialize as _;
use serde_yaml::Value;

/// The largest file, in bytes. The rules of a big mixin are a tenth of it.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// From 1; 0 where only the file can be told.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// A file that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Wrong {
    /// Where.
    pub place: Place,
    /// What, and what is expected.
    pub message: String,
}

/// A file, read.
#[derive(Debug)]
pub(super) struct Document {
    file: Arc<str>,
    value: Value,
    /// The line of each value (of its key, where it has one), by its path.
    lines: BTreeMap<String, usize>,
}

/// A value in it that is not null.
#[derive(Clone, Debug)]
pub(super) struct Node<'d> {
    document: &'d Document,
    value: &'d Value,
    path: String,
}

impl Document {
    pub(super) fn read(file: &str, text: &str) -> Result<Document, Wrong> {
        let file: Arc<str> = file.into();
        let wrong = |line, message| Wrong { place: Place { file: Arc::clone(&file), line }, message };
        if text.len() > MAX_BYTES {
            return Err(wrong(0, format!("is longer than {MAX_BYTES} bytes")));
        }
        let mut value = match serde_yaml::Deserializer::from_str(text).next() {
            None => Value::Null,
            Some(document) => Value::deserialize(document)
                .and_then(|mut value| value.apply_merge().map(|()| value))
                .map_err(|error| {
                    let message = error.to_string();
                    // serde_yaml appends the place; it is said once, in front.
                    let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
                    wrong(error.location().map_or(0, |place| place.line()), format!("is not YAML: {message}"))
                })?,
        };
        if value.is_null() {
            value = Value::Mapping(serde_yaml::Mapping::new());
        }
        Ok(Document { file, value, lines: lines(text) })
    }

    pub(super) fn root(&self) -> Node<'_> {
        Node { document: self, value: &self.value, path: String::new() }
    }
}

impl<'d> Node<'d> {
    /// Its own line, or that of the nearest value around it.
    pub(super) fn place(&self) -> Place {
        self.place_of(&self.path)
    }

    /// Where a key of it stands, or would have to be written.
    pub(super) fn place_for(&self, key: &str) -> Place {
        self.place_of(&format!("{}/{key}", self.path))
    }

    fn place_of(&self, path: &str) -> Place {
        let mut path = path;
        let line = loop {
            match (self.document.lines.get(path), path.rfind('/')) {
                (Some(line), _) => break *line,
                (None, Some(cut)) => path = &path[..cut],
                (None, None) => break 0,
            }
        };
        Place { file: Arc::clone(&self.document.file), line }
    }

    pub(super) fn wrong(&self, message: impl Into<String>) -> Wrong {
        Wrong { place: self.place(), message: message.into() }
    }

    /// The value of a key, if there is one that is not null.
    pub(super) fn get(&self, key: &str) -> Result<Option<Node<'d>>, Wrong> {
        let Some(map) = self.value.as_mapping() else {
            return Err(self.wrong(format!("expected a map with `{key}:`")));
        };
        let value = map.get(key).filter(|value| !value.is_null());
        Ok(value.map(|value| Node { document: self.document, value, path: format!("{}/{key}", self.path) }))
    }

    /// The items of a list under a key; none if there is no such key.
    pub(super) fn list(&self, key: &str) -> Result<Vec<Node<'d>>, Wrong> {
        let Some(node) = self.get(key)? else { return Ok(Vec::new()) };
        let Some(items) = node.value.as_sequence() else {
            return Err(node.wrong(format!("`{key}` is to be a list")));
        };
        let child =
            |(at, value)| Node { document: self.document, value, path: format!("{}/{at}", node.path) };
        Ok(items.iter().enumerate().filter(|(_, value)| !value.is_null()).map(child).collect())
    }

    /// The entries of a map of texts under a key.
    pub(super) fn texts(&self, key: &str) -> Result<BTreeMap<String, String>, Wrong> {
        let Some(node) = self.get(key)? else { return Ok(BTreeMap::new()) };
        let Some(map) = node.value.as_mapping() else {
            return Err(node.wrong(format!("`{key}` is to be a map of names and values")));
        };
        map.iter()
            .map(|(name, value)| Some((scalar(name)?, scalar(value)?)))
            .collect::<Option<_>>()
            .ok_or_else(|| node.wrong(format!("each value of `{key}` is to be text")))
    }

    /// Itself as text.
    pub(super) fn as_text(&self) -> Result<String, Wrong> {
        scalar(self.value).ok_or_else(|| self.wrong("is to be text"))
    }

    /// Whether it is a single value, neither a list nor a map.
    pub(super) fn is_text(&self) -> bool {
        scalar(self.value).is_some()
    }

    /// The text of a key.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>, Wrong> {
        self.get(key)?.map(|node| node.as_text()).transpose()
    }

    /// True or false under a key.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Wrong> {
        let Some(node) = self.get(key)? else { return Ok(None) };
        match node.value.as_bool() {
            Some(flag) => Ok(Some(flag)),
            None => Err(node.wrong(format!("`{key}` is to be true or false"))),
        }
    }

    /// The length of time under a key, as Prometheus writes it.
    pub(super) fn span(&self, key: &str) -> Result<Option<Duration>, Wrong> {
        let Some(node) = self.get(key)? else { return Ok(None) };
        let text = node.as_text()?;
        let message = || {
            let text: String = text.chars().take(40).collect();
            format!("`{key}: {text}` is not a length of time such as `15s`, `1m30s` or `1d`")
        };
        span(&text).map(Some).ok_or_else(|| node.wrong(message()))
    }
}

fn scalar(value: &Value) -> Option<String> {
    if value.is_null() {
        return Some(String::new());
    }
    let number =
        || value.as_i64().map(|it| it.to_string()).or_else(|| value.as_f64().map(|it| it.to_string()));
    value.as_str().map(str::to_owned).or_else(|| value.as_bool().map(|it| it.to_string())).or_else(number)
}

/// A length of time as Prometheus writes it: `1h30m`, `2w`, `500ms`, `0`.
pub(super) fn span(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total, mut last) = (text, 0u64, u64::MAX);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        if unit >= last {
            return None;
        }
        last = unit;
        total = total.checked_add(count.checked_mul(unit)?)?;
        rest = &rest[letters..];
    }
    let span = Duration::from_millis(total);
    (!text.is_empty() && span <= crate::duration::LONGEST).then_some(span)
}

/// A list or a map that is still open.
struct Open {
    path: String,
    is_map: bool,
    /// How many values it has had.
    values: usize,
    /// In a map, the key whose value comes next, and its line.
    key: Option<(String, usize)>,
}

impl Open {
    fn path_of_next(&self) -> String {
        match &self.key {
            Some((key, _)) => format!("{}/{key}", self.path),
            None => format!("{}/{}", self.path, self.values),
        }
    }
}

/// The line of every value of the first document. Lines serve people only: where the walk ends early, the rest has none.
fn lines(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    let mut open: Vec<Open> = Vec::new();
    let mut documents = 0;
    let mut parser = Parser::new_from_str(text);
    while let Some(Ok((event, span))) = parser.next_event() {
        let line = span.start.line();
        let (scalar, opens) = match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    break;
                }
                continue;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => continue,
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
                value_ends(open.last_mut());
                continue;
            }
            Event::SequenceStart(..) => (String::new(), Some(false)),
            Event::MappingStart(..) => (String::new(), Some(true)),
            Event::Scalar(text, ..) => (text.into_owned(), None),
            Event::Alias(_) => (String::new(), None),
        };
        if let Some(map) = open.last_mut().filter(|it| it.is_map && it.key.is_none() && opens.is_none()) {
            map.key = Some((scalar, line));
            continue;
        }
        let path = open.last().map(Open::path_of_next).unwrap_or_default();
        let of_key = open.last().and_then(|it| it.key.as_ref()).map_or(line, |(_, line)| *line);
        lines.entry(path.clone()).or_insert(of_key);
        match opens {
            Some(is_map) => open.push(Open { path, is_map, values: 0, key: None }),
            None => value_ends(open.last_mut()),
        }
    }
    lines
}

fn value_ends(within: Option<&mut Open>) {
    if let Some(open) = within {
        open.values += 1;
        open.key = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line() {
        let text = "a: 1\nb:\n  - x: &anchor {y: 2}\n    z: 3\n  - *anchor\nc:\n  d: |\n    text\n  e: 5\n---\nsecond: 1\n";
        let document = Document::read("f.yml", text).unwrap();
        let root = document.root();
        let items = root.list("b").unwrap();
        assert_eq!(root.place_for("a").to_string(), "f.yml:1");
        assert_eq!(items[0].place_for("z").to_string(), "f.yml:4");
        assert_eq!(items[1].get("y").unwrap().unwrap().place().to_string(), "f.yml:5");
        let c = root.get("c").unwrap().unwrap();
        assert_eq!((c.place_for("e").line, c.place_for("nothing").line), (9, 6));
        assert_eq!(items[1].text("y").unwrap().unwrap(), "2");
    }

    #[test]
    fn a_file_that_is_not_yaml_says_where() {
        for (text, said) in [
            ("a: [1\nb: 2\n", "f.yml:"),
            ("a: 1\na: 2\n", "duplicate entry"),
            ("a: &x [*x]\n", "f.yml"),
            ("\u{0}", "f.yml"),
        ] {
            let error = Document::read("f.yml", text).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
        let laughs: String = (1..12).fold("a0: &a0 [x, x]\n".to_owned(), |text, at| {
            let before = at - 1;
            format!("{text}a{at}: &a{at} [{}]\n", format!("*a{before},").repeat(9))
        });
        assert!(Document::read("f.yml", &laughs).is_err(), "what grows without end is refused");
        assert!(Document::read("f.yml", &"[".repeat(10_000)).is_err());
        assert!(Document::read("f.yml", "").unwrap().root().get("a").unwrap().is_none());
    }

    #[test]
    fn lengths_of_time_are_those_of_prometheus() {
        for (text, seconds) in
            [("0", 0), ("15s", 15), ("1m30s", 90), ("1w", 604_800), ("1y", 31_536_000), ("1h0m5s", 3605)]
        {
            assert_eq!(span(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(span("1500ms"), Some(Duration::from_millis(1500)));
        for text in ["", "5", "1.5h", "s", "1m1h", "1s1s", "-1s", "99999999999999999999y", "9999y"] {
            assert_eq!(span(text), None, "{text}");
        }
    }
}
