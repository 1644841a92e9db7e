//! Step after step: which one an event is for, and what comes after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::item::{self, Item};
use super::stage::{self, Cx, Input, Moved, Verdict};
use super::{
    At, Effect, Event, Exit, ExitBy, How, Illegal, Note, Program, Stage, State, StepResult, Undoing,
    Verification, Watch, Work, undoes, undone_step,
};
use crate::expr::Facts;
use crate::plan::{self, evidence};
use crate::runbook::{OnFailure, Phase, Step};

pub(super) fn next(
    state: &State,
    program: &Program,
    now: Duration,
    event: Event,
) -> Result<(State, Vec<Effect>), Illegal> {
    let told = event.describe();
    let mut machine = Machine { state: state.clone(), program, now, effects: Vec::new() };
    match machine.take(event) {
        Heard::Yes => Ok((machine.state, machine.effects)),
        Heard::History => Ok((state.clone(), Vec::new())),
        Heard::Never => Err(Illegal { state: state.at.word().to_owned(), event: told }),
    }
}

enum Heard {
    Yes,
    /// Nobody waits for it any more.
    History,
    /// It cannot have happened.
    Never,
}

struct Machine<'a> {
    state: State,
    program: &'a Program,
    now: Duration,
    effects: Vec<Effect>,
}

/// A step by its place in the machine.
#[derive(Clone, Copy)]
enum Place {
    Diagnose(usize),
    Remediate(usize),
    Undo(usize),
    Verify(usize),
}

impl<'a> Machine<'a> {
    fn take(&mut self, event: Event) -> Heard {
        self.hear_of_birth(&event);
        match event {
            Event::Begin => self.begin(),
            Event::Facts { ask, facts } => self.anyone(|_| Some(Input::Facts(ask, &facts))),
            Event::TimerFired { timer } => self.anyone(|_| Some(Input::Timer(timer))),
            Event::Exited { path, attempt, exit } => match &self.state.at {
                At::Stopping { .. } => self.stopped(path, attempt, Some(exit)),
                At::Ready
                | At::Diagnosing(_)
                | At::Remediating { .. }
                | At::Undoing { .. }
                | At::Verifying { .. }
                | At::Ended => self.one(&path, || Input::Exited(attempt, exit.clone())),
            },
            Event::Unknown { path, attempt, reason, dead } => match &self.state.at {
                At::Stopping { .. } => self.stopped(path, attempt, None),
                At::Ready
                | At::Diagnosing(_)
                | At::Remediating { .. }
                | At::Undoing { .. }
                | At::Verifying { .. }
                | At::Ended => self.one(&path, || Input::Unknown { attempt, reason: reason.clone(), dead }),
            },
            Event::Barred { path, attempt, reason } => match &self.state.at {
                At::Stopping { .. } => {
                    let exit = Exit { by: ExitBy::NotStarted(reason), ..Exit::default() };
                    self.stopped(path, attempt, Some(exit))
                }
                At::Ready
                | At::Diagnosing(_)
                | At::Remediating { .. }
                | At::Undoing { .. }
                | At::Verifying { .. }
                | At::Ended => self.one(&path, || Input::Barred { attempt, reason: reason.clone() }),
            },
            Event::CancelAsked { reason } => self.cancel(reason),
            Event::PauseAsked => self.pause(true),
            Event::ResumeAsked => self.pause(false),
        }
    }

    fn hear_of_birth(&mut self, event: &Event) {
        let (path, attempt) = match event {
            Event::Exited { exit: Exit { by: ExitBy::NotStarted(_), .. }, .. } => return,
            Event::Exited { path, attempt, .. } | Event::Unknown { path, attempt, .. } => (path, *attempt),
            Event::Begin
            | Event::Facts { .. }
            | Event::Barred { .. }
            | Event::TimerFired { .. }
            | Event::CancelAsked { .. }
            | Event::PauseAsked
            | Event::ResumeAsked => return,
        };
        self.state.ran_again |= self.program.follows(path, attempt).is_some();
    }

    /// The attempt that was to be followed by another one, and is not yet.
    fn still_unknown(&self) -> Option<&'a (String, u32)> {
        self.program.again.as_ref().filter(|_| !self.state.ran_again)
    }

    /// What runs goes on; what waits only because of a pause begins when it is over.
    fn pause(&mut self, on: bool) -> Heard {
        if self.state.paused == on {
            return Heard::History;
        }
        self.state.paused = on;
        if !on {
            self.anyone(|_| Some(Input::Resumed));
        }
        Heard::Yes
    }

    fn begin(&mut self) -> Heard {
        match &self.state.at {
            At::Ready => {}
            At::Diagnosing(_)
            | At::Remediating { .. }
            | At::Undoing { .. }
            | At::Verifying { .. }
            | At::Stopping { .. }
            | At::Ended => return Heard::Never,
        }
        self.state.ran_again = self.program.ran_again();
        if let Some(plan) = &self.program.plan {
            self.state.outputs = evidence::read(&plan.evidence, &self.program.runbook);
        }
        match self.program.work {
            Work::Diagnose if self.program.known.is_some() => self.diagnosed(),
            Work::Diagnose => {
                let steps = self.program.runbook.steps(Phase::Diagnose).len();
                self.state.at = At::Diagnosing(vec![Stage::Waiting; steps]);
                self.diagnose();
            }
            Work::Remediate { from } => {
                self.remember(from);
                self.remediate(from);
            }
            Work::Verify => self.verify(0),
        }
        Heard::Yes
    }

    /// Gives an input to whichever step takes it.
    fn anyone<'e>(&mut self, input: impl Fn(Place) -> Option<Input<'e>>) -> Heard {
        for place in self.places() {
            if let Some(input) = input(place)
                && self.give(place, input)
            {
                return Heard::Yes;
            }
        }
        Heard::History
    }

    /// Gives an input to the step at a path.
    fn one<'e>(&mut self, path: &str, input: impl Fn() -> Input<'e>) -> Heard {
        for place in self.places() {
            if self.item(place).is_some_and(|item| item.path == path) && self.give(place, input()) {
                return Heard::Yes;
            }
        }
        Heard::Never
    }

    /// The steps that may wait for something.
    fn places(&self) -> Vec<Place> {
        match &self.state.at {
            At::Diagnosing(stages) => (0..stages.len()).map(Place::Diagnose).collect(),
            At::Remediating { index, .. } => vec![Place::Remediate(*index)],
            At::Undoing { index, .. } => vec![Place::Undo(*index)],
            At::Verifying { index, .. } => vec![Place::Verify(*index)],
            At::Ready | At::Stopping { .. } | At::Ended => Vec::new(),
        }
    }

    fn item(&self, place: Place) -> Option<Item<'a>> {
        let program = self.program;
        let planned = |phase, index: usize| -> Option<(&'a Step, &'a plan::PlannedStep)> {
            Some((program.runbook.steps(phase).get(index)?, program.planned(phase).get(index)?))
        };
        match place {
            Place::Diagnose(index) => program.runbook.steps(Phase::Diagnose).get(index).map(Item::diagnose),
            Place::Remediate(index) if self.undoes() => {
                let planned = program.planned(Phase::Remediate).get(index)?;
                Some(Item::undoing(undone_step(&program.runbook, planned)?, planned))
            }
            Place::Undo(_) if self.undoes() => None,
            Place::Remediate(index) => {
                planned(Phase::Remediate, index).map(|(step, plan)| Item::planned(step, plan))
            }
            Place::Undo(index) => {
                planned(Phase::Remediate, index).and_then(|(step, plan)| Item::undo(step, plan))
            }
            Place::Verify(index) => {
                planned(Phase::Verify, index).map(|(step, plan)| Item::planned(step, plan))
            }
        }
    }

    fn undoes(&self) -> bool {
        self.program.plan.as_deref().is_some_and(undoes)
    }

    fn stage(&mut self, place: Place) -> Option<&mut Stage> {
        match (&mut self.state.at, place) {
            (At::Diagnosing(stages), Place::Diagnose(index)) => stages.get_mut(index),
            (At::Remediating { index, stage }, Place::Remediate(of)) if *index == of => Some(stage),
            (At::Undoing { index, stage }, Place::Undo(of)) if *index == of => Some(stage),
            (At::Verifying { index, stage }, Place::Verify(of)) if *index == of => Some(stage),
            (
                At::Ready
                | At::Diagnosing(_)
                | At::Remediating { .. }
                | At::Undoing { .. }
                | At::Verifying { .. }
                | At::Stopping { .. }
                | At::Ended,
                Place::Diagnose(_) | Place::Remediate(_) | Place::Undo(_) | Place::Verify(_),
            ) => None,
        }
    }

    /// Gives an input to a step; false: it is not for it.
    fn give(&mut self, place: Place, input: Input<'_>) -> bool {
        let Some(item) = self.item(place) else { return false };
        let Some(stage) = self.stage(place).map(|stage| std::mem::replace(stage, Stage::Over)) else {
            return false;
        };
        let id = item.id().to_owned();
        let on_failure = item.on_failure();
        let path = item.path.clone();
        let puts_back = item.puts_back();
        let began =
            !matches!(stage, Stage::Waiting | Stage::Deciding { .. } | Stage::Paused { attempt: 1, .. });
        let mut acted = false;
        let moved = stage::take(
            Cx {
                program: self.program,
                item,
                outputs: &self.state.outputs,
                paused: self.state.paused,
                number: &mut self.state.number,
                now: self.now,
                effects: &mut self.effects,
                acted: &mut acted,
            },
            stage,
            input,
        );
        self.state.outcome.effects |= acted;
        let (moved, took) = match moved {
            Ok(moved) => (moved, true),
            Err(stage) => (Moved::To(stage), false),
        };
        match moved {
            Moved::To(stage) => {
                if let Some(slot) = self.stage(place) {
                    *slot = stage;
                }
            }
            Moved::Over(verdict) => {
                if let (Place::Remediate(index), Verdict::Failed { .. }) = (place, &verdict)
                    && puts_back
                    && (began || acted)
                {
                    self.state.done.insert(index);
                }
                self.over(place, &id, path, on_failure, verdict);
            }
        }
        took
    }

    fn over(&mut self, place: Place, id: &str, path: String, on_failure: OnFailure, verdict: Verdict) {
        match place {
            Place::Diagnose(_) => {
                match verdict {
                    Verdict::Succeeded(outputs) | Verdict::Failed { outputs, .. } => self.keep(id, outputs),
                    Verdict::Skipped | Verdict::Gate | Verdict::Unknown { .. } | Verdict::Barred { .. } => {}
                }
                self.diagnose();
            }
            Place::Remediate(index) => {
                let verdict = match self.still_unknown() {
                    Some((again, attempt)) if *again == path => not_run_again(*attempt, verdict),
                    Some(_) | None => verdict,
                };
                self.remediated(index, id, path, on_failure, verdict);
            }
            Place::Undo(index) => match verdict {
                Verdict::Succeeded(_) | Verdict::Skipped => {
                    self.state.done.remove(&index);
                    self.undo();
                }
                Verdict::Failed { reason, .. } | Verdict::Barred { reason } => {
                    self.undo_failed(&path, &reason);
                }
                Verdict::Unknown { attempt, reason } => self.undo_unknown(path, attempt, reason),
                Verdict::Gate => self.undo_failed(&path, "it needs an approval of its own"),
            },
            Place::Verify(index) => match verdict {
                Verdict::Succeeded(outputs) => {
                    self.keep(id, outputs);
                    self.verify(index + 1);
                }
                Verdict::Skipped => self.verify(index + 1),
                Verdict::Failed { .. } | Verdict::Unknown { .. } | Verdict::Barred { .. } | Verdict::Gate => {
                    self.state.outcome.verification = Verification::Failed;
                    self.end();
                }
            },
        }
    }

    fn keep(&mut self, id: &str, outputs: BTreeMap<String, crate::value::Value>) {
        if !outputs.is_empty() {
            self.state.outputs.insert(id.to_owned(), outputs);
        }
    }

    // --- diagnose ---

    /// Starts every step whose predecessors are over; when all are over, renders the plan.
    fn diagnose(&mut self) {
        let steps = self.program.runbook.steps(Phase::Diagnose);
        let At::Diagnosing(stages) = &self.state.at else { return };
        let ready = stages.iter().zip(steps).position(|(stage, step)| {
            *stage == Stage::Waiting
                && step.after.iter().all(|before| stages.get(*before) == Some(&Stage::Over))
        });
        if let Some(index) = ready {
            // A step that is over at once comes back here; the others are looked for below.
            self.give(Place::Diagnose(index), Input::Begin);
            self.diagnose();
        } else if stages.iter().all(|stage| *stage == Stage::Over) {
            self.diagnosed();
        }
    }

    fn diagnosed(&mut self) {
        if let Some(known) = &self.program.known {
            self.effects.push(Effect::Diagnosed(Box::new(known.clone())));
            return self.end();
        }
        let scope = item::scope(&self.program.base, &self.state.outputs);
        match plan::render(&self.program.runbook, &scope, &self.state.outputs) {
            Ok(rendering) => self.effects.push(Effect::Diagnosed(Box::new(rendering))),
            Err(too_large) => {
                self.state.outcome.how =
                    How::Failed { path: "plan".to_owned(), reason: too_large.to_string() };
            }
        }
        self.end();
    }

    // --- remediate ---

    /// What earlier segments did: needed to undo it, and by conditions.
    fn remember(&mut self, from: usize) {
        if self.undoes() {
            return;
        }
        // What an earlier run has done is undone like the rest, if it comes to that.
        let planned = self.program.planned(Phase::Remediate).iter().enumerate();
        self.state.done.extend(planned.filter(|(_, step)| step.done_in.is_some()).map(|(index, _)| index));
        for index in 0..from {
            let Some(item) = self.item(Place::Remediate(index)) else { continue };
            let last = self.program.past.get(&item.path).and_then(|attempts| attempts.last_key_value());
            let Some((_, Some(exit))) = last else { continue };
            if stage::judged(exit).is_err() {
                if item.puts_back() {
                    self.state.done.insert(index);
                }
                continue;
            }
            self.state.done.insert(index);
            let scope = stage::exit_scope(item::scope(&self.program.base, &self.state.outputs), exit);
            let outputs = item
                .outputs()
                .filter_map(|(name, expr)| Some((name.clone(), expr.eval(&scope, &Facts::new()).ok()?)))
                .collect();
            self.keep(item.id(), outputs);
        }
    }

    fn remediate(&mut self, mut index: usize) {
        let planned = self.program.planned(Phase::Remediate);
        let intended = |path: &str| self.program.past.contains_key(path);
        let last = planned.iter().rposition(|step| intended(&step.path));
        let undone = planned.iter().any(|step| intended(&format!("{}/undo", step.path)));
        // A step that left no trace before one that did was skipped, or had nothing to journal.
        while last.is_some_and(|last| index < last)
            && planned.get(index).is_some_and(|step| !intended(&step.path))
        {
            index += 1;
        }
        match planned.get(index) {
            Some(step) if undone && last.is_none_or(|last| index > last) => {
                let reason = "it failed before the agent was restarted".to_owned();
                self.state.outcome.how = How::Failed { path: step.path.clone(), reason };
                self.undo();
            }
            Some(step) => match step.done_in.filter(|_| !self.undoes()) {
                Some(run) => {
                    let (path, reason) = (step.path.clone(), format!("done in {run}"));
                    self.effects.push(Effect::Report(Note::Skipped { path, reason }));
                    self.remediate(index + 1);
                }
                None => {
                    self.state.at = At::Remediating { index, stage: Stage::Waiting };
                    self.give(Place::Remediate(index), Input::Begin);
                }
            },
            None if self.undoes() => {
                self.state.outcome.undoing = Undoing::Done;
                self.end();
            }
            None => self.verify(0),
        }
    }

    fn remediated(&mut self, index: usize, id: &str, path: String, on_failure: OnFailure, verdict: Verdict) {
        match verdict {
            Verdict::Succeeded(outputs) => {
                self.keep(id, outputs);
                self.state.done.insert(index);
                self.remediate(index + 1);
            }
            Verdict::Skipped => self.remediate(index + 1),
            Verdict::Failed { reason, outputs } => {
                self.keep(id, outputs);
                if self.undoes() {
                    self.state.outcome.undoing = Undoing::Failed;
                }
                match on_failure {
                    OnFailure::Continue => self.remediate(index + 1),
                    OnFailure::Stop => self.give_up(How::Failed { path, reason }),
                    OnFailure::Undo => {
                        self.state.outcome.how = How::Failed { path, reason };
                        self.undo();
                    }
                }
            }
            Verdict::Gate => {
                self.state.outcome.how = How::Gate { path };
                self.end();
            }
            Verdict::Unknown { attempt, reason } => self.give_up(How::Unknown { path, attempt, reason }),
            Verdict::Barred { reason } => self.give_up(How::Stopped { reason: format!("{path}: {reason}") }),
        }
    }

    /// No later step starts; what was done is verified.
    fn give_up(&mut self, how: How) {
        self.state.outcome.how = how;
        if self.state.outcome.effects || !self.program.past.is_empty() { self.verify(0) } else { self.end() }
    }

    // --- undo ---

    /// Undoes the latest step that is to be undone and has an undo.
    fn undo(&mut self) {
        let next =
            self.state.done.iter().rev().copied().find(|index| self.item(Place::Undo(*index)).is_some());
        match next {
            Some(index) => {
                self.state.at = At::Undoing { index, stage: Stage::Waiting };
                self.give(Place::Undo(index), Input::Begin);
            }
            None => {
                self.state.outcome.undoing = Undoing::Done;
                self.give_up(self.state.outcome.how.clone());
            }
        }
    }

    fn undo_failed(&mut self, path: &str, reason: &str) {
        self.state.outcome.undoing = Undoing::Failed;
        let how = match self.state.outcome.how.clone() {
            How::Failed { path: of, reason: first } => {
                How::Failed { path: of, reason: format!("{first}; and then {path} failed: {reason}") }
            }
            how @ (How::Done | How::Gate { .. } | How::Unknown { .. } | How::Stopped { .. }) => how,
        };
        self.give_up(how);
    }

    /// Whether the step is undone a person must find out; no earlier one is undone before.
    fn undo_unknown(&mut self, path: String, attempt: u32, mut reason: String) {
        self.state.outcome.undoing = Undoing::Failed;
        if let How::Failed { path: of, reason: first } = &self.state.outcome.how {
            reason = format!("{reason}; it was to be undone because {of} failed: {first}");
        }
        self.give_up(How::Unknown { path, attempt, reason });
    }

    // --- verify ---

    fn verify(&mut self, index: usize) {
        if index < self.program.planned(Phase::Verify).len() {
            self.state.at = At::Verifying { index, stage: Stage::Waiting };
            self.give(Place::Verify(index), Input::Begin);
        } else {
            if index > 0 {
                self.state.outcome.verification = Verification::Passed;
            }
            self.end();
        }
    }

    // --- the end ---

    fn end(&mut self) {
        self.state.at = At::Ended;
        self.effects.push(Effect::Ended { outcome: self.state.outcome.clone(), interrupted: None });
    }

    fn cancel(&mut self, reason: String) -> Heard {
        // What nobody could tell while the symptom was read nobody can tell now either.
        let mut interrupted = match &self.state.outcome.how {
            How::Unknown { path, .. } => Some(path.clone()),
            How::Done | How::Gate { .. } | How::Failed { .. } | How::Stopped { .. } => None,
        };
        let mut running = BTreeSet::new();
        match &self.state.at {
            At::Stopping { .. } | At::Ended => return Heard::History,
            At::Ready => self.stop_what_ran(&mut running, &mut interrupted),
            At::Diagnosing(_) | At::Remediating { .. } | At::Undoing { .. } | At::Verifying { .. } => {}
        }
        for place in self.places() {
            let Some(Item { path, .. }) = self.item(place) else { continue };
            let stopped = "it was told to stop";
            match self.stage(place).map(|stage| std::mem::replace(stage, Stage::Over)) {
                Some(Stage::Running { attempt }) => {
                    running.insert((path, attempt));
                }
                Some(Stage::Checking { attempt, reason, .. }) => {
                    interrupted = Some(path.clone());
                    self.stopped_early(path, attempt, StepResult::Unknown, &reason, None);
                }
                Some(Stage::Reading { attempt, exit, .. }) => {
                    let message = "the run was told to stop before its outputs were read";
                    self.stopped_early(path, attempt, StepResult::Succeeded, message, exit);
                }
                Some(
                    Stage::Pausing { attempt, .. }
                    | Stage::Looking { watch: Watch { attempt, .. }, .. }
                    | Stage::Resting { watch: Watch { attempt, .. }, .. },
                ) => self.stopped_early(path, attempt, StepResult::Killed, stopped, None),
                Some(
                    Stage::Waiting
                    | Stage::Deciding { .. }
                    | Stage::Paused { .. }
                    | Stage::Delayed { .. }
                    | Stage::Over,
                )
                | None => {}
            }
        }
        self.state.outcome.how = How::Stopped { reason };
        for (path, attempt) in &running {
            self.effects.push(Effect::Kill { path: path.clone(), attempt: *attempt });
        }
        self.state.at = At::Stopping { running, interrupted };
        self.stop_if_still();
        Heard::Yes
    }

    /// A segment of a cancelled run is begun again after a restart: nothing of it starts, and what was started and has no end
    /// yet is stopped.
    fn stop_what_ran(&mut self, running: &mut BTreeSet<(String, u32)>, interrupted: &mut Option<String>) {
        let program = self.program;
        self.state.ran_again = program.ran_again();
        let from = match program.work {
            Work::Remediate { from } => from,
            Work::Diagnose | Work::Verify => 0,
        };
        let earlier = program.planned(Phase::Remediate).get(..from).unwrap_or_default();
        for (path, attempts) in &program.past {
            for (attempt, exit) in attempts {
                let Some(exit) = exit else {
                    self.state.outcome.effects = true;
                    running.insert((path.clone(), *attempt));
                    continue;
                };
                if earlier.iter().any(|step| step.path == *path) {
                    continue; // Of an earlier segment, which has told of it.
                }
                self.state.outcome.effects = true;
                if exit.by == ExitBy::Kill {
                    *interrupted = Some(path.clone());
                }
                let (result, message) = stage::in_words(exit);
                self.stopped_early(path.clone(), *attempt, result, &message, Some(Box::new(exit.clone())));
            }
        }
    }

    fn stopped_early(
        &mut self,
        path: String,
        attempt: u32,
        result: StepResult,
        message: &str,
        exit: Option<Box<Exit>>,
    ) {
        let (message, outputs) = (message.to_owned(), BTreeMap::new());
        self.effects.push(Effect::Report(Note::Ended { path, attempt, result, message, exit, outputs }));
    }

    /// An attempt that was being killed is over; without an exit, its outcome is unknown.
    fn stopped(&mut self, path: String, attempt: u32, exit: Option<Exit>) -> Heard {
        let acts = path.starts_with("remediate/");
        let At::Stopping { running, interrupted } = &mut self.state.at else { return Heard::Never };
        if !running.remove(&(path.clone(), attempt)) {
            return Heard::Never;
        }
        let (result, message) = match &exit {
            None => (StepResult::Unknown, "it was stopped, and nobody saw its end".to_owned()),
            Some(exit) => stage::in_words(exit),
        };
        match result {
            StepResult::Succeeded | StepResult::NotStarted => {}
            StepResult::Failed | StepResult::TimedOut | StepResult::Killed | StepResult::Unknown => {
                if acts {
                    *interrupted = Some(path.clone());
                }
            }
        }
        let exit = exit.map(Box::new);
        let outputs = BTreeMap::new();
        self.effects.push(Effect::Report(Note::Ended { path, attempt, result, message, exit, outputs }));
        self.stop_if_still();
        Heard::Yes
    }

    fn stop_if_still(&mut self) {
        let At::Stopping { running, interrupted } = &self.state.at else { return };
        if running.is_empty() {
            let unknown = self.still_unknown().map(|(path, _)| path.clone());
            let interrupted = interrupted.clone().or(unknown);
            self.state.at = At::Ended;
            self.effects.push(Effect::Ended { outcome: self.state.outcome.clone(), interrupted });
        }
    }
}

/// What it means for an attempt whose outcome is unknown that the one to follow it was not born.
fn not_run_again(attempt: u32, verdict: Verdict) -> Verdict {
    let why = match verdict {
        Verdict::Skipped => "its condition did not hold".to_owned(),
        Verdict::Gate => "nobody has approved it any more".to_owned(),
        Verdict::Failed { reason, .. } | Verdict::Barred { reason } => reason,
        verdict @ (Verdict::Succeeded(_) | Verdict::Unknown { .. }) => return verdict,
    };
    Verdict::Unknown { attempt, reason: format!("it was not run again: {why}") }
}

impl Event {
    /// One line for people.
    pub fn describe(&self) -> String {
        match self {
            Event::Begin => "the beginning".to_owned(),
            Event::Facts { ask, .. } => format!("the answer to question {ask}"),
            Event::Exited { path, attempt, .. } => format!("the end of {path} attempt {attempt}"),
            Event::Unknown { path, attempt, .. } => format!("the unknown end of {path} attempt {attempt}"),
            Event::Barred { path, attempt, .. } => format!("the refusal to start {path} attempt {attempt}"),
            Event::TimerFired { timer } => format!("the end of timer {timer}"),
            Event::CancelAsked { .. } => "a wish to cancel".to_owned(),
            Event::PauseAsked => "a wish to pause".to_owned(),
            Event::ResumeAsked => "a wish to go on".to_owned(),
        }
    }
}
