//! Text to events to a tree of places; here is refused what runbooks do without.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::{MAX_NESTING, problem, quoting};
use crate::expr::{At, Mapped};
use crate::problem::{Problem, is_direction_control, visible};

/// No more than so many problems are told.
const ENOUGH: usize = 50;

pub(super) struct Place {
    pub(super) kind: PlaceKind,
    pub(super) at: At,
    pub(super) until: usize,
}

pub(super) enum PlaceKind {
    Scalar { text: Mapped, quoted: bool, cut: bool },
    List(Vec<Place>),
    Map(Vec<EntryPlace>),
}

pub(super) struct EntryPlace {
    pub(super) key: String,
    pub(super) at: At,
    pub(super) until: usize,
    pub(super) value: Place,
}

/// Where a line and a column (in characters, both from 1) stand.
pub(super) fn at_line_column(text: &str, line: usize, column: usize) -> At {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let rest = &text[start.min(text.len())..];
    let within: usize = rest.chars().take(column.saturating_sub(1)).map(char::len_utf8).sum();
    At { offset: start.min(text.len()) + within, line: line.max(1), column: column.max(1) }
}

/// The tree of places, or everything refused on the way.
pub(super) fn index(text: &str) -> Result<Place, Vec<Problem>> {
    let mut indexer = Indexer::new(text);
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => indexer.event(event, span),
            Err(error) => {
                indexer.syntax(*error.marker(), error.info());
                break;
            }
        }
        if indexer.stop || indexer.problems.len() >= ENOUGH {
            break;
        }
    }
    indexer.finish()
}

/// A list or a map that is still open.
enum Open {
    List { at: At, items: Vec<Place> },
    Map { at: At, entries: Vec<EntryPlace>, seen: HashMap<String, usize>, key: Option<(String, At, usize)> },
}

struct Indexer<'a> {
    text: &'a str,
    /// The byte of each character, and one more for the end.
    bytes: Vec<usize>,
    open: Vec<Open>,
    root: Option<Place>,
    documents: usize,
    /// Inside a key that is a list or a map, which is refused and left out: how deep.
    skipping: usize,
    stop: bool,
    problems: Vec<Problem>,
}

impl<'a> Indexer<'a> {
    fn new(text: &'a str) -> Self {
        let bytes = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let (open, root, problems) = (Vec::new(), None, Vec::new());
        Indexer { text, bytes, open, root, documents: 0, skipping: 0, stop: false, problems }
    }

    fn at(&self, marker: Marker) -> At {
        let offset = self.bytes.get(marker.index()).copied().unwrap_or(self.text.len());
        At { offset, line: marker.line(), column: marker.col() + 1 }
    }

    fn refuse(&mut self, code: &'static str, at: At, until: usize, message: &str, help: Option<String>) {
        self.problems.push(problem(code, at, until, message.to_owned(), help));
    }

    fn line_of(&self, at: At) -> &'a str {
        let offset = at.offset.min(self.text.len());
        let from = self.text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let to = self.text[offset..].find('\n').map_or(self.text.len(), |newline| offset + newline);
        self.text[from..to].trim_end_matches('\r')
    }

    fn quoting_help(&self, at: At) -> Option<String> {
        quoting::help(self.line_of(at))
    }

    fn syntax(&mut self, marker: Marker, info: &str) {
        let at = self.at(marker);
        let unknown_alias = info.contains("unknown anchor");
        let message = if unknown_alias {
            "`*` begins a YAML alias, which runbooks do not have".to_owned()
        } else {
            format!("this is not YAML: {info}")
        };
        let code = if unknown_alias { "yaml-alias" } else { "yaml-syntax" };
        let help = if info.contains("must be followed by a valid YAML whitespace") {
            Some("write a space after `:`, not a tab".to_owned())
        } else {
            self.quoting_help(at)
        };
        self.refuse(code, at, at.offset + 1, &message, help);
    }

    fn event(&mut self, event: Event<'_>, span: Span) {
        let at = self.at(span.start);
        let until = self.at(span.end).offset;
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let help = Some("write one runbook per file".to_owned());
                    self.refuse("second-document", at, until, "a second document begins here", help);
                    self.stop = true;
                }
            }
            Event::Alias(_) => {
                let message = "`*` begins a YAML alias, which runbooks do not have";
                let help = self.quoting_help(at).or(Some("write the value out".to_owned()));
                self.refuse("yaml-alias", at, until, message, help);
                self.scalar("", ScalarStyle::Plain, at, until);
            }
            Event::Scalar(value, style, anchor, tag) => {
                self.decorations(at, until, anchor, tag.is_some());
                self.scalar(&value, style, at, until);
            }
            Event::SequenceStart(anchor, tag) => {
                self.decorations(at, until, anchor, tag.is_some());
                self.begin(Open::List { at, items: Vec::new() }, at, until);
            }
            Event::MappingStart(anchor, tag) => {
                self.decorations(at, until, anchor, tag.is_some());
                let open = Open::Map { at, entries: Vec::new(), seen: HashMap::new(), key: None };
                self.begin(open, at, until);
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(until),
        }
    }

    fn decorations(&mut self, at: At, until: usize, anchor: usize, tag: bool) {
        let quoting = if tag || anchor > 0 { self.quoting_help(at) } else { None };
        let word_end =
            self.text[at.offset..].find(char::is_whitespace).map_or(self.text.len(), |end| at.offset + end);
        let word = visible(&self.text.as_bytes()[at.offset..word_end]);
        if tag {
            let message = format!("`{word}` begins a YAML tag, which runbooks do not have");
            let help = quoting.clone().or(Some("leave it out".to_owned()));
            self.refuse("yaml-tag", at, word_end.min(until.max(at.offset + 1)), &message, help);
        } else if anchor > 0 {
            let message = format!("`{word}` begins a YAML anchor, which runbooks do not have");
            let help = quoting.or(Some("write the value out where it is used".to_owned()));
            self.refuse("yaml-anchor", at, word_end.min(until.max(at.offset + 1)), &message, help);
        }
    }

    /// Whether the next value stands where a key is due.
    fn key_is_due(&self) -> bool {
        matches!(self.open.last(), Some(Open::Map { key: None, .. }))
    }

    fn begin(&mut self, open: Open, at: At, until: usize) {
        if self.skipping > 0 {
            self.skipping += 1;
            return;
        }
        if self.key_is_due() {
            let help = if self.line_of(at).contains("{{") {
                self.quoting_help(at)
            } else {
                Some("a key is a text".to_owned())
            };
            self.refuse("key-not-text", at, until, "a list or a map is no key", help);
            self.skipping = 1;
            return;
        }
        if self.open.len() >= MAX_NESTING {
            let message = format!("nested more than {MAX_NESTING} levels deep");
            self.refuse("too-deep", at, until, &message, None);
            self.stop = true;
            return;
        }
        self.open.push(open);
    }

    fn end(&mut self, until: usize) {
        if self.skipping > 0 {
            self.skipping -= 1;
            if self.skipping == 0 {
                // Something must stand for the key, so that its value is not taken for one.
                if let Some(Open::Map { key, .. }) = self.open.last_mut() {
                    *key = Some((format!("\0{until}"), At::default(), until));
                }
            }
            return;
        }
        let place = match self.open.pop() {
            Some(Open::List { at, items }) => Place { kind: PlaceKind::List(items), at, until },
            Some(Open::Map { at, entries, .. }) => Place { kind: PlaceKind::Map(entries), at, until },
            None => return,
        };
        let until = self.trimmed(place.at.offset, until);
        self.put(Place { until, ..place });
    }

    /// A block ends where the next thing begins; its own last character comes before that.
    fn trimmed(&self, from: usize, until: usize) -> usize {
        let until = until.clamp(from, self.text.len());
        from + self.text[from..until].trim_end().len()
    }

    fn scalar(&mut self, value: &str, style: ScalarStyle, at: At, until: usize) {
        if self.skipping > 0 {
            return;
        }
        let plain = matches!(style, ScalarStyle::Plain);
        let hidden =
            value.chars().find(|c| (c.is_control() && !matches!(c, '\n' | '\t')) || is_direction_control(*c));
        if let Some(hidden) = hidden {
            let message = format!("the text contains U+{:04X}, which nobody can see", u32::from(hidden));
            let help = Some("leave it out; a script can make it with printf".to_owned());
            self.refuse("hidden-character", at, until, &message, help);
        }
        let until = if plain { until } else { self.trimmed(at.offset, until) };
        if self.key_is_due() {
            self.key(value, plain, at, until);
            return;
        }
        let text = self.map_text(value, style, at, until);
        let after = &self.text[until.min(self.text.len())..];
        let cut = plain && after.trim_start_matches([' ', '\t']).starts_with('#') && !after.starts_with('#');
        self.put(Place { kind: PlaceKind::Scalar { text, quoted: !plain, cut }, at, until });
    }

    fn key(&mut self, value: &str, plain: bool, at: At, until: usize) {
        let shown = visible(value.as_bytes());
        if plain && value == "<<" {
            let help = Some("write the keys out".to_owned());
            self.refuse(
                "yaml-merge",
                at,
                until,
                "`<<` is a YAML merge key, which runbooks do not have",
                help,
            );
        } else if value.contains('\t') {
            let help = Some("indent with spaces".to_owned());
            self.refuse("tab-indentation", at, until, "a tab before a key", help);
        } else if plain && not_text(value) {
            let message = if value.is_empty() {
                "a key is missing before `:`".to_owned()
            } else {
                format!("`{shown}` is read as something other than a text, which no key can be")
            };
            let help = (!value.is_empty()).then(|| format!("write \"{shown}\""));
            self.refuse("key-not-text", at, until, &message, help);
        } else if self.text.get(at.offset..until).is_some_and(|written| written.contains(['\n', '\r'])) {
            self.refuse("key-not-text", at, until, "a key on several lines", None);
        } else if value.chars().count() > 128 {
            self.refuse("key-too-long", at, until, "a key of more than 128 characters", None);
        }
        let Some(Open::Map { seen, key, .. }) = self.open.last_mut() else { return };
        *key = Some((value.to_owned(), at, until));
        if let Some(first) = seen.insert(value.to_owned(), at.line) {
            let message = format!("the key `{shown}` is on line {first} and again on line {}", at.line);
            let help = Some("keep one of them".to_owned());
            self.refuse("duplicate-key", at, until, &message, help);
        }
    }

    fn put(&mut self, place: Place) {
        match self.open.last_mut() {
            None => self.root = Some(place),
            Some(Open::List { items, .. }) => items.push(place),
            Some(Open::Map { entries, key, .. }) => {
                if let Some((key, at, until)) = key.take() {
                    entries.push(EntryPlace { key, at, until, value: place });
                }
            }
        }
    }

    /// Finds where each line of a scalar's value stands.
    fn map_text(&self, value: &str, style: ScalarStyle, at: At, until: usize) -> Mapped {
        let whole = |at: At| Mapped { text: value.to_owned(), lines: vec![(0, at)], exact: true };
        let inexact = || Mapped { text: value.to_owned(), lines: vec![(0, at)], exact: false };
        match style {
            ScalarStyle::Plain => {
                if self.text.get(at.offset..until) == Some(value) {
                    whole(at)
                } else {
                    inexact()
                }
            }
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
                let inner = At { offset: at.offset + 1, line: at.line, column: at.column + 1 };
                let same = self.text.get(inner.offset..until.saturating_sub(1)) == Some(value)
                    && !value.contains('\n');
                if same { whole(inner) } else { inexact() }
            }
            ScalarStyle::Literal => self.map_literal(value, at).unwrap_or_else(inexact),
            ScalarStyle::Folded => inexact(),
        }
    }

    fn map_literal(&self, value: &str, at: At) -> Option<Mapped> {
        let mut lines = Vec::new();
        let mut in_value = 0;
        // The first line of the value stands at `at`, each later one behind the same indentation.
        let indentation = at.column - 1;
        let mut in_file = at.offset.checked_sub(indentation)?;
        for (number, line) in value.split_inclusive('\n').enumerate() {
            let file_line = self.text.get(in_file..)?.split_inclusive('\n').next()?;
            let content = line.trim_end_matches('\n');
            let skip = indentation.min(file_line.trim_end_matches(['\n', '\r']).len());
            if !file_line.get(skip..)?.starts_with(content) {
                return None;
            }
            lines.push((in_value, At { offset: in_file + skip, line: at.line + number, column: skip + 1 }));
            in_value += line.len();
            in_file += file_line.len();
        }
        (!lines.is_empty()).then(|| Mapped { text: value.to_owned(), lines, exact: true })
    }

    fn finish(mut self) -> Result<Place, Vec<Problem>> {
        if self.problems.is_empty() && self.root.is_none() {
            let at = At { offset: 0, line: 1, column: 1 };
            let help = Some("a runbook begins with `fettle: 1`".to_owned());
            self.refuse("empty", at, 0, "there is no runbook in this file", help);
        }
        match self.root {
            Some(root) if self.problems.is_empty() => Ok(root),
            Some(_) | None => Err(self.problems),
        }
    }
}

/// Whether a plain scalar is null, a condition or a number rather than a text.
fn not_text(value: &str) -> bool {
    !matches!(serde_yaml::from_str::<serde_yaml::Value>(value), Ok(serde_yaml::Value::String(_)))
}
