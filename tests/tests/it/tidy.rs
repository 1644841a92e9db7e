//! What keeps the house readable and no tool checks by itself.

use crate::sources::{self, Source};

/// What the top of the project may hold. A new entry is one more thing that every newcomer reads first.
const TOP: &[&str] = &[
    ".ci",
    ".clippy.toml",
    ".config",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "agent",
    "cli",
    "controller",
    "docs",
    "proto",
    "runbooks",
    "tests",
];

/// Past this a file is about more than one thing.
const LONGEST: usize = 800;

/// Words that mean a line was meant to be looked at again. Split, so that this file passes its own test.
const UNFINISHED: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:"), concat!("HA", "CK")];

/// Words for which the glossary has another, or that say nothing to a reader outside.
const NOT_OUR_WORDS: &[(&str, &str)] = &[
    (concat!("play", "book"), "runbook"),
    (concat!("white", "list"), "the list of what is allowed"),
    (concat!("black", "list"), "the list of what is refused"),
    (concat!("/wo", "rk/"), "a path of the project, or a temporary one"),
    (concat!("/ro", "ot/"), "a path of the project, or a temporary one"),
];

#[test]
fn the_top_holds_only_what_every_newcomer_should_see() {
    let strangers: Vec<String> =
        sources::top_entries().into_iter().filter(|name| !TOP.contains(&name.as_str())).collect();
    sources::expect_none(
        &strangers,
        "Put it into the folder that owns it, or into the list in tests/tests/it/tidy.rs.",
    );
}

#[test]
fn every_rust_file_opens_with_a_tour() {
    let complaints = complain(rust(), |source| (!source.text.starts_with("//!")).then(String::new));
    sources::expect_none(
        &complaints,
        "Begin the file with `//!`: what it owns, and what is deliberately not in it.",
    );
}

#[test]
fn no_file_is_about_two_things() {
    let complaints = complain(rust(), |source| {
        let lines = source.text.lines().count();
        (lines > LONGEST).then(|| format!("{lines} lines"))
    });
    sources::expect_none(&complaints, &format!("Split by noun what is longer than {LONGEST} lines."));
}

#[test]
fn nothing_is_left_for_later() {
    sources::expect_none(&find(UNFINISHED), "Do it, or say in a sentence why it is right as it is.");
}

#[test]
fn one_word_per_thing() {
    let words: Vec<&str> = NOT_OUR_WORDS.iter().map(|(word, _)| *word).collect();
    let ours: Vec<String> = NOT_OUR_WORDS.iter().map(|(word, ours)| format!("{word} → {ours}")).collect();
    sources::expect_none(&find(&words), &format!("docs/glossary.md has the word:\n{}", ours.join("\n")));
}

#[test]
fn every_exception_from_a_lint_says_why() {
    let mut complaints = Vec::new();
    for source in rust() {
        for attribute in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
            for (at, _) in source.text.match_indices(attribute) {
                let line = source.text[..at].matches('\n').count() + 1;
                let in_a_string = source.text[..at].ends_with('"');
                let end = source.text[at..].find(")]").map_or(source.text.len(), |end| at + end);
                if !in_a_string && !source.text[at..end].contains("reason") {
                    complaints.push(format!("{}:{line}: {}", source.path, &source.text[at..end]));
                }
            }
        }
    }
    sources::expect_none(&complaints, "Write #[expect(lint, reason = \"…\")].");
}

#[test]
fn text_ends_with_a_newline_and_no_line_with_a_blank() {
    let mut complaints = Vec::new();
    for source in sources::all().into_iter().filter(|source| !source.text.is_empty() && !is_data(source)) {
        if !source.text.ends_with('\n') {
            complaints.push(format!("{}: no newline at its end", source.path));
        }
        for (at, line) in source.text.lines().enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                complaints.push(format!("{}:{}: a blank at its end", source.path, at + 1));
            }
        }
    }
    sources::expect_none(&complaints, "`cargo fmt` does it for Rust; an editor for the rest.");
}

#[test]
fn every_mutation_changes_lines_that_are_there_and_names_a_test_that_is() {
    let all = sources::all();
    let text_of = |path: &str| all.iter().find(|source| source.path == path).map(|source| &*source.text);
    let of_mutations =
        |source: &&Source| source.path.starts_with("tests/mutations.d/") && source.path.ends_with(".patch");
    let mut complaints = Vec::new();
    for patch in all.iter().filter(of_mutations) {
        let said = |prefix| patch.text.lines().filter_map(move |line| line.strip_prefix(prefix));
        let tests = said("What must fail: ").count();
        if tests == 0 || tests != said("What it says: ").filter(|words| words.len() > 5).count() {
            complaints.push(format!("{}: of each test that must fail, say what it says", patch.path));
        }
        for test in said("What must fail: ") {
            let test = test.rsplit([' ', ':']).next().unwrap_or_default();
            let names = [format!("fn {test}("), format!("\"{test}\"")];
            let is_in = |source: &Source| names.iter().any(|name| source.text.contains(name));
            if !all.iter().any(|source| source.path.ends_with(".rs") && is_in(source)) {
                complaints.push(format!("{}: there is no `{test}`", patch.path));
            }
        }
        for file in patch.text.split("\n--- a/").skip(1) {
            let (path, changes) = file.split_once('\n').unwrap_or_default();
            for hunk in changes.split("\n@@ ").skip(1) {
                // A line without anything is one of the file, whose blank an editor has removed.
                let lines =
                    hunk.lines().skip(1).filter(|line| line.is_empty() || line.starts_with([' ', '-']));
                let old: String =
                    lines.map(|line| format!("{}\n", line.get(1..).unwrap_or_default())).collect();
                if old.is_empty() || !text_of(path).is_some_and(|text| text.contains(&old)) {
                    complaints.push(format!("{}: {path} has not any more:\n{old}", patch.path));
                }
            }
        }
    }
    sources::expect_none(
        &complaints,
        "Make the same change by hand, and keep its diff in tests/mutations.d.",
    );
}

fn rust() -> Vec<Source> {
    sources::rust("")
}

/// Recorded material is kept as it was, blanks and all.
fn is_data(source: &Source) -> bool {
    source.path.ends_with(".snap") || source.path.contains("/data/") || source.path.contains("/golden/")
}

fn complain(sources: Vec<Source>, complaint: impl Fn(&Source) -> Option<String>) -> Vec<String> {
    let complaints =
        sources.iter().filter_map(|source| Some(format!("{} {}", source.path, complaint(source)?)));
    complaints.map(|complaint| complaint.trim_end().to_owned()).collect()
}

fn find(words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in
        sources::all().into_iter().filter(|source| source.path != "Cargo.lock" && source.path != "LICENSE")
    {
        for (at, line) in source.text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}:{}: {word}", source.path, at + 1));
            }
        }
    }
    found
}
