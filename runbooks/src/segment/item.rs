//! One step, whatever phase it is of: a `diagnose` step as the runbook has it, a planned step, or the undo of one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Command, Deed, Kind, Spec};
use crate::expr::{Expr, Scope};
use crate::plan::{self, PlannedStep, PlannedUndo, PlannedWork};
use crate::runbook::{Action, OnFailure, Phase, Repeat, Retry, Step};
use crate::unit::UnitName;

/// The path of a step.
pub(crate) fn path(phase: Phase, id: &str) -> String {
    let phase = match phase {
        Phase::Diagnose => "diagnose",
        Phase::Remediate => "remediate",
        Phase::Verify => "verify",
    };
    format!("{phase}/{id}")
}

/// One step, as the machine sees it.
pub(super) struct Item<'a> {
    pub(super) path: String,
    pub(super) kind: Kind,
    step: &'a Step,
    source: Source<'a>,
}

enum Source<'a> {
    /// Rendered when it starts.
    Runbook,
    /// Rendered after diagnosis.
    Plan(&'a PlannedStep),
    /// The undo in the plan.
    Undo(&'a PlannedStep),
    /// A step of a plan that undoes an earlier run.
    Undoing(&'a PlannedStep),
}

/// What a step does, ready to be done.
pub(super) enum Job<'a> {
    Start(Spec),
    Look { condition: &'a Expr, within: Duration, stable_for: Duration, every: Duration },
    Pause(Duration),
    Impossible(String),
}

impl<'a> Item<'a> {
    pub(super) fn diagnose(step: &'a Step) -> Item<'a> {
        Item { path: path(Phase::Diagnose, &step.id), kind: Kind::Read, step, source: Source::Runbook }
    }

    pub(super) fn planned(step: &'a Step, planned: &'a PlannedStep) -> Item<'a> {
        let kind = match step.phase {
            Phase::Remediate => Kind::Act,
            Phase::Diagnose | Phase::Verify => Kind::Read,
        };
        Item { path: planned.path.clone(), kind, step, source: Source::Plan(planned) }
    }

    /// The undo of a step, if it has one.
    pub(super) fn undo(step: &'a Step, planned: &'a PlannedStep) -> Option<Item<'a>> {
        match &planned.undo {
            PlannedUndo::None => None,
            PlannedUndo::Work(_) | PlannedUndo::Previous => Some(Item {
                path: format!("{}/undo", planned.path),
                kind: Kind::Act,
                step,
                source: Source::Undo(planned),
            }),
        }
    }

    /// A step of a plan that undoes; `step` is what it undoes.
    pub(super) fn undoing(step: &'a Step, planned: &'a PlannedStep) -> Item<'a> {
        Item { path: planned.path.clone(), kind: Kind::Act, step, source: Source::Undoing(planned) }
    }

    pub(super) fn id(&self) -> &'a str {
        &self.step.id
    }

    /// The path of the step that this is, or that this is the undo of.
    pub(super) fn step_path(&self) -> &str {
        match self.source {
            Source::Runbook => &self.path,
            Source::Plan(planned) | Source::Undo(planned) | Source::Undoing(planned) => &planned.path,
        }
    }

    /// Its undo goes by how the unit was before the step, so it is right after half a step too.
    pub(super) fn puts_back(&self) -> bool {
        match self.source {
            Source::Plan(planned) => planned.undo == PlannedUndo::Previous,
            Source::Runbook | Source::Undo(_) | Source::Undoing(_) => false,
        }
    }

    fn is_undo(&self) -> bool {
        match self.source {
            Source::Runbook | Source::Plan(_) => false,
            Source::Undo(_) | Source::Undoing(_) => true,
        }
    }

    pub(super) fn condition(&self) -> Option<&'a Expr> {
        if self.is_undo() { None } else { self.step.condition.as_ref() }
    }

    pub(super) fn check(&self) -> Option<&'a Expr> {
        if self.is_undo() { None } else { self.step.check.as_ref() }
    }

    pub(super) fn outputs(&self) -> impl Iterator<Item = (&'a String, &'a Expr)> + use<'a> {
        let declared = if self.is_undo() { None } else { Some(&self.step.outputs) };
        declared.into_iter().flatten()
    }

    pub(super) fn retry(&self) -> Retry {
        if self.is_undo() { Retry::default() } else { self.step.retry }
    }

    /// A step that only reads may always run again.
    pub(super) fn may_repeat(&self) -> bool {
        match (self.kind, self.step.repeat) {
            (Kind::Read, _) => true,
            (Kind::Act, Repeat::Safe) => !self.is_undo(),
            (Kind::Act, Repeat::Never) => false,
        }
    }

    pub(super) fn on_failure(&self) -> OnFailure {
        if self.is_undo() { OnFailure::Stop } else { self.step.on_failure }
    }

    pub(super) fn job(&self, scope: &Scope) -> Job<'a> {
        match self.source {
            Source::Runbook => {
                match plan::render_step(self.step, path(self.step.phase, &self.step.id), scope) {
                    Ok(rendered) => self.planned_job(&rendered, &rendered.work),
                    Err(reason) => Job::Impossible(reason),
                }
            }
            Source::Plan(planned) | Source::Undoing(planned) => self.planned_job(planned, &planned.work),
            Source::Undo(planned) => match &planned.undo {
                PlannedUndo::None => Job::Impossible("it has no undo".to_owned()),
                PlannedUndo::Work(work) => self.planned_job(planned, work),
                PlannedUndo::Previous => match &planned.work {
                    PlannedWork::Service { unit, .. } => on_unit(planned, Deed::PutBack, unit),
                    PlannedWork::Script { .. }
                    | PlannedWork::Argv(_)
                    | PlannedWork::That { .. }
                    | PlannedWork::Wait(_)
                    | PlannedWork::PutBack { .. }
                    | PlannedWork::Impossible(_) => {
                        Job::Impossible("it has no unit that could be put back".to_owned())
                    }
                },
            },
        }
    }

    fn planned_job(&self, planned: &PlannedStep, work: &PlannedWork) -> Job<'a> {
        match work {
            PlannedWork::Script { source, interpreter } => {
                let (source, interpreter) = (source.clone(), interpreter.clone());
                start(planned, Command::Script { source, interpreter })
            }
            PlannedWork::Argv(words) => start(planned, Command::Argv(words.clone())),
            PlannedWork::Service { verb, unit } => on_unit(planned, Deed::Do(*verb), unit),
            PlannedWork::PutBack { unit } => on_unit(planned, Deed::PutBack, unit),
            PlannedWork::Wait(time) => Job::Pause(*time),
            PlannedWork::Impossible(reason) => Job::Impossible(reason.clone()),
            PlannedWork::That { within, stable_for, every, .. } => match &self.step.action {
                Action::That { condition, .. } => {
                    Job::Look { condition, within: *within, stable_for: *stable_for, every: *every }
                }
                Action::Script { .. } | Action::Argv(_) | Action::Wait(_) | Action::Service { .. } => {
                    Job::Impossible("the plan has another action than the runbook".to_owned())
                }
            },
        }
    }
}

fn start<'a>(planned: &PlannedStep, command: Command) -> Job<'a> {
    Job::Start(Spec {
        command,
        env: planned.env.clone(),
        cwd: planned.cwd.clone(),
        user: planned.user.clone(),
        sandbox: planned.sandbox.clone(),
        timeout: planned.timeout,
        done_in: planned.done_in,
    })
}

/// Environment and directory of such a step are its undo's, if that is something to run.
fn on_unit<'a>(planned: &PlannedStep, deed: Deed, unit: &UnitName) -> Job<'a> {
    let bare = PlannedStep { env: BTreeMap::new(), cwd: "/".to_owned(), ..planned.clone() };
    start(&bare, Command::Service { deed, unit: unit.clone() })
}

/// Inputs and host with what the steps so far have left.
pub(super) fn scope(
    base: &Scope,
    outputs: &BTreeMap<String, BTreeMap<String, crate::value::Value>>,
) -> Scope {
    use crate::value::Value;
    let mut scope = base.clone();
    let steps = outputs.iter().map(|(id, values)| (id.clone(), Value::Map(values.clone()))).collect();
    scope.0.insert("steps".to_owned(), Value::Map(steps));
    scope
}
