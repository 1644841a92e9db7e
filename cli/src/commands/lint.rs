//! `fettle runbook lint`: checks files here, without a controller.

use std::path::PathBuf;

use fettle_runbooks::problem::{Problem, Severity, render};
use serde_json::{Value, json};

use super::start::read_file;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Format, Output, print, talk};

pub(super) fn run(out: &Output, files: &[PathBuf], strict: bool) -> Result<Exit> {
    let mut found = Vec::new();
    let (mut errors, mut warnings) = (0, 0);
    for file in files {
        let bytes = read_file(file)?;
        let name = file.display().to_string();
        let problems = match fettle_runbooks::read(&bytes) {
            Ok(read) => read.warnings,
            Err(problems) => problems,
        };
        errors += problems.iter().filter(|it| it.severity == Severity::Error).count();
        warnings += problems.iter().filter(|it| it.severity == Severity::Warning).count();
        match out.format() {
            Format::Table if !problems.is_empty() => print(&render(&name, &bytes, &problems, out.color()))?,
            Format::Table => {}
            Format::Json | Format::Jsonl | Format::Yaml => {
                found.extend(problems.iter().map(|it| data(&name, it)))
            }
        }
    }
    if out.is_table() {
        let files = files.len();
        talk(&format!(
            "{files} {}: {errors} errors, {warnings} warnings",
            if files == 1 { "file" } else { "files" }
        ));
    } else {
        out.list(&found, || crate::output::Table::new(&[], ""))?;
    }
    Ok(if errors > 0 || (strict && warnings > 0) { Exit::Failed } else { Exit::Done })
}

fn data(file: &str, problem: &Problem) -> Value {
    json!({
        "file": file, "line": problem.line, "column": problem.column, "code": problem.code,
        "severity": match problem.severity { Severity::Error => "error", Severity::Warning => "warning" },
        "message": problem.message, "help": problem.help,
    })
}
