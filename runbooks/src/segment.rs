//! How a host carries out one segment of a host run.
//!
//! [`State::next`] takes what happened and answers with what to do; the agent does it. Each step goes through a
//! [`Stage`] of its own: its `if` is read just before it, then it is started, its outputs are read, and it is retried or
//! over. `diagnose` steps go side by side, all others one after another.
//!
//! A segment that an agent carried half out before it died is begun again with what is known of its attempts
//! ([`Program::past`]): attempts that were intended are not started again but taken up where they are. There is no
//! second way through the machine for recovery.
//!
//! Deliberately missing: processes, files, facts and clocks. Reading facts, starting, timing and reporting are effects;
//! what came of them comes back as events, with the time as data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::expr::{FactCall, Facts, Scope};
use crate::follow::FollowUp;
use crate::id::RunId;
use crate::plan::{Plan, PlannedStep, Rendering};
use crate::runbook::{Phase, Runbook, Sandbox, Step};
use crate::unit::{UnitName, Verb};
use crate::value::Value;

mod again; // a step whose outcome is unknown, and the attempt that follows it
mod item; // one step, whatever phase it is of
mod phases; // step after step
mod stage; // one step, from its condition to its end
#[cfg(test)]
mod table; // the transitions as documentation
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use item::path;

/// What a segment is to do. Fixed for as long as it lives.
#[derive(Clone, Debug)]
pub struct Program {
    work: Work,
    runbook: Arc<Runbook>,
    plan: Option<Arc<Plan>>,
    base: Scope,
    closed: BTreeSet<String>,
    past: BTreeMap<String, BTreeMap<u32, Option<Exit>>>,
    /// What there is to do is known without a diagnosis.
    known: Option<Rendering>,
    /// A step that people let run again, and the attempt whose outcome is unknown.
    again: Option<(String, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Diagnose,
    Remediate { from: usize },
    Verify,
}

/// One attempt that was intended before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// The step.
    pub path: String,
    /// Which attempt of it.
    pub attempt: u32,
    /// How it ended, if that is known.
    pub exit: Option<Exit>,
}

/// A segment that does not fit its plan or its runbook.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAProgram {
    /// The plan was made from another runbook.
    #[error("match the plan with the runbook: their steps differ")]
    OtherRunbook,
    /// The plan has no such step.
    #[error("begin at `{0}`: the plan has no such step")]
    NoSuchStep(String),
}

impl Program {
    /// Diagnoses and renders the plan. `base` holds `inputs` and `host`.
    pub fn diagnose(runbook: Arc<Runbook>, base: Scope) -> Program {
        Program {
            work: Work::Diagnose,
            runbook,
            plan: None,
            base,
            closed: BTreeSet::new(),
            past: BTreeMap::new(),
            known: None,
            again: None,
        }
    }

    /// Plans what is known already: the undos of an earlier run's steps. Nothing is diagnosed.
    pub fn undo(runbook: Arc<Runbook>, base: Scope, known: Rendering) -> Program {
        Program { known: Some(known), ..Program::diagnose(runbook, base) }
    }

    /// Carries the plan out from the step at path `from`, then verifies.
    ///
    /// Steps whose path is in `closed` need people and have no permit: the first of them that is reached, and whose `if`
    /// holds, ends the segment. `past` is what is known of the run's attempts, those of earlier segments included.
    ///
    /// # Errors
    /// When plan, runbook and `from` do not belong together.
    pub fn remediate(
        runbook: Arc<Runbook>,
        plan: Arc<Plan>,
        base: Scope,
        from: &str,
        closed: BTreeSet<String>,
        past: impl IntoIterator<Item = Past>,
    ) -> Result<Program, NotAProgram> {
        fits(&runbook, &plan)?;
        let from = plan
            .steps
            .iter()
            .position(|step| step.path == from)
            .ok_or_else(|| NotAProgram::NoSuchStep(from.to_owned()))?;
        let mut known: BTreeMap<String, BTreeMap<u32, Option<Exit>>> = BTreeMap::new();
        for Past { path, attempt, exit } in past {
            known.entry(path).or_default().insert(attempt, exit);
        }
        Ok(Program {
            work: Work::Remediate { from },
            runbook,
            plan: Some(plan),
            base,
            closed,
            past: known,
            known: None,
            again: None,
        })
    }

    /// Only verifies.
    ///
    /// # Errors
    /// When plan and runbook do not belong together.
    pub fn verify(runbook: Arc<Runbook>, plan: Arc<Plan>, base: Scope) -> Result<Program, NotAProgram> {
        fits(&runbook, &plan)?;
        Ok(Program {
            work: Work::Verify,
            runbook,
            plan: Some(plan),
            base,
            closed: BTreeSet::new(),
            past: BTreeMap::new(),
            known: None,
            again: None,
        })
    }

    /// The path of the first step to remediate, if this segment remediates.
    pub fn from(&self) -> Option<&str> {
        match self.work {
            Work::Remediate { from } => {
                self.planned(Phase::Remediate).get(from).map(|step| step.path.as_str())
            }
            Work::Diagnose | Work::Verify => None,
        }
    }

    /// What the outputs of the remediate step `id` are, if its process ended so: `id.name` → JSON text. `evidence` is what
    /// diagnosis found, in the same form. None: one of them has no value.
    pub fn left(
        &self,
        id: &str,
        evidence: &BTreeMap<String, String>,
        exit: &Exit,
    ) -> Option<BTreeMap<String, String>> {
        let step = self.runbook.steps(Phase::Remediate).iter().find(|step| step.id == id)?;
        let found = crate::plan::evidence::read(evidence, &self.runbook);
        let scope = stage::exit_scope(item::scope(&self.base, &found), exit);
        let value = |expr: &crate::expr::Expr| expr.eval(&scope, &Facts::new()).ok();
        let json = crate::plan::evidence::json;
        step.outputs.iter().map(|(name, expr)| Some((format!("{id}.{name}"), json(&value(expr)?)))).collect()
    }

    fn planned(&self, phase: Phase) -> &[PlannedStep] {
        match (&self.plan, phase) {
            (Some(plan), Phase::Remediate) => &plan.steps,
            (Some(plan), Phase::Verify) => &plan.verify,
            (Some(_), Phase::Diagnose) | (None, _) => &[],
        }
    }
}

/// Steps of a plan stand in the order of their runbook; then the conditions of one are those of the other. A plan that undoes
/// has the undos of some of them.
fn fits(runbook: &Runbook, plan: &Plan) -> Result<(), NotAProgram> {
    let same = |phase, planned: &[PlannedStep]| {
        let steps = runbook.steps(phase);
        steps.len() == planned.len()
            && steps.iter().zip(planned).all(|(step, planned)| item::path(phase, &step.id) == planned.path)
    };
    if undoes(plan) {
        let known = plan.steps.iter().all(|step| undone_step(runbook, step).is_some());
        let fits = runbook.digest() == plan.runbook_digest && known && plan.verify.is_empty();
        return if fits { Ok(()) } else { Err(NotAProgram::OtherRunbook) };
    }
    let fits = runbook.digest() == plan.runbook_digest
        && same(Phase::Remediate, &plan.steps)
        && same(Phase::Verify, &plan.verify);
    if fits { Ok(()) } else { Err(NotAProgram::OtherRunbook) }
}

fn undoes(plan: &Plan) -> bool {
    plan.of.as_ref().is_some_and(|of| of.how == FollowUp::Undo)
}

/// The step of the runbook that a step of such a plan undoes.
fn undone_step<'r>(runbook: &'r Runbook, planned: &PlannedStep) -> Option<&'r Step> {
    let of = planned.path.strip_suffix("/undo")?;
    runbook.steps(Phase::Remediate).iter().find(|step| item::path(Phase::Remediate, &step.id) == of)
}

/// Where a segment stands.
#[derive(Clone, Debug)]
pub struct State {
    at: At,
    /// Outputs by step.
    outputs: BTreeMap<String, BTreeMap<String, Value>>,
    /// Remediate steps to be undone, in any segment of the run: those that succeeded, and those that failed and whose undo knows
    /// how far they came.
    done: BTreeSet<usize>,
    /// The last number given to a question or a timer.
    number: u32,
    /// No step that acts begins.
    paused: bool,
    /// An attempt was born that people let follow one whose outcome is unknown. Without it that one is as unknown as before.
    ran_again: bool,
    /// How it will have ended.
    outcome: Outcome,
}

/// What a segment is doing.
#[derive(Clone, Debug)]
pub enum At {
    /// Nothing yet.
    Ready,
    /// `diagnose`, a stage per step.
    Diagnosing(Vec<Stage>),
    /// `remediate`, one step.
    Remediating {
        /// Its place.
        index: usize,
        /// Where it stands.
        stage: Stage,
    },
    /// The undo of one step.
    Undoing {
        /// Its place.
        index: usize,
        /// Where the undo stands.
        stage: Stage,
    },
    /// `verify`, one step.
    Verifying {
        /// Its place.
        index: usize,
        /// Where it stands.
        stage: Stage,
    },
    /// Told to stop: attempts are being killed.
    Stopping {
        /// Those that have not ended.
        running: BTreeSet<(String, u32)>,
        /// One that may have had effect.
        interrupted: Option<String>,
    },
    /// Over. Nothing changes any more.
    Ended,
}

/// Where one step stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Others come first.
    Waiting,
    /// Its `if` is being read.
    Deciding {
        /// The question.
        ask: u32,
    },
    /// It would begin, or begin again, and the run is paused.
    Paused {
        /// Which attempt comes next.
        attempt: u32,
        /// The timer that ends when it may not start any more.
        timer: u32,
    },
    /// Its process runs.
    Running {
        /// Which attempt.
        attempt: u32,
    },
    /// It does nothing for a while.
    Pausing {
        /// Which attempt.
        attempt: u32,
        /// The timer.
        timer: u32,
    },
    /// It is looking whether its condition holds.
    Looking {
        /// Which attempt, and since when.
        watch: Watch,
        /// The question.
        ask: u32,
    },
    /// It has looked and will look again.
    Resting {
        /// Which attempt, and since when.
        watch: Watch,
        /// The timer.
        timer: u32,
    },
    /// Its process ended well, or its condition held; its outputs are being read.
    Reading {
        /// Which attempt.
        attempt: u32,
        /// How the process ended, where there was one.
        exit: Option<Box<Exit>>,
        /// The question.
        ask: u32,
    },
    /// An attempt failed; the next one comes after a delay.
    Delayed {
        /// The next attempt.
        attempt: u32,
        /// The timer.
        timer: u32,
    },
    /// Its outcome is unknown; its `check` is being read.
    Checking {
        /// Which attempt.
        attempt: u32,
        /// The question.
        ask: u32,
        /// Nothing of the attempt runs any more, for certain.
        dead: bool,
        /// Why its outcome is unknown.
        reason: String,
    },
    /// It is over.
    Over,
}

/// A `that` step's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Which attempt.
    pub attempt: u32,
    /// When it began to look.
    pub since: Duration,
    /// Since when its condition has held without a break.
    pub held: Option<Duration>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Go.
    Begin,
    /// The answer to [`Effect::ReadFacts`].
    Facts {
        /// The question.
        ask: u32,
        /// What was read.
        facts: Facts,
    },
    /// An attempt's process is over.
    Exited {
        /// The step.
        path: String,
        /// Which attempt of it.
        attempt: u32,
        /// How.
        exit: Exit,
    },
    /// It cannot be told how an attempt ended, or whether it took effect.
    Unknown {
        /// The step.
        path: String,
        /// Which attempt of it.
        attempt: u32,
        /// For people.
        reason: String,
        /// Nothing of it runs any more, for certain.
        dead: bool,
    },
    /// The host forbids a start that was asked for; no process was born.
    Barred {
        /// The step.
        path: String,
        /// Which attempt of it.
        attempt: u32,
        /// For people.
        reason: String,
    },
    /// The time of an [`Effect::SetTimer`] has come.
    TimerFired {
        /// Which.
        timer: u32,
    },
    /// Somebody wants the run stopped.
    CancelAsked {
        /// For people.
        reason: String,
    },
    /// No step that acts is to begin from now on.
    PauseAsked,
    /// They may begin again.
    ResumeAsked,
}

/// What the agent should now do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Read facts and answer with [`Event::Facts`]; without calls, answer all the same.
    ReadFacts {
        /// Names the question.
        ask: u32,
        /// What to read.
        calls: Vec<FactCall>,
    },
    /// Start a process.
    Start {
        /// The step.
        path: String,
        /// Which attempt of it.
        attempt: u32,
        /// What to start.
        spec: Spec,
        /// Whether it may change the host.
        kind: Kind,
    },
    /// Answer with [`Event::TimerFired`] after a time.
    SetTimer {
        /// Names the timer.
        timer: u32,
        /// How long from now.
        after: Duration,
    },
    /// An attempt waits because the run is paused: answer with [`Event::TimerFired`] when it may not start any more.
    Hold {
        /// The step.
        path: String,
        /// Which attempt of it.
        attempt: u32,
        /// Names the timer.
        timer: u32,
    },
    /// End an attempt; its end comes as an event like any other.
    Kill {
        /// The step.
        path: String,
        /// Which attempt of it.
        attempt: u32,
    },
    /// Tell the controller.
    Report(Note),
    /// Diagnosis is over, and this is what remediation would do.
    Diagnosed(Box<Rendering>),
    /// The segment is over; nothing of it runs.
    Ended {
        /// How.
        outcome: Outcome,
        /// A step that may have had effect when it was stopped.
        interrupted: Option<String>,
    },
}

/// What an attempt is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What to run.
    pub command: Command,
    /// Environment beside the fixed one.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: String,
    /// The user it runs as; empty: the agent's own.
    pub user: String,
    /// What a step that only reads may beyond what every such step may.
    pub sandbox: Sandbox,
    /// How long it may take.
    pub timeout: Duration,
    /// The run in which that was done which this undoes, where it is another than the attempt's own.
    pub done_in: Option<RunId>,
}

/// What a process is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Text in a file whose path is appended to the interpreter's words.
    Script {
        /// The exact text.
        source: String,
        /// Program and arguments.
        interpreter: Vec<String>,
    },
    /// A program and its arguments.
    Argv(Vec<String>),
    /// Something to be done with a unit of systemd.
    Service {
        /// What.
        deed: Deed,
        /// With which.
        unit: UnitName,
    },
}

/// What is done with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// What a step says.
    Do(Verb),
    /// The undo of that: it runs, or does not, as before the step's first attempt.
    PutBack,
}

/// Whether a step may change the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only reads: it may simply run again.
    Read,
    /// It acts: it is journaled before it starts.
    Act,
}

/// What the controller is told of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// An attempt began.
    Started {
        /// The step.
        path: String,
        /// Which attempt of it.
        attempt: u32,
    },
    /// An attempt is over.
    Ended {
        /// The step.
        path: String,
        /// Which attempt of it.
        attempt: u32,
        /// The word for how.
        result: StepResult,
        /// Why, for people; empty when it succeeded.
        message: String,
        /// The process, when there was one.
        exit: Option<Box<Exit>>,
        /// Values of `outputs`, as JSON texts.
        outputs: BTreeMap<String, String>,
    },
    /// A step was skipped.
    Skipped {
        /// The step.
        path: String,
        /// For people.
        reason: String,
    },
}

/// How an attempt ended, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// Well.
    Succeeded,
    /// Not well.
    Failed,
    /// It took longer than it may.
    TimedOut,
    /// Somebody asked for its end.
    Killed,
    /// It cannot be told.
    Unknown,
    /// No process was born.
    NotStarted,
}

impl StepResult {
    /// The word for it, the same in every interface.
    pub const fn word(self) -> &'static str {
        match self {
            StepResult::Succeeded => "succeeded",
            StepResult::Failed => "failed",
            StepResult::TimedOut => "timed-out",
            StepResult::Killed => "killed",
            StepResult::Unknown => "unknown",
            StepResult::NotStarted => "not-started",
        }
    }
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Exit {
    /// What ended it.
    pub by: ExitBy,
    /// Its exit code, when it exited.
    pub code: Option<i32>,
    /// The signal that ended it, when one did.
    pub signal: Option<i32>,
    /// What it wrote to descriptor 1.
    pub stdout: Kept,
    /// What it wrote to descriptor 2.
    pub stderr: Kept,
    /// From its birth to its end.
    pub took: Duration,
    /// Why it may have failed, as far as the host can tell; empty when it cannot.
    pub hint: String,
}

/// What ended a process.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum ExitBy {
    /// It exited, or died of a signal nobody here sent.
    #[default]
    Itself,
    /// It took longer than it may.
    Timeout,
    /// Somebody asked for its end.
    Kill,
    /// It was never born, for this reason.
    NotStarted(String),
}

/// The head and the tail of what a step wrote.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Kept {
    /// The first bytes.
    pub head: Vec<u8>,
    /// The last bytes that are not in `head`.
    pub tail: Vec<u8>,
    /// Bytes between the two that are not here.
    pub dropped: u64,
}

/// How a segment ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What ended it.
    pub how: How,
    /// What `verify` said, when it ran.
    pub verification: Verification,
    /// Whether any remediate step of this segment was started.
    pub effects: bool,
    /// Whether finished steps were undone, and how that went.
    pub undoing: Undoing,
}

/// What ended a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// All its steps were done or skipped.
    Done,
    /// A step that needs approval was reached, its `if` held, and there was no permit.
    Gate {
        /// The step.
        path: String,
    },
    /// A step failed and the runbook says to stop.
    Failed {
        /// The step.
        path: String,
        /// For people.
        reason: String,
    },
    /// It cannot be told whether a step took effect.
    Unknown {
        /// The step.
        path: String,
        /// Which attempt of it.
        attempt: u32,
        /// For people.
        reason: String,
    },
    /// The host was told to stop, or refused to go on.
    Stopped {
        /// For people.
        reason: String,
    },
}

/// What `verify` said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verification {
    /// It did not run.
    NotRun,
    /// The symptom is gone.
    Passed,
    /// It is still there.
    Failed,
}

/// Whether finished steps were undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undoing {
    /// Nothing was asked to be undone.
    None,
    /// Everything that has an undo is undone.
    Done,
    /// An undo failed.
    Failed,
}

/// An event that cannot happen in the state the segment is in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("apply {event} to a segment that is {state}")]
pub struct Illegal {
    /// Where it stood, and stands.
    pub state: String,
    /// What was said to have happened.
    pub event: String,
}

impl State {
    /// A segment nothing of which has begun.
    pub fn ready() -> State {
        State {
            at: At::Ready,
            outputs: BTreeMap::new(),
            done: BTreeSet::new(),
            number: 0,
            paused: false,
            ran_again: false,
            outcome: Outcome {
                how: How::Done,
                verification: Verification::NotRun,
                effects: false,
                undoing: Undoing::None,
            },
        }
    }

    /// What it is doing.
    pub fn at(&self) -> &At {
        &self.at
    }

    /// Takes what happened at `now` (any clock that only goes on) and answers with the state after it and what to do.
    /// An illegal event changes nothing; an answer or a timer nobody waits for any more is history and changes nothing
    /// either.
    pub fn next(
        &self,
        program: &Program,
        now: Duration,
        event: Event,
    ) -> Result<(State, Vec<Effect>), Illegal> {
        phases::next(self, program, now, event)
    }
}

impl At {
    /// The word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            At::Ready => "ready",
            At::Diagnosing(_) => "diagnosing",
            At::Remediating { .. } => "remediating",
            At::Undoing { .. } => "undoing",
            At::Verifying { .. } => "verifying",
            At::Stopping { .. } => "stopping",
            At::Ended => "ended",
        }
    }
}

impl Kept {
    /// All that was written, if all was kept.
    pub fn whole(&self) -> Option<Vec<u8>> {
        (self.dropped == 0).then(|| [self.head.as_slice(), &self.tail].concat())
    }
}
