//! What must hold, whatever fails.
//!
//! The checker is told everything that becomes durable at the controller, everything that really happens on hosts, and
//! everything people were told is done, each once and in order. It folds the history by itself and says at once what is
//! broken. It never asks the product what it thinks.
//!
//! | Name | Holds |
//! | --- | --- |
//! | once | an attempt is started at most once, whoever dies |
//! | again | a step that must not repeat is started again only after somebody said that it did not run |
//! | gate | nothing of a gate starts before it is approved |
//! | plan | what runs is what the plan says, word for word |
//! | truth | an outcome is what really happened; `verified` needs the symptom to have been away |
//! | unknown | a run does not end while a step's outcome is unknown |
//! | ended | what has ended never changes |
//! | kept | what was acknowledged is in the history |
//! | epoch | an epoch is given once |
//! | cause | what has not ended has something that will move it |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fettle_controller::model::row::GateState;
use fettle_controller::model::{Change, Model};
use fettle_controller::store::Record;
use fettle_proto::signed::{Decision, plan};
use fettle_runbooks::id::{Digest, Host, RunId};
use fettle_runbooks::plan::{Plan, PlannedStep, PlannedUndo, PlannedWork};
use fettle_runbooks::run::{Ending, State, Wait};
use fettle_runbooks::runbook::{Repeat, Risk};

use crate::host::{Entry, What};
use crate::people::Ack;

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// Which.
    pub(crate) rule: &'static str,
    /// How.
    pub(crate) how: String,
}

fn broken(rule: &'static str, how: impl Into<String>) -> Result<(), Broken> {
    Err(Broken { rule, how: how.into() })
}

type Attempt = (Host, RunId, String, u32);

/// What is known of an attempt's truth.
#[derive(Clone, Debug, Default)]
struct Truth {
    begun: u32,
    done: Option<i32>,
    killed: bool,
    died: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Checker {
    history: Vec<Record>,
    model: Model,
    /// What happened, by attempt.
    truth: BTreeMap<Attempt, Truth>,
    /// When each host last did something for a run, and when its symptom was last away.
    acted: BTreeMap<(RunId, Host), Duration>,
    away: BTreeMap<Host, Duration>,
    /// Plans ever reported, by digest; gates ever approved, as the plans they approve.
    plans: BTreeMap<Digest, Plan>,
    approved: BTreeSet<Digest>,
    of_run: BTreeMap<(RunId, Host), Digest>,
    /// Somebody said of this step that it did not run.
    absolved: BTreeSet<(Host, RunId, String)>,
    epochs: BTreeMap<Host, u64>,
    acks: Vec<(u64, Ack)>,
    /// Hosts whose whole disk was put back or copied: they cannot know what they did.
    amnesiac: BTreeSet<Host>,
    /// A backup was put back: what came after it is known to hosts alone.
    restored: bool,
}

/// The step of a plan that a path names, and whether it is its undo.
fn step<'p>(plan: &'p Plan, path: &str) -> Option<(&'p PlannedStep, bool)> {
    let undo = path.strip_suffix("/undo");
    let named = undo.unwrap_or(path);
    plan.steps.iter().find(|step| step.path == named).map(|step| (step, undo.is_some()))
}

fn words(work: &PlannedWork) -> Option<Vec<String>> {
    match work {
        PlannedWork::Argv(argv) => Some(argv.clone()),
        PlannedWork::Script { source, .. } => Some(vec!["script".to_owned(), source.clone()]),
        PlannedWork::That { .. }
        | PlannedWork::Wait(_)
        | PlannedWork::Service { .. }
        | PlannedWork::PutBack { .. }
        | PlannedWork::Impossible(_) => None,
    }
}

impl Checker {
    /// This host's disk was put back to what it was, or there are two of it.
    pub(crate) fn forgets(&mut self, host: Host) {
        self.amnesiac.insert(host);
    }

    /// Whether a host cannot know what it did.
    pub(crate) fn forgot(&self, host: &Host) -> bool {
        self.amnesiac.contains(host)
    }

    /// The highest epoch ever given to a host.
    pub(crate) fn epoch(&self, host: &Host) -> u64 {
        self.epochs.get(host).copied().unwrap_or_default()
    }

    /// The symptom of a host is away now.
    pub(crate) fn away(&mut self, host: &Host, at: Duration) {
        self.away.insert(host.clone(), at);
    }

    /// The controller has been put back to what its store was after this record.
    pub(crate) fn restored(&mut self, last: u64) {
        self.history.truncate(usize::try_from(last).unwrap_or(usize::MAX));
        self.model = Model::default();
        for record in &self.history {
            self.model.apply(record.number, record.at, &record.change);
        }
        self.acks.retain(|(number, _)| *number <= last);
        self.restored = true;
    }

    /// The model that the history makes.
    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// Something became durable.
    pub(crate) fn record(&mut self, record: &Record) -> Result<(), Broken> {
        let next = self.model.last_event + 1;
        if record.number != next {
            return broken("kept", format!("record {} follows on {}", record.number, next - 1));
        }
        self.before(&record.change)?;
        self.model.apply(record.number, record.at, &record.change);
        self.history.push(record.clone());
        self.after(&record.change)
    }

    fn before(&mut self, change: &Change) -> Result<(), Broken> {
        if let Change::Moved { run, host, machine, .. } = change {
            let was = self.model.host_runs.get(&(*run, host.clone())).map(|row| &row.machine.state);
            if let Some(State::Ended(how)) = was
                && machine.state != State::Ended(how.clone())
            {
                return broken(
                    "ended",
                    format!("{run} on {host} was {} and is {:?}", how.ending.word(), machine.state),
                );
            }
        }
        if let Change::AgentConnected(row) = change {
            let highest = self.epochs.entry(row.host.clone()).or_default();
            let excused = self.amnesiac.contains(&row.host) || self.restored;
            if row.epoch <= *highest && !excused {
                return broken("epoch", format!("{} gets epoch {} after {highest}", row.host, row.epoch));
            }
            *highest = row.epoch.max(*highest);
        }
        Ok(())
    }

    fn after(&mut self, change: &Change) -> Result<(), Broken> {
        if let Change::Planned { run, host, plan: row } = change {
            let plan = plan::decode(&row.bytes.bytes()).map_err(|error| Broken {
                rule: "plan",
                how: format!("the plan of {run} on {host} cannot be read: {error}"),
            })?;
            self.plans.insert(row.digest, plan);
            self.of_run.insert((*run, host.clone()), row.digest);
        }
        if let Change::GateClosed { gate, state: GateState::Approved, .. } = change
            && let Some(gate) = self.model.gates.get(gate)
        {
            if !gate.decisions.iter().any(|decision| decision.approves) {
                return broken("gate", format!("{} is approved, and nobody approved it", gate.id));
            }
            self.approved.extend(gate.leaves.iter().map(|leaf| leaf.plan));
        }
        if let Change::Resolved { run, host, path, ran: false, .. } = change {
            self.absolved.insert((host.clone(), *run, path.clone()));
        }
        if let Change::StepEnded(end) = change
            && end.path.starts_with("remediate/")
        {
            let key = (end.host.clone(), end.run, end.path.clone(), end.attempt);
            self.outcome(&key, &end.outcome)?;
        }
        if let Change::Moved { run, host, machine, .. } = change
            && let State::Ended(how) = &machine.state
        {
            self.ending(*run, host, how.ending)?;
        }
        Ok(())
    }

    fn outcome(&self, key: &Attempt, outcome: &str) -> Result<(), Broken> {
        let (host, run, path, attempt) = key;
        if self.amnesiac.contains(host) {
            return Ok(());
        }
        let nothing = Truth::default();
        let truth = self.truth.get(key).unwrap_or(&nothing);
        let right = match outcome {
            "succeeded" => truth.done == Some(0) || self.probed(*run, host, path),
            "failed" => truth.done.is_some_and(|code| code != 0) || truth.begun == 0,
            "timed-out" | "killed" => truth.killed,
            "not-started" => truth.begun == 0,
            _ => true,
        };
        match right {
            true => Ok(()),
            false => broken(
                "truth",
                format!(
                    "attempt {attempt} of {path} of {run} on {host} is told to be {outcome}, and really {truth:?}"
                ),
            ),
        }
    }

    /// Whether a probe may have decided that this step took effect.
    fn probed(&self, run: RunId, host: &Host, path: &str) -> bool {
        let plan = self.of_run.get(&(run, host.clone())).and_then(|digest| self.plans.get(digest));
        plan.and_then(|plan| step(plan, path)).is_some_and(|(step, _)| step.check.is_some())
    }

    fn ending(&self, run: RunId, host: &Host, ending: Ending) -> Result<(), Broken> {
        if ending == Ending::Verified && !self.amnesiac.contains(host) {
            let acted = self.acted.get(&(run, host.clone())).copied().unwrap_or_default();
            let away = self.away.get(host).copied();
            if away.is_none_or(|away| away < acted) {
                return broken(
                    "truth",
                    format!("{run} on {host} is verified, and its symptom was never away since {acted:?}"),
                );
            }
        }
        let mut last: BTreeMap<&str, (u32, &str)> = BTreeMap::new();
        for ((_, _, path, attempt), row) in self.model.steps.range((run, host.clone(), String::new(), 0)..) {
            if row.run != run || row.host != *host {
                break;
            }
            last.insert(path, (*attempt, &row.state));
        }
        let resolved = |path: &str| {
            self.history.iter().any(|record| {
                matches!(&record.change, Change::Resolved { run: of, host: on, path: what, .. }
                    if *of == run && on == host && what == path)
            })
        };
        for (path, (attempt, state)) in last {
            if state == "unknown" && path.starts_with("remediate/") && !resolved(path) {
                let how = format!(
                    "{run} on {host} ended {}, and the outcome of attempt {attempt} of {path} is unknown",
                    ending.word()
                );
                return broken("unknown", how);
            }
        }
        Ok(())
    }

    /// Something really happened.
    pub(crate) fn entry(&mut self, entry: &Entry) -> Result<(), Broken> {
        let key = (entry.host.clone(), entry.run, entry.path.clone(), entry.attempt);
        let truth = self.truth.entry(key).or_default();
        match &entry.what {
            What::Started | What::Barred { .. } => {}
            What::Begun => truth.begun += 1,
            What::Done { code } => truth.done = Some(*code),
            What::Killed => truth.killed = true,
            What::Died => truth.died = true,
        }
        let begun = truth.begun;
        if !entry.acts || !matches!(entry.what, What::Begun) || self.amnesiac.contains(&entry.host) {
            return Ok(());
        }
        self.acted.insert((entry.run, entry.host.clone()), entry.at);
        let Entry { host, run, path, attempt, .. } = entry;
        if begun > 1 {
            return broken(
                "once",
                format!("attempt {attempt} of {path} of {run} on {host} was started {begun} times"),
            );
        }
        // The plan is reported before a segment carries it back: the history has it, unless it was put back since.
        let Some(digest) = self.of_run.get(&(*run, host.clone())).copied() else {
            return broken(
                "plan",
                format!("{path} of {run} on {host} was started, and nobody knows its plan"),
            );
        };
        let Some((step, undo)) = self.plans.get(&digest).and_then(|plan| step(plan, path)) else {
            return broken("plan", format!("{path} of {run} on {host} was started, and is not in its plan"));
        };
        let planned = match (&step.undo, undo) {
            (_, false) => words(&step.work),
            (PlannedUndo::Work(work), true) => words(work),
            (PlannedUndo::None | PlannedUndo::Previous, true) => None,
        };
        if planned.as_ref() != Some(&entry.words) {
            return broken(
                "plan",
                format!("{path} of {run} on {host} ran {:?}, and the plan says {planned:?}", entry.words),
            );
        }
        if step.risk >= Risk::Medium && !self.approved.contains(&digest) {
            return broken(
                "gate",
                format!("{path} of {run} on {host} was started, and nobody has approved {digest}"),
            );
        }
        let repeats = step.repeat == Repeat::Safe || step.check.is_some() || step.retry.times > 0;
        let before = (1..*attempt).any(|before| {
            self.truth.get(&(host.clone(), *run, path.clone(), before)).is_some_and(|truth| truth.begun > 0)
        });
        if before && !repeats && !self.absolved.contains(&(host.clone(), *run, path.clone())) {
            return broken(
                "again",
                format!(
                    "{path} of {run} on {host} must not repeat, and was started again as attempt {attempt}"
                ),
            );
        }
        Ok(())
    }

    /// Somebody was told that something is done. It is in the history already, and stays there.
    pub(crate) fn ack(&mut self, ack: Ack) -> Result<(), Broken> {
        self.holds(&ack)?;
        self.acks.push((self.model.last_event, ack));
        Ok(())
    }

    fn holds(&self, ack: &Ack) -> Result<(), Broken> {
        let there = match ack {
            Ack::Started(run) => self.model.runs.contains_key(run),
            Ack::Decided(gate, person, decision) => self.model.gates.get(gate).is_some_and(|gate| {
                let approves = *decision == Decision::Approve;
                gate.decisions.iter().any(|it| it.person == *person && it.approves == approves)
            }),
            Ack::Cancelled(run) => {
                self.history.iter().any(|it| matches!(&it.change, Change::CancelAsked { run: of, .. } if of == run))
            }
            Ack::Resolved(run, host, path) => self.history.iter().any(|it| {
                matches!(&it.change, Change::Resolved { run: of, host: on, path: what, .. } if of == run && on == host && what == path)
            }),
            Ack::Signalled(signal) => self.model.signals.contains_key(signal),
        };
        if there { Ok(()) } else { broken("kept", format!("acknowledged, and not there: {ack:?}")) }
    }

    /// Between two steps, when nothing is under way at the controller: what has not ended has a cause to go on.
    pub(crate) fn at_rest(&self) -> Result<(), Broken> {
        for ((run, host), row) in &self.model.host_runs {
            let open = self.model.orders_open(host).iter().any(|order| order.run == *run);
            let gate = row.gate.and_then(|gate| self.model.gates.get(&gate));
            let moves = match &row.machine.state {
                State::Ended(_) | State::Cancelling { .. } => true,
                State::Created | State::Planned { .. } => false,
                State::Diagnosing | State::Remediating | State::Undoing | State::Verifying { .. } => open,
                State::Waiting(Wait::Gate { checking, .. }) => match gate.map(|gate| gate.state) {
                    Some(GateState::Open) => true,
                    Some(GateState::Approved) => {
                        open && checking.is_some() || self.model.taken_by(host).is_some_and(|by| by != *run)
                    }
                    Some(GateState::Denied | GateState::Expired | GateState::Closed) | None => false,
                },
                State::Waiting(Wait::Wave { .. } | Wait::Window { .. }) => {
                    self.model.taken_by(host).is_some_and(|by| by != *run)
                }
                State::Waiting(Wait::Resolve { .. }) => true,
            };
            if !moves {
                return broken(
                    "cause",
                    format!("nothing will move {run} on {host}, which is {:?}", row.machine.state),
                );
            }
        }
        Ok(())
    }

    /// What has not ended, for people.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let open = self.model.host_runs.iter().filter(|(_, row)| row.machine.ended().is_none());
        open.map(|((run, host), row)| format!("{run} on {host}: {:?}: {}", row.machine.state, row.reason))
            .collect()
    }

    /// How host runs ended, so that it is seen what a seed tried.
    pub(crate) fn endings(&self) -> BTreeMap<&'static str, usize> {
        let mut endings = BTreeMap::new();
        for row in self.model.host_runs.values() {
            *endings.entry(row.machine.ended().map_or("open", |how| how.ending.word())).or_default() += 1;
        }
        endings
    }

    /// At the end of all: everything that was acknowledged is still there.
    pub(crate) fn all_kept(&self) -> Result<(), Broken> {
        self.acks.iter().try_for_each(|(_, ack)| self.holds(ack))
    }
}
