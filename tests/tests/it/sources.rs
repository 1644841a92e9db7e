//! The project's own files, as text to hold rules against.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of the project.
pub(crate) struct Source {
    /// Its path from the top of the project, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// Whether it is a module of tests, which may do what the code beside it may not.
    pub(crate) fn is_test(&self) -> bool {
        if self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return true;
        }
        let Some((folder, module)) = self.path.strip_suffix(".rs").and_then(|path| path.rsplit_once('/'))
        else {
            return false;
        };
        let lib = fs::read_to_string(top().join(folder).join("lib.rs")).unwrap_or_default();
        lib.contains(&format!("#[cfg(test)]\nmod {module};"))
    }

    /// Its lines that are code: neither blank nor a comment, numbered from 1. A line inside a block comment or a string
    /// counts as code, which no rule here minds.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        lines.filter(|(_, line)| !line.is_empty() && !line.starts_with("//"))
    }

    /// The modules of its own crate that it names as `crate::NAME`, each with the line: `crate::a::b` gives `a`, and
    /// `crate::{a::b, c}` gives `a` and `c`.
    pub(crate) fn names_of_its_crate(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, _) in self.text.match_indices("crate::") {
            let line_start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
            let is_comment = self.text[line_start..at].trim_start().starts_with("//");
            let is_longer_word =
                self.text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
            if is_comment || is_longer_word {
                continue;
            }
            let line = self.text[..at].matches('\n').count() + 1;
            let rest = &self.text[at + "crate::".len()..];
            let heads = match rest.strip_prefix('{') {
                Some(group) => heads_of_group(group),
                None => vec![head(rest)],
            };
            found.extend(heads.into_iter().filter(|head| !head.is_empty()).map(|head| (line, head)));
        }
        found
    }
}

fn head(path: &str) -> String {
    path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// First words of the members of `{a::{b, c}, d}`, given from after its opening brace.
fn heads_of_group(group: &str) -> Vec<String> {
    let mut heads = vec![head(group)];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(head(&group[at + 1..])),
            _ => {}
        }
    }
    heads
}

/// The top of the project.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace").to_owned()
}

/// What lies at the top, without what tools put there.
pub(crate) fn top_entries() -> Vec<String> {
    let entries = fs::read_dir(top()).expect("the project can be listed");
    let names =
        entries.map(|entry| entry.expect("an entry can be read").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !matches!(name.as_str(), "target" | ".git")).collect();
    names.sort();
    names
}

/// Every text file of the project, in order of path.
pub(crate) fn all() -> Vec<Source> {
    let mut sources = Vec::new();
    for name in top_entries() {
        collect(&top().join(&name), &name, &mut sources);
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// Every Rust file under a folder.
pub(crate) fn rust(under: &str) -> Vec<Source> {
    all()
        .into_iter()
        .filter(|source| source.path.starts_with(under) && source.path.ends_with(".rs"))
        .collect()
}

fn collect(path: &Path, name: &str, into: &mut Vec<Source>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder can be listed") {
            let entry = entry.expect("an entry can be read");
            let name = format!("{name}/{}", entry.file_name().to_string_lossy());
            collect(&entry.path(), &name, into);
        }
    } else if let Ok(text) = fs::read_to_string(path) {
        into.push(Source { path: name.to_owned(), text });
    }
}

/// Fails with every complaint at once, and what to do about them.
#[track_caller]
pub(crate) fn expect_none(complaints: &[String], what_to_do: &str) {
    assert!(complaints.is_empty(), "\n{}\n\n{what_to_do}\n", complaints.join("\n"));
}

#[test]
fn a_group_of_names_is_seen_as_each_of_them() {
    let text =
        "use crate::{\n    a::{b, c},\n    d,\n};\nuse crate::e::f;\n// crate::g\nuse other_crate::h;\n";
    let source = Source { path: String::new(), text: text.to_owned() };
    let names: Vec<String> =
        source.names_of_its_crate().into_iter().map(|(line, name)| format!("{line} {name}")).collect();
    assert_eq!(names, ["1 a", "1 d", "5 e"]);
}
