//! Every rule can be broken: a bad history is told to the checker, which must say so; and a good one, which it must let
//! pass.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fettle_controller::model::row::{
    AgentRow, Blob, DecisionRow, GateRow, GateState, KeptRow, Leaf, Origin, PlanRow,
};
use fettle_controller::model::{Change, StepEnd};
use fettle_controller::policy::Mode;
use fettle_controller::run::{Beginning, begin};
use fettle_controller::store::Record;
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

use crate::cast::{Cast, MEND, MENDS, TEND, WALK};
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
        let mut told = Told { checker, broken: None, number: 0, cast, machine: "web-1" };
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
        self.moves(run, State::Ended(Final { ending, reason: String::new() }));
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
        let (path, by, reason) = (path.to_owned(), "ana".to_owned(), String::new());
        self.change(Change::Resolved { run: run(), host: host(), path, ran: false, by, reason });
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
        self.change(Change::AgentConnected(Box::new(AgentRow {
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
        })));
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
    Again { path: "remediate/purge".to_owned(), attempt, boot: "boot".to_owned() }
}

fn the_request(again: Option<Again>, plan: Digest) -> Request {
    let leaf = signed::Leaf { agent: host(), plan, nonce: String::new() };
    Request {
        run: run(),
        gate: gate(),
        runbook: MENDS.to_owned(),
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

/// A history after the plan, and the rule it breaks; none for a good one.
const STORIES: &[Story] = &[
    ("a_run_that_goes_well_breaks_no_rule", None, |told| {
        told.connected(1);
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.step_ended("remediate/vacuum", "succeeded");
        told.approved();
        told.purge(1);
        told.happened("purge", 1, &[], What::Done { code: 0 });
        told.step_ended("remediate/purge", "succeeded");
        told.checker.away(&host(), Duration::from_secs(20));
        told.connected(2);
        told.heard(Ack::Started(run()));
        told.ended(Ending::Verified);
    }),
    ("an_attempt_that_starts_twice_is_seen", Some("once"), |told| {
        told.vacuum(1);
        told.vacuum(1);
    }),
    ("a_step_that_must_not_repeat_and_does_is_seen", Some("again"), |told| {
        told.approved();
        told.purge(1);
        told.purge(2);
    }),
    (
        "a_step_with_a_check_that_starts_again_although_it_is_known_to_have_failed_is_seen",
        Some("again"),
        |told| {
            told.tends();
            told.probed(1, What::Begun);
            told.probed(1, What::Done { code: 1 });
            told.ended_in(later(), "remediate/probed", 1, "failed", Some(1));
            told.probed(2, What::Begun);
        },
    ),
    ("a_step_with_a_check_that_starts_again_after_nobody_could_tell_breaks_no_rule", None, |told| {
        told.checker.strikes(host());
        told.tends();
        told.probed(1, What::Begun);
        told.probed(1, What::Died);
        told.ended_in(later(), "remediate/probed", 1, "unknown", None);
        told.probed(2, What::Begun);
    }),
    ("a_step_that_people_signed_for_may_start_again", None, |told| {
        told.approved();
        told.purge(1);
        told.asked(Some(once_more(1)));
        told.purge(2);
    }),
    ("a_step_that_people_signed_for_once_may_not_start_twice_again", Some("again"), |told| {
        told.approved();
        told.purge(1);
        told.asked(Some(once_more(1)));
        told.purge(2);
        told.purge(3);
    }),
    ("a_word_that_a_step_did_not_run_is_no_signature_to_run_it_again", Some("again"), |told| {
        told.approved();
        told.purge(1);
        told.resolved("remediate/purge");
        told.purge(2);
    }),
    ("a_step_that_went_with_its_host_and_runs_again_in_a_retry_is_seen", Some("again"), |told| {
        told.approved();
        told.purge(1);
        told.happened("purge", 1, &[], What::Died);
        told.followed(FollowUp::Retry, "");
        told.purge_again();
    }),
    ("a_retry_of_what_failed_breaks_no_rule", None, |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.approved();
        told.purge(1);
        told.happened("purge", 1, &[], What::Done { code: 1 });
        told.followed(FollowUp::Retry, "remediate/vacuum");
        told.approves(the_plan_after(FollowUp::Retry, "remediate/vacuum").1);
        told.purge_again();
    }),
    ("a_step_that_was_done_and_is_done_again_against_its_plan_is_seen", Some("done"), |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.followed(FollowUp::Retry, "remediate/vacuum");
        told.happened_in(later(), "vacuum", 1, &["sim", "lower=/var:4"], What::Begun);
    }),
    ("a_step_that_was_done_and_that_no_plan_remembers_is_seen", Some("done"), |told| {
        told.approved();
        told.purge(1);
        told.happened("purge", 1, &[], What::Done { code: 0 });
        told.followed(FollowUp::Retry, "");
        told.purge_again();
    }),
    ("an_undo_of_what_never_ran_is_seen", Some("undo"), |told| {
        told.followed(FollowUp::Undo, "remediate/vacuum");
        told.happened_in(later(), "vacuum/undo", 1, &["sim", "lower=/var:4"], What::Begun);
    }),
    ("a_second_undo_is_seen", Some("undo"), |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.happened("vacuum/undo", 1, &[], What::Done { code: 0 });
        told.followed(FollowUp::Undo, "remediate/vacuum");
        told.happened_in(later(), "vacuum/undo", 1, &["sim", "lower=/var:4"], What::Begun);
    }),
    ("an_undo_of_what_is_done_breaks_no_rule", None, |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.followed(FollowUp::Undo, "remediate/vacuum");
        told.happened_in(later(), "vacuum/undo", 1, &["sim", "lower=/var:4"], What::Begun);
    }),
    ("a_step_that_begins_although_its_host_knows_of_a_pause_is_seen", Some("paused"), |told| {
        told.paused(true);
        told.change(Change::PauseConfirmed { run: run(), host: host(), on: true });
        told.vacuum(1);
    }),
    ("a_step_that_begins_before_its_host_knows_of_a_pause_or_after_it_breaks_no_rule", None, |told| {
        told.paused(true);
        told.vacuum(1);
        told.change(Change::PauseConfirmed { run: run(), host: host(), on: true });
        told.paused(false);
        told.vacuum(2);
    }),
    ("a_step_behind_a_gate_that_nobody_approved_is_seen", Some("gate"), |told| told.purge(1)),
    ("a_step_without_risk_behind_a_gate_that_nobody_approved_is_seen", Some("gate"), |told| {
        told.plans(later(), planned(TEND, later()));
        told.happened_in(later(), "probed", 1, &["sim", "lower=/var:30"], What::Begun);
    }),
    ("an_undo_without_risk_behind_a_gate_that_nobody_approved_is_seen", Some("gate"), |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.followed(FollowUp::Undo, "");
        told.happened_in(later(), "vacuum/undo", 1, &["sim", "lower=/var:4"], What::Begun);
    }),
    ("a_step_without_risk_before_a_gate_that_nobody_approved_breaks_no_rule", None, |told| {
        told.plans(later(), planned(WALK, later()));
        told.happened_with(later(), "two", 1, &["sim", "two"], &[("STEP", "two")], What::Begun);
    }),
    ("a_gate_that_counts_as_approved_without_an_approval_is_seen", Some("gate"), |told| {
        told.gate(Asked { by: &[], ..Asked::default() });
    }),
    ("a_gate_whose_request_covers_another_plan_is_seen", Some("gate"), |told| {
        told.gate(Asked { covers: the_plan_after(FollowUp::Retry, "").1, ..Asked::default() });
    }),
    ("a_gate_that_counts_as_approved_beside_a_denial_is_seen", Some("gate"), |told| {
        told.gate(Asked { by: &[("ana", Decision::Approve), ("ben", Decision::Deny)], ..Asked::default() });
    }),
    ("a_gate_that_is_approved_with_the_key_of_another_person_is_seen", Some("gate"), |told| {
        told.gate(Asked { key: Some("ben"), ..Asked::default() });
    }),
    ("a_gate_that_is_approved_by_somebody_who_may_not_is_seen", Some("gate"), |told| {
        told.gate(Asked { by: &[("rosa", Decision::Approve)], ..Asked::default() });
    }),
    ("a_gate_that_is_approved_by_words_about_another_is_seen", Some("gate"), |told| {
        told.gate(Asked { decided: Some(the_plan().1), ..Asked::default() });
    }),
    ("other_words_than_those_of_the_plan_are_seen", Some("plan"), |told| {
        told.happened("vacuum", 1, &["sim", "lower=/var:99"], What::Begun);
    }),
    ("a_plan_whose_row_names_another_is_seen", Some("plan"), |told| {
        let (bytes, _) = the_plan();
        told.plans(run(), (bytes, the_plan_after(FollowUp::Retry, "").1));
    }),
    ("another_environment_than_that_of_the_plan_is_seen", Some("plan"), |told| {
        told.plans(later(), planned(WALK, later()));
        told.happened_with(later(), "two", 1, &["sim", "two"], &[("STEP", "three")], What::Begun);
    }),
    ("a_step_that_is_in_no_plan_is_seen", Some("plan"), |told| {
        told.happened("other", 1, &["sim"], What::Begun);
    }),
    ("a_success_that_was_none_is_seen", Some("truth"), |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 1 });
        told.step_ended("remediate/vacuum", "succeeded");
    }),
    ("an_outcome_that_nobody_can_tell_although_nothing_struck_its_host_is_seen", Some("truth"), |told| {
        told.vacuum(1);
        told.step_ended("remediate/vacuum", "unknown");
    }),
    ("an_outcome_without_a_meaning_is_seen", Some("truth"), |told| {
        told.vacuum(1);
        told.step_ended("remediate/vacuum", "lost");
    }),
    ("a_success_of_an_undo_whose_step_has_a_check_is_seen_when_it_was_none", Some("truth"), |told| {
        told.tends();
        let undo = |told: &mut Told, what| {
            told.happened_in(later(), "probed/undo", 1, &["sim", "raise=/var:30"], what);
        };
        told.probed(1, What::Begun);
        told.probed(1, What::Done { code: 0 });
        undo(told, What::Begun);
        undo(told, What::Done { code: 1 });
        told.ended_in(later(), "remediate/probed/undo", 1, "succeeded", None);
    }),
    ("a_success_with_an_exit_code_that_says_otherwise_is_seen", Some("truth"), |told| {
        told.tends();
        told.probed(1, What::Begun);
        told.probed(1, What::Done { code: 1 });
        told.ended_in(later(), "remediate/probed", 1, "succeeded", Some(1));
    }),
    ("another_exit_code_than_that_of_the_process_is_seen", Some("truth"), |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 1 });
        told.ended_in(run(), "remediate/vacuum", 1, "failed", Some(2));
    }),
    ("a_run_that_is_verified_by_what_was_before_it_is_seen", Some("truth"), |told| {
        told.checker.at(Duration::from_secs(3));
        told.checker.away(&host(), Duration::from_secs(2));
        told.begins(later(), MEND);
        told.ends(later(), Ending::Verified);
    }),
    ("a_run_that_failed_although_all_of_it_was_done_is_seen", Some("truth"), |told| {
        told.approved();
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.purge(1);
        told.happened("purge", 1, &[], What::Done { code: 0 });
        told.ended(Ending::Failed);
    }),
    ("a_run_that_is_undone_although_a_step_of_it_is_done_is_seen", Some("truth"), |told| {
        told.tends();
        told.probed(1, What::Begun);
        told.probed(1, What::Done { code: 0 });
        told.ends(later(), Ending::Undone);
    }),
    ("a_run_that_succeeded_although_a_step_of_it_was_not_done_is_seen", Some("truth"), |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 1 });
        told.ended(Ending::Succeeded);
    }),
    ("a_step_that_ran_and_is_told_not_to_have_started_is_seen", Some("truth"), |told| {
        told.vacuum(1);
        told.step_ended("remediate/vacuum", "not-started");
    }),
    ("a_symptom_that_was_never_away_is_not_verified", Some("truth"), |told| {
        told.checker.away(&host(), Duration::from_secs(5));
        told.vacuum(1);
        told.ended(Ending::Verified);
    }),
    ("a_run_that_ends_over_an_unknown_outcome_is_seen", Some("unknown"), |told| {
        told.checker.strikes(host());
        told.vacuum(1);
        told.step_ended("remediate/vacuum", "unknown");
        told.ended(Ending::Failed);
    }),
    ("a_word_about_an_earlier_attempt_does_not_tell_of_a_later_one", Some("unknown"), |told| {
        told.checker.strikes(host());
        told.vacuum(1);
        told.step_ended("remediate/vacuum", "unknown");
        told.resolved("remediate/vacuum");
        told.vacuum(2);
        told.ended_in(run(), "remediate/vacuum", 2, "unknown", None);
        told.ended(Ending::Failed);
    }),
    ("a_run_that_ends_when_somebody_has_looked_breaks_no_rule", None, |told| {
        told.checker.strikes(host());
        told.vacuum(1);
        told.step_ended("remediate/vacuum", "unknown");
        told.resolved("remediate/vacuum");
        told.ended(Ending::Failed);
    }),
    ("an_end_that_changes_is_seen", Some("ended"), |told| {
        told.ended(Ending::Failed);
        told.ended(Ending::Cancelled);
    }),
    ("an_end_that_is_replaced_without_a_move_is_seen", Some("ended"), |told| {
        told.ended(Ending::Failed);
        let machine = HostRun { state: State::Remediating, ..HostRun::new(Until::End) };
        told.change(Change::Marked { run: run(), host: host(), machine });
    }),
    ("an_end_that_is_created_anew_is_seen", Some("ended"), |told| {
        told.ended(Ending::Failed);
        told.begins(run(), MEND);
    }),
    ("an_approved_gate_that_expires_is_seen", Some("ended"), |told| {
        told.approved();
        told.change(Change::GateClosed { gate: gate(), state: GateState::Expired, reason: String::new() });
    }),
    ("an_outcome_that_changes_is_seen", Some("ended"), |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 1 });
        told.step_ended("remediate/vacuum", "failed");
        told.step_ended("remediate/vacuum", "unknown");
    }),
    ("an_outcome_that_was_unknown_and_is_known_breaks_no_rule", None, |told| {
        told.checker.strikes(host());
        told.vacuum(1);
        told.step_ended("remediate/vacuum", "unknown");
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.step_ended("remediate/vacuum", "succeeded");
    }),
    ("an_attempt_that_was_not_born_and_is_born_later_breaks_no_rule", None, |told| {
        told.step_ended("remediate/vacuum", "not-started");
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.step_ended("remediate/vacuum", "succeeded");
    }),
    ("an_acknowledgement_of_what_is_not_there_is_seen", Some("kept"), |told| {
        told.heard(Ack::Cancelled(run()));
    }),
    ("a_pause_that_is_acknowledged_when_the_run_has_gone_on_is_seen", Some("kept"), |told| {
        told.paused(true);
        told.paused(false);
        told.heard(Ack::Paused(run(), true));
    }),
    ("a_second_pause_that_only_the_first_stands_for_is_seen", Some("kept"), |told| {
        told.paused(true);
        told.heard(Ack::Paused(run(), true));
        told.heard(Ack::Paused(run(), true));
    }),
    ("a_second_word_about_a_step_that_only_the_first_stands_for_is_seen", Some("kept"), |told| {
        told.resolved("remediate/purge");
        told.heard(Ack::Resolved(run(), host(), "remediate/purge".to_owned()));
        told.heard(Ack::Resolved(run(), host(), "remediate/purge".to_owned()));
    }),
    ("words_that_are_kept_break_no_rule", None, |told| {
        told.paused(true);
        told.heard(Ack::Paused(run(), true));
        told.paused(false);
        told.heard(Ack::Paused(run(), false));
        told.resolved("remediate/purge");
        told.heard(Ack::Resolved(run(), host(), "remediate/purge".to_owned()));
        told.broken = told.broken.take().or(told.checker.all_kept().err());
    }),
    ("a_gap_in_the_history_is_seen", Some("kept"), |told| {
        told.number += 1;
        told.moved(State::Remediating);
    }),
    ("an_epoch_that_is_given_twice_to_a_host_whose_disk_was_put_back_is_seen", Some("epoch"), |told| {
        told.connected(3);
        told.checker.forgets(&host());
        told.connected(3);
    }),
    (
        "an_epoch_that_a_host_has_seen_and_that_a_restored_controller_gives_again_is_seen",
        Some("epoch"),
        |told| {
            told.connected(3);
            told.restored(3);
            told.connected(3);
        },
    ),
    ("an_epoch_that_no_host_has_seen_may_be_given_again_by_a_restored_controller", None, |told| {
        told.connected(3);
        told.restored(2);
        told.connected(3);
    }),
    ("an_epoch_that_a_restored_controller_gives_twice_is_seen", Some("epoch"), |told| {
        told.connected(3);
        told.restored(2);
        told.connected(4);
        told.connected(4);
    }),
    ("a_connection_that_is_gone_although_another_has_come_after_it_is_seen", Some("epoch"), |told| {
        told.connected(3);
        told.connected(4);
        told.change(Change::AgentGone { host: host(), epoch: 3, reason: String::new() });
    }),
    ("what_a_host_forgot_with_its_disk_may_start_again", None, |told| {
        told.vacuum(1);
        told.checker.forgets(&host());
        told.vacuum(1);
    }),
    ("a_host_whose_disk_was_put_back_knows_what_came_later", Some("once"), |told| {
        told.checker.forgets(&host());
        told.begins(later(), WALK);
        told.plans(later(), planned(WALK, later()));
        let one = |told: &mut Told| told.happened_in(later(), "one", 1, &["sim", "one"], What::Begun);
        one(told);
        one(told);
    }),
    ("a_host_whose_disk_was_put_back_starts_nothing_that_is_not_approved", Some("gate"), |told| {
        told.checker.forgets(&host());
        told.purge(1);
    }),
    ("a_host_whose_disk_was_put_back_starts_nothing_that_is_not_planned", Some("plan"), |told| {
        told.checker.forgets(&host());
        told.happened("vacuum", 1, &["sim", "lower=/var:99"], What::Begun);
    }),
    (
        "a_host_whose_disk_was_put_back_and_that_knows_of_a_pause_again_starts_nothing",
        Some("paused"),
        |told| {
            told.checker.forgets(&host());
            told.paused(true);
            told.change(Change::PauseConfirmed { run: run(), host: host(), on: true });
            told.vacuum(1);
        },
    ),
    ("a_step_that_each_of_two_hosts_with_one_name_starts_once_breaks_no_rule", None, |told| {
        told.checker.has_twin(host());
        told.vacuum(1);
        told.on("twin-0", |told| told.vacuum(1));
    }),
    ("a_step_that_one_of_two_hosts_with_one_name_starts_twice_is_seen", Some("once"), |told| {
        told.checker.has_twin(host());
        told.on("twin-0", |told| told.vacuum(1));
        told.on("twin-0", |told| told.vacuum(1));
    }),
    ("an_epoch_that_is_given_twice_is_seen", Some("epoch"), |told| {
        told.connected(3);
        told.connected(3);
    }),
    ("a_run_that_nothing_will_move_is_seen", Some("cause"), |told| {
        told.broken = told.checker.at_rest().err();
    }),
    ("a_question_about_a_step_that_is_known_is_seen", Some("cause"), |told| {
        told.vacuum(1);
        told.happened("vacuum", 1, &[], What::Done { code: 0 });
        told.step_ended("remediate/vacuum", "succeeded");
        told.asks_about("remediate/vacuum");
    }),
    ("a_question_about_a_step_that_nobody_knows_breaks_no_rule", None, |told| {
        told.checker.strikes(host());
        told.vacuum(1);
        told.step_ended("remediate/vacuum", "unknown");
        told.asks_about("remediate/vacuum");
    }),
    ("a_run_that_does_not_end_is_seen", Some("liveness"), |told| {
        told.broken = told.checker.must_be_over(Duration::from_secs(900)).err();
    }),
    ("an_agent_that_goes_down_by_itself_is_seen", Some("agent"), |told| {
        let why_down = vec!["12s: its link has lost its works".to_owned()];
        told.broken = told.checker.left(&host(), &Left { why_down, ..Left::default() }).err();
    }),
    ("an_agent_whose_works_end_although_no_fsync_failed_is_seen", Some("agent"), |told| {
        let why_down = vec!["12s: its works have ended".to_owned()];
        told.broken = told.checker.left(&host(), &Left { why_down, ..Left::default() }).err();
    }),
    ("an_agent_that_goes_down_once_for_each_fsync_that_failed_breaks_no_rule", None, |told| {
        told.checker.fails_to_sync(host());
        let why_down = vec!["12s: its works have ended".to_owned()];
        told.broken = told.checker.left(&host(), &Left { why_down, ..Left::default() }).err();
    }),
    ("a_step_that_outlives_everything_is_seen", Some("alive"), |told| {
        let alive = vec![(run(), "remediate/vacuum".to_owned(), 1)];
        told.broken = told.checker.left(&host(), &Left { alive, ..Left::default() }).err();
    }),
    ("an_epoch_that_nobody_gave_is_seen", Some("epoch"), |told| {
        told.connected(3);
        told.broken = told.checker.left(&host(), &Left { epoch: 4, ..Left::default() }).err();
    }),
];

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
    STORIES.iter().map(trial).chain(stored).chain([every_rule_is_broken_once()]).collect()
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
        let stories = STORIES.iter().filter_map(|(_, rule, _)| *rule);
        let stored = store::TESTS.iter().filter_map(|(_, rule, _)| *rule);
        let broken: BTreeSet<&str> = stories.chain(stored).collect();
        let table = include_str!("check.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
        let named =
            table.filter_map(|row| row.split(" | ").next()).filter(|name| !["Name", "---"].contains(name));
        let missing: Vec<&str> = named.filter(|name| !broken.contains(name)).collect();
        if missing.is_empty() { Ok(()) } else { Err(Failed::from(format!("no test breaks {missing:?}"))) }
    })
}
