//! The tree as a runbook that may be wrong everywhere.
//!
//! This is where every key is known by name: one that is not is a problem with the name that was probably meant, and one
//! that belongs to a later version of the language is refused rather than ignored. What stands behind a key is still as written.

use crate::expr::At;
use crate::problem::{Problem, name_help};
use crate::yaml::{Entry, Node, NodeKind, Scalar, ScalarValue, problem};

/// A map all of whose keys are known.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    pub(crate) at: At,
    pub(crate) until: usize,
    entries: Vec<Entry>,
}

/// A map under a name of the author's choice.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) at: At,
    pub(crate) until: usize,
    pub(crate) fields: Fields,
}

/// A runbook as written.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) top: Fields,
    pub(crate) inputs: Vec<Named>,
    pub(crate) triggers: Vec<Fields>,
    pub(crate) guard: Option<Fields>,
    pub(crate) diagnose: Vec<Fields>,
    pub(crate) remediate: Vec<Fields>,
    pub(crate) verify: Vec<Fields>,
}

/// The keys of one kind of map.
struct Keys {
    what: &'static str,
    known: &'static [&'static str],
    later: &'static [&'static str],
}

const TOP: Keys = Keys {
    what: "a runbook",
    known: &[
        "fettle",
        "runbook",
        "title",
        "owner",
        "description",
        "inputs",
        "on",
        "guard",
        "diagnose",
        "remediate",
        "verify",
    ],
    later: &["finally"],
};
const INPUT: Keys = Keys {
    what: "an input",
    known: &["type", "default", "description", "pattern", "min", "max", "max_length", "of"],
    later: &[],
};
const TRIGGER: Keys = Keys {
    what: "a trigger",
    known: &["alert", "match", "host", "inputs"],
    later: &["watch", "for", "schedule"],
};
const GUARD: Keys = Keys { what: "`guard`", known: &["cooldown", "max_runs"], later: &[] };
const STEP: Keys = Keys {
    what: "a step",
    known: &[
        "id",
        "name",
        "risk",
        "if",
        "after",
        "run",
        "that",
        "wait",
        "service",
        "interpreter",
        "env",
        "cwd",
        "timeout",
        "retry",
        "outputs",
        "repeat",
        "undo",
        "check",
        "on_failure",
        "approval",
        "allow_leading_dash",
        "within",
        "stable_for",
        "every",
        "sandbox",
    ],
    later: &["http", "process", "file", "sql", "manual", "notify", "runbook", "as", "finally"],
};

impl Fields {
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Reads a map and keeps the keys that are known.
    pub(crate) fn read(
        node: Node,
        what: &str,
        known: &[&str],
        later: &[&str],
        problems: &mut Vec<Problem>,
    ) -> Option<Fields> {
        let Node { at, until, .. } = node;
        let kind = node.kind();
        let NodeKind::Map(all) = node.kind else {
            let message = format!("{what} is a map, this is {kind}");
            problems.push(problem("wrong-type", at, until, message, None));
            return None;
        };
        let mut entries = Vec::new();
        for entry in all {
            if known.contains(&entry.key.as_str()) {
                entries.push(entry);
            } else if later.contains(&entry.key.as_str()) {
                let message = format!("this version of the language does not have `{}` yet", entry.key);
                let help = (what == "a step")
                    .then(|| "it has the actions `run`, `service`, `that` and `wait`".to_owned());
                problems.push(problem("not-in-this-version", entry.at, entry.until, message, help));
            } else {
                let shown = crate::problem::visible(entry.key.as_bytes());
                let message = format!("{what} has no key `{shown}`");
                let help = name_help(&entry.key, known.iter().copied());
                problems.push(problem("unknown-key", entry.at, entry.until, message, help));
            }
        }
        Some(Fields { at, until, entries })
    }

    fn of(node: Node, keys: &Keys, problems: &mut Vec<Problem>) -> Option<Fields> {
        Fields::read(node, keys.what, keys.known, keys.later, problems)
    }
}

/// Takes the tree apart; what cannot be taken apart is a problem and left out.
pub(crate) fn draft(root: Node, problems: &mut Vec<Problem>) -> Option<Draft> {
    let top = Fields::of(root, &TOP, problems)?;
    let mut inputs = Vec::new();
    for entry in map(top.get("inputs"), problems) {
        let Entry { key, at, until, value } = entry;
        if let Some(fields) = Fields::of(value, &INPUT, problems) {
            inputs.push(Named { name: key, at, until, fields });
        }
    }
    let guard = top.get("guard").and_then(|entry| Fields::of(entry.value.clone(), &GUARD, problems));
    let mut maps = |key: &str, keys: &Keys| -> Vec<Fields> {
        let nodes = list(top.get(key), problems);
        nodes.into_iter().filter_map(|node| Fields::of(node, keys, problems)).collect()
    };
    let triggers = maps("on", &TRIGGER);
    let diagnose = maps("diagnose", &STEP);
    let remediate = maps("remediate", &STEP);
    let verify = maps("verify", &STEP);
    Some(Draft { inputs, triggers, guard, diagnose, remediate, verify, top })
}

/// The entries of a map of the author's names; nothing for an empty or absent one.
pub(crate) fn map(entry: Option<&Entry>, problems: &mut Vec<Problem>) -> Vec<Entry> {
    let Some(entry) = entry else { return Vec::new() };
    match &entry.value.kind {
        NodeKind::Map(entries) => entries.clone(),
        NodeKind::Scalar(_) | NodeKind::List(_) => {
            wrong(entry, "a map", problems);
            Vec::new()
        }
    }
}

/// The items of a list; nothing for an absent one.
pub(crate) fn list(entry: Option<&Entry>, problems: &mut Vec<Problem>) -> Vec<Node> {
    let Some(entry) = entry else { return Vec::new() };
    match &entry.value.kind {
        NodeKind::List(items) => items.clone(),
        NodeKind::Scalar(Scalar { value: ScalarValue::Null, .. }) => {
            let message = format!("`{}` is empty", entry.key);
            let help = Some("add a first item, or leave the key out".to_owned());
            problems.push(problem("wrong-type", entry.at, entry.until, message, help));
            Vec::new()
        }
        NodeKind::Scalar(_) | NodeKind::Map(_) => {
            wrong(entry, "a list", problems);
            Vec::new()
        }
    }
}

fn wrong(entry: &Entry, wanted: &str, problems: &mut Vec<Problem>) {
    let message = format!("`{}` is {wanted}, this is {}", entry.key, entry.value.kind());
    problems.push(problem("wrong-type", entry.value.at, entry.value.until, message, None));
}
