//! People stop a run, and say what became of a step whose outcome nobody knows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::*;
use crate::accept::Connections;
use crate::api::Parts;
use crate::ca::Identity;
use crate::coordinator::{Found, Looked};
use crate::http::Refusals;
use crate::library::Notices;
use crate::problem::Problem;
use crate::tasks::{Stopped, Tasks};
use crate::world::World;

/// Nobody knows how a step ended.
fn unknown(path: &str) -> v1::segment_ended::How {
    let (path, reason) = (path.to_owned(), "power cut".to_owned());
    v1::segment_ended::How::Unknown(v1::SegmentUnknown { path, attempt: 1, reason })
}

fn looked(found: Found) -> Looked {
    Looked { path: Some("remediate/vacuum".into()), found, reason: "journalctl says so".into() }
}

/// A run on its low step.
async fn remediating() -> (Bench, FakeAgent, RunId, v1::OrderContent) {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let run = bench.signal(Status::Firing).await.remove(0).run.unwrap();
    diagnose(&bench, &mut agent).await;
    let order = agent.order().await;
    agent.accept(&bench, &order).await;
    (bench, agent, run, order)
}

async fn resolve(bench: &Bench, person: &str, run: RunId, looked: Looked) -> Result<(), Problem> {
    bench.handle.resolve(bench.session(person), run, host(), looked).await
}

async fn cancel(bench: &Bench, person: &str, run: RunId) -> Result<(), Problem> {
    bench.handle.cancel(bench.session(person), run, "wrong host".into()).await
}

/// Its host does not know of the order any more, and says so.
async fn lost(bench: &Bench, agent: &mut FakeAgent, order: &v1::OrderContent) {
    let refused = v1::Refused { code: "plan-mismatch".into(), message: "no plan was made".into() };
    agent.report(bench, order, v1::report::What::Refused(refused)).await;
}

/// Everything that was said of a run, once it has ended: who, and what.
async fn story(bench: &Bench, run: RunId) -> Vec<(String, String)> {
    let events = bench.handle.watch(run, 0).await.unwrap().map(Result::unwrap);
    let all: Vec<v1::RunEvent> = events.collect().await;
    let said = all.into_iter().filter_map(|event| match event.what {
        Some(v1::run_event::What::Happened(happened)) => Some((happened.who, happened.text)),
        Some(v1::run_event::What::Output(_) | v1::run_event::What::Run(_)) | None => None,
    });
    said.collect()
}

fn holds(story: &[(String, String)], who: &str, text: &str) {
    let wanted = (who.to_owned(), text.to_owned());
    assert!(story.contains(&wanted), "{wanted:?} is not in {story:#?}");
}

#[tokio::test]
async fn an_unknown_outcome_waits_for_a_person_who_looks() {
    let (bench, mut agent, run, order) = remediating().await;
    agent.end(&bench, &order, unknown("remediate/vacuum"), NOT_RUN, true).await;
    bench.until("waiting resolve").await;
    let shown = bench.run().await.hosts.remove(0);
    assert_eq!((shown.resolve.as_str(), shown.reason.as_str()), ("remediate/vacuum", "power cut"));

    let code = |problem: Result<(), Problem>| problem.unwrap_err().code();
    assert_eq!(code(resolve(&bench, "ana", run, looked(Found::Ran)).await), "scope-missing");
    let silent = Looked { reason: " ".into(), ..looked(Found::Ran) };
    assert_eq!(code(resolve(&bench, "ben", run, silent).await), "reason-missing");
    let elsewhere = Looked { path: Some("remediate/purge".into()), ..looked(Found::Ran) };
    assert_eq!(code(resolve(&bench, "ben", run, elsewhere).await), "nothing-to-resolve");

    resolve(&bench, "ben", run, looked(Found::Ran)).await.unwrap();
    assert_eq!(code(resolve(&bench, "ben", run, looked(Found::Ran)).await), "nothing-to-resolve");
    let order = agent.order().await;
    assert!(matches!(order.work, Some(v1::order_content::Work::Verify(_))));
    agent.done(&bench, &order, PASSED).await;
    bench.until("ended verified").await;
    let story = story(&bench, run).await;
    holds(&story, "person ben", "looked at remediate/vacuum: it ran: journalctl says so");
    assert_eq!(code(resolve(&bench, "ben", run, looked(Found::Ran)).await), "run-ended");
    bench.check().await;
}

#[tokio::test]
async fn of_a_step_that_a_host_began_and_lost_with_its_journal_nobody_says_that_it_was_refused() {
    let (bench, mut agent, run, order) = remediating().await;
    let started = v1::StepStarted { path: "remediate/vacuum".into(), attempt: 1 };
    agent.report(&bench, &order, v1::report::What::StepStarted(started)).await;
    lost(&bench, &mut agent, &order).await;
    bench.until("waiting resolve").await;
    let shown = bench.run().await.hosts.remove(0);
    let why = "it had begun, and its host does not know of it any more: plan-mismatch: no plan was made";
    assert_eq!((shown.resolve.as_str(), shown.reason.as_str()), ("remediate/vacuum", why));
    let step = shown.steps.iter().find(|step| step.path == "remediate/vacuum").expect("it is shown");
    assert_eq!((step.state.as_str(), step.message.as_str()), ("unknown", why));
    resolve(&bench, "ben", run, looked(Found::Ran)).await.unwrap();
    let order = agent.order().await;
    lost(&bench, &mut agent, &order).await;
    bench.until("ended unverified").await;
    bench.check().await;
}

#[tokio::test]
async fn whatever_a_host_refuses_of_what_it_had_taken_on_it_has_lost() {
    let (bench, mut agent, _, order) = remediating().await;
    let late = v1::Refused { code: "order-expired".into(), message: "it came too late".into() };
    agent.report(&bench, &order, v1::report::What::Refused(late)).await;
    bench.until("waiting resolve").await;
    let shown = bench.run().await.hosts.remove(0);
    let why = "it may have begun, and its host does not know of it any more: order-expired: it came too late";
    assert_eq!((shown.resolve.as_str(), shown.reason.as_str()), ("remediate/vacuum", why));
    bench.check().await;
}

#[tokio::test]
async fn what_was_approved_before_does_not_close_the_question_whether_a_step_runs_again() {
    let (mut bench, mut agent) = at_the_gate().await;
    let run: RunId = bench.run().await.id.parse().unwrap();
    bench.decide("ana", Decision::Approve).await.unwrap();
    let order = agent.order().await;
    agent.accept(&bench, &order).await;
    agent.end(&bench, &order, unknown("remediate/purge"), NOT_RUN, true).await;
    bench.until("waiting resolve").await;
    bench.pass(7 * MINUTE);
    let again = Looked { path: Some("remediate/purge".into()), ..looked(Found::RunAgain) };
    resolve(&bench, "ben", run, again).await.unwrap();
    // Later than the plan that was approved may begin, and not too late to decide about what is asked now.
    bench.pass(3 * MINUTE);
    bench.restart().await;
    agent.connect(&bench).await;
    assert_eq!(bench.gate().await.state, "open");
    bench.decide("ana", Decision::Approve).await.unwrap();
    let order = agent.order().await;
    assert!(
        matches!(&order.work, Some(v1::order_content::Work::Remediate(work)) if work.grant.is_some()),
        "{order:?}"
    );
    bench.check().await;
}

#[tokio::test]
async fn a_step_that_did_not_run_is_a_failure_unless_the_symptom_is_gone() {
    let (bench, mut agent, run, order) = remediating().await;
    let unknown =
        v1::SegmentUnknown { path: "remediate/vacuum".into(), attempt: 1, reason: "power cut".into() };
    agent.end(&bench, &order, v1::segment_ended::How::Unknown(unknown), NOT_RUN, true).await;
    bench.until("waiting resolve").await;
    resolve(&bench, "ben", run, looked(Found::DidNotRun)).await.unwrap();
    let order = agent.order().await;
    agent.done(&bench, &order, v1::Verification::Failed).await;
    bench.until("ended failed").await;
    bench.check().await;
}

#[tokio::test]
async fn an_attempt_that_was_never_born_may_yet_be_and_what_ran_once_has_run() {
    let (bench, mut agent, run, order) = remediating().await;
    let path = || "remediate/vacuum".to_owned();
    let mut seen = Vec::new();
    for outcome in ["not-started", "failed", "succeeded"] {
        bench.pass(1_000);
        let started = v1::StepStarted { path: path(), attempt: 2 };
        agent.report(&bench, &order, v1::report::What::StepStarted(started)).await;
        bench.pass(1_000);
        let ended = v1::StepEnded { path: path(), attempt: 2, outcome: outcome.into(), ..Default::default() };
        agent.report(&bench, &order, v1::report::What::StepEnded(ended)).await;
        let host = bench.handle.run(run).await.unwrap().hosts.remove(0);
        seen.extend(host.steps.into_iter().filter(|it| it.path == path()).map(|it| it.state));
    }
    assert_eq!(seen, ["not-started", "failed", "failed"]);
    bench.check().await;
}

#[tokio::test]
async fn a_host_that_ends_an_earlier_segment_in_a_pause_is_sent_nothing_that_acts_until_it_is_over() {
    let (bench, mut agent, run, order) = remediating().await;
    let halt = |on| crate::coordinator::Halt { run, host: None, on, reason: "look".into() };
    bench.handle.halt(bench.session("ben"), halt(true)).await.unwrap();
    agent.order_before_pause(true).await;
    // As a copy of it ends what the copy had begun.
    let first = v1::OrderContent { segment: 1, ..order.clone() };
    agent.done(&bench, &first, NOT_RUN).await;
    bench.handle.halt(bench.session("ben"), halt(false)).await.unwrap();
    assert!(!agent.order_before_pause(false).await, "an order came during the pause");
    agent.orders.remove(&2);
    assert_eq!(agent.order().await.segment, 2, "what was kept back");
    bench.check().await;
}

#[tokio::test]
async fn a_run_is_cancelled_once_its_host_has_confirmed_that() {
    let (bench, mut agent, run, order) = remediating().await;
    assert_eq!(cancel(&bench, "eva", run).await.unwrap_err().code(), "scope-missing");
    cancel(&bench, "ben", run).await.unwrap();
    bench.until("cancelling").await;
    assert_eq!(bench.run().await.hosts[0].reason, "cancelled by ben: wrong host");
    // A second wish is the same wish.
    cancel(&bench, "ben", run).await.unwrap();
    let confirmed = v1::report::What::Cancelled(v1::Cancelled { interrupted: String::new() });
    agent.report(&bench, &order, confirmed).await;
    bench.until("ended cancelled").await;
    holds(&story(&bench, run).await, "person ben", "asked to cancel the run: wrong host");
    assert_eq!(cancel(&bench, "ben", run).await.unwrap_err().code(), "run-ended");
    let nobody = RunId::new(bench.clock.uuid());
    assert_eq!(cancel(&bench, "ben", nobody).await.unwrap_err().code(), "not-found");
    bench.check().await;
}

#[tokio::test]
async fn a_step_that_was_stopped_midway_waits_for_a_person_and_the_run_ends_cancelled() {
    let (bench, mut agent, run, order) = remediating().await;
    cancel(&bench, "ben", run).await.unwrap();
    let midway = v1::Cancelled { interrupted: "remediate/vacuum".into() };
    agent.report(&bench, &order, v1::report::What::Cancelled(midway)).await;
    bench.until("waiting resolve").await;
    resolve(&bench, "ben", run, looked(Found::DidNotRun)).await.unwrap();
    bench.until("ended cancelled").await;
    bench.check().await;
}

#[tokio::test]
async fn whoever_started_a_run_may_cancel_it() {
    let bench = Bench::new(Mode::Observe).await;
    let _agent = FakeAgent::join(&bench).await;
    let runbook = bench.handle.library().entries["host/disk-full"].bytes.clone();
    let run = RunId::new(bench.clock.uuid());
    bench.handle.start(bench.session("ana"), start(&bench, "ana", run, &runbook)).await.unwrap();
    cancel(&bench, "ana", run).await.unwrap();
    bench.until("cancelling").await;
    bench.check().await;
}

#[tokio::test]
async fn a_host_that_stops_without_a_word_of_the_step_it_had_begun_leaves_it_to_a_person() {
    let (bench, mut agent, run, order) = remediating().await;
    let started = v1::StepStarted { path: "remediate/vacuum".into(), attempt: 1 };
    agent.report(&bench, &order, v1::report::What::StepStarted(started)).await;
    agent.leave(&bench).await;
    cancel(&bench, "ben", run).await.unwrap();
    agent.connect(&bench).await;
    // Its journal is lost.
    let confirmed = v1::report::What::Cancelled(v1::Cancelled { interrupted: String::new() });
    agent.report(&bench, &order, confirmed).await;
    bench.until("waiting resolve").await;
    let shown = bench.run().await.hosts.remove(0);
    let step = shown.steps.iter().find(|step| step.path == "remediate/vacuum").expect("it is shown");
    let why = "it had begun, and its host does not know of it any more, and was asked to stop";
    assert_eq!((step.state.as_str(), step.message.as_str()), ("unknown", why));
    resolve(&bench, "ben", run, looked(Found::Ran)).await.unwrap();
    bench.until("ended cancelled").await;
    bench.check().await;
}

#[tokio::test]
async fn an_approval_during_a_pause_counts_though_it_is_resumed_during_a_look() {
    let (bench, mut agent) = at_the_gate().await;
    let run: RunId = bench.run().await.id.parse().unwrap();
    let halt = |on| crate::coordinator::Halt { run, host: None, on, reason: "look".into() };
    bench.handle.halt(bench.session("ben"), halt(true)).await.unwrap();
    bench.decide("ana", Decision::Approve).await.unwrap();
    bench.signal(Status::Resolved).await;
    let look = agent.order().await;
    assert!(matches!(look.work, Some(v1::order_content::Work::Verify(_))));
    agent.accept(&bench, &look).await;
    bench.handle.halt(bench.session("ben"), halt(false)).await.unwrap();
    agent.done(&bench, &look, v1::Verification::Failed).await;
    behind_the_gate(&bench, &mut agent).await;
    bench.until("ended verified").await;
    bench.check().await;
}

async fn revoke(bench: &Bench) {
    bench.handle.revoke(bench.session("ben"), host(), "it burned".into()).await.unwrap();
}

#[tokio::test]
async fn the_runs_of_a_revoked_host_are_over() {
    let (bench, _agent) = at_the_gate().await;
    revoke(&bench).await;
    bench.until("ended cancelled").await;
    assert_eq!(bench.run().await.hosts[0].reason, "web-1 was revoked by ben: it burned");
    assert_eq!(bench.gate().await.state, "closed");
    bench.check().await;
}

#[tokio::test]
async fn a_certificate_is_void_though_whoever_revoked_it_has_hung_up_or_the_store_does_not_answer() {
    for hangs_up in [true, false] {
        let bench = Bench::new(Mode::Auto).await;
        let parts = Parts {
            handle: bench.handle.clone(),
            trust: Bytes::new(),
            notices: Notices::default(),
            refusals: Refusals::default(),
            metrics: bench.metrics.clone(),
            connections: Connections::default(),
            tasks: Tasks::new(),
            world: Arc::clone(&bench.clock) as Arc<dyn World>,
        };
        let now = bench.clock.now();
        let issued = Identity { host: host(), serial: "1".into(), issued: now, not_after: At(i64::MAX) };
        let refused = parts.revoke(bench.session("ben"), host(), " ".into()).await;
        assert_eq!(refused.unwrap_err().code(), "reason-missing");
        assert!(!parts.connections.revocations().covers(&issued), "what is refused voids nothing");
        let asked = parts.revoke(bench.session("ben"), host(), "it burned".into());
        if hangs_up {
            assert!(asked.now_or_never().is_none(), "it takes a commit");
        } else {
            *bench.fault.lock().unwrap() = Some(false);
            assert!(matches!(asked.await, Err(Problem::Unavailable { .. })));
        }
        let stopped = parts.tasks.stop(Duration::from_secs(10)).await;
        assert_eq!(stopped, Stopped::Clean);
        assert!(parts.connections.revocations().covers(&issued), "hangs up: {hangs_up}");
        drop(parts);
        bench.check().await;
    }
}

#[tokio::test]
async fn what_a_revoked_host_may_have_begun_a_person_looks_at() {
    for begun in [false, true] {
        let (bench, mut agent, run, order) = remediating().await;
        if begun {
            let started = v1::StepStarted { path: "remediate/vacuum".into(), attempt: 1 };
            agent.report(&bench, &order, v1::report::What::StepStarted(started)).await;
        }
        // It may have been asked to stop before anybody knew that it burned.
        cancel(&bench, "ben", run).await.unwrap();
        bench.until("cancelling").await;
        revoke(&bench).await;
        bench.until("waiting resolve").await;
        let shown = bench.run().await.hosts.remove(0);
        let step = shown.steps.iter().find(|step| step.path == "remediate/vacuum").expect("it is shown");
        let why = "it may have begun, and so may steps after it, and nobody will hear of them: web-1 was revoked by ben: it burned";
        assert_eq!((step.state.as_str(), step.message.as_str()), ("unknown", why));
        // It joins again: what it hears of the run is that it is cancelled.
        let request = v1::CreateTokenRequest { host: "web-1".into(), ..Default::default() };
        let (token, _) = bench.handle.create_token(None, request).await.unwrap();
        bench.handle.spend_token(token).await.unwrap();
        let mut host = super::restored::Teller::comes(&bench, "web-1", 0).await;
        let v1::to_agent::What::Cancel(cancel) = host.hears().await else { panic!("a cancel") };
        assert_eq!(cancel.run, run.to_string());
        resolve(&bench, "ben", run, looked(Found::DidNotRun)).await.unwrap();
        bench.until("ended cancelled").await;
        bench.check().await;
    }
}

#[tokio::test]
async fn a_step_of_which_a_host_could_not_tell_is_asked_of_a_person_when_the_host_is_revoked() {
    let (bench, mut agent, run, order) = remediating().await;
    let path = || "remediate/vacuum".to_owned();
    let started = v1::StepStarted { path: path(), attempt: 1 };
    agent.report(&bench, &order, v1::report::What::StepStarted(started)).await;
    let message = "the host was switched off".to_owned();
    let unknown =
        v1::StepEnded { path: path(), attempt: 1, outcome: "unknown".into(), message, ..Default::default() };
    agent.report(&bench, &order, v1::report::What::StepEnded(unknown)).await;
    // It reads the symptom, and is revoked before it has told how the segment ended.
    let reading = v1::StepStarted { path: "verify/below".into(), attempt: 1 };
    agent.report(&bench, &order, v1::report::What::StepStarted(reading)).await;
    revoke(&bench).await;
    bench.until("waiting resolve").await;
    resolve(&bench, "ben", run, looked(Found::Ran)).await.unwrap();
    bench.until("ended cancelled").await;
    let shown = bench.run().await.hosts.remove(0);
    assert_eq!(shown.reason, "remediate/vacuum did run, says the person who looked");
    let step = |path: &str| {
        let step = shown.steps.iter().find(|step| step.path == path).expect("it is shown");
        (step.state.clone(), step.message.clone())
    };
    assert_eq!(step("remediate/vacuum"), ("unknown".to_owned(), "the host was switched off".to_owned()));
    let silent = ("unknown".to_owned(), "its host did not tell how it ended".to_owned());
    assert_eq!(step("verify/below"), silent, "nothing runs in a run that is over");
    bench.check().await;
}

#[tokio::test]
async fn what_a_host_may_have_begun_behind_an_order_that_it_has_lost_a_person_looks_at() {
    let (bench, mut agent, run, order) = remediating().await;
    lost(&bench, &mut agent, &order).await;
    bench.until("waiting resolve").await;
    let shown = bench.run().await.hosts.remove(0);
    let why = "it may have begun, and its host does not know of it any more: plan-mismatch: no plan was made";
    assert_eq!((shown.resolve.as_str(), shown.reason.as_str()), ("remediate/vacuum", why));
    resolve(&bench, "ben", run, looked(Found::DidNotRun)).await.unwrap();
    let look = agent.order().await;
    agent.done(&bench, &look, v1::Verification::Failed).await;
    bench.until("ended failed").await;
    bench.check().await;
}
