//! Alerts that end under another start, fire again, or never stop; and what people are told of it.

use super::*;
use crate::coordinator::Receipt;
use crate::policy::{GuardRule, Policy};
use serde_json::Value;

const FAILED: v1::Verification = v1::Verification::Failed;
const READING: &str =
    "`disk(inputs.mount).used_percent < 85.0` is false (disk(\"/var\").used_percent = 97.3)";

async fn post(bench: &Bench, status: Status, start: Option<i64>) -> Receipt {
    let mut signal = bench.alert(status, "f1");
    signal.starts_at = start.map(At);
    if status == Status::Resolved {
        signal.ends_at = Some(signal.received_at);
    }
    bench.handle.signal(vec![signal]).await.unwrap().remove(0)
}

async fn now(bench: &Bench) -> Option<i64> {
    Some(bench.clock.now().0)
}

async fn trail(bench: &Bench, receipt: &Receipt) -> Vec<String> {
    let trail = bench.handle.explain(receipt.signal).await.unwrap().trail;
    trail.into_iter().map(|it| format!("{}: {}: {}", it.asked, it.answer, it.reason)).collect()
}

async fn incidents(bench: &Bench, open: bool) -> Vec<v1::Incident> {
    bench.handle.incidents(open, 50).await.unwrap()
}

/// The host's side of a remediation, whose symptom is read as said.
async fn remediate(bench: &Bench, agent: &mut FakeAgent, verification: v1::Verification) {
    agent.orders.clear();
    diagnose(bench, agent).await;
    let order = agent.order().await;
    agent.accept(bench, &order).await;
    agent.step(bench, &order, "remediate/vacuum").await;
    if verification == FAILED {
        let ended = v1::StepEnded {
            path: "verify/below".into(),
            attempt: 1,
            outcome: "failed".into(),
            message: READING.into(),
            ..Default::default()
        };
        agent.report(bench, &order, v1::report::What::StepEnded(ended)).await;
    }
    let how = v1::segment_ended::How::Done(v1::SegmentDone {});
    agent.end(bench, &order, how, verification, true).await;
    bench.until(if verification == FAILED { "ended unverified" } else { "ended verified" }).await;
}

/// Only diagnosis is let through.
async fn refused(bench: &Bench, agent: &mut FakeAgent) -> String {
    agent.orders.clear();
    diagnose(bench, agent).await;
    bench.until("ended refused").await;
    bench.run().await.hosts[0].reason.clone()
}

/// The notifications of a kind, once there are so many.
async fn told(bench: &Bench, kind: &str, count: usize) -> Vec<Value> {
    let of = || {
        let bodies = bench.inbox.bodies.lock().unwrap();
        bodies.iter().filter(|body| body["kind"] == kind).cloned().collect::<Vec<_>>()
    };
    eventually(|| of().len() >= count).await;
    let found = of();
    assert_eq!(found.len(), count, "{:?}", bench.inbox.kinds());
    found
}

#[tokio::test]
async fn an_alert_is_over_whatever_start_its_end_names() {
    for end_names in [Some(995_000), Some(100_000), None] {
        let bench = Bench::new(Mode::Observe).await;
        let first = post(&bench, Status::Firing, Some(990_000)).await;
        bench.pass(MINUTE);
        let end = post(&bench, Status::Resolved, end_names).await;
        assert_eq!((end.signal, end.new), (first.signal, false), "{end_names:?}");
        let trail = trail(&bench, &first).await;
        assert!(trail.iter().any(|it| it.contains("the same alert, so it is over")), "{trail:#?}");
        assert!(trail.last().unwrap().contains("before anything ran"), "{trail:#?}");
        assert!(incidents(&bench, true).await.is_empty());
        bench.check().await;
    }
}

#[tokio::test]
async fn an_end_before_the_beginning_ends_nothing() {
    let bench = Bench::new(Mode::Observe).await;
    post(&bench, Status::Firing, Some(990_000)).await;
    let mut late = bench.alert(Status::Resolved, "f1");
    (late.starts_at, late.ends_at) = (Some(At(500_000)), Some(At(600_000)));
    bench.handle.signal(vec![late]).await.unwrap();
    assert_eq!(incidents(&bench, true).await.len(), 1, "that was about an earlier one");
    bench.check().await;
}

#[tokio::test]
async fn two_that_watch_the_same_and_name_other_starts_start_one_run() {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let first = post(&bench, Status::Firing, Some(990_000)).await;
    remediate(&bench, &mut agent, PASSED).await;
    for start in [Some(995_000), Some(980_000), None] {
        let mut asked = bench.alert(Status::Firing, "f1");
        asked.starts_at = start.map(At);
        let would = bench.handle.test_signal(vec![asked]).await.unwrap().remove(0).trail.remove(0).reason;
        assert!(would.starts_with(&format!("known as {}", first.signal)), "{would}");
        let again = post(&bench, Status::Firing, start).await;
        assert_eq!((again.signal, again.new), (first.signal, false), "{start:?}");
    }
    let all = trail(&bench, &first).await;
    assert!(all.iter().any(|it| it.contains("the same trouble")), "{all:#?}");
    // One of them says that it is over; the other has not noticed yet, and says so a moment later.
    bench.pass(MINUTE);
    post(&bench, Status::Resolved, Some(990_000)).await;
    assert!(incidents(&bench, true).await.is_empty());
    let late = post(&bench, Status::Firing, Some(995_000)).await;
    assert_eq!(late.run, None);
    assert!(trail(&bench, &late).await[0].contains("taken for a late message"));
    assert_eq!(bench.handle.runs(v1::ListRunsRequest::default()).await.unwrap().len(), 1);
    // But what began after that end is another firing, however soon.
    bench.pass(1_000);
    assert!(post(&bench, Status::Firing, now(&bench).await).await.run.is_some());
    bench.check().await;
}

#[tokio::test]
async fn the_clock_of_remediation_goes_on_when_the_alert_fires_again() {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    post(&bench, Status::Firing, Some(990_000)).await;
    remediate(&bench, &mut agent, PASSED).await;
    let clock = async || {
        let id: IncidentId = incidents(&bench, false).await[0].id.parse().unwrap();
        bench.handle.incident(id).await.unwrap().clocks.unwrap().remediate.unwrap()
    };
    assert_eq!(clock().await.total_ms, Some(10_000));
    // Its end was lost on the way.
    bench.pass(31 * MINUTE);
    post(&bench, Status::Firing, now(&bench).await).await;
    assert_eq!(clock().await.total_ms, None, "what was gone is back");
    remediate(&bench, &mut agent, PASSED).await;
    assert_eq!(clock().await.total_ms, Some(31 * 60_000 + 10_000));
    assert_eq!(clock().await.verdict, "late");
    assert_eq!(incidents(&bench, false).await.len(), 1, "one incident");
    bench.check().await;
}

#[tokio::test]
async fn what_fires_after_its_incident_was_closed_is_another_incident() {
    let bench = Bench::new(Mode::Observe).await;
    for _ in 0..3 {
        let start = now(&bench).await;
        post(&bench, Status::Firing, start).await;
        bench.pass(MINUTE);
        post(&bench, Status::Resolved, start).await;
        bench.pass(MINUTE);
    }
    assert_eq!((incidents(&bench, false).await.len(), incidents(&bench, true).await.len()), (3, 0));
    bench.check().await;
}

#[tokio::test]
async fn how_an_incident_ended_says_whether_anything_was_done() {
    let closed = async |bench: &Bench| {
        post(bench, Status::Resolved, Some(990_000)).await;
        let id: IncidentId = incidents(bench, false).await[0].id.parse().unwrap();
        bench.handle.incident(id).await.unwrap().timeline.pop().unwrap().text
    };
    let bench = Bench::new(Mode::Observe).await;
    let first = post(&bench, Status::Firing, Some(990_000)).await;
    assert_eq!(closed(&bench).await, "the alert resolved by itself before anything ran");
    let last = trail(&bench, &first).await.pop().unwrap();
    assert_eq!(last, "incident: no: the alert resolved by itself before anything ran");

    let bench = Bench::new(Mode::Diagnose).await;
    let mut agent = FakeAgent::join(&bench).await;
    post(&bench, Status::Firing, Some(990_000)).await;
    diagnose(&bench, &mut agent).await;
    bench.until("ended succeeded").await;
    let text = closed(&bench).await;
    assert!(text.starts_with("the alert resolved by itself: the host was looked at"), "{text}");

    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    post(&bench, Status::Firing, Some(990_000)).await;
    remediate(&bench, &mut agent, FAILED).await;
    assert_eq!(
        closed(&bench).await,
        "the alert is resolved, though no run could verify that the symptom is gone"
    );
    bench.check().await;
}

#[tokio::test]
async fn verified_but_still_firing_is_said_once() {
    let mut bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let first = post(&bench, Status::Firing, Some(990_000)).await;
    remediate(&bench, &mut agent, PASSED).await;
    bench.pass(10 * MINUTE - 1);
    assert!(told(&bench, "still-firing", 0).await.is_empty());
    bench.restart().await;
    bench.pass(1);
    let said = told(&bench, "still-firing", 1).await.remove(0);
    assert!(said["title"].as_str().unwrap().ends_with("verified, but still firing"), "{said:#}");
    bench.pass(60 * MINUTE);
    post(&bench, Status::Firing, Some(990_000)).await;
    told(&bench, "still-firing", 1).await;
    let trail = trail(&bench, &first).await;
    assert!(trail.last().unwrap().contains("the alert still fires"), "{trail:#?}");
    let id: IncidentId = incidents(&bench, true).await[0].id.parse().unwrap();
    let timeline = bench.handle.incident(id).await.unwrap().timeline;
    assert!(
        timeline.iter().any(|entry| entry.text.starts_with("verified, but still firing")),
        "{timeline:#?}"
    );
    bench.check().await;
}

#[tokio::test]
async fn what_did_not_help_is_told_with_its_evidence() {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    post(&bench, Status::Firing, Some(990_000)).await;
    remediate(&bench, &mut agent, FAILED).await;
    let said = told(&bench, "run-ended", 1).await.remove(0);
    assert_eq!(
        (said["fettle"].as_str(), said["ending"].as_str()),
        (Some("notification/2"), Some("unverified"))
    );
    assert_eq!(said["since"], At(990_000).to_string());
    let evidence = &said["evidence"];
    assert_eq!(evidence["readings"][0], READING);
    assert_eq!(evidence["seen"][0], serde_json::json!({ "step": "diagnose/usage", "lines": ["91"] }));
    let tried: Vec<&str> =
        evidence["tried"].as_array().unwrap().iter().map(|it| it["step"].as_str().unwrap()).collect();
    assert_eq!(tried, ["diagnose/usage", "remediate/vacuum", "verify/below"]);
    let id: IncidentId = incidents(&bench, true).await[0].id.parse().unwrap();
    assert_eq!(evidence["next"][0], format!("fettle incident show {id}"));
    // The incident shows the same.
    let shown = bench.handle.incident(id).await.unwrap().evidence;
    assert_eq!((shown[0].ending.as_str(), shown[0].readings[0].as_str()), ("unverified", READING));
    assert_eq!(shown[0].tried.len(), 3);
    bench.check().await;
}

#[tokio::test]
async fn what_did_not_help_twice_is_left_to_people_who_are_told_once() {
    let mut bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let fire = async |bench: &Bench| {
        bench.pass(31 * MINUTE);
        post(bench, Status::Firing, now(bench).await).await
    };
    for _ in 0..2 {
        fire(&bench).await;
        remediate(&bench, &mut agent, FAILED).await;
    }
    told(&bench, "run-ended", 2).await;
    bench.restart().await;
    agent.connect(&bench).await;
    let third = fire(&bench).await;
    let why = refused(&bench, &mut agent).await;
    assert!(why.starts_with("guard breaker: 2 remediations in a row did not help"), "{why}");
    let said = told(&bench, "run-ended", 3).await.pop().unwrap();
    assert_eq!(said["ending"], "refused");
    assert!(said["text"].as_str().unwrap().contains("guard breaker"), "{said:#}");
    let reasons = trail(&bench, &third).await;
    assert!(reasons.iter().any(|it| it.starts_with("guard breaker: no")), "{reasons:#?}");
    assert!(reasons.last().unwrap().contains("on web-1 ended refused: guard breaker"), "{reasons:#?}");
    // It goes on: refused, and told to nobody again.
    let fourth = fire(&bench).await;
    refused(&bench, &mut agent).await;
    told(&bench, "run-ended", 3).await;
    let reasons = trail(&bench, &fourth).await;
    assert!(reasons.last().unwrap().starts_with("notify: no: people were told"), "{reasons:#?}");
    assert_eq!(incidents(&bench, false).await.len(), 1);

    // A person starts it by hand, and it helps: alerts may again.
    let runbook = bench.handle.library().entries["host/disk-full"].bytes.clone();
    let request = start(&bench, "ana", RunId::new(bench.clock.uuid()), &runbook);
    bench.pass(31 * MINUTE);
    bench.handle.start(bench.session("ana"), request).await.unwrap();
    remediate(&bench, &mut agent, PASSED).await;
    let policy = Policy { guards: vec![], ..(*bench.handle.policy()).clone() };
    bench.handle.set_policy(std::sync::Arc::new(policy), Vec::new()).await;
    bench.pass(24 * 60 * MINUTE);
    fire(&bench).await;
    remediate(&bench, &mut agent, PASSED).await;
    bench.check().await;
}

#[tokio::test]
async fn what_does_not_help_opens_the_breaker_though_the_alert_resolves_in_between() {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    for attempt in 0..3 {
        bench.pass(31 * MINUTE);
        let start = now(&bench).await;
        post(&bench, Status::Firing, start).await;
        if attempt < 2 {
            remediate(&bench, &mut agent, FAILED).await;
        } else {
            let why = refused(&bench, &mut agent).await;
            assert!(why.starts_with("guard breaker: 2 remediations in a row did not help"), "{why}");
        }
        post(&bench, Status::Resolved, start).await;
        assert!(incidents(&bench, true).await.is_empty());
    }
    bench.check().await;
}

#[tokio::test]
async fn a_day_after_the_last_that_did_not_help_alerts_may_try_again() {
    let bench = Bench::new(Mode::Auto).await;
    let rule = GuardRule {
        runbook: crate::policy::Glob::new("*"),
        hosts: None,
        cooldown: None,
        max_runs: None,
        breaker: Some(1),
    };
    let policy = Policy { guards: vec![rule], ..(*bench.handle.policy()).clone() };
    bench.handle.set_policy(std::sync::Arc::new(policy), Vec::new()).await;
    let mut agent = FakeAgent::join(&bench).await;
    let start = now(&bench).await;
    post(&bench, Status::Firing, start).await;
    remediate(&bench, &mut agent, FAILED).await;
    post(&bench, Status::Resolved, start).await;
    bench.pass(31 * MINUTE);
    let start = now(&bench).await;
    post(&bench, Status::Firing, start).await;
    let why = refused(&bench, &mut agent).await;
    assert!(why.starts_with("guard breaker"), "{why}");
    post(&bench, Status::Resolved, start).await;
    bench.pass(24 * 60 * MINUTE);
    post(&bench, Status::Firing, now(&bench).await).await;
    remediate(&bench, &mut agent, PASSED).await;
    bench.check().await;
}

#[tokio::test]
async fn that_guards_refuse_does_not_silence_what_the_host_refuses_itself() {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let fire = async |minutes| {
        bench.pass(minutes * MINUTE);
        post(&bench, Status::Firing, now(&bench).await).await
    };
    fire(0).await;
    remediate(&bench, &mut agent, PASSED).await;
    fire(5).await;
    refused(&bench, &mut agent).await;
    fire(5).await;
    agent.orders.clear();
    let order = agent.order().await;
    let message = "the runbook is not certified".to_owned();
    let refusal = v1::Refused { code: "not-certified".into(), message };
    agent.report(&bench, &order, v1::report::What::Refused(refusal)).await;
    bench.until("ended refused").await;
    let said = told(&bench, "run-ended", 3).await.pop().unwrap();
    assert!(said["text"].as_str().unwrap().contains("not certified"), "{said:#}");
    bench.check().await;
}

#[tokio::test]
async fn a_refusal_that_nobody_was_told_of_is_told_once_there_is_somebody() {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let fire = async |minutes| {
        bench.pass(minutes * MINUTE);
        post(&bench, Status::Firing, now(&bench).await).await
    };
    fire(0).await;
    remediate(&bench, &mut agent, PASSED).await;
    told(&bench, "run-ended", 1).await;
    let policy = (*bench.handle.policy()).clone();
    let nobody = Policy { notify: None, ..policy.clone() };
    bench.handle.set_policy(std::sync::Arc::new(nobody), Vec::new()).await;
    let unheard = fire(5).await;
    refused(&bench, &mut agent).await;
    let reasons = trail(&bench, &unheard).await;
    assert!(!reasons.iter().any(|it| it.contains("people were told")), "{reasons:#?}");
    bench.handle.set_policy(std::sync::Arc::new(policy), Vec::new()).await;
    fire(5).await;
    refused(&bench, &mut agent).await;
    told(&bench, "run-ended", 2).await;
    bench.check().await;
}

#[tokio::test]
async fn a_refusal_is_told_again_in_another_incident_after_an_hour() {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let start = now(&bench).await;
    post(&bench, Status::Firing, start).await;
    remediate(&bench, &mut agent, PASSED).await;
    post(&bench, Status::Resolved, start).await;
    // It crashes every five minutes; the cool-down holds for thirty.
    for _ in 0..4 {
        bench.pass(5 * MINUTE);
        let start = now(&bench).await;
        post(&bench, Status::Firing, start).await;
        let why = refused(&bench, &mut agent).await;
        assert!(why.starts_with("guard cooldown"), "{why}");
        post(&bench, Status::Resolved, start).await;
    }
    let endings: Vec<Value> =
        told(&bench, "run-ended", 2).await.into_iter().map(|body| body["ending"].clone()).collect();
    assert_eq!(endings, ["verified", "refused"]);
    bench.check().await;
}

#[tokio::test]
async fn what_calls_itself_resolved_or_is_hearsay_starts_no_run() {
    use crate::signal::intake;
    let bench = Bench::new(Mode::Auto).await;
    let _agent = FakeAgent::join(&bench).await;
    let labels = r#""alertname":"NodeFilesystemAlmostOutOfSpace","instance":"web-1:9100","mountpoint":"/var","fstype":"ext4""#;
    let body = |status: &str, labels: &str, more: &str| {
        format!(r#"{{"receiver":"r","alerts":[{{"status":"{status}","labels":{{{labels}}}{more}}}]}}"#)
    };
    let unfilled = labels.replace("/var", "{{ $labels.mountpoint }}");
    let bodies = [
        body("resolved", labels, r#","startsAt":"2026-01-01T00:00:00Z","fingerprint":"1""#),
        body("resolved", labels, r#","fingerprint":"2""#),
        body("firing", labels, r#","annotations":{"grafana_state_reason":"NoData"},"fingerprint":"3""#),
        body("firing", &unfilled, r#","fingerprint":"4""#),
    ];
    let mut reasons = Vec::new();
    for body in bodies {
        let read = intake::read("prod", body.as_bytes(), bench.clock.now()).expect("it is read");
        let receipt = bench.handle.signal(read.signals).await.unwrap().remove(0);
        assert_eq!(receipt.run, None, "{body}");
        reasons.push(trail(&bench, &receipt).await.join("\n"));
    }
    assert!(reasons[2].contains("intake: no: Grafana got no data"), "{}", reasons[2]);
    assert!(reasons[3].contains("a template that the alert's rule did not fill in"), "{}", reasons[3]);
    bench.check().await;
}

#[tokio::test]
async fn a_late_message_that_was_none_is_judged_after_a_minute_without_another_word() {
    let mut bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let end = async |bench: &Bench| post(bench, Status::Resolved, Some(990_000)).await;
    let first = post(&bench, Status::Firing, Some(990_000)).await;
    remediate(&bench, &mut agent, PASSED).await;
    end(&bench).await;
    // Over, late, over: nothing comes of it.
    bench.pass(1_000);
    let late = post(&bench, Status::Firing, Some(990_000)).await;
    assert_eq!((late.new, late.run), (true, None));
    assert_eq!(end(&bench).await.signal, first.signal);
    bench.pass(10 * MINUTE);
    assert_eq!(bench.handle.runs(v1::ListRunsRequest::default()).await.unwrap().len(), 1);
    // It fires, its end and its return are received, and then nothing for hours.
    bench.pass(31 * MINUTE);
    let start = now(&bench).await;
    post(&bench, Status::Firing, start).await;
    remediate(&bench, &mut agent, PASSED).await;
    post(&bench, Status::Resolved, start).await;
    bench.pass(1_000);
    let back = post(&bench, Status::Firing, start).await;
    assert_eq!(back.run, None);
    bench.restart().await;
    agent.connect(&bench).await;
    agent.orders.clear();
    bench.pass(MINUTE);
    let order = agent.order().await;
    let told = bench.handle.explain(back.signal).await.unwrap();
    assert_eq!(told.run, order.run);
    let reasons = trail(&bench, &back).await;
    assert!(reasons.iter().any(|it| it.contains("it was no late message")), "{reasons:#?}");
    assert_eq!(incidents(&bench, true).await.len(), 1);
    bench.check().await;
}

#[tokio::test]
async fn what_was_hearsay_is_judged_once_it_is_about_a_host() {
    let bench = Bench::new(Mode::Auto).await;
    let _agent = FakeAgent::join(&bench).await;
    let mut hearsay = bench.alert(Status::Firing, "f1");
    let text = "Grafana got no data".to_owned();
    hearsay.remarks = vec![crate::signal::Remark { answer: crate::signal::Answer::No, text }];
    let first = bench.handle.signal(vec![hearsay.clone()]).await.unwrap().remove(0);
    assert_eq!(first.run, None);
    assert_eq!(bench.handle.signal(vec![hearsay]).await.unwrap().remove(0).run, None);
    let real = bench.handle.signal(vec![bench.alert(Status::Firing, "f1")]).await.unwrap().remove(0);
    assert_eq!((real.signal, real.new), (first.signal, false));
    assert!(real.run.is_some(), "{:#?}", trail(&bench, &real).await);
    let again = bench.handle.signal(vec![bench.alert(Status::Firing, "f1")]).await.unwrap().remove(0);
    assert_eq!(again.run, real.run);
    assert_eq!(incidents(&bench, true).await.len(), 1);
    bench.check().await;
}
