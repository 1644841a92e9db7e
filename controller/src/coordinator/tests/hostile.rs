//! People whose keys were taken away, hosts that lie, sources that leave things out.

use fettle_proto::signed::{self, Decision, Namespace, Roster};
use fettle_proto::v1;
use fettle_runbooks::runbook::Risk;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use super::super::RosterInForce;
use super::super::handle::Command;
use super::bench::{Bench, FakeAgent, MINUTE, host, key, roster};
use super::{at_the_gate, diagnose};
use crate::coordinator::AgentCertificate;
use crate::policy::{ApprovalRule, Glob, Mode, Policy};
use crate::signal::Status;
use crate::world::At;

async fn put_in_force(bench: &Bench, roster: Roster) {
    let signed = signed::sign(&key("root"), Namespace::Roster, &roster.encode()).expect("root signs");
    bench.handle.set_roster(Some(Arc::new(RosterInForce { signed: signed.into(), roster }))).await;
}

/// The roster, with another key for a person.
fn with_new_key(person: &str) -> Roster {
    let mut roster = roster();
    roster.version = 2;
    let row = roster.persons.iter_mut().find(|row| row.name == person).expect("a person of it");
    row.keys = vec![key("another").public()];
    roster
}

async fn sign_in(bench: &Bench, person: &str) -> String {
    let challenge = bench.handle.challenge(person.to_owned()).await.unwrap();
    let signed = signed::sign(&key(person), Namespace::Login, &challenge).unwrap();
    bench.handle.answer(challenge, signed.into()).await.unwrap().token
}

#[tokio::test]
async fn a_session_ends_with_the_key_that_signed_for_it_and_with_its_person() {
    let bench = Bench::new(Mode::Observe).await;
    let token = sign_in(&bench, "ana").await;
    assert_eq!(bench.handle.session(token.clone()).await.unwrap().person, "ana");
    put_in_force(&bench, with_new_key("ana")).await;
    let problem = bench.handle.session(token.clone()).await.unwrap_err();
    assert_eq!(problem.code(), "sign-in", "{problem}");
    put_in_force(&bench, roster()).await;
    bench.handle.session(token.clone()).await.unwrap();
    let mut without = roster();
    without.persons.retain(|person| person.name != "ana");
    put_in_force(&bench, without).await;
    assert_eq!(bench.handle.session(token).await.unwrap_err().code(), "sign-in");
    bench.check().await;
}

#[tokio::test]
async fn a_challenge_that_was_given_up_is_not_kept() {
    let bench = Bench::new(Mode::Observe).await;
    let challenge = bench.handle.challenge("ana".into()).await.unwrap();
    bench.handle.forget_challenge(challenge.clone()).await;
    let signed = signed::sign(&key("ana"), Namespace::Login, &challenge).unwrap();
    assert_eq!(bench.handle.answer(challenge, signed.into()).await.unwrap_err().code(), "sign-in");
    bench.check().await;
}

#[tokio::test]
async fn an_approval_counts_no_more_once_its_key_is_taken_out_of_the_roster() {
    let bench = Bench::new(Mode::Auto).await;
    let rule =
        ApprovalRule { runbook: Glob::new("*"), hosts: None, risk: Risk::High, need: 2, from: Vec::new() };
    let policy = Policy { approvals: vec![rule], ..(*bench.handle.policy()).clone() };
    bench.handle.set_policy(Arc::new(policy), Vec::new()).await;
    let mut agent = FakeAgent::join(&bench).await;
    bench.signal(Status::Firing).await;
    diagnose(&bench, &mut agent).await;
    super::to_the_gate(&bench, &mut agent).await;
    bench.until("waiting gate").await;
    let gate = bench.decide("ana", Decision::Approve).await.unwrap();
    assert_eq!((gate.state.as_str(), gate.waits_for[0].as_str()), ("open", "1 person"));
    bench.pass(1000);
    let gate = bench.decide("ana", Decision::Approve).await.unwrap();
    assert_eq!(gate.state, "open", "one person is one, however often she says so");
    put_in_force(&bench, with_new_key("ana")).await;
    let gate = bench.decide("ben", Decision::Approve).await.unwrap();
    assert_eq!(gate.state, "open", "ana's key is gone: {:?}", gate.waits_for);
    assert_eq!(gate.waits_for[0], "1 person");
    put_in_force(&bench, roster()).await;
    bench.pass(1000);
    let gate = bench.decide("ana", Decision::Approve).await.unwrap();
    assert_eq!(gate.state, "approved", "both had approved, and both count again");
    bench.check().await;
}

#[tokio::test]
async fn a_hello_that_no_agent_says_is_refused_and_nothing_of_it_is_kept() {
    let bench = Bench::new(Mode::Observe).await;
    let mut agent = FakeAgent::join(&bench).await;
    let long = "x".repeat(2000);
    let hellos = [
        v1::Hello { journal: long.clone(), ..Default::default() },
        v1::Hello { labels: [("a".to_owned(), long.clone())].into(), ..Default::default() },
        v1::Hello { missing: vec![String::new(); 1000], ..Default::default() },
    ];
    for hello in hellos {
        let certificate = AgentCertificate { serial: "1".into(), not_after: At(i64::MAX) };
        let (sender, _inbox) = tokio::sync::mpsc::channel(1);
        let problem = bench.handle.agent_connected(host(), hello, certificate, sender).await.unwrap_err();
        assert_eq!(problem.code(), "hello-malformed");
    }
    agent.connect(&bench).await;
    assert_eq!(agent.epoch, 2, "the epoch goes on from where it was");
    bench.check().await;
}

#[tokio::test]
async fn labels_follow_the_hosts_last_hello_and_never_change_what_the_token_bound() {
    let bench = Bench::new(Mode::Observe).await;
    let bound = [("region".to_owned(), "ke".to_owned())];
    let request = v1::CreateTokenRequest { host: "web-2".into(), labels: bound.into(), ..Default::default() };
    let (token, _) = bench.handle.create_token(None, request).await.unwrap();
    bench.handle.spend_token(token).await.unwrap();
    for (tier, region) in [("old", "ug"), ("new", "tz")] {
        let said = [("tier", tier), ("region", region)];
        let labels = said.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let hello = v1::Hello { protocol: 1, labels, ..Default::default() };
        let certificate = AgentCertificate { serial: "1".into(), not_after: At(i64::MAX) };
        let (sender, _inbox) = tokio::sync::mpsc::channel(1);
        let host: fettle_runbooks::id::Host = "web-2".parse().unwrap();
        bench.handle.agent_connected(host.clone(), hello, certificate, sender).await.unwrap();
        let labels = bench.handle.agent(host).await.unwrap().labels;
        assert_eq!((labels["tier"].as_str(), labels["region"].as_str()), (tier, "ke"));
    }
    bench.check().await;
}

#[tokio::test]
async fn a_plan_that_people_may_have_seen_is_not_replaced() {
    let (bench, mut agent) = at_the_gate().await;
    let before = bench.run().await.hosts[0].plan.clone();
    let mut other = signed::plan::decode(&agent.plan).unwrap();
    other.steps.pop();
    let planned = v1::Planned { plan: signed::plan::encode(&other).into(), ..Default::default() };
    let order = v1::OrderContent { run: bench.run().await.id, segment: 1, ..Default::default() };
    agent.report(&bench, &order, v1::report::What::Planned(planned)).await;
    assert_eq!(bench.run().await.hosts[0].plan, before);
    bench.check().await;
}

#[tokio::test]
async fn a_segment_that_cannot_be_moves_nothing() {
    let (bench, mut agent) = at_the_gate().await;
    let order = v1::OrderContent { run: bench.run().await.id, segment: u32::MAX, ..Default::default() };
    agent.accept(&bench, &order).await;
    assert_eq!(bench.state().await.split_whitespace().collect::<Vec<_>>(), ["waiting", "gate"]);
    bench.decide("ana", Decision::Approve).await.unwrap();
    assert_eq!(agent.order().await.segment, 3);
    bench.check().await;
}

#[tokio::test]
async fn a_token_made_before_a_revocation_does_not_let_the_host_back_in() {
    let bench = Bench::new(Mode::Observe).await;
    let request = v1::CreateTokenRequest { host: "web-1".into(), ..Default::default() };
    let (before, _) = bench.handle.create_token(None, request.clone()).await.unwrap();
    bench.handle.revoke(bench.session("ben"), host(), "stolen".into()).await.unwrap();
    assert_eq!(bench.handle.spend_token(before).await.unwrap_err().code(), "token-spent");
    let (after, _) = bench.handle.create_token(None, request).await.unwrap();
    bench.handle.spend_token(after).await.unwrap();
    bench.check().await;
}

#[tokio::test]
async fn an_alert_without_a_start_fires_anew_once_it_was_resolved() {
    let mut bench = Bench::new(Mode::Observe).await;
    let post = async |bench: &Bench, status| {
        let mut signal = bench.alert(status, "f1");
        signal.starts_at = None;
        bench.handle.signal(vec![signal]).await.unwrap().remove(0)
    };
    let first = post(&bench, Status::Firing).await;
    assert!(!post(&bench, Status::Firing).await.new);
    assert!(!post(&bench, Status::Resolved).await.new);
    assert!(bench.handle.incidents(true, 10).await.unwrap().is_empty());
    let second = post(&bench, Status::Firing).await;
    assert!(second.new && second.signal != first.signal);
    assert_eq!(bench.handle.incidents(true, 10).await.unwrap().len(), 1);
    bench.restart().await;
    let resolved = post(&bench, Status::Resolved).await;
    assert_eq!((resolved.new, resolved.signal), (false, second.signal));
    assert!(bench.handle.incidents(true, 10).await.unwrap().is_empty());
    bench.check().await;
}

#[tokio::test]
async fn a_lost_resolved_does_not_keep_an_incident_open_for_ever() {
    let bench = Bench::new(Mode::Observe).await;
    let post = async |status, start| {
        let mut signal = bench.alert(status, "f1");
        signal.starts_at = Some(At(start));
        bench.handle.signal(vec![signal]).await.unwrap().remove(0)
    };
    let first = post(Status::Firing, 900_000).await;
    bench.pass(MINUTE);
    post(Status::Firing, 1_050_000).await;
    assert_eq!(bench.handle.explain(first.signal).await.unwrap().status, "resolved");
    assert_eq!(bench.handle.incidents(true, 10).await.unwrap().len(), 1);
    post(Status::Resolved, 1_050_000).await;
    assert!(bench.handle.incidents(true, 10).await.unwrap().is_empty());
    // Delivered late, by another sender perhaps: nothing starts, and the trail says why.
    let late = post(Status::Firing, 1_050_000).await;
    let trail = bench.handle.explain(late.signal).await.unwrap().trail;
    assert!(trail.last().unwrap().reason.contains("fires again"), "{trail:?}");
    assert!(bench.handle.incidents(true, 10).await.unwrap().is_empty());
    bench.pass(2 * MINUTE);
    assert_eq!(post(Status::Firing, 1_050_000).await.signal, late.signal);
    assert_eq!(bench.handle.incidents(true, 10).await.unwrap().len(), 1, "it does fire");
    bench.check().await;
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test owns the task and waits for it")]
async fn a_flood_of_questions_does_not_keep_a_gate_from_expiring() {
    let (bench, _agent) = at_the_gate().await;
    let stop = CancellationToken::new();
    let (commands, stopped) = (bench.handle.commands.clone(), stop.clone());
    let flood = tokio::spawn(async move {
        while !stopped.is_cancelled() {
            let (reply, _) = tokio::sync::oneshot::channel();
            let asked = Command::Session { token: "fts_x".into(), reply };
            if commands.send(asked).await.is_err() {
                return;
            }
        }
    });
    bench.pass(5 * MINUTE);
    bench.until("verifying").await;
    stop.cancel();
    flood.await.unwrap();
    assert_eq!(bench.gate().await.state, "expired");
    bench.check().await;
}

#[tokio::test]
async fn a_host_that_says_much_of_each_of_its_steps_fills_no_memory_and_how_they_ended_is_kept() {
    const STEPS: u32 = 140;
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    bench.signal(Status::Firing).await;
    diagnose(&bench, &mut agent).await;
    let order = agent.order().await;
    agent.accept(&bench, &order).await;
    for attempt in 1..=STEPS {
        let started = v1::StepStarted { path: "diagnose/loud".into(), attempt };
        agent.report(&bench, &order, v1::report::What::StepStarted(started)).await;
    }
    for attempt in 1..=STEPS {
        let much = vec![b'x'; 64 * 1024];
        let long = v1::Kept { head: much.clone().into(), tail: much.into(), ..Default::default() };
        let ended = v1::StepEnded {
            path: "diagnose/loud".into(),
            attempt,
            outcome: "failed".into(),
            stdout: Some(long.clone()),
            stderr: Some(long),
            ..Default::default()
        };
        agent.report(&bench, &order, v1::report::What::StepEnded(ended)).await;
    }
    let shown = bench.run().await.hosts.remove(0);
    let loud: Vec<_> = shown.steps.iter().filter(|step| step.path == "diagnose/loud").collect();
    assert_eq!(loud.iter().filter(|step| step.state == "failed").count(), STEPS as usize);
    let cut = loud.iter().filter(|step| step.message.starts_with("the steps of this run have said 32 MiB"));
    assert!((5..20).contains(&cut.count()), "128 of them fit into 32 MiB");
    bench.check().await;
}
