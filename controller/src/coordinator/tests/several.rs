//! Several alerts of one host at a time: two mounts, or one trouble that two sources see.

use prost::Message as _;

use super::*;
use crate::coordinator::Receipt;
use crate::signal::Signal;

fn of(bench: &Bench, status: Status, mount: &str, start: i64) -> Signal {
    let mut signal = bench.alert(status, mount);
    signal.labels.insert("mountpoint".into(), mount.into());
    signal.starts_at = Some(At(start));
    signal.ends_at = Some(signal.received_at).filter(|_| status == Status::Resolved);
    signal
}

async fn post(bench: &Bench, signals: Vec<Signal>) -> Vec<Receipt> {
    bench.handle.signal(signals).await.unwrap()
}

async fn resolve_both(bench: &Bench) -> v1::Incident {
    let both = ["/", "/var"].map(|mount| of(bench, Status::Resolved, mount, 990_000));
    post(bench, both.into()).await;
    let all = bench.handle.incidents(false, 50).await.unwrap();
    assert_eq!((all.len(), all[0].state.as_str()), (1, "closed"));
    bench.handle.incident(all[0].id.parse().unwrap()).await.unwrap()
}

/// An order, whatever segments other runs were sent.
async fn order(agent: &mut FakeAgent) -> v1::OrderContent {
    agent.orders.clear();
    agent.order().await
}

async fn planned(bench: &Bench, agent: &mut FakeAgent, order: &v1::OrderContent) {
    agent.accept(bench, order).await;
    agent.plan(bench, order).await;
    agent.done(bench, order, NOT_RUN).await;
}

async fn remediated(bench: &Bench, agent: &mut FakeAgent, verification: v1::Verification) -> String {
    let order = order(agent).await;
    agent.accept(bench, &order).await;
    agent.step(bench, &order, "remediate/vacuum").await;
    let how = v1::segment_ended::How::Done(v1::SegmentDone {});
    agent.end(bench, &order, how, verification, true).await;
    order.inputs["mount"].clone()
}

#[tokio::test]
async fn two_filesystems_of_a_host_are_both_healed_one_after_the_other() {
    for second in [PASSED, v1::Verification::Failed] {
        let bench = Bench::new(Mode::Auto).await;
        let mut agent = FakeAgent::join(&bench).await;
        let both = ["/", "/var"].map(|mount| of(&bench, Status::Firing, mount, 990_000));
        let receipts = post(&bench, both.into()).await;
        assert!(receipts.iter().all(|receipt| receipt.run.is_some()), "{receipts:?}");
        let one = order(&mut agent).await;
        let other = order(&mut agent).await;
        planned(&bench, &mut agent, &one).await;
        planned(&bench, &mut agent, &other).await;
        bench.until("waiting wave").await;
        assert_eq!(remediated(&bench, &mut agent, PASSED).await, "/");
        bench.pass(MINUTE);
        // The cooldown of the first does not hold the second back.
        assert_eq!(remediated(&bench, &mut agent, second).await, "/var");
        let incident = resolve_both(&bench).await;
        let last = incident.timeline.last().unwrap().text.clone();
        let clock = incident.clocks.unwrap().remediate.unwrap();
        match second {
            PASSED => {
                assert_eq!(last, "the symptom is verified gone and the alert is resolved");
                assert_eq!(clock.total_ms, Some(10_000 + 60_000), "the last counts");
            }
            v1::Verification::Failed | NOT_RUN => {
                assert!(last.contains("not every run could verify"), "{last}");
                assert_eq!((clock.total_ms, clock.verdict.as_str()), (None, "not known"));
            }
        }
        bench.check().await;
    }
}

#[tokio::test]
async fn a_source_that_is_slower_takes_no_verification_back() {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    post(&bench, vec![of(&bench, Status::Firing, "/var", 990_000)]).await;
    let first = order(&mut agent).await;
    planned(&bench, &mut agent, &first).await;
    remediated(&bench, &mut agent, PASSED).await;
    bench.pass(30_000);
    let mut slower = of(&bench, Status::Firing, "/var", 995_000);
    slower.fingerprint = "/".into();
    post(&bench, vec![slower]).await;
    let again = order(&mut agent).await;
    planned(&bench, &mut agent, &again).await;
    bench.until("ended refused").await;
    // The look whether the alerts agree is not lost.
    bench.pass(10 * MINUTE);
    let told = || bench.inbox.kinds().iter().filter(|kind| *kind == "still-firing").count();
    eventually(|| told() > 0).await;
    assert_eq!(told(), 1);
    let incident = resolve_both(&bench).await;
    assert_eq!(
        incident.timeline.last().unwrap().text,
        "the symptom is verified gone and the alert is resolved"
    );
    assert_eq!(incident.clocks.unwrap().remediate.unwrap().total_ms, Some(10_000));
    bench.check().await;
}

/// A run that remediates, by its order, and one that waits for the same host, by its id.
async fn one_after_the_other() -> (Bench, FakeAgent, v1::OrderContent, String) {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let both = ["/", "/var"].map(|mount| of(&bench, Status::Firing, mount, 990_000));
    post(&bench, both.into()).await;
    let one = order(&mut agent).await;
    let other = order(&mut agent).await;
    planned(&bench, &mut agent, &one).await;
    planned(&bench, &mut agent, &other).await;
    let taken = order(&mut agent).await;
    assert_eq!(taken.run, one.run);
    (bench, agent, taken, other.run)
}

#[tokio::test]
async fn whoever_waits_for_a_host_goes_on_when_that_tells_again_that_the_other_is_over() {
    let (bench, mut agent, taken, waits) = one_after_the_other().await;
    agent.leave(&bench).await;
    let mut host = super::restored::Teller::comes(&bench, "web-1", 99).await;
    let v1::to_agent::What::Order(owed) = host.hears().await else { panic!("an order") };
    assert_eq!(v1::OrderContent::decode(owed.content).unwrap().run, taken.run);
    let done = v1::SegmentEnded {
        how: Some(v1::segment_ended::How::Done(v1::SegmentDone {})),
        verification: PASSED.into(),
        effects: true,
        ..Default::default()
    };
    let told = [v1::report::What::Accepted(v1::Accepted::default()), v1::report::What::SegmentEnded(done)];
    let told = told.map(|what| super::restored::report(2, what));
    host.tells(&bench, &taken, told.into()).await;
    let v1::to_agent::What::Order(next) = host.hears().await else { panic!("an order") };
    let next = v1::OrderContent::decode(next.content).unwrap();
    assert_eq!((next.run, next.segment), (waits, 2));
    bench.check().await;
}

#[tokio::test]
async fn nothing_begins_on_a_host_because_it_was_revoked() {
    let (bench, mut agent, taken, waits) = one_after_the_other().await;
    agent.accept(&bench, &taken).await;
    agent.step(&bench, &taken, "remediate/vacuum").await;
    bench.handle.revoke(bench.session("ben"), host(), "it burned".into()).await.unwrap();
    for (run, stands, reason) in [
        (&taken.run, "waiting", "its outcome was unknown when the run was cancelled"),
        (&waits, "ended", "web-1 was revoked by ben: it burned"),
    ] {
        let shown = bench.handle.run(run.parse().unwrap()).await.unwrap().hosts.remove(0);
        assert_eq!((shown.state.as_str(), shown.reason.as_str()), (stands, reason));
        let begun =
            shown.steps.iter().map(|step| step.path.as_str()).filter(|path| path.starts_with("remediate"));
        let wanted: &[&str] = if *run == taken.run { &["remediate/vacuum", "remediate/purge"] } else { &[] };
        assert_eq!(begun.collect::<std::collections::BTreeSet<_>>(), wanted.iter().copied().collect());
    }
    bench.check().await;
}
