//! One step, from its condition to its end.

use std::collections::BTreeMap;
use std::time::Duration;

use super::item::{self, Item, Job};
use super::{Effect, Exit, ExitBy, Kind, Note, Program, Stage, StepResult, Watch};
use crate::expr::{Expr, FactCall, Facts, Scope};
use crate::plan::evidence;
use crate::value::Value;

/// A step whose attempts keep being lost is put before a person after so many: something is wrong with the host.
const MOST_ATTEMPTS: u32 = 16;

/// What one step has, for one event, of the machine around it.
pub(super) struct Cx<'a> {
    pub(super) program: &'a Program,
    pub(super) item: Item<'a>,
    pub(super) outputs: &'a BTreeMap<String, BTreeMap<String, Value>>,
    /// No step that acts begins.
    pub(super) paused: bool,
    pub(super) number: &'a mut u32,
    pub(super) now: Duration,
    pub(super) effects: &'a mut Vec<Effect>,
    /// Set when a step that acts was started, now or before.
    pub(super) acted: &'a mut bool,
}

/// Where an event left a step.
pub(super) enum Moved {
    To(Stage),
    Over(Verdict),
}

/// How a step ended.
pub(super) enum Verdict {
    Succeeded(BTreeMap<String, Value>),
    Failed {
        reason: String,
        outputs: BTreeMap<String, Value>,
    },
    Skipped,
    /// It needs people and there is no permit.
    Gate,
    Unknown {
        attempt: u32,
        reason: String,
    },
    /// The host forbids it.
    Barred {
        reason: String,
    },
}

/// What reached a step.
pub(super) enum Input<'e> {
    Begin,
    Facts(u32, &'e Facts),
    Exited(u32, Exit),
    Unknown {
        attempt: u32,
        reason: String,
        dead: bool,
    },
    Barred {
        attempt: u32,
        reason: String,
    },
    Timer(u32),
    /// It is not paused any more.
    Resumed,
}

/// Takes an input in a stage. `Err`: it is not for this step; the stage is given back.
pub(super) fn take(mut cx: Cx<'_>, stage: Stage, input: Input<'_>) -> Result<Moved, Stage> {
    match (stage, input) {
        (Stage::Waiting, Input::Begin) => Ok(cx.begin()),
        (Stage::Deciding { ask }, Input::Facts(of, facts)) if of == ask => Ok(cx.decided(facts)),
        (Stage::Running { attempt }, Input::Exited(of, exit)) if of == attempt => {
            Ok(cx.exited(attempt, exit))
        }
        (Stage::Running { attempt }, Input::Unknown { attempt: of, reason, dead }) if of == attempt => {
            Ok(cx.unknown(attempt, reason, dead))
        }
        (Stage::Running { attempt }, Input::Barred { attempt: of, reason }) if of == attempt => {
            Ok(cx.barred(attempt, reason))
        }
        (Stage::Pausing { attempt, timer }, Input::Timer(of)) if of == timer => {
            cx.ended(attempt, StepResult::Succeeded, "", None, &BTreeMap::new());
            Ok(Moved::Over(Verdict::Succeeded(BTreeMap::new())))
        }
        (Stage::Looking { watch, ask }, Input::Facts(of, facts)) if of == ask => Ok(cx.looked(watch, facts)),
        (Stage::Resting { watch, timer }, Input::Timer(of)) if of == timer => Ok(cx.look(watch)),
        (Stage::Reading { attempt, exit, ask }, Input::Facts(of, facts)) if of == ask => {
            Ok(cx.read(attempt, exit, facts))
        }
        (Stage::Paused { attempt, .. }, Input::Resumed) => Ok(cx.resumed(attempt)),
        (Stage::Paused { attempt, timer }, Input::Timer(of)) if of == timer => {
            Ok(cx.barred(attempt, "the time to start it passed while the run was paused".to_owned()))
        }
        (Stage::Delayed { attempt, timer }, Input::Timer(of)) if of == timer => Ok(cx.start(attempt)),
        (Stage::Checking { attempt, ask, dead, reason }, Input::Facts(of, facts)) if of == ask => {
            Ok(cx.checked(attempt, dead, reason, facts))
        }
        (
            stage @ (Stage::Waiting
            | Stage::Deciding { .. }
            | Stage::Paused { .. }
            | Stage::Running { .. }
            | Stage::Pausing { .. }
            | Stage::Looking { .. }
            | Stage::Resting { .. }
            | Stage::Reading { .. }
            | Stage::Delayed { .. }
            | Stage::Checking { .. }
            | Stage::Over),
            _,
        ) => Err(stage),
    }
}

impl<'a> Cx<'a> {
    /// The number of its first attempt in this segment.
    fn first(&self) -> u32 {
        self.program.first_attempt(&self.item.path)
    }

    /// Nothing of it begins now.
    fn is_held(&self) -> bool {
        self.paused && self.item.kind == Kind::Act
    }

    fn hold(&mut self, attempt: u32) -> Moved {
        *self.number += 1;
        let (path, timer) = (self.item.path.clone(), *self.number);
        self.effects.push(Effect::Hold { path, attempt, timer });
        Moved::To(Stage::Paused { attempt, timer })
    }

    /// A first attempt has its condition read anew: a pause may be long.
    fn resumed(&mut self, attempt: u32) -> Moved {
        if attempt == self.first() { self.begin() } else { self.start(attempt) }
    }

    fn begin(&mut self) -> Moved {
        let first = self.first();
        if self.was_intended(first) {
            return self.start(first); // Its condition held, and it had its permit, when it was intended.
        }
        if self.is_held() {
            return self.hold(first);
        }
        let Some(condition) = self.item.condition() else { return self.start(first) };
        match calls(condition, &self.scope()) {
            Err(reason) => self.failed_before(condition, &reason),
            Ok(calls) if calls.is_empty() => self.decided(&Facts::new()),
            Ok(calls) => Moved::To(Stage::Deciding { ask: self.ask(calls) }),
        }
    }

    fn decided(&mut self, facts: &Facts) -> Moved {
        let first = self.first();
        let Some(condition) = self.item.condition() else { return self.start(first) };
        match holds(condition, &self.scope(), facts) {
            Ok(true) => self.start(first),
            Ok(false) => {
                let values = readings(condition, &self.scope(), facts);
                let reason = format!("its condition was false: {}{values}", condition.source());
                self.effects.push(Effect::Report(Note::Skipped { path: self.item.path.clone(), reason }));
                Moved::Over(Verdict::Skipped)
            }
            Err(reason) => self.failed_before(condition, &reason),
        }
    }

    /// It needs people, and there is no permit. A permit covers a step, its retries and its undo; when it is gone, none of
    /// them starts.
    fn is_closed(&self) -> bool {
        self.item.kind == Kind::Act && self.program.closed.contains(self.item.step_path())
    }

    fn start(&mut self, attempt: u32) -> Moved {
        if let Some(exit) = self.past(attempt) {
            *self.acted = true;
            return match exit {
                Some(exit) => self.exited(attempt, exit),
                None if self.was_intended(attempt + 1) => self.start(attempt + 1),
                None => Moved::To(Stage::Running { attempt }),
            };
        }
        if self.is_held() {
            return self.hold(attempt);
        }
        let path = self.item.path.clone();
        match self.item.job(&self.scope()) {
            // Fails without starting anything: nobody needs to be asked.
            Job::Impossible(reason) => {
                self.ended(attempt, StepResult::NotStarted, &reason, None, &BTreeMap::new());
                Moved::Over(Verdict::Failed { reason, outputs: BTreeMap::new() })
            }
            Job::Start(_) | Job::Pause(_) | Job::Look { .. } if self.is_closed() => {
                Moved::Over(Verdict::Gate)
            }
            Job::Start(spec) => {
                let kind = self.item.kind;
                *self.acted |= kind == Kind::Act;
                self.effects.push(Effect::Start { path: path.clone(), attempt, spec, kind });
                self.effects.push(Effect::Report(Note::Started { path, attempt }));
                Moved::To(Stage::Running { attempt })
            }
            Job::Pause(time) => {
                self.effects.push(Effect::Report(Note::Started { path, attempt }));
                Moved::To(Stage::Pausing { attempt, timer: self.timer(time) })
            }
            Job::Look { .. } => {
                self.effects.push(Effect::Report(Note::Started { path, attempt }));
                self.look(Watch { attempt, since: self.now, held: None })
            }
        }
    }

    // --- `that` ---

    fn look(&mut self, watch: Watch) -> Moved {
        let scope = self.scope();
        let Job::Look { condition, .. } = self.item.job(&scope) else {
            return self.gave_up(watch, "it is not a condition any more");
        };
        match calls(condition, &scope) {
            Ok(calls) => Moved::To(Stage::Looking { watch, ask: self.ask(calls) }),
            Err(reason) => self.gave_up(watch, &format!("`{}` cannot be read: {reason}", condition.source())),
        }
    }

    fn looked(&mut self, watch: Watch, facts: &Facts) -> Moved {
        let scope = self.scope();
        let Job::Look { condition, within, stable_for, every } = self.item.job(&scope) else {
            return self.gave_up(watch, "it is not a condition any more");
        };
        let every = every.max(Duration::from_millis(10));
        let why = match holds(condition, &scope, facts) {
            Ok(true) => {
                let since = watch.held.unwrap_or(self.now);
                let held_for = self.now.saturating_sub(since);
                if held_for >= stable_for {
                    return self.read_outputs(watch.attempt, None, facts);
                }
                let rest = every.min(stable_for.saturating_sub(held_for));
                let watch = Watch { held: Some(since), ..watch };
                return Moved::To(Stage::Resting { watch, timer: self.timer(rest) });
            }
            Ok(false) => {
                format!("`{}` is false{}", condition.source(), readings(condition, &scope, facts))
            }
            Err(reason) => format!("`{}` cannot be read: {reason}", condition.source()),
        };
        let left = within.saturating_sub(self.now.saturating_sub(watch.since));
        if left.is_zero() {
            let after = if within.is_zero() {
                String::new()
            } else {
                format!("after {}: ", crate::duration::format(within))
            };
            return self.gave_up(watch, &format!("{after}{why}"));
        }
        let watch = Watch { held: None, ..watch };
        Moved::To(Stage::Resting { watch, timer: self.timer(every.min(left)) })
    }

    fn gave_up(&mut self, watch: Watch, reason: &str) -> Moved {
        self.ended(watch.attempt, StepResult::Failed, reason, None, &BTreeMap::new());
        Moved::Over(Verdict::Failed { reason: reason.to_owned(), outputs: BTreeMap::new() })
    }

    // --- processes ---

    fn exited(&mut self, attempt: u32, exit: Exit) -> Moved {
        let Err((result, reason)) = judged(&exit) else {
            return self.read_outputs(attempt, Some(Box::new(exit)), &Facts::new());
        };
        // What a failed process wrote may still be evidence.
        let scope = self.ended_scope(Some(&exit));
        let outputs: BTreeMap<String, Value> = match exit.by {
            ExitBy::Itself => self
                .item
                .outputs()
                .filter_map(|(name, expr)| Some((name.clone(), expr.eval(&scope, &Facts::new()).ok()?)))
                .collect(),
            ExitBy::Timeout | ExitBy::Kill | ExitBy::NotStarted(_) => BTreeMap::new(),
        };
        self.failed(attempt, result, reason, Some(exit), outputs)
    }

    /// What its outputs need beyond what was `read` is read; then they are evaluated.
    fn read_outputs(&mut self, attempt: u32, exit: Option<Box<Exit>>, read: &Facts) -> Moved {
        let scope = self.ended_scope(exit.as_deref());
        let mut wanted = Vec::new();
        for (name, expr) in self.item.outputs() {
            match calls(expr, &scope) {
                Ok(calls) => wanted.extend(calls),
                Err(reason) => return self.bad_output(attempt, exit, name, &reason),
            }
        }
        if wanted.iter().all(|call| read.contains_key(&call.to_string())) {
            return self.read(attempt, exit, read);
        }
        wanted.sort();
        wanted.dedup();
        Moved::To(Stage::Reading { attempt, exit, ask: self.ask(wanted) })
    }

    fn read(&mut self, attempt: u32, exit: Option<Box<Exit>>, facts: &Facts) -> Moved {
        let scope = self.ended_scope(exit.as_deref());
        let mut outputs = BTreeMap::new();
        for (name, expr) in self.item.outputs() {
            match expr.eval(&scope, facts) {
                Ok(value) => {
                    outputs.insert(name.clone(), value);
                }
                Err(error) => return self.bad_output(attempt, exit, name, &error.to_string()),
            }
        }
        self.ended(attempt, StepResult::Succeeded, "", exit.map(|exit| *exit), &outputs);
        Moved::Over(Verdict::Succeeded(outputs))
    }

    fn bad_output(&mut self, attempt: u32, exit: Option<Box<Exit>>, name: &str, reason: &str) -> Moved {
        let long = match &exit {
            Some(exit) if exit.stdout.dropped > 0 || exit.stderr.dropped > 0 => {
                "; the process wrote more than is kept"
            }
            Some(_) | None => "",
        };
        let reason = format!("its output `{name}` has no value: {reason}{long}");
        self.failed(attempt, StepResult::Failed, reason, exit.map(|exit| *exit), BTreeMap::new())
    }

    fn failed(
        &mut self,
        attempt: u32,
        result: StepResult,
        reason: String,
        exit: Option<Exit>,
        outputs: BTreeMap<String, Value>,
    ) -> Moved {
        self.ended(attempt, result, &reason, exit, &outputs);
        let retry = self.item.retry();
        let tried = attempt.saturating_sub(self.first());
        let again = match result {
            StepResult::Failed | StepResult::TimedOut | StepResult::NotStarted => tried < retry.times,
            StepResult::Succeeded | StepResult::Killed | StepResult::Unknown => false,
        };
        if !again {
            return Moved::Over(Verdict::Failed { reason, outputs });
        }
        if self.was_intended(attempt + 1) {
            return self.start(attempt + 1);
        }
        let doubled = 2u32.saturating_pow(tried);
        let delay = retry.first.saturating_mul(doubled).min(retry.longest.max(retry.first));
        Moved::To(Stage::Delayed { attempt: attempt + 1, timer: self.timer(delay) })
    }

    fn barred(&mut self, attempt: u32, reason: String) -> Moved {
        self.ended(attempt, StepResult::NotStarted, &reason, None, &BTreeMap::new());
        Moved::Over(Verdict::Barred { reason })
    }

    // --- unknown ---

    fn unknown(&mut self, attempt: u32, reason: String, dead: bool) -> Moved {
        if attempt >= MOST_ATTEMPTS {
            return self.resolve(attempt, format!("{reason}; after {attempt} attempts a person must look"));
        }
        if self.item.may_repeat() && dead {
            self.ended(
                attempt,
                StepResult::Unknown,
                &format!("{reason}; it may repeat"),
                None,
                &BTreeMap::new(),
            );
            return self.start(attempt + 1);
        }
        let Some(check) = self.item.check() else { return self.resolve(attempt, reason) };
        match calls(check, &self.scope()) {
            Ok(calls) => Moved::To(Stage::Checking { attempt, ask: self.ask(calls), dead, reason }),
            Err(why) => self.resolve(attempt, format!("{reason}; its check cannot be read: {why}")),
        }
    }

    fn checked(&mut self, attempt: u32, dead: bool, reason: String, facts: &Facts) -> Moved {
        let Some(check) = self.item.check() else { return self.resolve(attempt, reason) };
        match holds(check, &self.scope(), facts) {
            Ok(true) => {
                let message = format!("{reason}; its check says that the effect is there");
                self.ended(attempt, StepResult::Succeeded, &message, None, &BTreeMap::new());
                Moved::Over(Verdict::Succeeded(BTreeMap::new()))
            }
            Ok(false) if dead => {
                let message = format!("{reason}; its check says that the effect is absent");
                self.ended(attempt, StepResult::Unknown, &message, None, &BTreeMap::new());
                self.start(attempt + 1)
            }
            Ok(false) => {
                self.resolve(attempt, format!("{reason}; its effect is absent, but it may still be running"))
            }
            Err(why) => self.resolve(attempt, format!("{reason}; its check cannot be read: {why}")),
        }
    }

    fn resolve(&mut self, attempt: u32, reason: String) -> Moved {
        self.ended(attempt, StepResult::Unknown, &reason, None, &BTreeMap::new());
        Moved::Over(Verdict::Unknown { attempt, reason })
    }

    // --- what the above is made of ---

    fn failed_before(&mut self, condition: &Expr, reason: &str) -> Moved {
        let reason = format!("its condition `{}` cannot be read: {reason}", condition.source());
        self.ended(self.first(), StepResult::NotStarted, &reason, None, &BTreeMap::new());
        Moved::Over(Verdict::Failed { reason, outputs: BTreeMap::new() })
    }

    fn ended(
        &mut self,
        attempt: u32,
        result: StepResult,
        message: &str,
        exit: Option<Exit>,
        outputs: &BTreeMap<String, Value>,
    ) {
        self.effects.push(Effect::Report(Note::Ended {
            path: self.item.path.clone(),
            attempt,
            result,
            message: message.to_owned(),
            exit: exit.map(Box::new),
            outputs: outputs.iter().map(|(name, value)| (name.clone(), evidence::json(value))).collect(),
        }));
    }

    fn past(&self, attempt: u32) -> Option<Option<Exit>> {
        self.program.past.get(&self.item.path)?.get(&attempt).cloned()
    }

    fn was_intended(&self, attempt: u32) -> bool {
        self.program.past.get(&self.item.path).is_some_and(|attempts| attempts.contains_key(&attempt))
    }

    fn ask(&mut self, calls: Vec<FactCall>) -> u32 {
        *self.number += 1;
        self.effects.push(Effect::ReadFacts { ask: *self.number, calls });
        *self.number
    }

    fn timer(&mut self, after: Duration) -> u32 {
        *self.number += 1;
        self.effects.push(Effect::SetTimer { timer: *self.number, after });
        *self.number
    }

    fn scope(&self) -> Scope {
        item::scope(&self.program.base, self.outputs)
    }

    /// What its outputs see: what its process left, if it had one.
    fn ended_scope(&self, exit: Option<&Exit>) -> Scope {
        match exit {
            Some(exit) => exit_scope(self.scope(), exit),
            None => self.scope(),
        }
    }
}

/// The scope of `outputs`. An output that was not kept whole is not in it: half of it would be a wrong value.
pub(super) fn exit_scope(mut scope: Scope, exit: &Exit) -> Scope {
    for (name, kept) in [("stdout", &exit.stdout), ("stderr", &exit.stderr)] {
        if let Some(whole) = kept.whole() {
            let text = String::from_utf8_lossy(&whole).into_owned();
            scope.0.insert(name.to_owned(), Value::String(text));
        }
    }
    scope.0.insert("exit_code".to_owned(), exit.code.map_or(Value::Null, |code| Value::Int(code.into())));
    scope
}

/// How a process ended, in a word and for people.
pub(super) fn in_words(exit: &Exit) -> (StepResult, String) {
    match judged(exit) {
        Ok(()) => (StepResult::Succeeded, String::new()),
        Err(judged) => judged,
    }
}

/// Whether a process ended well; if not, the word and the reason.
pub(super) fn judged(exit: &Exit) -> Result<(), (StepResult, String)> {
    match (&exit.by, exit.code, exit.signal) {
        (ExitBy::Itself, Some(0), _) => Ok(()),
        (ExitBy::Itself, Some(code), _) => {
            Err((StepResult::Failed, format!("it exited with {code}{}{}", last_words(exit), hint(exit))))
        }
        (ExitBy::Itself, None, Some(signal)) => {
            Err((StepResult::Failed, format!("signal {signal} ended it{}{}", last_words(exit), hint(exit))))
        }
        (ExitBy::Itself, None, None) => Err((StepResult::Failed, "it ended without an exit code".to_owned())),
        (ExitBy::Timeout, _, _) => Err((
            StepResult::TimedOut,
            format!(
                "it was ended after {}, which is longer than it may take",
                crate::duration::format(exit.took)
            ),
        )),
        (ExitBy::Kill, _, _) => Err((StepResult::Killed, "it was told to stop".to_owned())),
        (ExitBy::NotStarted(why), _, _) => Err((StepResult::NotStarted, why.clone())),
    }
}

/// What the host knows of why.
fn hint(exit: &Exit) -> String {
    if exit.hint.is_empty() { String::new() } else { format!("; {}", exit.hint) }
}

/// The last line a failed process wrote, for people.
fn last_words(exit: &Exit) -> String {
    let kept = if exit.stderr.tail.is_empty() { &exit.stderr.head } else { &exit.stderr.tail };
    let text = String::from_utf8_lossy(kept);
    match text.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => {
            let line: String = line.trim().chars().filter(|c| !c.is_control()).take(200).collect();
            format!(": {line}")
        }
        None => String::new(),
    }
}

fn calls(expr: &Expr, scope: &Scope) -> Result<Vec<FactCall>, String> {
    expr.fact_calls(scope).map_err(|error| error.to_string())
}

fn holds(expr: &Expr, scope: &Scope, facts: &Facts) -> Result<bool, String> {
    match expr.eval(scope, facts) {
        Ok(Value::Bool(holds)) => Ok(holds),
        Ok(
            Value::Null
            | Value::Int(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Duration(_)
            | Value::List(_)
            | Value::Map(_),
        ) => Err("it is neither true nor false".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The values behind an answer, for people.
fn readings(condition: &Expr, scope: &Scope, facts: &Facts) -> String {
    let each = condition.readings(scope, facts);
    if each.is_empty() {
        return String::new();
    }
    let each: Vec<String> = each.iter().map(|(words, value)| format!("{words} = {value}")).collect();
    format!(" ({})", each.join("; ").chars().take(500).collect::<String>())
}
