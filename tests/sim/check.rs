//! What must hold, whatever fails.
//!
//! The checker is told everything that becomes durable at the controller, everything that really happens on hosts, and
//! everything people were told is done, each once and in order. It folds the history by itself and says at once what is
//! broken. It never asks the product what it thinks.
//!
//! | Name | Holds |
//! | --- | --- |
//! | once | an attempt is started at most once, whoever dies |
//! | again | a step that must not repeat is started again only when people have signed for that |
//! | done | what a plan says was done in an earlier run is not done again, and what was done is said to be |
//! | undo | an undo is of something that is done, and not undone since |
//! | paused | when a host has confirmed a pause, nothing that acts begins until the run goes on |
//! | gate | neither a risky step nor what comes after it starts before people have signed for its plan, or in another boot |
//! | plan | what runs is what the plan says, word for word, and so is its environment |
//! | truth | an outcome is what really happened; `verified` needs the symptom to have been away and `unverified` to have been there, both that everything ran, and `succeeded` that nothing did |
//! | unknown | a run does not end while a step's outcome is unknown |
//! | ended | what has ended never changes, and nothing of it begins: a run on a host, a gate, an attempt that was born and whose outcome was known |
//! | kept | what was acknowledged is in the history, as often as it was acknowledged |
//! | epoch | an epoch is given once, as far as a host or the controller can know; what a lower one says, and its end, commit nothing |
//! | cause | what has not ended has something that will move it |
//! | liveness | when nothing goes wrong any more, everything ends |
//! | fold | the tables are what the events make: what each commit writes, and now and then all of them |
//! | agent | no agent goes down by itself, but once for each fsync that failed |
//! | alive | when everything has ended, nothing that acts lives on |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fettle_controller::model::row::{GateState, Leaf};
use fettle_controller::model::{Change, Model, Row, RowKey};
use fettle_controller::store::Record;
use fettle_proto::signed::{Decision, Roster, Start, plan};
use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::{Digest, Host, RunId};
use fettle_runbooks::plan::{Plan, PlannedStep, PlannedUndo, PlannedWork};
use fettle_runbooks::run::{Final, State, Wait};
use fettle_runbooks::runbook::{Repeat, Risk};

use crate::host::{Entry, What, ledger};
use crate::people::Ack;
use crate::trace::count;

mod approved; // what people signed for at a gate
mod begins; // what begins, begins while it may
mod chain; // what became of a step over all its runs
mod end; // what must hold when everything is over
mod excuses; // who cannot know what
mod fold; // what a commit writes
mod outcomes; // what steps and runs say of themselves, and what really happened

use chain::{Became, Chains};
pub(crate) use end::Left;

/// What is under way on a host when it confirms a pause may still begin: a shim has taken its lock and says so in milliseconds.
const UNDER_WAY: Duration = Duration::from_millis(100);

/// What an attempt may be and become something else: its process may yet be born, or what it did be heard.
const OPEN: [&str; 3] = ["running", "unknown", "not-started"];

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
pub(crate) struct Checker {
    /// Whose signatures count.
    roster: Roster,
    history: Vec<Record>,
    /// The next record need not follow on the last.
    gap: bool,
    model: Model,
    /// What commits have written.
    tables: BTreeMap<RowKey, Row>,
    /// What happened, by attempt.
    truth: BTreeMap<Attempt, Truth>,
    /// How often an attempt began on a machine, where there are two of one host.
    begun_on: BTreeMap<(String, RunId, String, u32), u32>,
    /// When each host last did something for a run, or when that began, and when its symptom was last away.
    acted: BTreeMap<(RunId, Host), Duration>,
    away: BTreeMap<Host, Duration>,
    /// When it was last there.
    there: BTreeMap<Host, Duration>,
    /// Plans ever reported, by digest; gates ever approved, as the plans they approve.
    plans: BTreeMap<Digest, Plan>,
    approved: BTreeSet<Digest>,
    of_run: BTreeMap<(RunId, Host), Vec<Digest>>,
    /// After this attempt people signed for another one.
    signed_for: BTreeSet<Attempt>,
    /// The boots in which they did.
    boots: BTreeSet<(Host, RunId, String)>,
    /// Since when it has been known how an attempt ended.
    known: BTreeMap<Attempt, Duration>,
    /// A person signed, in a start that goes on from another run, that this step did not run in that one.
    said_not: BTreeSet<(Host, RunId, String)>,
    /// A person looked, and says that this step ran.
    said_ran: BTreeSet<(Host, RunId, String)>,
    chains: Chains,
    /// Every run that there ever was.
    created: BTreeSet<RunId>,
    /// How host runs have ended, and when.
    over: BTreeMap<(RunId, Host), (Final, Duration)>,
    /// What was open when the controller was put back: what it ends of that may have gone on before, as its host will tell.
    unheard: BTreeSet<(RunId, Host)>,
    /// Since when a host has known that a run is paused.
    paused: BTreeMap<(RunId, Host), Duration>,
    /// The time of what is told now.
    now: Duration,
    epochs: BTreeMap<Host, u64>,
    acks: Vec<(u64, Ack)>,
    /// Hosts whose journal was deleted.
    forgetful: BTreeSet<Host>,
    /// Runs that were there then: what a host began of them and does not know of any more ends by its own time limit.
    orphans: BTreeSet<(Host, RunId)>,
    /// Runs that a host may not remember, for its whole disk was put back when they were there.
    forgotten: BTreeSet<(Host, RunId)>,
    /// Those of which nobody can tell the host that it forgot: what it had done since was not acknowledged, or is not any more.
    untold: BTreeSet<(Host, RunId)>,
    /// How often the whole disk of a host was put back.
    put_back: BTreeMap<Host, usize>,
    /// Hosts of which there were two from some moment on: one does not know what the other did.
    twins: BTreeSet<Host>,
    /// Hosts on which something happened after which nobody can say what became of a step.
    struck: BTreeSet<Host>,
    /// How often a host was told that what it wrote could not be synced.
    bad_syncs: BTreeMap<Host, usize>,
}

/// The step of a plan that a path names, and whether it is its undo. In the plan of an undo, undos are steps.
fn step<'p>(plan: &'p Plan, path: &str) -> Option<(&'p PlannedStep, bool)> {
    if let Some(step) = plan.steps.iter().find(|step| step.path == path) {
        return Some((step, false));
    }
    let undo = path.strip_suffix("/undo");
    let named = undo.unwrap_or(path);
    plan.steps.iter().find(|step| step.path == named).map(|step| (step, undo.is_some()))
}

/// Whether nothing of it may start before people have approved the plan: it is risky itself, or comes after a risky step that
/// cannot have been left out.
fn behind_a_gate(plan: &Plan, step: &PlannedStep) -> bool {
    // In the plan of an undo, what was done in an earlier run is what a step undoes.
    let undoes = plan.of.as_ref().is_some_and(|of| of.how == FollowUp::Undo);
    let stops = |step: &PlannedStep| {
        step.risk >= Risk::Medium && step.condition.is_none() && (undoes || step.done_in.is_none())
    };
    let mut before = plan.steps.iter().take_while(|before| before.path != step.path);
    step.risk >= Risk::Medium || before.any(stops)
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
    /// Nothing has happened yet. `roster`: whose signatures count.
    pub(crate) fn new(roster: Roster) -> Checker {
        Checker {
            roster,
            history: Vec::new(),
            gap: false,
            model: Model::default(),
            tables: BTreeMap::new(),
            truth: BTreeMap::new(),
            begun_on: BTreeMap::new(),
            acted: BTreeMap::new(),
            away: BTreeMap::new(),
            there: BTreeMap::new(),
            plans: BTreeMap::new(),
            approved: BTreeSet::new(),
            of_run: BTreeMap::new(),
            signed_for: BTreeSet::new(),
            boots: BTreeSet::new(),
            known: BTreeMap::new(),
            said_not: BTreeSet::new(),
            said_ran: BTreeSet::new(),
            chains: Chains::default(),
            created: BTreeSet::new(),
            over: BTreeMap::new(),
            unheard: BTreeSet::new(),
            paused: BTreeMap::new(),
            now: Duration::ZERO,
            epochs: BTreeMap::new(),
            acks: Vec::new(),
            forgetful: BTreeSet::new(),
            orphans: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            untold: BTreeSet::new(),
            put_back: BTreeMap::new(),
            twins: BTreeSet::new(),
            struck: BTreeSet::new(),
            bad_syncs: BTreeMap::new(),
        }
    }

    /// What is told from here on happens now.
    pub(crate) fn at(&mut self, now: Duration) {
        self.now = now;
    }

    /// The highest epoch ever given to a host.
    pub(crate) fn epoch(&self, host: &Host) -> u64 {
        self.epochs.get(host).copied().unwrap_or_default()
    }

    /// The symptom of a host is away now.
    pub(crate) fn away(&mut self, host: &Host, at: Duration) {
        self.away.insert(host.clone(), at);
    }

    /// The symptom of a host is there now.
    pub(crate) fn there(&mut self, host: Host, at: Duration) {
        self.there.insert(host, at);
    }

    /// The controller has been put back to what its store was after this record. `seen`: the epochs on hosts' disks, which it must
    /// not give again.
    pub(crate) fn restored(&mut self, last: u64, seen: impl IntoIterator<Item = (Host, u64)>) {
        self.history.retain(|record| record.number <= last);
        self.gap = true;
        self.model = Model::default();
        for record in &self.history {
            self.model.apply(record.number, record.at, &record.change);
        }
        self.tables = self.model.rows();
        let open = |key: &(RunId, Host)| {
            self.model.host_runs.get(key).is_none_or(|row| row.machine.ended().is_none())
        };
        self.over.retain(|key, _| !open(key));
        let hosts = self.model.host_runs.keys();
        self.unheard = hosts.filter(|key| !self.over.contains_key(*key)).cloned().collect();
        self.acks.retain(|(number, _)| *number <= last);
        self.untold.clone_from(&self.forgotten);
        for (host, seen) in seen {
            let given = self.model.agents.get(&host).map_or(0, |row| row.epoch);
            // Of two hosts with one name, the one that comes first may not have seen it.
            let seen = if self.twins.contains(&host) { 0 } else { seen };
            self.epochs.insert(host, seen.max(given));
        }
    }

    /// The model that the history makes.
    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// Something became durable: the rows that it touches.
    pub(crate) fn record(&mut self, record: &Record) -> Result<Vec<RowKey>, Broken> {
        let next = self.model.last_event + 1;
        // A store that was put back leaves a gap.
        let gap = std::mem::take(&mut self.gap) && record.number > next;
        if record.number != next && !gap {
            broken("kept", format!("record {} follows on {}", record.number, next - 1))?;
        }
        self.before(&record.change)?;
        let touched = self.model.apply(record.number, record.at, &record.change);
        self.history.push(record.clone());
        self.after(&record.change)?;
        Ok(touched)
    }

    fn before(&mut self, change: &Change) -> Result<(), Broken> {
        if let Change::GateClosed { gate, state, .. } = change
            && let Some(row) = self.model.gates.get(gate)
            && row.state != GateState::Open
        {
            return broken("ended", format!("{gate} was {} and is {}", row.state.word(), state.word()));
        }
        if let Change::StepStarted { run, host, path, attempt, .. } = change {
            self.goes_on_as(&(*run, host.clone(), path.clone(), *attempt), "running")?;
        }
        if let Change::StepEnded(end) = change {
            self.goes_on_as(&(end.run, end.host.clone(), end.path.clone(), end.attempt), &end.outcome)?;
        }
        self.gives_epochs(change)
    }

    /// An attempt that is over stays what it was, if it was born and that was known. What only reads is read again in a later segment.
    fn goes_on_as(&self, attempt: &(RunId, Host, String, u32), told: &str) -> Result<(), Broken> {
        let was = self.model.steps.get(attempt).map(|row| row.state.as_str());
        let (run, host, path, attempt) = attempt;
        match was.filter(|_| path.starts_with("remediate/")) {
            Some(was) if was != told && !OPEN.contains(&was) && !self.forgot(host, *run) => {
                let how = format!("attempt {attempt} of {path} of {run} on {host} was {was} and is {told}");
                broken("ended", how)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn gives_epochs(&mut self, change: &Change) -> Result<(), Broken> {
        if let Change::AgentConnected(row) = change {
            let highest = self.epochs.entry(row.host.clone()).or_default();
            count("rule epoch: an epoch is given");
            if row.epoch <= *highest {
                return broken("epoch", format!("{} gets epoch {} after {highest}", row.host, row.epoch));
            }
            *highest = row.epoch;
        }
        if let Change::AgentGone { host, epoch, .. } = change {
            let given = self.model.agents.get(host).map_or(0, |row| row.epoch);
            if *epoch != given {
                return broken("epoch", format!("{host} of epoch {epoch} is gone, and has {given}"));
            }
        }
        Ok(())
    }

    fn after(&mut self, change: &Change) -> Result<(), Broken> {
        if let Change::Planned { run, host, plan: row } = change {
            let plan = plan::decode(&row.bytes.bytes()).map_err(|error| Broken {
                rule: "plan",
                how: format!("the plan of {run} on {host} cannot be read: {error}"),
            })?;
            let is_it =
                plan.run == *run && plan.agent == *host && plan::digest_of(&row.bytes.bytes()) == row.digest;
            if !is_it {
                return broken(
                    "plan",
                    format!("the plan of {run} on {host} is another one than its row says"),
                );
            }
            if let Some(of) = &plan.of {
                self.chains.follows(*run, of.run);
            }
            self.plans.insert(row.digest, plan);
            self.of_run.entry((*run, host.clone())).or_default().push(row.digest);
        }
        if let Change::GateClosed { gate, state: GateState::Approved, .. } = change
            && let Some(gate) = self.model.gates.get(gate)
        {
            let request = self
                .agreed(gate)
                .map_err(|why| Broken { rule: "gate", how: format!("{} is approved, and {why}", gate.id) })?;
            if let Some(again) = request.again {
                let attempt = |leaf: &Leaf| (leaf.host.clone(), gate.run, again.path.clone(), again.attempt);
                self.signed_for.extend(gate.leaves.iter().map(attempt));
                let boot = |leaf: &Leaf| (leaf.host.clone(), gate.run, again.boot.clone());
                self.boots.extend(gate.leaves.iter().map(boot));
            }
            self.approved.extend(gate.leaves.iter().map(|leaf| leaf.plan));
        }
        if let Change::RunCreated { run, .. } = change {
            // Before it was there, it has changed nothing.
            self.created.insert(run.id);
            for host in &run.hosts {
                self.acted.entry((run.id, host.clone())).or_insert(self.now);
            }
        }
        if let Change::RunCreated { run, .. } = change
            && let Some(start) = &run.start
            && let Ok(start) = Start::decode(&start.bytes.bytes())
            && let Some(of) = start.of
        {
            let denied = of.found.into_iter().filter(|(_, ran)| !ran);
            self.said_not.extend(denied.map(|((host, path), _)| (host, run.id, path)));
        }
        if let Change::Resolved { run, host, path, ran: true, .. } = change {
            self.said_ran.insert((host.clone(), *run, path.clone()));
        }
        // What a host says late of a pause that is over already counts for nothing.
        if let Change::PauseConfirmed { run, host, on: true } = change
            && self.model.host_runs.get(&(*run, host.clone())).is_some_and(|row| row.machine.pause.on)
        {
            self.paused.entry((*run, host.clone())).or_insert(self.now);
        }
        if let Change::PauseAsked { run, hosts, on: false, .. } = change {
            for host in hosts {
                self.paused.remove(&(*run, host.clone()));
            }
        }
        if let Change::StepEnded(end) = change
            && end.path.starts_with("remediate/")
        {
            let key = (end.host.clone(), end.run, end.path.clone(), end.attempt);
            self.outcome(&key, end)?;
            if !OPEN.contains(&end.outcome.as_str()) {
                self.known.entry(key).or_insert(self.now);
            }
        }
        if let Change::Moved { run, host, .. } | Change::Marked { run, host, .. } = change {
            self.is_over(*run, host)?;
        }
        if let Change::RunCreated { run, .. } = change {
            for host in &run.hosts {
                let key = (run.id, host.clone());
                let open = self.model.host_runs.get(&key).is_some_and(|row| row.machine.ended().is_none());
                if open && self.over.contains_key(&key) && self.unheard.remove(&key) {
                    count("a run that a restored controller ended is open again");
                    self.over.remove(&key);
                }
                self.is_over(run.id, host)?;
            }
        }
        Ok(())
    }

    /// What has ended is what it was, whatever has replaced its row; what ends now does so rightly.
    fn is_over(&mut self, run: RunId, host: &Host) -> Result<(), Broken> {
        let key = (run, host.clone());
        let Some(machine) = self.model.host_runs.get(&key).map(|row| &row.machine) else { return Ok(()) };
        let ended = machine.ended();
        match self.over.get(&key) {
            Some((how, _)) if ended == Some(how) => Ok(()),
            Some((how, _)) => broken(
                "ended",
                format!("{run} on {host} was {} and is {:?}", how.ending.word(), machine.state),
            ),
            None => {
                let Some(how) = ended.cloned() else { return Ok(()) };
                self.over.insert(key, (how.clone(), self.now));
                self.ending(run, host, &how)
            }
        }
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
        let before = |chains: &Chains, undo: bool| {
            let path = entry.path.strip_suffix("/undo").unwrap_or(&entry.path);
            // What this run has undone itself does not count for its undos: they may be tried again.
            let counts = |run: RunId, of_undo: bool| run != entry.run || (undo && !of_undo);
            chains.became(entry.run, &entry.host, path, counts)
        };
        let was = before(&self.chains, entry.path.ends_with("/undo"));
        if entry.acts {
            self.chains.entry(entry);
        }
        if !entry.acts || !matches!(entry.what, What::Begun) {
            return Ok(());
        }
        count("rule once");
        self.acted.insert((entry.run, entry.host.clone()), entry.at);
        let Entry { host, run, path, attempt, machine, .. } = entry;
        let key = (machine.clone(), *run, path.clone(), *attempt);
        let on_this = *self.begun_on.entry(key).and_modify(|begun| *begun += 1).or_insert(1);
        let forgot = self.forgot(host, *run);
        let begun = if self.twins.contains(host) { on_this } else { begun };
        if begun > 1 && !self.untold.contains(&(host.clone(), *run)) {
            return broken(
                "once",
                format!("attempt {attempt} of {path} of {run} on {host} was started {begun} times"),
            );
        }
        self.begins_in_time(entry)?;
        // The plan is reported before a segment carries it back: the history has it, unless it was put back since. A host that
        // forgot may go by any plan that it ever reported.
        let reported = self.of_run.get(&(*run, host.clone())).map_or(&[][..], Vec::as_slice);
        let allowed = if forgot { reported } else { &reported[reported.len().saturating_sub(1)..] };
        if allowed.is_empty() {
            return broken(
                "plan",
                format!("{path} of {run} on {host} was started, and nobody knows its plan"),
            );
        }
        let right = || allowed.iter().filter(|digest| self.says(digest, entry));
        let Some(digest) = right().find(|digest| self.approved.contains(digest)).or_else(|| right().next())
        else {
            let how =
                format!("{path} of {run} on {host} ran {:?}, and {allowed:?} do not say so", entry.words);
            return broken("plan", how);
        };
        let plan = &self.plans[digest];
        let Some((step, _)) = step(plan, path) else { return Ok(()) };
        count("rule plan");
        if !self.twins.contains(host) {
            self.is_paused(entry)?;
        }
        if !forgot {
            self.goes_on(entry, plan, step, was)?;
        }
        if behind_a_gate(plan, step) {
            count("rule gate");
            if !self.approved.contains(digest) {
                let how = format!("{path} of {run} on {host} was started, and nobody has approved {digest}");
                return broken("gate", how);
            }
            if !forgot {
                self.begins_in_its_boot(entry, plan)?;
            }
        }
        if forgot {
            return Ok(());
        }
        let known = attempt.checked_sub(1).filter(|_| step.repeat != Repeat::Safe).and_then(|before| {
            let row = self.model.steps.get(&(*run, host.clone(), path.clone(), before))?;
            let known = matches!(row.state.as_str(), "succeeded" | "failed" | "timed-out" | "killed");
            let signed = self.signed_for.contains(&(host.clone(), *run, path.clone(), before));
            (known && !signed).then_some(row)
        });
        if *attempt > 1 && step.repeat != Repeat::Safe {
            count("rule again: after what is known");
        }
        if let Some(row) = known {
            let how = format!(
                "{path} of {run} on {host} must not repeat, attempt {} is {}, and attempt {attempt} was started",
                row.attempt, row.state
            );
            return broken("again", how);
        }
        let repeats = step.repeat == Repeat::Safe || step.check.is_some();
        let attempt_before = (1..*attempt).rev().find_map(|before| {
            let key = (host.clone(), *run, path.clone(), before);
            self.truth.get(&key).filter(|truth| truth.begun > 0)?;
            Some(self.signed_for.contains(&key))
        });
        if attempt_before.is_some() && !repeats {
            count("rule again");
        }
        if attempt_before == Some(false) && !repeats {
            return broken(
                "again",
                format!(
                    "{path} of {run} on {host} must not repeat, and was started again as attempt {attempt}"
                ),
            );
        }
        Ok(())
    }

    /// Whether a plan has the step, with these words and this environment.
    fn says(&self, digest: &Digest, entry: &Entry) -> bool {
        let Some((step, undo)) = self.plans.get(digest).and_then(|plan| step(plan, &entry.path)) else {
            return false;
        };
        let planned = match (&step.undo, undo) {
            (_, false) => words(&step.work),
            (PlannedUndo::Work(work), true) => words(work),
            (PlannedUndo::None | PlannedUndo::Previous, true) => None,
        };
        planned.is_some_and(|words| words == entry.words && ledger::digest(&words, &step.env) == entry.digest)
    }

    /// Nothing that acts begins once its host has confirmed a pause.
    fn is_paused(&self, entry: &Entry) -> Result<(), Broken> {
        let Entry { host, run, path, .. } = entry;
        let Some(since) = self.paused.get(&(*run, host.clone())) else { return Ok(()) };
        let late = entry.at.saturating_sub(*since);
        if late <= UNDER_WAY {
            return Ok(());
        }
        let how = format!("{path} of {run} on {host} began {late:?} after the host had confirmed a pause");
        broken("paused", how)
    }

    /// What goes on from an earlier run repeats nothing of it that is done, and undoes nothing else. `was`: what had become of
    /// the step before.
    fn goes_on(&self, entry: &Entry, plan: &Plan, step: &PlannedStep, was: Became) -> Result<(), Broken> {
        let Entry { host, run, path, .. } = entry;
        if path.ends_with("/undo") {
            count("rule undo");
            // How far a step had come that was stopped, a person found out, or its check.
            let of_it = |(of, said, what): &(Host, RunId, String)| {
                of == host && path.strip_suffix("/undo") == Some(what) && self.chains.is_one(*said, *run)
            };
            let ran = was == Became::Failed
                && (self.said_ran.iter().any(of_it) || self.told_done(*run, host, path));
            if matches!(was, Became::Nothing | Became::Failed | Became::Undone) && !ran {
                return broken("undo", format!("{path} of {run} on {host} undoes what is {was:?}"));
            }
            return Ok(());
        }
        let Some(of) = plan.of.as_ref().filter(|of| of.how == FollowUp::Retry) else { return Ok(()) };
        count("rule done");
        if let Some(done_in) = step.done_in {
            let how =
                format!("{path} of {run} on {host} was done in {done_in}, says its plan, and began again");
            return broken("done", how);
        }
        // A host whose journal was deleted says in the plan that it remembers nothing: people see that before they agree.
        let forgot =
            self.forgetful.contains(host) && of.says.iter().any(|said| said.contains("does not remember"));
        let denied = self.said_not.contains(&(host.clone(), *run, path.clone()));
        // The row of what is not done again ends at the first step that was tried and is not done.
        let ended = |step: &PlannedStep| {
            let became = self.chains.became(*run, host, &step.path, |of, _| of != *run);
            step.done_in.is_none()
                && became != Became::Done
                && self.chains.left_a_trace(*run, host, &step.path)
        };
        let row_is_over = plan.steps.iter().take_while(|step| step.path != *path).any(ended);
        if step.repeat == Repeat::Safe || forgot || denied || row_is_over {
            return Ok(());
        }
        match was {
            Became::Done => {
                let how =
                    format!("{path} of {run} on {host} was done in the chain of {}, and began again", of.run);
                broken("done", how)
            }
            // The undo did run, says who looked.
            Became::HalfUndone if self.said_undone(*run, host, path) => Ok(()),
            Became::Midway | Became::HalfUndone if step.check.is_none() => {
                let how = format!(
                    "nobody said what {path} did in the chain of {}, and it began again in {run} on {host}",
                    of.run
                );
                broken("again", how)
            }
            Became::Nothing | Became::Failed | Became::Midway | Became::Undone | Became::HalfUndone => Ok(()),
        }
    }

    /// Somebody was told that something is done. It is in the history already, and stays there.
    pub(crate) fn ack(&mut self, ack: Ack) -> Result<(), Broken> {
        if let Ack::Paused(run, whether) = &ack {
            let asked = self.history.iter().rev().find_map(|record| {
                let Change::PauseAsked { run: of, on, .. } = &record.change else { return None };
                (of == run).then_some(*on)
            });
            if asked != Some(*whether) {
                return broken(
                    "kept",
                    format!("acknowledged, and what was asked last is {asked:?}: {ack:?}"),
                );
            }
        }
        count(format!("rule kept: {}", ack.word()));
        self.acks.push((self.model.last_event, ack.clone()));
        self.holds(&ack)
    }

    /// What was acknowledged is there, as often as it was acknowledged.
    fn holds(&self, ack: &Ack) -> Result<(), Broken> {
        let acks = self.acks.iter().filter(|(_, it)| it == ack).count();
        let often = |stands: &dyn Fn(&Change) -> bool| {
            self.history.iter().filter(|record| stands(&record.change)).count() >= acks
        };
        let there = match ack {
            Ack::Started(run) => self.model.runs.contains_key(run),
            Ack::Decided(gate, person, decision) => self.model.gates.get(gate).is_some_and(|gate| {
                let approves = *decision == Decision::Approve;
                gate.decisions.iter().any(|it| it.person == *person && it.approves == approves)
            }),
            // Once is enough: what is asked to stop is not asked again.
            Ack::Cancelled(run) => {
                let asked =
                    |it: &Record| matches!(&it.change, Change::CancelAsked { run: of, .. } if of == run);
                self.history.iter().any(asked)
            }
            Ack::Resolved(run, host, path) => often(
                &|change| matches!(change, Change::Resolved { run: of, host: on, path: what, .. } if of == run && on == host && what == path),
            ),
            Ack::Paused(run, whether) => often(
                &|change| matches!(change, Change::PauseAsked { run: of, on, .. } if of == run && on == whether),
            ),
            Ack::AskedAgain(run, host, path) => often(
                &|change| matches!(change, Change::AgainAsked { run: of, host: on, path: what, .. } if of == run && on == host && what == path),
            ),
            Ack::Signalled(signal) => self.model.signals.contains_key(signal),
        };
        if there { Ok(()) } else { broken("kept", format!("acknowledged, and not there: {ack:?}")) }
    }

    /// Between two steps, when nothing is under way at the controller: what has not ended has a cause to go on.
    pub(crate) fn at_rest(&self) -> Result<(), Broken> {
        for ((run, host), row) in &self.model.host_runs {
            count(format!("rule cause: {}", row.machine.state.word()));
            let open = self.model.orders_open(host).iter().any(|order| order.run == *run);
            let gate = row.gate.and_then(|gate| self.model.gates.get(&gate));
            let moves = match &row.machine.state {
                State::Ended(_) | State::Cancelling { .. } => true,
                State::Created | State::Planned { .. } => false,
                // What a restored controller has yet to hear of, its host goes on with.
                State::Diagnosing | State::Remediating | State::Undoing | State::Verifying { .. } => {
                    open || self.unheard.contains(&(*run, host.clone()))
                }
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
                // A person is asked about what nobody knows or told the end of, or what was stopped midway.
                State::Waiting(Wait::Resolve { path, cancelled, .. }) => {
                    let last = self.last_attempt(*run, host, path);
                    let open = |state: &str| {
                        matches!(state, "unknown" | "running") || *cancelled && state != "succeeded"
                    };
                    // What a host forgot, it asks about again.
                    self.forgot(host, *run) || last.is_some_and(open)
                }
            };
            // A person has paused it, and is named.
            let waits = row.machine.pause.on && !row.machine.pause.reason.is_empty();
            if !moves && !waits {
                return broken(
                    "cause",
                    format!("nothing will move {run} on {host}, which is {:?}", row.machine.state),
                );
            }
        }
        Ok(())
    }

    /// Whether the step that this undoes was told to have succeeded, by its check if not by its process.
    fn told_done(&self, run: RunId, host: &Host, undo: &str) -> bool {
        let is_it = |of: &RunId, on: &Host, path: &str| {
            on == host && undo.strip_suffix("/undo") == Some(path) && self.chains.is_one(run, *of)
        };
        let mut rows = self.model.steps.iter().filter(|((of, on, path, _), _)| is_it(of, on, path));
        rows.any(|(_, row)| row.state == "succeeded")
    }

    /// Whether a person found that the undo of a step ran.
    fn said_undone(&self, run: RunId, host: &Host, path: &str) -> bool {
        let undo = format!("{path}/undo");
        let of_it = |(of, said, what): &(Host, RunId, String)| {
            of == host && *what == undo && self.chains.is_one(*said, run)
        };
        self.said_ran.iter().any(of_it)
    }

    /// How the last attempt of a step stands that was born, as far as is known.
    fn last_attempt(&self, run: RunId, host: &Host, path: &str) -> Option<&str> {
        let of = |attempt| (run, host.clone(), path.to_owned(), attempt);
        let mut states = self.model.steps.range(of(1)..=of(u32::MAX)).map(|(_, row)| row.state.as_str());
        states.rfind(|state| *state != "not-started")
    }
}
