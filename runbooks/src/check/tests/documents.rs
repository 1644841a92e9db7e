//! The shipped runbooks and the reference read as they should.

use std::path::Path;

/// Every file below a folder with this ending, in order.
fn files(folder: &Path, ending: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn every_shipped_runbook_is_right_and_named_as_its_path() {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("library");
    let runbooks = files(&library, ".yaml");
    assert!(runbooks.len() >= 2, "found only {runbooks:?}");
    for path in runbooks {
        let bytes = std::fs::read(&path).unwrap();
        let read = crate::read(&bytes).unwrap_or_else(|problems| {
            panic!("\n{}", crate::problem::render(&path.to_string_lossy(), &bytes, &problems, false))
        });
        let shown = crate::problem::render(&path.to_string_lossy(), &bytes, &read.warnings, false);
        assert!(read.warnings.is_empty(), "\n{shown}");
        let place = path.strip_prefix(&library).unwrap().with_extension("");
        assert_eq!(Path::new(read.runbook.name()), place);
    }
}

const REFERENCE: &str = include_str!("../../../../docs/runbook-reference.md");

/// The inputs that the examples of the reference use.
const INPUTS: &str = "  unit: { type: string, pattern: '[a-z]+', default: app }
  port: { type: int, default: 8080 }
  force: { type: bool, default: false }
  patience: { type: duration, default: 30s }
  mounts: { type: list, of: path, default: [/var] }
";
const LOOK: &str = "  - id: look\n    run: [df]\n";
const FINE: &str = "verify:\n  - id: fine\n    that: load.one < 3.0\n";

/// A runbook around an example, by what the fence says it is.
fn around(kind: &str, example: &str) -> String {
    let head = "fettle: 1\nrunbook: a/b\n";
    match kind {
        "yaml" => example.to_owned(),
        "yaml inputs" => format!("{head}inputs:\n{example}diagnose:\n{LOOK}"),
        "yaml on" => format!("{head}inputs:\n{INPUTS}on:\n{example}diagnose:\n{LOOK}"),
        "yaml diagnose" | "yaml refused" => format!("{head}inputs:\n{INPUTS}diagnose:\n{example}"),
        "yaml remediate" => format!("{head}inputs:\n{INPUTS}remediate:\n{example}{FINE}"),
        other => panic!("the fence ```{other} is of no known kind"),
    }
}

fn problems(runbook: &str) -> Vec<crate::problem::Problem> {
    match crate::read(runbook.as_bytes()) {
        Ok(read) => read.warnings,
        Err(problems) => problems,
    }
}

fn expect_fine(runbook: &str) {
    let problems = problems(runbook);
    let shown = crate::problem::render("reference", runbook.as_bytes(), &problems, false);
    assert!(problems.is_empty(), "\n{runbook}\n{shown}");
}

#[test]
fn every_example_of_the_reference_is_read_as_it_says() {
    let mut tried = 0;
    for block in REFERENCE.split("\n```").skip(1).step_by(2) {
        let (kind, example) = block.split_once('\n').unwrap();
        let example = format!("{example}\n");
        match kind {
            "text expressions" => {
                for expression in example.lines() {
                    let before = "  - id: script\n    run: [df]\n    outputs: { restarts: int(stdout) }\n";
                    let step = format!(
                        "{before}  - id: x\n    after: [script]\n    run: [df]\n    outputs:\n      it: |\n        {expression}\n"
                    );
                    expect_fine(&around("yaml diagnose", &step));
                    tried += 1;
                }
            }
            "yaml refused" => assert!(!problems(&around(kind, &example)).is_empty(), "{example}"),
            _ => expect_fine(&around(kind, &example)),
        }
        tried += 1;
    }
    assert!(tried > 12, "only {tried} examples were found");
}

#[test]
fn every_collision_of_the_reference_is_refused_with_what_to_write() {
    let section = REFERENCE.split("## When YAML takes").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut tried = 0;
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let (written, right) = (cells[0].trim_matches('`'), cells[2].trim_matches('`'));
        let step = |key: &str| {
            let run = if key.starts_with("run:") { "" } else { "    run: [df]\n" };
            around("yaml diagnose", &format!("  - id: x\n{run}    {key}\n"))
        };
        expect_fine(&step(right));
        let problems = problems(&step(written));
        let helps: Vec<&str> = problems.iter().filter_map(|problem| problem.help.as_deref()).collect();
        let value = right.split_once(": ").unwrap().1;
        let told = helps.iter().any(|help| help.contains(value) || help.contains("\"${{ … }}\""));
        assert!(told, "{written}: {problems:#?}");
        tried += 1;
    }
    assert!(tried >= 10, "only {tried} rows were found");
}
