//! What is wrong with a runbook, where, and what to write instead.

use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The runbook is used, but a person should look.
    Warning,
    /// The runbook is refused.
    Error,
}

/// One thing wrong with a runbook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Stable name of the rule, `unknown-key` for instance; never renamed.
    pub code: &'static str,
    /// Whether the runbook is refused for it.
    pub severity: Severity,
    /// What is wrong, with the offending text.
    pub message: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Where in the file, in bytes.
    pub span: Range<usize>,
    /// What to write instead.
    pub help: Option<String>,
}

impl Problem {
    /// Whether the runbook is refused for it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// The problems as text for people: message, source line, caret, help; in the order of the file.
///
/// `text` is the file as read; bytes that are not UTF-8 are shown as replacement characters.
pub fn render(file: &str, text: &[u8], problems: &[Problem], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
    let mut sorted: Vec<&Problem> = problems.iter().collect();
    sorted.sort_by_key(|problem| (problem.line, problem.column));
    let rendered: Vec<String> =
        sorted.into_iter().map(|problem| render_one(&renderer, file, text, problem)).collect();
    rendered.join("\n\n")
}

fn render_one(renderer: &Renderer, file: &str, text: &[u8], problem: &Problem) -> String {
    // One line of source is enough, keeps the work small for a long file, and no line can be longer than this.
    const LONGEST_LINE: usize = 400;
    let start = problem.span.start.min(text.len());
    let from = text[..start].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let to = text[start..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| start + at);
    let from = from.max(start.saturating_sub(LONGEST_LINE / 2));
    let to = to.min(start + LONGEST_LINE / 2);
    let before = visible(&text[from..start]);
    let marked_to = problem.span.end.clamp(start, to);
    let marked = visible(&text[start..marked_to]);
    let after = visible(&text[marked_to..to]);
    let line = format!("{before}{marked}{after}");
    let span = before.len()..before.len() + marked.len();

    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let message = visible(problem.message.as_bytes());
    let help = problem.help.as_deref().map(visible_lines);
    let mut group = level.primary_title(message).id(problem.code).element(
        Snippet::source(line)
            .line_start(problem.line)
            .path(format!("{file}:{}:{}", problem.line, problem.column))
            .annotation(AnnotationKind::Primary.span(span)),
    );
    if let Some(help) = help {
        group = group.element(Level::HELP.message(help));
    }
    // The renderer writes its own line and column after the path, counted from the one line it was given.
    renderer
        .render(&[group])
        .replace(
            &format!("{file}:{}:{}:{}:", problem.line, problem.column, problem.line),
            &format!("{file}:{}:{}\u{0}", problem.line, problem.column),
        )
        .split('\n')
        .map(|line| line.split('\u{0}').next().unwrap_or(line).trim_end())
        .collect::<Vec<_>>()
        .join("\n")
}

fn visible_lines(text: &str) -> String {
    text.split('\n').map(|line| visible(line.as_bytes())).collect::<Vec<_>>().join("\n")
}

/// Text that cannot play tricks on a terminal: control and direction characters are shown as their code.
pub fn visible(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '\t' => shown.push(' '),
            c if c.is_control() || is_direction_control(c) || c == '\u{feff}' => {
                shown.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
            }
            c => shown.push(c),
        }
    }
    shown
}

/// Characters that change the direction of what follows, and so can make text look like other text.
pub fn is_direction_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{061c}')
}

/// The candidate that was probably meant, if one is near enough.
pub fn did_you_mean<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given: Vec<char> = given.chars().take(64).collect();
    let allowed = match given.len() {
        0 => return None,
        1..=2 => 1,
        3..=5 => 2,
        _ => 3,
    };
    candidates
        .into_iter()
        .map(|candidate| (distance(&given, candidate), candidate))
        .filter(|(far, candidate)| *far <= allowed && *far < candidate.chars().count().max(given.len()))
        .min_by_key(|(far, _)| *far)
        .map(|(_, candidate)| candidate)
}

/// Edit distance in which swapping two neighbours counts as one, without regard to case.
fn distance(given: &[char], candidate: &str) -> usize {
    let lower = |c: &char| c.to_ascii_lowercase();
    let a: Vec<char> = given.iter().map(lower).collect();
    let b: Vec<char> = candidate.chars().take(64).map(|c| lower(&c)).collect();
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// The help for a wrong name: the near one, or all there are.
pub(crate) fn name_help<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    if let Some(near) = did_you_mean(given, candidates.iter().copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    if let Some(longer) = candidates.iter().find(|candidate| given.len() >= 3 && candidate.starts_with(given))
    {
        return Some(format!("did you mean `{longer}`?"));
    }
    let all: Vec<String> = candidates.into_iter().map(|name| format!("`{name}`")).collect();
    if all.is_empty() || all.len() > 40 { None } else { Some(format!("there is: {}", all.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_near_name_is_found_and_a_far_one_is_not_offered() {
        assert_eq!(did_you_mean("timout", ["timeout", "title"]), Some("timeout"));
        assert_eq!(did_you_mean("tiemout", ["timeout", "title"]), Some("timeout"));
        assert_eq!(did_you_mean("xyzzy", ["timeout", "title"]), None);
        assert_eq!(did_you_mean("", ["a"]), None);
    }

    #[test]
    fn a_problem_shows_line_caret_and_help() {
        let text = "a: 1\nprüf: timout\n";
        let problem = Problem {
            code: "unknown-key",
            severity: Severity::Error,
            message: "unknown key `timout`".to_owned(),
            line: 2,
            column: 7,
            span: 12..18,
            help: Some("did you mean `timeout`?".to_owned()),
        };
        insta::assert_snapshot!(render("x.yaml", text.as_bytes(), &[problem], false), @"
        error[unknown-key]: unknown key `timout`
         --> x.yaml:2:7
          |
        2 | prüf: timout
          |       ^^^^^^
          |
          = help: did you mean `timeout`?
        ");
    }
}
