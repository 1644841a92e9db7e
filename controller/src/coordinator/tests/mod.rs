//! The whole controller but its sockets: an alert comes in, a scripted host answers, people decide with real keys.

mod again;
mod ahead;
mod bench;
mod follow;
mod hostile;
mod memory;
mod restored;
mod showing;
mod several;
mod stopping;

use super::AgentCertificate;
use bench::{Bench, FakeAgent, MINUTE, PATIENCE, eventually, host, key};
use fettle_proto::signed::words::from_ms;
use fettle_proto::signed::{self, Decision, Namespace, Start, Tag, Until};
use fettle_proto::v1;
use fettle_runbooks::id::{IncidentId, RunId, SignalId};
use futures_util::StreamExt as _;

use crate::policy::Mode;
use crate::signal::Status;
use crate::world::{At, World as _};

const NOT_RUN: v1::Verification = v1::Verification::NotRun;
const PASSED: v1::Verification = v1::Verification::Passed;

fn gate_reached() -> v1::segment_ended::How {
    v1::segment_ended::How::Gate(v1::GateReached { path: "remediate/purge".into() })
}

/// The host's side of diagnosis.
async fn diagnose(bench: &Bench, agent: &mut FakeAgent) {
    let order = agent.order().await;
    assert!(matches!(order.work, Some(v1::order_content::Work::Diagnose(_))));
    agent.accept(bench, &order).await;
    agent.step(bench, &order, "diagnose/usage").await;
    agent.plan(bench, &order).await;
    agent.done(bench, &order, NOT_RUN).await;
}

/// The host's side of the low step, up to the gate.
async fn to_the_gate(bench: &Bench, agent: &mut FakeAgent) {
    let order = agent.order().await;
    let Some(v1::order_content::Work::Remediate(work)) = &order.work else { panic!("{order:?}") };
    assert_eq!((work.from.as_str(), work.grant.is_none()), ("remediate/vacuum", true));
    agent.accept(bench, &order).await;
    agent.step(bench, &order, "remediate/vacuum").await;
    agent.end(bench, &order, gate_reached(), NOT_RUN, true).await;
}

/// The host's side of what is behind the gate.
async fn behind_the_gate(bench: &Bench, agent: &mut FakeAgent) {
    let order = agent.order().await;
    assert_eq!(agent.check_grant(bench, &order), Ok(vec!["ana".to_owned()]));
    agent.accept(bench, &order).await;
    agent.step(bench, &order, "remediate/purge").await;
    agent.step(bench, &order, "verify/below").await;
    let how = v1::segment_ended::How::Done(v1::SegmentDone {});
    agent.end(bench, &order, how, PASSED, true).await;
}

async fn at_the_gate() -> (Bench, FakeAgent) {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    bench.signal(Status::Firing).await;
    diagnose(&bench, &mut agent).await;
    to_the_gate(&bench, &mut agent).await;
    bench.until("waiting gate").await;
    (bench, agent)
}

/// The story in parts, between which the controller may die.
const PARTS: usize = 8;

async fn part(number: usize, bench: &Bench, agent: &mut FakeAgent) {
    match number {
        0 => drop(bench.signal(Status::Firing).await),
        1 => {
            let order = agent.order().await;
            agent.accept(bench, &order).await;
            agent.step(bench, &order, "diagnose/usage").await;
            agent.orders.remove(&1);
        }
        2 => {
            // Sent again after a restart, or still in the stream: the same order either way.
            if !agent.orders.contains_key(&1) {
                agent.leave(bench).await;
                agent.connect(bench).await;
            }
            let order = agent.order().await;
            agent.plan(bench, &order).await;
            agent.done(bench, &order, NOT_RUN).await;
        }
        3 => to_the_gate(bench, agent).await,
        4 => bench.until("waiting gate").await,
        5 => drop(bench.decide("ana", Decision::Approve).await.unwrap()),
        6 => behind_the_gate(bench, agent).await,
        7 => {
            bench.until("ended verified").await;
            drop(bench.signal(Status::Resolved).await);
        }
        _ => unreachable!("there are {PARTS} parts"),
    }
}

#[tokio::test]
async fn an_alert_heals_a_host_wherever_the_controller_dies_on_the_way() {
    for death in 0..=PARTS {
        let mut bench = Bench::new(Mode::Auto).await;
        let mut agent = FakeAgent::join(&bench).await;
        for number in 0..PARTS {
            if number == death {
                bench.restart().await;
                agent.connect(&bench).await;
            }
            part(number, &bench, &mut agent).await;
        }
        let run = bench.run().await;
        assert_eq!(run.hosts[0].ending, "verified", "died before part {death}");
        let incident: IncidentId = run.incident.parse().unwrap();
        let incident = bench.handle.incident(incident).await.unwrap();
        assert_eq!(incident.state, "closed");
        let clocks = incident.clocks.unwrap();
        for clock in [clocks.detect, clocks.investigate, clocks.remediate].map(Option::unwrap) {
            let told = (clock.total_ms.is_some(), clock.verdict.as_str());
            assert_eq!(told, (true, "not known"), "nobody says when it began");
        }
        let timeline: Vec<String> =
            incident.timeline.iter().map(|entry| format!("{}: {}", entry.who, entry.text)).collect();
        assert!(timeline.contains(&"person ana: approved: looks right".to_owned()), "{timeline:#?}");
        bench.check().await;
    }
}

#[tokio::test]
async fn a_denial_ends_the_run_rejected_once_the_symptom_was_looked_at() {
    let (bench, mut agent) = at_the_gate().await;
    bench.decide("ben", Decision::Deny).await.unwrap();
    let order = agent.order().await;
    assert!(matches!(order.work, Some(v1::order_content::Work::Verify(_))));
    agent.accept(&bench, &order).await;
    agent.done(&bench, &order, v1::Verification::Failed).await;
    bench.until("ended rejected").await;
    assert_eq!(bench.gate().await.state, "denied");
    let problem = bench.decide("ana", Decision::Approve).await.unwrap_err();
    assert_eq!(problem.code(), "gate-closed");
    bench.check().await;
}

#[tokio::test]
async fn a_gate_nobody_decides_expires() {
    let (bench, mut agent) = at_the_gate().await;
    bench.pass(4 * MINUTE - 1);
    assert_eq!(bench.gate().await.state, "open");
    bench.pass(1);
    let order = agent.order().await;
    agent.done(&bench, &order, v1::Verification::Failed).await;
    bench.until("ended expired").await;
    assert_eq!(bench.gate().await.state, "expired");
    bench.check().await;
}

#[tokio::test]
async fn an_approval_that_came_too_late_for_the_host_is_not_used() {
    let (mut bench, mut agent) = at_the_gate().await;
    let problem = bench.decide("eva", Decision::Approve).await.unwrap_err();
    assert_eq!(problem.code(), "scope-missing");
    bench.pass(5 * MINUTE);
    bench.restart().await;
    agent.connect(&bench).await;
    let order = agent.order().await;
    assert!(matches!(order.work, Some(v1::order_content::Work::Verify(_))));
    bench.check().await;
}

#[tokio::test]
async fn when_the_alert_resolves_while_a_gate_is_open_the_symptom_decides() {
    let (bench, mut agent) = at_the_gate().await;
    bench.signal(Status::Resolved).await;
    let order = agent.order().await;
    assert!(matches!(order.work, Some(v1::order_content::Work::Verify(_))));
    agent.accept(&bench, &order).await;
    agent.done(&bench, &order, PASSED).await;
    bench.until("ended verified").await;
    assert_eq!(bench.gate().await.state, "closed");
    assert!(bench.handle.incidents(true, 10).await.unwrap().is_empty());
    bench.check().await;
}

#[tokio::test]
async fn the_same_alert_again_starts_nothing_and_the_trail_says_why() {
    let bench = Bench::new(Mode::Auto).await;
    let _agent = FakeAgent::join(&bench).await;
    let first = bench.signal(Status::Firing).await.remove(0);
    let again = bench.signal(Status::Firing).await.remove(0);
    assert_eq!((again.signal, again.new, again.run), (first.signal, false, first.run));
    let other = bench.handle.signal(vec![bench.alert(Status::Firing, "f2")]).await.unwrap().remove(0);
    assert_eq!((other.new, other.run), (true, None));
    let trail = bench.handle.explain(other.signal).await.unwrap().trail;
    let last = trail.last().unwrap();
    assert_eq!((last.asked.as_str(), last.answer.as_str()), ("guard one run", "no"));
    assert_eq!(bench.handle.incidents(true, 10).await.unwrap().len(), 1);
    bench.check().await;
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let bench = Bench::new(Mode::Observe).await;
    let mut foreign = bench.alert(Status::Firing, "f3");
    foreign.labels.insert("instance".into(), "$(touch x);--help".into());
    let mut unknown = bench.alert(Status::Firing, "f4");
    unknown.name = "Nothing".into();
    let observed = bench.alert(Status::Firing, "f5");
    let receipts = bench.handle.signal(vec![foreign, unknown, observed]).await.unwrap();
    let mut last = Vec::new();
    for receipt in receipts {
        let id: SignalId = receipt.signal;
        assert_eq!(receipt.run, None);
        last.push(bench.handle.explain(id).await.unwrap().trail.pop().unwrap().reason);
    }
    assert!(last[0].starts_with("no enrolled host is called `$(touch x);--help`"), "{last:?}");
    assert_eq!(last[1], "no runbook has a trigger for `Nothing`");
    assert_eq!(last[2], "observe: mode rule 1 of the policy");
    bench.check().await;
}

#[tokio::test]
async fn a_second_remediation_within_the_cooldown_is_refused() {
    let (bench, mut agent) = at_the_gate().await;
    bench.decide("ana", Decision::Approve).await.unwrap();
    behind_the_gate(&bench, &mut agent).await;
    bench.until("ended verified").await;
    bench.pass(MINUTE);
    bench.handle.signal(vec![bench.alert(Status::Firing, "f2")]).await.unwrap();
    agent.orders.clear();
    diagnose(&bench, &mut agent).await;
    bench.until("ended refused").await;
    let reason = bench.run().await.hosts[0].reason.clone();
    assert!(reason.starts_with("guard cooldown: "), "{reason}");
    bench.check().await;
}

#[tokio::test]
async fn reports_that_come_again_change_nothing() {
    let (bench, mut agent) = at_the_gate().await;
    let before = bench.run().await;
    let acked = bench.handle.reports(host(), agent.epoch, agent.reported.clone()).await.unwrap();
    assert_eq!(acked, agent.reported.last().unwrap().seq);
    assert_eq!(bench.run().await, before);
    let old = agent.epoch;
    agent.connect(&bench).await;
    let problem = bench.handle.reports(host(), old, agent.reported.clone()).await.unwrap_err();
    assert_eq!(problem.code(), "old-epoch");
    bench.check().await;
}

#[tokio::test]
async fn mode_diagnose_stops_at_the_plan() {
    let bench = Bench::new(Mode::Diagnose).await;
    let mut agent = FakeAgent::join(&bench).await;
    bench.signal(Status::Firing).await;
    diagnose(&bench, &mut agent).await;
    bench.until("ended succeeded").await;
    assert!(!bench.run().await.hosts[0].plan.is_empty());
    bench.check().await;
}

#[tokio::test]
async fn mode_approve_asks_people_from_the_first_step() {
    let bench = Bench::new(Mode::Approve).await;
    let mut agent = FakeAgent::join(&bench).await;
    bench.signal(Status::Firing).await;
    diagnose(&bench, &mut agent).await;
    let order = agent.order().await;
    let Some(v1::order_content::Work::Remediate(work)) = &order.work else { panic!("{order:?}") };
    assert_eq!(work.gate_from_risk, "low");
    bench.check().await;
}

fn start(bench: &Bench, person: &str, run: RunId, runbook: &[u8]) -> v1::StartRunRequest {
    let start = Start {
        run,
        runbook: "host/disk-full".into(),
        runbook_digest: signed::digest(Tag::Runbook, runbook),
        inputs: Default::default(),
        hosts: [host()].into(),
        person: person.into(),
        at: from_ms(bench.clock.now().0),
        until: Until::End,
        of: None,
    };
    let signed = signed::sign(&key(person), Namespace::Start, &start.encode()).unwrap();
    v1::StartRunRequest { start: Some(signed.into()), runbook: Default::default() }
}

#[tokio::test]
async fn a_person_starts_a_run_once_and_may_not_approve_it() {
    let bench = Bench::new(Mode::Observe).await;
    let mut agent = FakeAgent::join(&bench).await;
    let runbook = bench.handle.library().entries["host/disk-full"].bytes.clone();
    let run = RunId::new(bench.clock.uuid());
    let request = start(&bench, "ana", run, &runbook);
    let ana = bench.session("ana");
    assert!(bench.handle.start(ana.clone(), request.clone()).await.unwrap().created);
    assert!(!bench.handle.start(ana.clone(), request.clone()).await.unwrap().created);
    let stolen = bench.handle.start(bench.session("ben"), request).await.unwrap_err();
    assert_eq!(stolen.code(), "person-mismatch");
    let other = start(&bench, "ben", RunId::new(bench.clock.uuid()), &runbook);
    let problem = bench.handle.start(bench.session("ben"), other).await.unwrap_err();
    assert_eq!(problem.code(), "scope-missing");
    diagnose(&bench, &mut agent).await;
    to_the_gate(&bench, &mut agent).await;
    bench.until("waiting gate").await;
    assert_eq!(bench.decide("ana", Decision::Approve).await.unwrap_err().code(), "excluded");
    bench.decide("ben", Decision::Approve).await.unwrap();
    let order = agent.order().await;
    assert_eq!(agent.check_grant(&bench, &order), Ok(vec!["ben".to_owned()]));
    bench.check().await;
}

#[tokio::test]
async fn people_learn_of_a_gate_even_when_the_receiver_is_down_for_a_while() {
    let bench = Bench::new(Mode::Auto).await;
    *bench.inbox.failures.lock().unwrap() = 1;
    let mut agent = FakeAgent::join(&bench).await;
    bench.signal(Status::Firing).await;
    diagnose(&bench, &mut agent).await;
    to_the_gate(&bench, &mut agent).await;
    bench.until("waiting gate").await;
    bench.pass(2_000);
    eventually(|| !bench.inbox.kinds().is_empty()).await;
    assert_eq!(bench.inbox.kinds(), ["gate-opened"]);
    bench.check().await;
}

#[tokio::test]
async fn a_watch_shows_everything_once_and_ends_with_the_run() {
    let bench = Bench::new(Mode::Diagnose).await;
    let mut agent = FakeAgent::join(&bench).await;
    let run = bench.signal(Status::Firing).await.remove(0).run.unwrap();
    let watch = bench.handle.watch(run, 0).await.unwrap();
    diagnose(&bench, &mut agent).await;
    let events: Vec<v1::RunEvent> = watch.map(Result::unwrap).collect().await;
    let happened = events.iter().filter_map(|event| match &event.what {
        Some(v1::run_event::What::Happened(happened)) => Some(happened.kind.as_str()),
        Some(v1::run_event::What::Output(_) | v1::run_event::What::Run(_)) | None => None,
    });
    let kinds: Vec<&str> = happened.collect();
    assert_eq!(kinds, ["run-started", "state", "step-started", "step-ended", "planned", "ended"]);
    bench.check().await;
}

#[tokio::test]
async fn a_person_signs_in_with_their_key_and_only_once_per_challenge() {
    let mut bench = Bench::new(Mode::Observe).await;
    let challenge = bench.handle.challenge("ana".into()).await.unwrap();
    let signed: v1::Signed = signed::sign(&key("ana"), Namespace::Login, &challenge).unwrap().into();
    let wrong: v1::Signed = signed::sign(&key("ben"), Namespace::Login, &challenge).unwrap().into();
    let session = bench.handle.answer(challenge.clone(), signed.clone()).await.unwrap();
    assert_eq!(bench.handle.answer(challenge, signed).await.unwrap_err().code(), "sign-in");
    bench.restart().await;
    assert_eq!(bench.handle.session(session.token).await.unwrap().person, "ana");
    let challenge = bench.handle.challenge("ana".into()).await.unwrap();
    assert_eq!(bench.handle.answer(challenge, wrong).await.unwrap_err().code(), "sign-in");
    assert_eq!(bench.handle.session("fts_x".into()).await.unwrap_err().code(), "sign-in");
    bench.check().await;
}

#[tokio::test]
async fn a_token_is_spent_once_and_a_revoked_host_stays_out() {
    let bench = Bench::new(Mode::Observe).await;
    let request = v1::CreateTokenRequest { host: "web-2".into(), valid_ms: 1000, ..Default::default() };
    let ben = bench.session("ben");
    let refused = bench.handle.create_token(Some(bench.session("ana")), request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), "scope-missing");
    let (token, _) = bench.handle.create_token(Some(ben.clone()), request.clone()).await.unwrap();
    bench.handle.spend_token(token.clone()).await.unwrap();
    assert_eq!(bench.handle.spend_token(token).await.unwrap_err().code(), "token-spent");
    let (late, _) = bench.handle.create_token(Some(ben.clone()), request).await.unwrap();
    bench.pass(1000);
    assert_eq!(bench.handle.spend_token(late).await.unwrap_err().code(), "token-expired");
    assert_eq!(bench.handle.spend_token("fet_x".into()).await.unwrap_err().code(), "token-unknown");
    let mut agent = FakeAgent::join(&bench).await;
    assert!(bench.handle.revoke(ben, host(), "stolen".into()).await.unwrap());
    let hello = v1::Hello::default();
    let certificate = super::AgentCertificate { serial: "1".into(), not_after: crate::world::At(1) };
    let (sender, _) = tokio::sync::mpsc::channel(1);
    let problem = bench.handle.agent_connected(host(), hello, certificate, sender).await.unwrap_err();
    assert_eq!(problem.code(), "revoked");
    agent.orders.clear();
    bench.check().await;
}

#[tokio::test]
async fn testing_a_signal_changes_nothing() {
    let bench = Bench::new(Mode::Auto).await;
    let tested = bench.handle.test_signal(vec![bench.alert(Status::Firing, "f9")]).await.unwrap();
    assert!(
        tested[0]
            .trail
            .iter()
            .any(|verdict| verdict.asked == "trigger host/disk-full" && verdict.answer == "yes")
    );
    assert!(bench.handle.signals(10).await.unwrap().is_empty());
    bench.check().await;
}

#[tokio::test]
async fn when_the_store_does_not_answer_what_it_has_is_what_is_true() {
    for took_effect in [false, true] {
        let bench = Bench::new(Mode::Auto).await;
        let mut agent = FakeAgent::join(&bench).await;
        *bench.fault.lock().unwrap() = Some(took_effect);
        let alert = || vec![bench.alert(Status::Firing, "f1")];
        let problem = bench.handle.signal(alert()).await.unwrap_err();
        assert_eq!(problem.code(), "unavailable");
        let receipt = bench.handle.signal(alert()).await.unwrap().remove(0);
        assert_eq!((receipt.new, receipt.run.is_some()), (!took_effect, true));
        assert_eq!(bench.handle.runs(v1::ListRunsRequest::default()).await.unwrap().len(), 1);
        diagnose(&bench, &mut agent).await;
        to_the_gate(&bench, &mut agent).await;
        *bench.fault.lock().unwrap() = Some(took_effect);
        assert_eq!(bench.decide("ana", Decision::Approve).await.unwrap_err().code(), "unavailable");
        bench.decide("ana", Decision::Approve).await.unwrap();
        behind_the_gate(&bench, &mut agent).await;
        bench.until("ended verified").await;
        bench.check().await;
    }
}

#[tokio::test]
async fn an_epoch_that_nobody_could_have_counted_to_is_refused() {
    let bench = Bench::new(Mode::Auto).await;
    for epoch_seen in [u64::MAX, i64::MAX as u64] {
        let (sender, _inbox) = tokio::sync::mpsc::channel(1);
        let hello = v1::Hello { protocol: 1, epoch_seen, ..v1::Hello::default() };
        let certificate = AgentCertificate { serial: "01".into(), not_after: At(i64::MAX) };
        let refused = bench.handle.agent_connected(host(), hello, certificate, sender).await.unwrap_err();
        assert_eq!(refused.code(), "epoch-invalid");
    }
    bench.check().await;
}
