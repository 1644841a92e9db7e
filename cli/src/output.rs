//! What people and programs read. Stdout is data, stderr is talk.
//!
//! A command hands over its data once as JSON values and once as a [`Table`] or text; `-o` decides which is printed.
//! Everything from outside passes [`visible`] on its way to a terminal.

mod table;

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::exit::Exit;

pub use table::Table;

/// `-o`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One JSON value per line.
    Jsonl,
    /// One YAML document.
    Yaml,
}

/// What a cell or a word stands for; the renderer chooses the colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// Well.
    Good,
    /// Wants attention.
    Warn,
    /// Not well.
    Bad,
    /// Less important.
    Dim,
    /// A heading.
    Strong,
}

impl Tone {
    /// The tone of a word that states, endings and risks are told in.
    pub fn of(word: &str) -> Tone {
        match word {
            "verified" | "succeeded" | "connected" | "approved" | "approve" | "in time" | "yes"
            | "closed" => Tone::Good,
            "failed" | "refused" | "rejected" | "denied" | "deny" | "late" | "unknown" | "revoked"
            | "critical" | "timed-out" | "killed" | "firing" | "never" => Tone::Bad,
            "waiting" | "unverified" | "expired" | "open" | "high" | "away" | "undone" | "cancelled"
            | "wait" | "pending" | "perhaps late" | "perhaps never" => Tone::Warn,
            "ended" | "skipped" | "no" | "read" | "low" | "not known" | "resolved" => Tone::Dim,
            _ => Tone::Plain,
        }
    }

    fn style(self) -> Style {
        match self {
            Tone::Plain => Style::new(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Warn => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default(),
            Tone::Dim => Style::new().dimmed(),
            Tone::Strong => Style::new().bold(),
        }
    }
}

/// A state or ending with its glyph; the same in every table, line and page.
pub fn stated(word: &str) -> String {
    format!("{} {}", glyph(word).unwrap_or("?"), named(word))
}

/// A state or ending. Of one that only a newer controller knows it is said that it is not known here.
pub fn named(word: &str) -> Cow<'_, str> {
    match glyph(word) {
        Some(_) => word.into(),
        None if word.is_empty() => "(not told)".into(),
        None => unknown(word).into(),
    }
}

/// A word that this program does not know.
pub fn unknown(word: &str) -> String {
    format!("{word} (not known to this fettle)")
}

fn glyph(word: &str) -> Option<&'static str> {
    Some(match word {
        "verified" | "succeeded" | "approved" => "✓",
        "failed" | "refused" | "denied" | "rejected" | "killed" | "timed-out" => "✗",
        "unverified" | "unknown" => "?",
        "waiting" | "open" | "pending" | "created" | "planned" => "…",
        "diagnosing" | "remediating" | "verifying" | "undoing" | "cancelling" | "running" => "▸",
        "expired" | "cancelled" | "undone" | "skipped" | "closed" => "–",
        "not-started" => "·",
        _ => return None,
    })
}

/// Where output goes and how it looks.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: Format,
    color: bool,
    to: To,
}

/// Whether a stream of lines is data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// It is: stdout.
    Stdout,
    /// It is talk beside the data: stderr.
    Stderr,
}

impl Output {
    /// As the command line and the environment want it: colours only on a terminal, never when `NO_COLOR` is set.
    pub fn new(format: Format) -> Output {
        let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Output {
            format,
            color: format == Format::Table && !forbidden && io::stdout().is_terminal(),
            to: To::Stdout,
        }
    }

    /// Plain, for tests.
    pub const fn plain(format: Format) -> Output {
        Output { format, color: false, to: To::Stdout }
    }

    /// The same for lines that are talk beside the data: plain, to stderr.
    pub const fn aside() -> Output {
        Output { format: Format::Table, color: false, to: To::Stderr }
    }

    /// `-o`
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether people read stdout as it is.
    pub fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// Whether stdout takes colours.
    pub fn color(&self) -> bool {
        self.color
    }

    /// Text in a tone, with its control characters made visible.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        let text = visible(text);
        if !self.color || tone == Tone::Plain {
            return text.into_owned();
        }
        let style = tone.style();
        format!("{}{text}{}", style.render(), style.render_reset())
    }

    /// Prints one thing: `data` for programs, `human` for people.
    pub fn show(&self, data: &Value, human: impl FnOnce() -> String) -> Result<()> {
        print(&match self.format {
            Format::Table => human(),
            Format::Json => pretty(data),
            Format::Jsonl => data.to_string(),
            Format::Yaml => yaml(data),
        })
    }

    /// Prints many things: an array, one line each, or a table.
    pub fn list(&self, items: &[Value], human: impl FnOnce() -> Table) -> Result<()> {
        match self.format {
            Format::Table => print(&human().render(self)),
            Format::Json => print(&pretty(&Value::Array(items.to_vec()))),
            Format::Jsonl => items.iter().try_for_each(|item| print(&item.to_string())),
            Format::Yaml => print(&yaml(&Value::Array(items.to_vec()))),
        }
    }

    /// Prints one line of a stream: JSON on a line whatever the structured format, text for people.
    pub fn line(&self, data: &Value, human: impl FnOnce() -> String) -> Result<()> {
        match self.format {
            Format::Table if self.to == To::Stderr => {
                talk(&human());
                Ok(())
            }
            Format::Table => print(&human()),
            Format::Json | Format::Jsonl => print(&data.to_string()),
            Format::Yaml => print(&format!("---\n{}", yaml(data))),
        }
    }
}

/// Says something to the person at the terminal, on stderr.
pub fn talk(text: &str) {
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints text and a newline to stdout. A reader that has gone (`| head`) ends the process quietly.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let mut write = || {
        out.write_all(text.trim_end_matches('\n').as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    };
    write().map_err(output_failed)
}

/// Prints bytes as they are: the source of a runbook, for a pipe.
pub fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(output_failed)
}

fn output_failed(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Error::silent(Exit::Done);
    }
    Error::new(Exit::Failed, "failed to write to stdout").because(&error)
}

fn pretty(data: &Value) -> String {
    serde_json::to_string_pretty(data).unwrap_or_else(|_| data.to_string())
}

fn yaml(data: &Value) -> String {
    serde_yaml::to_string(data).unwrap_or_else(|_| data.to_string())
}

/// Text with its control characters made visible, so that a label cannot move the cursor, hide a line or reverse the
/// reading order. A newline becomes `\n`; print lines one by one to keep them.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(deceives) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if deceives(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The same, keeping line breaks: for output and descriptions of several lines.
pub fn visible_lines(text: &str) -> String {
    text.split('\n')
        .map(|line| visible(&line.replace('\t', "    ")).into_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A time of the wire (milliseconds since 1970) in UTC, or `-` for none.
pub fn time(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) if ms != 0 => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Ok(_) | Err(_) => "-".to_owned(),
    }
}

/// The same as RFC 3339 for programs, or `null`.
pub fn time_json(ms: i64) -> Value {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) if ms != 0 => Value::String(time.to_string()),
        Ok(_) | Err(_) => Value::Null,
    }
}

/// A length of time for people: `840 ms`, `12.3 s`, `4 min 10 s`, `2 h 5 min`.
pub fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_deceive_a_terminal_is_made_visible() {
        assert_eq!(visible("plain ünïcode 漢字"), "plain ünïcode 漢字");
        assert_eq!(visible("a\u{1b}[31mb"), "a\\u{1b}[31mb");
        assert_eq!(visible("a\nb\tc\rd"), "a\\nb\\tc\\rd");
        assert_eq!(visible("user\u{202e}gnp.exe"), "user\\u{202e}gnp.exe");
        assert_eq!(visible("\u{9b}2J"), "\\u{9b}2J");
    }

    #[test]
    fn lengths_of_time_read_well() {
        let all: Vec<String> = [0, 840, 12_340, 250_000, 7_500_000].into_iter().map(span).collect();
        assert_eq!(all, ["0 ms", "840 ms", "12.3 s", "4 min 10 s", "2 h 5 min"]);
    }

    #[test]
    fn a_time_that_was_never_taken_is_a_dash() {
        assert_eq!(time(0), "-");
        assert_eq!(time(1_600_000_000_123), "2020-09-13 12:26:40Z");
        assert_eq!(time_json(0), Value::Null);
    }
}
