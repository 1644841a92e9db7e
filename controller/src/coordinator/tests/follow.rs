//! People go on from a run that is over.

use fettle_proto::signed::start::Of;
use fettle_runbooks::follow::FollowUp;

use super::*;
use crate::coordinator::{Found, Looked};

/// What a person signs to go on from a run.
async fn follow(bench: &Bench, person: &str, of: RunId, how: FollowUp) -> v1::StartRunRequest {
    let inputs = bench.handle.run(of).await.map(|run| run.inputs.into_iter().collect()).unwrap_or_default();
    let runbook = bench.handle.library().entries["host/disk-full"].bytes.clone();
    let plain = start(bench, person, RunId::new(bench.clock.uuid()), &runbook).start.expect("signed");
    let plain = Start::decode(&plain.bytes).expect("a start");
    let of = Of { run: of, how, reason: "it must be".into(), found: Default::default() };
    signed_by(person, &Start { of: Some(of), inputs, ..plain })
}

fn signed_by(person: &str, start: &Start) -> v1::StartRunRequest {
    let signed = signed::sign(&key(person), Namespace::Start, &start.encode()).unwrap();
    v1::StartRunRequest { start: Some(signed.into()), runbook: Default::default() }
}

async fn refused(bench: &Bench, request: v1::StartRunRequest) -> &'static str {
    bench.handle.start(bench.session("ana"), request).await.unwrap_err().code()
}

#[tokio::test]
async fn a_run_is_gone_on_from_once_it_is_over_in_its_incident_and_as_one_remediation() {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let first = bench.signal(Status::Firing).await.remove(0).run.unwrap();
    assert_eq!(refused(&bench, follow(&bench, "ana", first, FollowUp::Retry).await).await, "run-open");
    diagnose(&bench, &mut agent).await;
    let order = agent.order().await;
    agent.accept(&bench, &order).await;
    agent.step(&bench, &order, "remediate/vacuum").await;
    let path = "remediate/purge".to_owned();
    let unknown = v1::SegmentUnknown { path: path.clone(), attempt: 1, reason: "power cut".into() };
    agent.end(&bench, &order, v1::segment_ended::How::Unknown(unknown), NOT_RUN, true).await;
    bench.until("waiting resolve").await;
    for how in [FollowUp::Retry, FollowUp::Undo] {
        assert_eq!(refused(&bench, follow(&bench, "ana", first, how).await).await, "outcome-unknown");
    }
    let looked = Looked { path: Some(path.clone()), found: Found::DidNotRun, reason: "its log".into() };
    bench.handle.resolve(bench.session("ben"), first, host(), looked).await.unwrap();
    let order = agent.order().await;
    agent.done(&bench, &order, v1::Verification::Failed).await;
    bench.until("ended failed").await;
    let shown = bench.run().await;
    assert_eq!(shown.hosts[0].found, [(path, "did-not-run".to_owned())].into());

    let nobody = RunId::new(bench.clock.uuid());
    assert_eq!(refused(&bench, follow(&bench, "ana", nobody, FollowUp::Undo).await).await, "not-found");
    let good = follow(&bench, "ana", first, FollowUp::Undo).await;
    let start = Start::decode(&good.start.expect("signed").bytes).unwrap();
    let bent = [
        Start { inputs: [("mount".to_owned(), "/elsewhere".to_owned())].into(), ..start.clone() },
        Start { until: Until::Plan, ..start.clone() },
        Start { runbook_digest: fettle_runbooks::id::Digest([1; 32]), ..start },
    ];
    for start in bent {
        assert_eq!(refused(&bench, signed_by("ana", &start)).await, "follow-mismatch");
    }

    agent.orders.clear();
    // Within the cooldown of the first: it is the same remediation.
    bench.pass(1_000);
    let retry = follow(&bench, "ana", first, FollowUp::Retry).await;
    let second = bench.handle.start(bench.session("ana"), retry).await.unwrap().run;
    assert_eq!(refused(&bench, follow(&bench, "ana", first, FollowUp::Undo).await).await, "followed");
    diagnose(&bench, &mut agent).await;
    to_the_gate(&bench, &mut agent).await;
    bench.until("waiting gate").await;
    let later = bench.run().await;
    assert_eq!((later.id.clone(), later.incident.clone()), (second.clone(), shown.incident.clone()));
    assert_eq!(later.of.map(|of| (of.run, of.how)), Some((first.to_string(), "retry".to_owned())));
    let earlier = bench.handle.run(first).await.unwrap();
    let named: Vec<(String, String)> =
        earlier.follow_ups.into_iter().map(|later| (later.run, later.origin)).collect();
    assert_eq!(named, [(second, "person ana".to_owned())]);
    assert_eq!(bench.decide("ana", Decision::Approve).await.unwrap_err().code(), "excluded");
    bench.check().await;
}

#[tokio::test]
async fn what_is_undone_is_not_undone_again_and_an_undo_is_not_gone_on_from() {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let first = bench.signal(Status::Firing).await.remove(0).run.unwrap();
    diagnose(&bench, &mut agent).await;
    let order = agent.order().await;
    agent.accept(&bench, &order).await;
    agent.done(&bench, &order, PASSED).await;
    bench.until("ended verified").await;

    agent.orders.clear();
    let undo = follow(&bench, "ana", first, FollowUp::Undo).await;
    let second: RunId = bench.handle.start(bench.session("ana"), undo).await.unwrap().run.parse().unwrap();
    diagnose(&bench, &mut agent).await;
    let order = agent.order().await;
    agent.accept(&bench, &order).await;
    let done = v1::SegmentEnded {
        how: Some(v1::segment_ended::How::Done(v1::SegmentDone {})),
        verification: NOT_RUN.into(),
        effects: true,
        undoing: v1::Undoing::Done.into(),
    };
    agent.report(&bench, &order, v1::report::What::SegmentEnded(done)).await;
    bench.until("ended undone").await;
    assert_eq!(refused(&bench, follow(&bench, "ana", first, FollowUp::Undo).await).await, "undone-before");
    for how in [FollowUp::Retry, FollowUp::Undo] {
        assert_eq!(refused(&bench, follow(&bench, "ana", second, how).await).await, "is-undo");
    }
    bench.check().await;
}

#[tokio::test]
async fn a_retry_that_came_to_no_plan_on_a_host_is_not_retried_over_what_was_done_there_before_it() {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let first = bench.signal(Status::Firing).await.remove(0).run.unwrap();
    diagnose(&bench, &mut agent).await;
    let order = agent.order().await;
    agent.accept(&bench, &order).await;
    agent.done(&bench, &order, v1::Verification::Failed).await;
    bench.until("ended unverified").await;

    agent.orders.clear();
    let retry = follow(&bench, "ana", first, FollowUp::Retry).await;
    let second: RunId = bench.handle.start(bench.session("ana"), retry).await.unwrap().run.parse().unwrap();
    let order = agent.order().await;
    let refused = v1::Refused { code: "earlier-mismatch".into(), message: "another went on from it".into() };
    agent.report(&bench, &order, v1::report::What::Refused(refused)).await;
    bench.until("ended refused").await;
    let again = follow(&bench, "ana", second, FollowUp::Retry).await;
    let told = bench.handle.start(bench.session("ana"), again).await.unwrap_err();
    assert_eq!(told.code(), "no-plan-there");
    let words = told.to_string();
    assert!(words.contains(&format!("fettle run retry {first} --host web-1")), "{words}");
    agent.orders.clear();
    let retry = follow(&bench, "ana", first, FollowUp::Retry).await;
    bench.handle.start(bench.session("ana"), retry).await.unwrap();
    diagnose(&bench, &mut agent).await;
    bench.check().await;
}
