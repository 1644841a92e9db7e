//! `on:` what starts it by itself, and `guard:` how often it may.

use std::collections::BTreeMap;

use super::fields::{Checker, text_map};
use crate::draft::{Draft, Fields};
use crate::duration;
use crate::expr::Env;
use crate::problem::name_help;
use crate::runbook::{Guard, Input, InputType, Trigger};
use crate::value::Type;
use crate::yaml::{Entry, NodeKind};

/// The triggers that are right.
pub(super) fn check(checker: &mut Checker, draft: &Draft, inputs: &BTreeMap<String, Input>) -> Vec<Trigger> {
    draft.triggers.iter().filter_map(|fields| trigger(checker, fields, draft, inputs)).collect()
}

fn trigger(
    checker: &mut Checker,
    fields: &Fields,
    draft: &Draft,
    inputs: &BTreeMap<String, Input>,
) -> Option<Trigger> {
    let env = alert_env();
    let alerts = match fields.get("alert") {
        Some(entry) => names(checker, entry),
        None => {
            // A trigger of a later version has been refused by name already.
            let told = checker.problems.iter().any(|problem| {
                problem.code == "not-in-this-version"
                    && (fields.at.offset..=fields.until).contains(&problem.span.start)
            });
            if !told {
                let help = Some("write `- alert: TheAlertsName`");
                checker.error(
                    "missing-key",
                    fields.at,
                    fields.at.offset + 1,
                    "a trigger without `alert`",
                    help,
                );
            }
            None
        }
    };
    let matches =
        fields.get("match").and_then(|entry| checker.expr(&entry.value, "`match`", Some(&Type::Bool), &env));
    let host =
        fields.get("host").and_then(|entry| checker.expr(&entry.value, "`host`", Some(&Type::String), &env));
    let mut given = BTreeMap::new();
    for (entry, template) in checker.templates(fields.get("inputs"), &env) {
        match inputs.get(&entry.key) {
            Some(input) => {
                if let Some(Err(message)) = template
                    .is_literal()
                    .filter(|text| !text.is_empty())
                    .map(|text| crate::input::convert(&input.kind, text))
                {
                    checker.at_value(
                        &entry.value,
                        "wrong-value",
                        format!("input `{}`: {message}", entry.key),
                        None,
                    );
                }
            }
            None if draft.inputs.iter().any(|named| named.name == entry.key) => {}
            None => {
                let shown = crate::problem::visible(entry.key.as_bytes());
                let help = name_help(&entry.key, inputs.keys().map(String::as_str));
                checker.at_key(
                    &entry,
                    "unknown-name",
                    format!("there is no input `{shown}`"),
                    help.as_deref(),
                );
            }
        }
        given.insert(entry.key, template);
    }
    for (name, _) in
        inputs.iter().filter(|(name, input)| input.default.is_none() && !given.contains_key(*name))
    {
        // One that is written but wrong is told where it is wrong.
        let written = match fields.get("inputs").map(|entry| &entry.value.kind) {
            Some(NodeKind::Map(entries)) => entries.iter().any(|entry| entry.key == *name),
            Some(_) | None => false,
        };
        if let Some(entry) = fields.get("inputs").or(fields.get("alert")).filter(|_| !written) {
            let message = format!("the trigger gives no value for the input `{name}`, which has no default");
            let help = if matches!(inputs[name].kind, InputType::Secret) {
                "write the name of the secret under `inputs:`".to_owned()
            } else {
                format!(
                    "write `inputs: {{ {name}: \"${{{{ labels.{name} }}}}\" }}`, or give the input a default"
                )
            };
            checker.at_key(entry, "missing-input", message, Some(&help));
        }
    }
    Some(Trigger { alerts: alerts?, matches, host, inputs: given })
}

/// One name of an alert, or a list of them.
fn names(checker: &mut Checker, entry: &Entry) -> Option<Vec<String>> {
    let NodeKind::List(items) = &entry.value.kind else { return Some(vec![checker.line(entry)?]) };
    if items.is_empty() {
        let message = "`alert` names no alert";
        checker.at_value(&entry.value, "wrong-value", message, Some("write at least one name"));
        return None;
    }
    let mut names: Vec<String> = Vec::new();
    let mut fine = true;
    for item in items {
        let Some(name) = checker.name(item, "a name of `alert`") else {
            fine = false;
            continue;
        };
        if names.contains(&name) {
            let shown = crate::problem::visible(name.as_bytes());
            let message = format!("the alert `{shown}` is named twice in this list");
            checker.at_value(item, "wrong-value", message, Some("leave it out once"));
            fine = false;
        }
        names.push(name);
    }
    fine.then_some(names)
}

fn alert_env() -> Env {
    let only = "the controller evaluates this before any host is asked";
    let vars = BTreeMap::from([("labels".to_owned(), text_map()), ("annotations".to_owned(), text_map())]);
    let elsewhere = ["inputs", "steps", "host", "stdout", "stderr", "exit_code"];
    let elsewhere = elsewhere.iter().map(|name| ((*name).to_owned(), only.to_owned())).collect();
    Env { vars, no_facts: Some(only), elsewhere, ..Env::default() }
}

/// `guard:`
pub(super) fn guard(checker: &mut Checker, fields: Option<&Fields>) -> Guard {
    let Some(fields) = fields else { return Guard::default() };
    let cooldown = fields.get("cooldown").and_then(|entry| checker.time(entry, 1000));
    let max_runs = fields.get("max_runs").and_then(|entry| {
        let written = checker.text(&entry.value, "`max_runs`")?.to_owned();
        let parsed = written.split_once(" per ").and_then(|(count, time)| {
            let count = count.trim().parse::<u32>().ok().filter(|count| *count > 0)?;
            let time = duration::parse(time.trim()).ok().filter(|time| !time.is_zero())?;
            Some((count, time))
        });
        if parsed.is_none() {
            let message = "`max_runs` is a number of runs per length of time";
            checker.at_value(&entry.value, "wrong-value", message, Some("write `max_runs: 3 per 24h`"));
        }
        parsed
    });
    Guard { cooldown, max_runs }
}
