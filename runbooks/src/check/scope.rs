//! What an expression can see, by where it stands.

use std::collections::{BTreeMap, BTreeSet};

use super::fields::host_type;
use crate::expr::Env;
use crate::runbook::{Input, InputType, Phase};
use crate::value::Type;

/// A step that has an id, in the order of the file.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) id: String,
    pub(super) phase: Phase,
    /// Its outputs; filled once it is checked.
    pub(super) outputs: Type,
    /// Places in the list of the steps it waits for, directly and indirectly.
    pub(super) after: BTreeSet<usize>,
}

/// Where an expression stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// `if`, `that`, `check`: evaluated when the step comes, with facts.
    Condition,
    /// Text of an action: rendered beforehand, without facts.
    Text,
    /// `outputs` of a process: evaluated when it has ended.
    Output,
    /// `outputs` of a `that`: evaluated when its condition held.
    Reading,
}

const PLAN_FIRST: &str = "the plan is rendered and approved before remediation, so the text of an action uses only \
                          inputs, host labels and outputs of diagnose steps";
const NO_FACTS: &str = "live facts appear only in `if`, `that`, `check` and `outputs`";

/// What the step at `place` can see.
pub(super) fn env(
    inputs: &BTreeMap<String, Input>,
    broken: &BTreeSet<String>,
    steps: &[Known],
    place: usize,
    usage: Use,
) -> Env {
    let mut env = Env { no_facts: (usage == Use::Text).then_some(NO_FACTS), ..Env::default() };
    let right = inputs.iter().map(|(name, input)| (name.clone(), input.kind.ty()));
    let types = broken.iter().map(|name| (name.clone(), Type::Any)).chain(right);
    env.vars.insert("inputs".to_owned(), Type::Record(types.collect()));
    env.vars.insert("host".to_owned(), host_type());
    env.secrets = inputs
        .iter()
        .filter(|(_, input)| matches!(input.kind, InputType::Secret))
        .map(|(name, _)| name.clone())
        .collect();
    for name in ["labels", "annotations"] {
        let why = format!(
            "`{name}` of an alert reach steps only through inputs: fill an input in `on:` from `{name}`"
        );
        env.elsewhere.insert(name.to_owned(), why);
    }
    for (name, ty) in [("stdout", Type::String), ("stderr", Type::String), ("exit_code", Type::Int)] {
        let why = match usage {
            Use::Output => {
                env.vars.insert(name.to_owned(), ty);
                continue;
            }
            Use::Reading => "a `that` starts no process",
            Use::Condition | Use::Text => "only `outputs` of the step itself sees it",
        };
        env.elsewhere.insert(name.to_owned(), why.to_owned());
    }
    let mut visible = BTreeMap::new();
    for (other, known) in steps.iter().enumerate() {
        match hidden(steps, place, other, usage) {
            None => {
                visible.insert(known.id.clone(), known.outputs.clone());
            }
            Some(why) => {
                env.elsewhere.insert(format!("steps.{}", known.id), why);
            }
        }
    }
    env.vars.insert("steps".to_owned(), Type::Record(visible));
    env
}

/// Why the step at `place` cannot use the outputs of another.
fn hidden(steps: &[Known], place: usize, other: usize, usage: Use) -> Option<String> {
    let (me, it) = (&steps[place], &steps[other]);
    if place == other {
        return Some("the step itself has not ended then".to_owned());
    }
    if it.phase > me.phase || (it.phase == me.phase && other > place) {
        return Some(format!("the step `{}` comes later", it.id));
    }
    match me.phase {
        Phase::Diagnose if me.after.contains(&other) => None,
        Phase::Diagnose => {
            Some(format!("diagnose steps run at the same time; write `after: [{}]` to wait for it", it.id))
        }
        Phase::Remediate | Phase::Verify if it.phase == Phase::Diagnose => None,
        Phase::Remediate | Phase::Verify if usage == Use::Text => Some(PLAN_FIRST.to_owned()),
        Phase::Remediate | Phase::Verify => None,
    }
}
