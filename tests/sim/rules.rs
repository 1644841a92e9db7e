//! Every rule can be broken: a bad history is told to the checker, which must say so; and a good one, which it must let
//! pass.

mod stories; // the histories

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fettle_controller::model::row::{
    AgentRow, Blob, DecisionRow, GateRow, GateState, KeptRow, Leaf, Origin, PlanRow,
};
use fettle_controller::model::{Change, Row, StepEnd};
use fettle_controller::policy::Mode;
use fettle_controller::run::{Beginning, begin};
use fettle_controller::store::{Record, Transaction};
use fettle_controller::world::At;
use fettle_proto::signed::plan as format;
use fettle_proto::signed::words::from_ms;
use fettle_proto::signed::{self, Again, Approval, Decision, Namespace, Request};
use fettle_proto::{merkle, v1};
use fettle_runbooks::expr::Scope;
use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::{Digest, GateId, Host, RunId};
use fettle_runbooks::plan::{self, Plan, PlannedUndo};
use fettle_runbooks::run::{Ending, Final, HostRun, Pause, State, Until, Wait};
use fettle_runbooks::runbook::Risk;
use libtest_mimic::{Failed, Trial};
use uuid::Uuid;

use crate::cast::{Cast, MEND, TEND, WALK};
use crate::check::{Broken, Checker, Left};
use crate::host::{EPOCH_MS, Entry, What, ledger};
use crate::people::Ack;
use crate::store;

/// A history in the making. What is wrong is kept until it is asked for.
struct Told {
    checker: Checker,
    broken: Option<Broken>,
    number: u64,
    cast: Cast,
    machine: &'static str,
    boot: &'static str,
}

fn host() -> Host {
    "web-1".parse().expect("a name")
}

fn run() -> RunId {
    RunId::new(Uuid::from_u128(7))
}

fn gate() -> GateId {
    GateId::new(Uuid::from_u128(8))
}

/// A run that goes on from [`run`].
fn later() -> RunId {
    RunId::new(Uuid::from_u128(9))
}

/// The plan of a run that goes on from the first, in which a step was done; or which undoes that step. No step: all.
fn the_plan_after(how: FollowUp, done: &str) -> (Vec<u8>, Digest) {
    let (bytes, _) = the_plan();
    let mut plan = format::decode(&bytes).expect("a good plan");
    plan.run = later();
    plan.of = Some(plan::Of { run: run(), how, says: Vec::new() });
    match how {
        FollowUp::Retry => {
            for step in &mut plan.steps {
                step.done_in = (step.path == done).then(run);
            }
        }
        FollowUp::Undo => {
            plan.steps.retain(|step| step.path == done || done.is_empty());
            plan.steps.reverse();
            for step in &mut plan.steps {
                (step.path, step.done_in) = (format!("{}/undo", step.path), Some(run()));
                (step.undo, step.condition) = (PlannedUndo::None, None);
            }
            plan.verify.clear();
        }
    }
    let bytes = format::encode(&plan);
    let digest = format::digest_of(&bytes);
    (bytes, digest)
}

fn the_plan() -> (Vec<u8>, Digest) {
    planned(MEND, run())
}

fn planned(runbook: &str, run: RunId) -> (Vec<u8>, Digest) {
    let read = fettle_runbooks::read(runbook.as_bytes()).expect("a good runbook");
    let rendering = plan::render(&read.runbook, &Scope(BTreeMap::new()), &BTreeMap::new()).expect("rendered");
    let bytes = format::encode(&Plan {
        agent: host(),
        run,
        nonce: "ab".repeat(32),
        boot: "boot".to_owned(),
        runbook: read.runbook.name().to_owned(),
        runbook_digest: read.runbook.digest(),
        inputs: BTreeMap::new(),
        of: None,
        evidence: rendering.evidence,
        steps: rendering.steps,
        verify: rendering.verify,
    });
    let digest = format::digest_of(&bytes);
    (bytes, digest)
}

impl Told {
    /// A run has begun and has its plan.
    fn planned() -> Told {
        let cast = Cast::new(Vec::new());
        let checker = Checker::new(cast.roster.roster.clone());
        let mut told = Told { checker, broken: None, number: 0, cast, machine: "web-1", boot: "boot" };
        told.begins(run(), MEND);
        told.plans(run(), the_plan());
        told.moved(State::Remediating);
        told
    }

    /// A run is created.
    fn begins(&mut self, run: RunId, runbook: &'static str) {
        let read = fettle_runbooks::read(runbook.as_bytes()).expect("a good runbook");
        let (row, hosts) = begin(Beginning {
            id: run,
            runbook: read.runbook.name(),
            digest: read.runbook.digest(),
            bytes: runbook.into(),
            certificates: &[],
            certified: true,
            inputs: BTreeMap::new(),
            origin: Origin::Alert("DiskFull".to_owned()),
            start: None,
            incident: None,
            signal: None,
            mode: Mode::Auto,
            hosts: vec![host()],
            of: None,
            now: At(0),
        });
        self.change(Change::RunCreated { run: Box::new(row), hosts });
    }

    fn change(&mut self, change: Change) {
        self.number += 1;
        let record = Record { number: self.number, at: At(0), run: None, incident: None, change };
        let outcome = self.checker.record(&record);
        self.broken = self.broken.take().or(outcome.err());
    }

    fn moved(&mut self, state: State) {
        self.moves(run(), state);
    }

    fn moves(&mut self, run: RunId, state: State) {
        let machine = HostRun { state, segment: 2, effects: true, ..HostRun::new(Until::End) };
        self.change(Change::Moved { run, host: host(), machine, reason: String::new() });
    }

    fn ended(&mut self, ending: Ending) {
        self.ends(run(), ending);
    }

    fn ends(&mut self, run: RunId, ending: Ending) {
        self.ends_with(run, ending, "");
    }

    fn ends_with(&mut self, run: RunId, ending: Ending, reason: &str) {
        self.moves(run, State::Ended(Final { ending, reason: reason.to_owned() }));
    }

    /// Another run goes on from the first, and has its plan.
    fn followed(&mut self, how: FollowUp, done: &str) {
        self.plans(later(), the_plan_after(how, done));
    }

    fn plans(&mut self, run: RunId, (bytes, digest): (Vec<u8>, Digest)) {
        let plan =
            PlanRow { bytes: Blob::new(bytes), digest, nonce: String::new(), impossible: BTreeMap::new() };
        self.change(Change::Planned { run, host: host(), plan });
    }

    fn paused(&mut self, on: bool) {
        let (hosts, by, reason) = (vec![host()], "ana".to_owned(), "look".to_owned());
        self.change(Change::PauseAsked { run: run(), hosts, on, by, reason });
        let pause = Pause { on, reason: "ana: look".to_owned(), asked: 1, confirmed: 0 };
        let machine = HostRun { state: State::Remediating, pause, ..HostRun::new(Until::End) };
        self.change(Change::Marked { run: run(), host: host(), machine });
    }

    /// Somebody says that a step did not run.
    fn resolved(&mut self, path: &str) {
        self.found(run(), path, false);
    }

    /// Somebody says whether a step ran.
    fn found(&mut self, run: RunId, path: &str, ran: bool) {
        let (path, by, reason) = (path.to_owned(), "ana".to_owned(), String::new());
        self.change(Change::Resolved { run, host: host(), path, ran, by, reason });
    }

    /// The run waits for somebody to look.
    fn asks_about(&mut self, path: &str) {
        self.moved(State::Waiting(Wait::Resolve { path: path.to_owned(), attempt: 1, cancelled: false }));
        self.broken = self.broken.take().or(self.checker.at_rest().err());
    }

    fn approved(&mut self) {
        self.asked(None);
    }

    fn approves(&mut self, plan: Digest) {
        self.gate(Asked { plan, covers: plan, ..Asked::default() });
    }

    fn asked(&mut self, again: Option<Again>) {
        self.gate(Asked { again, ..Asked::default() });
    }

    /// A gate was opened and counts as approved.
    fn gate(&mut self, asked: Asked) {
        let request = the_request(asked.again, asked.covers).encode();
        let decided = |(person, decision): &(&str, Decision)| {
            let approval = Approval {
                request: asked.decided.unwrap_or(Request::digest(&request)),
                decision: *decision,
                person: (*person).to_owned(),
                reason: String::new(),
                at: from_ms(EPOCH_MS),
            };
            let signed = signed::sign(
                self.cast.key(asked.key.unwrap_or(person)),
                Namespace::Approval,
                &approval.encode(),
            );
            DecisionRow {
                person: (*person).to_owned(),
                approves: true,
                reason: String::new(),
                at: At(0),
                signed: v1::Signed::from(signed.expect("a key signs")).into(),
            }
        };
        let decisions = asked.by.iter().map(decided).collect();
        let leaf =
            Leaf { host: host(), plan: asked.plan, nonce: String::new(), from: "remediate/purge".to_owned() };
        self.change(Change::GateOpened(Box::new(GateRow {
            id: gate(),
            run: run(),
            incident: None,
            runbook: "sim/mend".to_owned(),
            digest: Request::digest(&request),
            request: Blob::new(request),
            leaves: vec![leaf],
            factors: Vec::new(),
            excluded: BTreeMap::new(),
            opened_at: At(0),
            decide_by: At(1),
            start_by: At(2),
            escalate: None,
            escalated_at: None,
            state: GateState::Open,
            reason: String::new(),
            closed_at: None,
            decisions,
        })));
        self.change(Change::GateClosed { gate: gate(), state: GateState::Approved, reason: String::new() });
    }

    fn connected(&mut self, epoch: u64) {
        self.change(connection(epoch));
    }

    /// The host has connected, and what its journal says up to this report is durable.
    fn acknowledged(&mut self, upto: u64) {
        self.connected(3);
        self.change(Change::ReportsTaken { host: host(), journal: "its journal".to_owned(), upto });
    }

    fn step_ended(&mut self, path: &str, outcome: &str) {
        self.ended_in(run(), path, 1, outcome, None);
    }

    fn ended_in(&mut self, run: RunId, path: &str, attempt: u32, outcome: &str, exit_code: Option<i32>) {
        self.change(Change::StepEnded(Box::new(StepEnd {
            run,
            host: host(),
            path: path.to_owned(),
            attempt,
            outcome: outcome.to_owned(),
            message: String::new(),
            exit_code,
            outputs: BTreeMap::new(),
            stdout: KeptRow::default(),
            stderr: KeptRow::default(),
            at: At(0),
            began_at: At(0),
        })));
    }

    fn happened(&mut self, step: &str, attempt: u32, words: &[&str], what: What) {
        self.happened_in(run(), step, attempt, words, what);
    }

    fn happened_in(&mut self, run: RunId, step: &str, attempt: u32, words: &[&str], what: What) {
        self.happened_with(run, step, attempt, words, &[], what);
    }

    fn happened_with(
        &mut self,
        run: RunId,
        step: &str,
        attempt: u32,
        words: &[&str],
        env: &[(&str, &str)],
        what: What,
    ) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let env = env.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let outcome = self.checker.entry(&Entry {
            at: Duration::from_secs(10),
            host: host(),
            machine: self.machine.to_owned(),
            boot: 1,
            boot_id: self.boot.to_owned(),
            run,
            path: format!("remediate/{step}"),
            attempt,
            acts: true,
            digest: ledger::digest(&words, &env),
            words,
            what,
        });
        self.broken = self.broken.take().or(outcome.err());
    }

    /// It happens on another machine.
    fn on(&mut self, machine: &'static str, what: impl FnOnce(&mut Told)) {
        let own = std::mem::replace(&mut self.machine, machine);
        what(self);
        self.machine = own;
    }

    /// The controller is put back to before its last record; the host has seen this epoch.
    fn restored(&mut self, seen: u64) {
        self.number -= 1;
        self.checker.restored(self.number, [(host(), seen)]);
    }

    fn vacuum(&mut self, attempt: u32) {
        self.happened("vacuum", attempt, &["sim", "lower=/var:4"], What::Begun);
    }

    fn purge(&mut self, attempt: u32) {
        self.happened("purge", attempt, &["sim", "lower=/var:40"], What::Begun);
    }

    /// Another run is of the runbook whose steps are behind a gate, and people have signed for it.
    fn tends(&mut self) {
        let (bytes, digest) = planned(TEND, later());
        self.begins(later(), TEND);
        self.plans(later(), (bytes, digest));
        self.approves(digest);
    }

    /// Another run goes through steps that may not happen twice; these of them are done.
    fn walks(&mut self, done: &[&str]) {
        let (bytes, digest) = planned(WALK, later());
        self.begins(later(), WALK);
        self.plans(later(), (bytes, digest));
        self.approves(digest);
        for step in done {
            let env: &[_] = if *step == "two" { &[("STEP", "two")] } else { &[] };
            self.happened_with(later(), step, 1, &["sim", step], env, What::Begun);
            self.happened_with(later(), step, 1, &["sim", step], env, What::Done { code: 0 });
        }
    }

    /// A commit in which a host has connected, and in which its rows are written as they are here.
    fn commits(&mut self, written: impl FnMut(Row) -> Option<Row>) {
        self.number += 1;
        let change = connection(3);
        let mut model = self.checker.model().clone();
        let touched = model.apply(self.number, At(0), &change);
        let rows = touched.iter().filter_map(|key| model.row(key)).filter_map(written).collect();
        let records = vec![Record { number: self.number, at: At(0), run: None, incident: None, change }];
        let outcome = self.checker.committed(&Transaction { records, rows });
        self.broken = self.broken.take().or(outcome.err());
    }

    /// The step of it that looks whether it is done.
    fn probed(&mut self, attempt: u32, what: What) {
        self.happened_in(later(), "probed", attempt, &["sim", "lower=/var:30"], what);
    }

    /// In the run that goes on from the first.
    fn purge_again(&mut self) {
        self.happened_in(later(), "purge", 1, &["sim", "lower=/var:40"], What::Begun);
    }

    fn heard(&mut self, ack: Ack) {
        let outcome = self.checker.ack(ack);
        self.broken = self.broken.take().or(outcome.err());
    }
}

/// The host has connected.
fn connection(epoch: u64) -> Change {
    Change::AgentConnected(Box::new(AgentRow {
        host: host(),
        labels: BTreeMap::new(),
        bound: BTreeMap::new(),
        epoch,
        connected: true,
        version: String::new(),
        last_seen_at: At(0),
        serial: String::new(),
        not_after: At(0),
        revoked: None,
        void_until: At(0),
        roster_version: 1,
        missing: Vec::new(),
        boot_id: String::new(),
        acked: BTreeMap::new(),
        journal: String::new(),
        tallies: BTreeMap::new(),
        ahead: None,
    }))
}

/// What is asked at a gate, and answered.
struct Asked {
    again: Option<Again>,
    /// What its row says is approved.
    plan: Digest,
    /// What the request that people sign says.
    covers: Digest,
    by: &'static [(&'static str, Decision)],
    /// Whose key it is, if it is another's.
    key: Option<&'static str>,
    /// What they decide about, if that is another request.
    decided: Option<Digest>,
}

impl Default for Asked {
    fn default() -> Asked {
        let plan = the_plan().1;
        Asked { again: None, plan, covers: plan, by: &[("ana", Decision::Approve)], key: None, decided: None }
    }
}

/// What people are asked whether a step may run once more after this attempt.
fn once_more(attempt: u32) -> Again {
    in_boot("boot", attempt)
}

/// The same, after a reboot.
fn in_boot(boot: &str, attempt: u32) -> Again {
    Again { path: "remediate/purge".to_owned(), attempt, boot: boot.to_owned() }
}

fn the_request(again: Option<Again>, plan: Digest) -> Request {
    let leaf = signed::Leaf { agent: host(), plan, nonce: String::new() };
    Request {
        run: run(),
        gate: gate(),
        runbook: "sim/mend".to_owned(),
        runbook_digest: the_plan().1,
        start: None,
        requester: None,
        factors: Vec::new(),
        decide_by: from_ms(EPOCH_MS),
        start_by: from_ms(EPOCH_MS),
        root: merkle::root(&[leaf.hash()]),
        leaves: 1,
        risk: Risk::High,
        again,
    }
}

type Story = (&'static str, Option<&'static str>, fn(&mut Told));

/// The tests.
pub(crate) fn trials() -> Vec<Trial> {
    let trial = |(name, rule, story): &Story| {
        let (rule, story) = (*rule, *story);
        Trial::test(*name, move || {
            let mut told = Told::planned();
            story(&mut told);
            held(told.broken, rule)
        })
    };
    let stored = store::TESTS
        .iter()
        .map(|(name, rule, commits)| Trial::test(*name, move || held(commits().err(), *rule)));
    stories::STORIES.iter().map(trial).chain(stored).chain([every_rule_is_broken_once()]).collect()
}

fn held(found: Option<Broken>, wanted: Option<&str>) -> Result<(), Failed> {
    match (found, wanted) {
        (None, None) => Ok(()),
        (Some(broken), Some(rule)) if broken.rule == rule => Ok(()),
        (found, wanted) => Err(Failed::from(format!("wanted {wanted:?}, found {found:?}"))),
    }
}

fn every_rule_is_broken_once() -> Trial {
    Trial::test("every_rule_is_broken_once_at_least", || {
        let stories = stories::STORIES.iter().filter_map(|(_, rule, _)| *rule);
        let stored = store::TESTS.iter().filter_map(|(_, rule, _)| *rule);
        let broken: BTreeSet<&str> = stories.chain(stored).collect();
        let table = include_str!("check.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
        let named =
            table.filter_map(|row| row.split(" | ").next()).filter(|name| !["Name", "---"].contains(name));
        let missing: Vec<&str> = named.filter(|name| !broken.contains(name)).collect();
        if missing.is_empty() { Ok(()) } else { Err(Failed::from(format!("no test breaks {missing:?}"))) }
    })
}
