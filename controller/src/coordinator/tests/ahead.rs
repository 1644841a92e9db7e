//! What a restored controller decides before a host has told it how far it had gone.

use fettle_runbooks::id::RunId;
use prost::Message as _;

use crate::model::Row;
use v1::report::What;

use super::restored::{Teller, halt, planned_and_paused, report};
use super::*;

/// The order that the host has carried out since the backup: it is not ours, whatever ours says.
async fn its_order(bench: &Bench, segment: u32, work: v1::order_content::Work) -> v1::OrderContent {
    let run = bench.run().await;
    let entry = &bench.handle.library().entries["host/disk-full"];
    v1::OrderContent {
        run: run.id,
        segment,
        runbook: entry.bytes.clone(),
        certificates: entry.certificates.clone(),
        inputs: run.inputs,
        not_after_ms: 7,
        work: Some(work),
        ..Default::default()
    }
}

fn remediates() -> v1::order_content::Work {
    v1::order_content::Work::Remediate(v1::Remediate { from: "remediate/purge".into(), ..Default::default() })
}

fn looks() -> v1::order_content::Work {
    v1::order_content::Work::Verify(v1::Verify::default())
}

fn ended(segment: u32, how: v1::segment_ended::How, verification: v1::Verification) -> v1::Report {
    let mut ended = v1::SegmentEnded { how: Some(how), effects: true, ..Default::default() };
    ended.set_verification(verification);
    report(segment, What::SegmentEnded(ended))
}

/// It has taken on a segment in which nobody knows what became of its step.
fn goes_on(segment: u32) -> Vec<v1::Report> {
    let path = "remediate/purge".to_owned();
    let began = v1::StepStarted { path: path.clone(), attempt: 1 };
    let unknown = v1::SegmentUnknown { path, attempt: 1, reason: "power was lost".into() };
    vec![
        report(segment, What::Accepted(v1::Accepted::default())),
        report(segment, What::StepStarted(began)),
        ended(segment, v1::segment_ended::How::Unknown(unknown), NOT_RUN),
    ]
}

fn failed_look(segment: u32) -> Vec<v1::Report> {
    let done = v1::segment_ended::How::Done(v1::SegmentDone {});
    vec![
        report(segment, What::Accepted(v1::Accepted::default())),
        ended(segment, done, v1::Verification::Failed),
    ]
}

#[tokio::test]
async fn how_a_run_ended_while_no_controller_heard_it_people_are_told_once() {
    for unheard in [false, true] {
        let (bench, mut host) = restored_at_the_gate().await;
        let content = v1::OrderContent { host: "web-1".into(), ..its_order(&bench, 3, remediates()).await };
        let failed = v1::SegmentFailed { path: "remediate/purge".into(), reason: "it broke".into() };
        let reports = vec![
            report(3, What::Accepted(v1::Accepted::default())),
            ended(3, v1::segment_ended::How::Failed(failed), NOT_RUN),
        ];
        let told = v1::ToldAgain { reports, unheard, ..Default::default() };
        host.tells_of_ours(&bench, &content.encode_to_vec(), told).await;
        bench.until("ended failed").await;
        // What is told is committed with the end.
        let told = bench
            .handle
            .store
            .rows()
            .unwrap()
            .into_iter()
            .filter(|row| matches!(row, Row::Notification(row) if row.body.contains("run-ended")));
        assert_eq!(told.count(), usize::from(unheard));
        bench.check().await;
    }
}

#[tokio::test]
async fn of_what_began_after_a_restore_a_lost_journal_is_the_last_word() {
    let mut bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    agent.leave(&bench).await;
    bench.restore().await;
    agent.connect(&bench).await;
    bench.pass(2 * MINUTE);
    let run = bench.signal(Status::Firing).await.remove(0).run.unwrap();
    diagnose(&bench, &mut agent).await;
    let order = agent.order().await;
    agent.accept(&bench, &order).await;
    let started = v1::StepStarted { path: "remediate/vacuum".into(), attempt: 1 };
    agent.report(&bench, &order, What::StepStarted(started)).await;
    bench.handle.cancel(bench.session("ben"), run, "enough".into()).await.unwrap();
    agent.report(&bench, &order, What::Cancelled(v1::Cancelled::default())).await;
    bench.until("waiting resolve").await;
    bench.check().await;
}

/// A run that waits at a gate, as in the backup, and a host that has seen more than that.
async fn restored_at_the_gate() -> (Bench, Teller) {
    let (bench, mut agent) = at_the_gate().await;
    agent.leave(&bench).await;
    let teller = Teller::comes(&bench, "web-1", 99).await;
    (bench, teller)
}

/// A run that waited at a gate as in the backup, and expired before its host could tell that it had gone on.
async fn expired_since_the_restore() -> Bench {
    let mut bench = Bench::new(Mode::Approve).await;
    let mut agent = FakeAgent::join(&bench).await;
    bench.signal(Status::Firing).await;
    diagnose(&bench, &mut agent).await;
    let order = agent.order().await;
    agent.accept(&bench, &order).await;
    agent.end(&bench, &order, gate_reached(), NOT_RUN, false).await;
    bench.until("waiting gate").await;
    agent.leave(&bench).await;
    bench.restore().await;
    bench.pass(30 * MINUTE);
    bench.until("ended expired").await;
    bench
}

#[tokio::test]
async fn a_run_that_expired_while_its_host_was_away_stands_where_the_host_stands() {
    let bench = expired_since_the_restore().await;
    assert_ne!(bench.run().await.ended_at, 0);
    let content = its_order(&bench, 3, remediates()).await;
    let mut host = Teller::comes(&bench, "web-1", 99).await;
    host.tells(&bench, &content, goes_on(3)).await;
    bench.until("waiting resolve").await;
    assert_eq!(bench.run().await.ended_at, 0, "a person must look");
    // It tells no more than is known.
    host.tells(&bench, &content, goes_on(3)).await;
    bench.until("waiting resolve").await;
    bench.check().await;
}

#[tokio::test]
async fn a_run_that_is_open_again_when_its_incident_is_closed_stands_alone() {
    let bench = expired_since_the_restore().await;
    let incident = bench.run().await.incident;
    bench.signal(Status::Resolved).await;
    let closed = bench.handle.incident(incident.parse().unwrap()).await.unwrap();
    assert_ne!(closed.closed_at, 0);

    let content = its_order(&bench, 3, remediates()).await;
    let mut host = Teller::comes(&bench, "web-1", 99).await;
    let done = v1::segment_ended::How::Done(v1::SegmentDone {});
    // All of it, from the first order on.
    let accepted = |segment| report(segment, What::Accepted(v1::Accepted::default()));
    let mut told = [vec![accepted(1), accepted(2)], goes_on(3)].concat();
    told.pop();
    told.push(ended(3, done, v1::Verification::Passed));
    host.tells(&bench, &content, told).await;
    bench.until("ended verified").await;
    assert_eq!(bench.run().await.incident, "", "what is closed does not change");
    bench.check().await;
}

#[tokio::test]
async fn a_host_that_makes_up_epochs_takes_up_no_run_that_is_over() {
    let (bench, mut agent) = at_the_gate().await;
    bench.decide("ana", Decision::Approve).await.unwrap();
    behind_the_gate(&bench, &mut agent).await;
    bench.until("ended verified").await;
    agent.leave(&bench).await;
    let content = its_order(&bench, 4, remediates()).await;
    let mut host = Teller::comes(&bench, "web-1", 99).await;
    host.tells(&bench, &content, goes_on(4)).await;
    bench.until("ended verified").await;
    assert_ne!(bench.run().await.ended_at, 0);
    bench.check().await;
}

#[tokio::test]
async fn what_was_over_before_the_restore_stays_so() {
    let (mut bench, mut agent) = at_the_gate().await;
    bench.decide("ana", Decision::Approve).await.unwrap();
    behind_the_gate(&bench, &mut agent).await;
    bench.until("ended verified").await;
    bench.pass(MINUTE);
    bench.restore().await;
    let content = its_order(&bench, 4, remediates()).await;
    let mut host = Teller::comes(&bench, "web-1", 99).await;
    host.tells(&bench, &content, goes_on(4)).await;
    bench.until("ended verified").await;
    bench.check().await;
}

#[tokio::test]
async fn what_a_host_had_not_told_yet_of_its_own_order_is_no_end_of_ours() {
    let (bench, mut host) = restored_at_the_gate().await;
    bench.decide("ben", Decision::Deny).await.unwrap();
    assert!(matches!(host.hears().await, v1::to_agent::What::Order(_)), "it is to look at the symptom");
    // What it owes comes before its story.
    let run: RunId = bench.run().await.id.parse().unwrap();
    let accepted = v1::Accepted { digest: vec![7; 32].into(), looks: false };
    host.says(&bench, run, 3, What::Accepted(accepted)).await;
    for report in goes_on(3).into_iter().skip(1) {
        host.says(&bench, run, 3, report.what.unwrap()).await;
    }
    bench.until("waiting resolve").await;
    let content = its_order(&bench, 3, remediates()).await;
    host.tells(&bench, &content, goes_on(3)).await;
    bench.until("waiting resolve").await;
    bench.check().await;
}

#[tokio::test]
async fn what_nobody_knows_of_a_step_is_asked_though_people_have_denied_it_since() {
    let (bench, mut host) = restored_at_the_gate().await;
    bench.decide("ben", Decision::Deny).await.unwrap();
    let v1::to_agent::What::Order(ours) = host.hears().await else { panic!("an order") };
    let ours = <v1::OrderContent as prost::Message>::decode(ours.content).unwrap();
    assert_eq!(ours.segment, 3, "it is to look at the symptom");
    // The host has another of that number, and says so before it tells, or after it.
    let refused = v1::Refused { code: "segment-conflict".into(), message: "another".into() };
    let run: RunId = ours.run.parse().unwrap();
    host.says(&bench, run, 3, What::Refused(refused)).await;
    let content = its_order(&bench, 3, remediates()).await;
    host.tells(&bench, &content, goes_on(3)).await;
    bench.until("waiting resolve").await;
    bench.check().await;
}

#[tokio::test]
async fn a_look_that_failed_while_people_were_asked_leaves_the_gate_open() {
    let (bench, mut host) = restored_at_the_gate().await;
    let content = its_order(&bench, 3, looks()).await;
    host.tells_of_looks(&bench, &content, vec![3], failed_look(3)).await;
    bench.until("waiting gate").await;
    assert_eq!(bench.gate().await.state, "open");
    bench.decide("ana", Decision::Approve).await.unwrap();
    bench.until("remediating").await;
    bench.check().await;
}

#[tokio::test]
async fn a_look_that_failed_behind_an_approval_asks_people_again() {
    let (bench, mut agent) = at_the_gate().await;
    bench.signal(Status::Resolved).await;
    let look = agent.order().await;
    agent.accept(&bench, &look).await;
    bench.decide("ana", Decision::Approve).await.unwrap();
    agent.leave(&bench).await;
    let mut host = Teller::comes(&bench, "web-1", 99).await;
    let told = v1::ToldAgain { looks: vec![3], reports: failed_look(3), ..Default::default() };
    host.tells_of_ours(&bench, &agent.last, told).await;
    // Whether its approved steps were sent to it nobody knows; it has not taken them on.
    bench.until("waiting gate").await;
    assert_eq!(bench.gate().await.state, "open");
    bench.decide("ana", Decision::Approve).await.unwrap();
    bench.until("remediating").await;
    bench.check().await;
}

#[tokio::test]
async fn what_follows_a_look_is_heard() {
    let (bench, mut host) = restored_at_the_gate().await;
    let content = its_order(&bench, 4, remediates()).await;
    host.tells_of_looks(&bench, &content, vec![3], [failed_look(3), goes_on(4)].concat()).await;
    bench.until("waiting resolve").await;
    bench.check().await;
}

#[tokio::test]
async fn a_look_under_the_number_of_what_people_approved_since_asks_them_again() {
    let (bench, mut host) = restored_at_the_gate().await;
    bench.decide("ana", Decision::Approve).await.unwrap();
    bench.until("remediating").await;
    let content = its_order(&bench, 3, looks()).await;
    host.tells_of_looks(&bench, &content, vec![3], failed_look(3)).await;
    bench.until("waiting gate").await;
    assert_eq!(bench.gate().await.state, "open");
    bench.check().await;
}

#[tokio::test]
async fn a_run_that_was_cancelled_while_it_verified_is_cancelled_as_its_host_tells_it() {
    let (bench, mut host) = restored_at_the_gate().await;
    let content = its_order(&bench, 3, remediates()).await;
    let path = "remediate/purge".to_owned();
    let began = v1::StepStarted { path: path.clone(), attempt: 1 };
    let succeeded = v1::StepEnded { path, attempt: 1, outcome: "succeeded".into(), ..Default::default() };
    let reason = "cancelled by ana: enough".to_owned();
    let reports = vec![
        report(3, What::Accepted(v1::Accepted::default())),
        report(3, What::StepStarted(began)),
        report(3, What::StepEnded(succeeded)),
        ended(3, v1::segment_ended::How::Stopped(v1::SegmentStopped { reason: reason.clone() }), NOT_RUN),
        report(3, What::Cancelled(v1::Cancelled::default())),
    ];
    host.tells(&bench, &content, reports).await;
    bench.until("ended cancelled").await;
    assert_eq!(bench.run().await.hosts[0].reason, reason);
    bench.check().await;
}

#[tokio::test]
async fn an_approved_plan_is_not_given_up_before_its_host_could_tell() {
    let (bench, mut agent) = at_the_gate().await;
    let run: RunId = bench.run().await.id.parse().unwrap();
    bench.handle.halt(bench.session("ben"), halt(run, true)).await.unwrap();
    bench.decide("ana", Decision::Approve).await.unwrap();
    agent.leave(&bench).await;
    bench.pass(MINUTE);
    let _host = Teller::comes(&bench, "web-1", 99).await;
    // Ten minutes from when it was found to know more.
    bench.pass(9 * MINUTE);
    bench.until("waiting gate").await;
    bench.pass(2 * MINUTE);
    bench.until("verifying").await;
    bench.check().await;
}

#[tokio::test]
async fn a_run_that_was_resumed_after_the_backup_is_not_paused_anew_when_its_host_comes() {
    let (mut bench, mut agent, content) = planned_and_paused().await;
    agent.leave(&bench).await;
    bench.restore().await;
    let mut host = Teller::with_journal(&bench, "web-1", 99, "journal-1").await;
    let resumed = report(1, What::Paused(v1::Paused { on: false, count: 2 }));
    host.tells(&bench, &content, vec![resumed]).await;
    bench.until("remediating").await;
    assert!(bench.run().await.hosts[0].pause.is_none());
    bench.check().await;
}

#[tokio::test]
async fn a_host_that_tells_of_no_pause_is_told_of_it_again() {
    let (bench, mut agent, content) = planned_and_paused().await;
    agent.leave(&bench).await;
    let mut host = Teller::comes(&bench, "web-1", 99).await;
    host.tells(&bench, &content, Vec::new()).await;
    let pause = bench.run().await.hosts[0].pause.clone().unwrap();
    assert_eq!((pause.on, pause.confirmed), (true, false));
    bench.check().await;
}

#[tokio::test]
async fn a_host_with_ever_new_journals_is_remembered_by_a_few_of_them() {
    let bench = Bench::new(Mode::Auto).await;
    let mut epoch = 0;
    for number in 0..40 {
        let mut host = Teller::with_journal(&bench, "web-1", epoch, &format!("journal-{number}")).await;
        epoch = host.epoch;
        let run = RunId::new(bench.clock.uuid());
        host.says(&bench, run, 1, What::Accepted(v1::Accepted::default())).await;
    }
    let kept = bench.handle.store.load(At(0)).unwrap().agents[&host()].acked.len();
    assert!((1..=16).contains(&kept), "{kept}");
    bench.check().await;
}

#[tokio::test]
async fn what_a_host_may_have_done_since_the_backup_a_person_looks_at_when_it_is_revoked_untold() {
    let (mut bench, mut agent) = at_the_gate().await;
    agent.leave(&bench).await;
    bench.pass(MINUTE);
    bench.restore().await;
    let burned = "it burned".to_owned();
    bench.handle.revoke(bench.session("ben"), host(), burned).await.unwrap();
    bench.until("waiting resolve").await;
    assert_eq!(
        bench.run().await.hosts[0].resolve,
        "remediate/purge",
        "the gate may have been approved since"
    );
    bench.check().await;
}
