//! Everything that is wrong with a runbook, told at once.
//!
//! One pass from the top of the file to its end; a part that is wrong is reported and left out, and what depends on it is not
//! reported a second time.

mod fields; // what stands behind one key
mod inputs; // what is given from outside
mod triggers; // what starts it
mod scope; // what an expression can see, by where it stands
mod steps; // what it does
mod actions; // how a step does it
mod service; // … with a unit of systemd
mod commands; // which arguments a program evaluates
mod scripts; // what is risky in a script

use fields::Checker;

use crate::Read;
use crate::draft::{Draft, draft};
use crate::id::Digest;
use crate::problem::Problem;
use crate::runbook::Runbook;
use crate::yaml::{self, Entry, NodeKind, Scalar, ScalarValue};

/// The version of the language this code knows.
pub(crate) const VERSION: i64 = 1;

/// Reads and checks.
pub(crate) fn read(bytes: &[u8]) -> Result<Read, Vec<Problem>> {
    let yaml::Document { text, root } = yaml::read(bytes)?;
    let version = version_of(&root);
    let mut checker = Checker { text, ..Checker::default() };
    let (root_at, root_until) = root.span();
    if !matches!(root.kind, NodeKind::Map(_)) {
        let message = format!("a runbook is a map, this is {}", root.kind());
        checker.error("wrong-type", root_at, root_until, message, Some("a runbook begins with `fettle: 1`"));
        return Err(checker.problems);
    }
    if let Err((at, until, message)) = version {
        // Nothing else can be said of a language one does not know.
        checker.error("wrong-version", at, until, message, Some("write `fettle: 1`"));
        return Err(checker.problems);
    }
    let mut problems = Vec::new();
    let Some(draft) = draft(root, &mut problems) else { return Err(problems) };
    checker.problems.append(&mut problems);
    let runbook = runbook(&mut checker, &draft, Digest::of("runbook", 1, bytes));
    let mut problems = checker.problems;
    problems.sort_by_key(|problem| problem.span.start);
    problems.dedup();
    match runbook {
        Some(runbook) if !problems.iter().any(Problem::is_error) => Ok(Read { runbook, warnings: problems }),
        Some(_) | None => Err(problems),
    }
}

/// Whether it says `fettle: 1`; otherwise where and what is wrong.
fn version_of(root: &yaml::Node) -> Result<(), (crate::expr::At, usize, String)> {
    let NodeKind::Map(entries) = &root.kind else { return Ok(()) };
    let Some(entry) = entries.iter().find(|entry| entry.key == "fettle") else {
        // Mark the first key: the whole map would be the whole file.
        let (at, until) = entries.first().map_or((root.at, root.at.offset), |first| (first.at, first.until));
        return Err((at, until, "`fettle:` with the version of the language is missing".to_owned()));
    };
    match &entry.value.kind {
        NodeKind::Scalar(Scalar { value: ScalarValue::Int(VERSION), .. }) => Ok(()),
        NodeKind::Scalar(scalar) => {
            let shown = crate::problem::visible(scalar.text.text.as_bytes());
            let quoted = if scalar.value == ScalarValue::Text { "the text " } else { "" };
            let message =
                format!("this is Fettle language version 1, the runbook asks for {quoted}`{shown}`");
            Err((entry.value.at, entry.value.until, message))
        }
        NodeKind::List(_) | NodeKind::Map(_) => {
            Err((entry.at, entry.until, "`fettle` is the version of the language".to_owned()))
        }
    }
}

fn runbook(checker: &mut Checker, draft: &Draft, digest: Digest) -> Option<Runbook> {
    let name = match draft.top.get("runbook") {
        Some(entry) => name(checker, entry),
        None => {
            let at = draft
                .top
                .get("fettle")
                .map_or((draft.top.at, draft.top.until), |entry| (entry.at, entry.until));
            checker.error(
                "missing-key",
                at.0,
                at.1,
                "`runbook:` with its name is missing",
                Some("write its path in the library, such as `runbook: host/disk-full`"),
            );
            None
        }
    };
    let title = draft.top.get("title").and_then(|entry| checker.line(entry));
    let owner = draft.top.get("owner").and_then(|entry| checker.line(entry));
    let description = draft
        .top
        .get("description")
        .and_then(|entry| checker.text(&entry.value, "`description`").map(str::to_owned));
    let inputs = inputs::check(checker, draft);
    let triggers = triggers::check(checker, draft, &inputs);
    let guard = triggers::guard(checker, draft.guard.as_ref());
    let steps::Steps { diagnose, remediate, verify } = steps::check(checker, draft, &inputs);
    let name = name?;
    Some(Runbook {
        title: title.unwrap_or_else(|| name.clone()),
        owner: owner.unwrap_or_default(),
        description: description.unwrap_or_default(),
        name,
        digest,
        inputs,
        triggers,
        guard,
        diagnose,
        remediate,
        verify,
    })
}

fn name(checker: &mut Checker, entry: &Entry) -> Option<String> {
    let name = checker.text(&entry.value, "`runbook`")?.to_owned();
    let good = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    if name.len() <= 200 && name.split('/').all(good) {
        return Some(name);
    }
    checker.at_value(
        &entry.value,
        "wrong-value",
        "a runbook's name has lower-case letters, digits, `-` and `_`, with `/` between its parts",
        Some("write its path in the library, such as `host/disk-full`"),
    );
    None
}

#[cfg(test)]
mod tests;
