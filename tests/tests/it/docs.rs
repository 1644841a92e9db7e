//! What the documents say is tried.

use std::collections::BTreeMap;

use clap::{CommandFactory as _, Parser as _};
use fettle::args::Cli;
use fettle_proto::Code;

use crate::sources::{self, Source};

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut complaints = Vec::new();
    for document in documents() {
        let folder = sources::top().join(&document.path).parent().expect("a file is in a folder").to_owned();
        for link in links(&document.text) {
            let target = link.split('#').next().unwrap_or_default();
            let leads_outside = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !leads_outside && !folder.join(target).exists() {
                complaints.push(format!("{}: {link}", document.path));
            }
        }
    }
    sources::expect_none(&complaints, "Write the document, or take the link out.");
}

#[test]
fn the_readme_names_the_two_commands_that_exist() {
    let readme =
        documents().into_iter().find(|document| document.path == "README.md").expect("there is a README");
    let commands: Vec<String> = blocks(&readme.text, "sh").into_iter().flat_map(lines).collect();
    assert_eq!(commands, ["cargo run --release -- demo", "tests/all"]);

    let ci = sources::all().into_iter().find(|source| source.path == ".ci/run").expect("there is .ci/run");
    assert_eq!(ci.text.lines().last(), Some("step tests/all"), ".ci/run ends with the second command");
}

#[test]
fn the_glossary_has_every_word_once_and_in_order() {
    let glossary = documents()
        .into_iter()
        .find(|document| document.path == "docs/glossary.md")
        .expect("docs/glossary.md");
    let words: Vec<String> = glossary.text.lines().filter_map(first_cell).collect();
    assert!(words.len() > 25, "only {words:?}");

    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for word in &words {
        *seen.entry(word).or_default() += 1;
    }
    let twice: Vec<String> =
        seen.into_iter().filter(|(_, times)| *times > 1).map(|(word, _)| word.to_owned()).collect();
    sources::expect_none(&twice, "One word per thing.");
}

#[test]
fn every_refusal_is_produced_by_a_test_or_said_to_be_kept_for_later() {
    let page = documents().into_iter().find(|document| document.path == "docs/security.md");
    let page = page.expect("docs/security.md").text;
    let kept = page.split_once("Three are kept").expect("it says which").1;
    let kept = kept.split_once("\n\n").map_or(kept, |(paragraph, _)| paragraph);
    let tests: Vec<Source> = sources::all().into_iter().filter(Source::is_test).collect();
    let complaints: Vec<String> = Code::ALL
        .iter()
        .filter(|code| {
            let (text, name) = (format!("\"{code}\""), format!("Code::{code:?}"));
            let is_kept = kept.contains(&format!("`{code}`"));
            let is_tested = tests.iter().any(|test| {
                test.text.contains(&text)
                    || test.text.split(&name).skip(1).any(|rest| !rest.starts_with(char::is_alphanumeric))
            });
            is_kept == is_tested
        })
        .map(ToString::to_string)
        .collect();
    sources::expect_none(
        &complaints,
        "Produce it in a test, or say in docs/security.md that nothing gives it yet; not both.",
    );
}

#[test]
fn every_command_in_the_documents_is_one_that_exists() {
    let mut complaints = Vec::new();
    for document in documents() {
        for line in blocks(&document.text, "sh").into_iter().flat_map(lines) {
            complaints.extend(mistyped(&line).map(|error| format!("{}: {line}\n{error}", document.path)));
        }
    }
    sources::expect_none(&complaints, "Write what can be typed.");
}

#[test]
fn every_example_in_the_help_is_one_that_exists() {
    fn walk(command: &clap::Command, complaints: &mut Vec<String>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().map(str::trim) {
            // What follows two blanks explains the command.
            let line = line.split("  ").next().unwrap_or_default();
            complaints.extend(mistyped(line).map(|error| format!("{}: {line}\n{error}", command.get_name())));
        }
        command.get_subcommands().for_each(|sub| walk(sub, complaints));
    }
    let mut complaints = Vec::new();
    walk(&Cli::command(), &mut complaints);
    sources::expect_none(&complaints, "An example is what people copy.");
}

/// Why the command line would not take a line, if it is one of `fettle`'s.
fn mistyped(line: &str) -> Option<String> {
    let commands = line.split('|').map(str::trim).filter(|command| command.starts_with("fettle "));
    let mut problems = commands.filter_map(|command| {
        let mut words = words(command);
        words.truncate(words.iter().position(|word| word == ">" || word == "<").unwrap_or(words.len()));
        match Cli::try_parse_from(words) {
            Ok(_) => None,
            // `--help` and `--version` are answered as errors that are none.
            Err(error) => error.use_stderr().then(|| error.to_string()),
        }
    });
    problems.next()
}

/// The words of a command, as a shell without variables would see them.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, ' ') => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            (Some(_) | None, c) => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

fn documents() -> Vec<Source> {
    sources::all().into_iter().filter(|source| source.path.ends_with(".md")).collect()
}

/// Targets of `[text](target)`, outside of code blocks.
fn links(markdown: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut in_code = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            if let Some(end) = line[at + 2..].find(')') {
                links.push(line[at + 2..at + 2 + end].to_owned());
            }
        }
    }
    links
}

/// The fenced blocks of a language.
pub(crate) fn blocks(markdown: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in markdown.lines() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(found)) if found == language => open = Some(String::new()),
            (None, _) => {}
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    blocks
}

/// Its commands: lines that are neither blank nor a comment, continued lines joined.
pub(crate) fn lines(block: String) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The first cell of a row of a Markdown table, without head and rule.
fn first_cell(line: &str) -> Option<String> {
    let cell = line.strip_prefix('|')?.split('|').next()?.trim();
    (!cell.is_empty() && !cell.starts_with("---") && !cell.starts_with("Our word")).then(|| cell.to_owned())
}
