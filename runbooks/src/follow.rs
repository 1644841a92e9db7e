//! How a new run goes on from one that is over.
//!
//! A host run that is over never changes. Whoever wants its rest done, or what it did taken back, starts another run that
//! names it: a *follow-up*. What it does with the earlier one is decided by the host, which alone knows what ran there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::RunId;
use crate::plan::{Plan, PlannedStep, PlannedUndo, PlannedWork};
use crate::runbook::{OnFailure, Repeat, Retry};

#[cfg(test)]
mod tests;

/// What a follow-up does with the run that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FollowUp {
    /// It diagnoses anew and resumes at the step that did not succeed.
    Retry,
    /// It makes the finished steps as if not done.
    Undo,
}

impl FollowUp {
    /// Its word, the same in every format and interface.
    pub const fn word(self) -> &'static str {
        match self {
            FollowUp::Retry => "retry",
            FollowUp::Undo => "undo",
        }
    }
}

impl fmt::Display for FollowUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for FollowUp {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<FollowUp, &'static str> {
        match word {
            "retry" => Ok(FollowUp::Retry),
            "undo" => Ok(FollowUp::Undo),
            _ => Err("expected `retry` or `undo`"),
        }
    }
}

/// What became of one step in the earlier run, as its host knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Became {
    /// It left no trace: it was not reached, it was skipped, or it only waits or looks.
    Nothing,
    /// It succeeded in this run and still is done.
    Done(RunId),
    /// It failed; whether any attempt of it was born.
    Failed {
        /// One was.
        born: bool,
        /// The run in which it was tried.
        run: RunId,
    },
    /// It was done and has been undone since.
    Undone,
    /// It cannot be told whether it, or its undo, took effect.
    Unknown {
        /// The step, or its undo.
        path: String,
        /// The run in which it was tried.
        run: RunId,
    },
}

/// Marks the leading steps of a fresh plan that are done already, and answers with what to tell people about it.
///
/// The row of them ends at the first step that would be rendered otherwise than before, and at the first that acts and is
/// not done. Steps that left no trace are asked and looked at again like any other; they do not end it.
pub fn resume(
    earlier: &Plan,
    fresh: &mut [PlannedStep],
    became: impl Fn(&PlannedStep) -> Became,
) -> Vec<String> {
    let mut done = 0;
    for (index, step) in fresh.iter_mut().enumerate() {
        let before = earlier.steps.get(index);
        let same = before.is_some_and(|before| PlannedStep { done_in: None, ..before.clone() } == *step);
        let Some(before) = before.filter(|_| same) else {
            return vec![
                counted(done, earlier.run),
                format!("{} would now be done otherwise: nothing is skipped from it on", step.path),
            ];
        };
        match became(before) {
            Became::Done(run) => {
                step.done_in = Some(run);
                done += 1;
            }
            Became::Nothing => {}
            Became::Failed { .. } | Became::Undone | Became::Unknown { .. } => {
                return vec![counted(done, earlier.run), format!("it resumes at {}", step.path)];
            }
        }
    }
    vec![counted(done, earlier.run)]
}

fn counted(done: usize, run: RunId) -> String {
    match done {
        0 => format!("no step is skipped because it was done in {run}"),
        1 => format!("1 step was done in {run} and is not run again"),
        many => format!("{many} steps were done in {run} and are not run again"),
    }
}

/// The steps that undo what an earlier run did, and what cannot be undone.
#[derive(Clone, Debug, PartialEq)]
pub struct Backwards {
    /// In the order in which they are to run: the last that was done comes first.
    pub steps: Vec<PlannedStep>,
    /// What stays, and why, for people.
    pub stays: Vec<String>,
    /// Some step was undone before.
    pub undone_before: bool,
}

/// Turns the plan of an earlier run around: the undo of each step that is done, as it stands in that plan.
///
/// A step that failed midway is undone only where the undo knows how far it came; then that is so of an outcome that
/// nobody knows, too. `Err`: it cannot be told whether the step at this path took effect.
pub fn backwards(
    earlier: &Plan,
    became: impl Fn(&PlannedStep) -> Became,
) -> Result<Backwards, (String, RunId)> {
    let mut back = Backwards { steps: Vec::new(), stays: Vec::new(), undone_before: false };
    for step in earlier.steps.iter().rev() {
        let knows = step.undo == PlannedUndo::Previous;
        let run = match became(step) {
            Became::Nothing => continue,
            Became::Undone => {
                back.undone_before = true;
                continue;
            }
            Became::Done(run) => run,
            Became::Failed { born: false, .. } => continue,
            Became::Failed { run, .. } | Became::Unknown { run, .. } if knows => run,
            Became::Failed { .. } => {
                back.stays.push(format!("{} failed midway: its undo is for a finished step", step.path));
                continue;
            }
            Became::Unknown { path, run } => return Err((path, run)),
        };
        match undo_of(step, run) {
            Ok(undo) => back.steps.push(undo),
            Err(why) => back.stays.push(format!("{} {why}", step.path)),
        }
    }
    Ok(back)
}

/// The undo of a step as a step of its own, at the risk of what it undoes.
fn undo_of(step: &PlannedStep, run: RunId) -> Result<PlannedStep, String> {
    let work = match (&step.undo, &step.work) {
        (PlannedUndo::None, _) => return Err("has no undo".to_owned()),
        (PlannedUndo::Work(PlannedWork::Impossible(why)), _) => {
            return Err(format!("has an undo that could not be planned: {why}"));
        }
        (PlannedUndo::Work(work), _) => work.clone(),
        (PlannedUndo::Previous, PlannedWork::Service { unit, .. }) => {
            PlannedWork::PutBack { unit: unit.clone() }
        }
        (PlannedUndo::Previous, _) => return Err("has no unit that could be put back".to_owned()),
    };
    Ok(PlannedStep {
        path: format!("{}/undo", step.path),
        name: format!("undo of {}", step.name),
        work,
        retry: Retry::default(),
        repeat: Repeat::Never,
        condition: None,
        undo: PlannedUndo::None,
        check: None,
        on_failure: OnFailure::Stop,
        outputs: Default::default(),
        done_in: Some(run),
        ..step.clone()
    })
}
