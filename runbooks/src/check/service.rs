//! `service:`: one verb and one unit, and what of it can be undone.

use super::scope::Use;
use super::steps::Site;
use crate::draft::Fields;
use crate::problem::visible;
use crate::runbook::{Action, InputType, Phase, Undo};
use crate::template::Template;
use crate::unit::{NotAUnit, UnitName, Verb};
use crate::yaml::{Entry, Node, NodeKind};

const EXAMPLE: &str = "write `service: { restart: nginx }`";

/// `service: { restart: nginx }`
pub(super) fn action(site: &mut Site<'_>, entry: &Entry) -> Option<Action> {
    if site.phase != Phase::Remediate {
        let message = "`service` acts on the host, and this step only reads";
        let help = "ask the fact `unit(name)` in a condition, or move the step to `remediate`";
        site.checker.at_key(entry, "wrong-key", message, Some(help));
        return None;
    }
    let verbs = Verb::ALL.map(Verb::word);
    let later =
        ["enable", "disable", "mask", "unmask", "kill", "reset-failed", "try-restart", "daemon-reload"];
    let problems = &mut site.checker.problems;
    let before = problems.len();
    let fields = Fields::read(entry.value.clone(), "`service`", &verbs, &later, problems)?;
    let told = problems.len() > before;
    let written: Vec<&Entry> = verbs.iter().filter_map(|verb| fields.get(verb)).collect();
    match written.as_slice() {
        [] if told => None,
        [] => {
            site.checker.at_value(
                &entry.value,
                "missing-key",
                "`service` does not say what to do",
                Some(EXAMPLE),
            );
            None
        }
        [only] => {
            let verb = Verb::named(&only.key)?;
            unit(site, &only.value, verb).map(|(unit, instances)| Action::Service { verb, unit, instances })
        }
        [first, second, ..] => {
            let message =
                format!("`service` does one thing, this one has `{}` and `{}`", first.key, second.key);
            let help =
                if [&first.key, &second.key].iter().all(|key| ["start", "stop"].contains(&key.as_str())) {
                    "write `restart`, or make two steps of it"
                } else {
                    "make two steps of it"
                };
            site.checker.at_key(second, "two-actions", message, Some(help));
            None
        }
    }
}

/// A unit's name, with values in it or not, and whether these may name an instance. What they are is asked again when they
/// are known.
fn unit(site: &mut Site<'_>, node: &Node, verb: Verb) -> Option<(Template, bool)> {
    let what = format!("the unit to {verb}");
    if let NodeKind::List(_) = node.kind {
        let message = format!("{what} is a text, this is a list");
        site.checker.at_value(node, "wrong-type", message, Some("make a step for each unit"));
        return None;
    }
    let env = site.env(Use::Text);
    let template = site.checker.template(node, &what, &env)?;
    let name: Result<UnitName, NotAUnit> = template.with_values_as("x").parse();
    let no = match &name {
        Err(why) => why.to_string(),
        Ok(name) => match name.acted_on() {
            Ok(()) => return bounded(site, node, template),
            Err(why) => why.to_string(),
        },
    };
    let shown = visible(template.source().as_bytes());
    let message = match name {
        Err(_) => format!("`{shown}` cannot be the name of a unit: {no}"),
        Ok(_) => no,
    };
    site.checker.at_value(node, "wrong-unit", message, None);
    None
}

/// Whoever fills an input that is in the name chooses the unit, so its author says among which.
fn bounded(site: &mut Site<'_>, node: &Node, template: Template) -> Option<(Template, bool)> {
    let is_read = |name: &str| template.expressions().any(|expr| expr.reads(&["inputs", name]));
    let read: Vec<_> = site.inputs.iter().filter(|(name, _)| is_read(name)).collect();
    if let Some((name, _)) = read.iter().find(|(_, input)| is_any_text(&input.kind)) {
        let message = format!("whoever fills `inputs.{name}` chooses among all units of the host");
        let help = "give the input a `pattern`, or make it an `enum`";
        site.checker.at_value(node, "unit-not-bounded", message, Some(help));
        return None;
    }
    let literal = template.with_values_as("").contains('@');
    let instances = literal || read.iter().all(|(_, input)| names_instances(&input.kind));
    Some((template, instances))
}

fn is_any_text(kind: &InputType) -> bool {
    match kind {
        InputType::String { pattern, .. } => pattern.is_none(),
        InputType::List { of, .. } => is_any_text(of),
        InputType::Int { .. }
        | InputType::Number { .. }
        | InputType::Bool
        | InputType::Duration { .. }
        | InputType::Path { .. }
        | InputType::Host
        | InputType::Enum { .. }
        | InputType::Secret => false,
    }
}

/// Its author has thought of `@`.
fn names_instances(kind: &InputType) -> bool {
    match kind {
        InputType::String { pattern, .. } => pattern.as_ref().is_some_and(|pattern| pattern.contains('@')),
        InputType::Enum { of } => of.iter().any(|word| word.contains('@')),
        InputType::List { of, .. } => names_instances(of),
        InputType::Int { .. }
        | InputType::Number { .. }
        | InputType::Bool
        | InputType::Duration { .. }
        | InputType::Path { .. }
        | InputType::Host
        | InputType::Secret => false,
    }
}

/// `undo: previous`
pub(super) fn previous(site: &mut Site<'_>, entry: &Entry) -> Option<Undo> {
    let verb = site.fields.get("service").map(|service| match &service.value.kind {
        NodeKind::Map(entries) => entries.iter().find_map(|entry| Verb::named(&entry.key)),
        NodeKind::Scalar(_) | NodeKind::List(_) => None,
    });
    match verb {
        None => {
            let message = "`undo: previous` belongs to `service`, which this step does not have";
            let help = Some("write `undo: none`, or `undo: [program, argument]`");
            site.checker.at_value(&entry.value, "wrong-value", message, help);
            None
        }
        Some(Some(Verb::Reload)) => {
            let message = "a unit runs after `reload` as it did before, so there is nothing to put back";
            let help =
                Some("write `undo: none`, or `undo: [program, argument]` that brings its old files back");
            site.checker.at_value(&entry.value, "wrong-value", message, help);
            None
        }
        // A verb that is wrong has been told.
        Some(Some(Verb::Start | Verb::Stop | Verb::Restart) | None) => Some(Undo::Previous),
    }
}
