//! Every rule of the language, one small case each.

mod commands;
mod corpus;
mod documents;
mod library;
mod properties;
mod rules;
mod service;
mod steps;

use crate::problem::Problem;

/// What is said of a runbook: one line per problem, `line:column code: message (help)`.
fn said(text: &str) -> String {
    let problems = match crate::read(text.as_bytes()) {
        Ok(read) => read.warnings,
        Err(problems) => problems,
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(problem: &Problem) -> String {
    let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    format!("{}:{} {}: {}{help}", problem.line, problem.column, problem.code, problem.message)
}

/// A whole runbook around some diagnose steps; they begin on line 12.
fn diagnose(steps: &str) -> String {
    format!("{HEAD}diagnose:\n{steps}")
}

/// A whole runbook around the keys of one remediate step; they begin on line 17.
fn remediate(keys: &str) -> String {
    let keys: String = keys.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "{HEAD}diagnose:\n  - id: look\n    run: [df]\n    outputs: {{ used: int(stdout) }}\nremediate:\n  - id: act\n{keys}{VERIFY}"
    )
}

const HEAD: &str = r"fettle: 1
runbook: host/test
inputs:
  mount: { type: path, default: /var }
  port: { type: int, default: 80 }
  hosts: { type: list, of: host, default: [] }
  wait: { type: duration, default: 5s }
  hard: { type: bool, default: false }
  token: { type: secret }
#
";

const VERIFY: &str = "verify:\n  - id: fine\n    that: disk(inputs.mount).used_percent < 90\n";
