//! What is over is not kept in memory, and is known all the same when it comes again.

use super::super::desk::Desk;
use super::super::handle::InForce;
use super::*;
use crate::dispatch::Digests;
use crate::model::Model;
use crate::signal::Signal;

#[tokio::test]
async fn ten_thousand_signals_leave_nothing_but_their_names() {
    let bench = Bench::new(Mode::Auto).await;
    let (mut model, in_force) = (Model::default(), InForce::default());
    let mut take = |signal: Signal| {
        let mut digests = Digests::default();
        let mut desk = Desk::new(&mut model, &in_force, &*bench.clock, "controller.test", &mut digests);
        let receipt = desk.signal(signal);
        desk.done();
        (receipt, model.signals.len(), model.incidents.len())
    };
    for number in 0..10_000 {
        let of = |status| bench.alert(status, &format!("f{number}"));
        let (first, ..) = take(of(Status::Firing));
        let (over, signals, incidents) = take(of(Status::Resolved));
        assert_eq!((over.new, signals, incidents), (false, 0, 0));
        let (again, ..) = take(of(Status::Resolved));
        assert_eq!((again.new, again.signal), (false, first.signal));
    }
}

#[tokio::test]
async fn an_alert_that_comes_back_after_its_end_is_another_one_and_an_echo_is_not() {
    let mut bench = Bench::new(Mode::Observe).await;
    let first = bench.signal(Status::Firing).await.remove(0);
    bench.signal(Status::Resolved).await;
    assert!(bench.handle.incidents(true, 10).await.unwrap().is_empty());
    for restarts in [false, true] {
        if restarts {
            bench.restart().await;
        }
        let echo = bench.signal(Status::Resolved).await.remove(0);
        assert_eq!((echo.signal, echo.new), (first.signal, false), "restarted: {restarts}");
        // A beginning after the end is kept with its reason, and opens nothing.
        let late = bench.signal(Status::Firing).await.remove(0);
        let told = bench.handle.explain(late.signal).await.unwrap();
        assert_eq!((told.incident.as_str(), told.trail.len()), ("", 1), "restarted: {restarts}");
        assert!(told.trail[0].reason.contains(&first.signal.to_string()), "{told:?}");
    }
    let late = bench.signal(Status::Firing).await.remove(0);
    bench.pass(MINUTE);
    let back = bench.signal(Status::Firing).await.remove(0);
    assert!(back.signal == late.signal && back.signal != first.signal, "nobody said that it is over");
    assert_eq!(bench.handle.incidents(true, 10).await.unwrap().len(), 1);
    bench.restart().await;
    let known = bench.signal(Status::Firing).await.remove(0);
    assert_eq!((known.signal, known.new), (back.signal, false));
    bench.check().await;
}

#[tokio::test]
async fn an_end_in_the_far_future_makes_nothing_forgotten() {
    let mut bench = Bench::new(Mode::Observe).await;
    let first = bench.signal(Status::Firing).await.remove(0);
    bench.signal(Status::Resolved).await;
    let mut strange = bench.alert(Status::Firing, "f2");
    bench.handle.signal(vec![strange.clone()]).await.unwrap();
    (strange.status, strange.ends_at) = (Status::Resolved, Some(At(253_370_764_800_000)));
    bench.handle.signal(vec![strange]).await.unwrap();
    bench.restart().await;
    let echo = bench.signal(Status::Resolved).await.remove(0);
    assert_eq!((echo.signal, echo.new), (first.signal, false));
    bench.check().await;
}

#[tokio::test]
async fn a_trail_stays_short_whatever_flips_and_whatever_a_host_says() {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let first = bench.signal(Status::Firing).await.remove(0);
    let order = agent.order().await;
    // While the run is open, the incident is, and each flip is of the same signal.
    for _ in 0..500 {
        bench.signal(Status::Resolved).await;
        bench.signal(Status::Firing).await;
    }
    let refused = v1::Refused { code: "x".into(), message: "m".repeat(1 << 20) };
    agent.report(&bench, &order, v1::report::What::Refused(refused)).await;
    let trail = bench.handle.explain(first.signal).await.unwrap().trail;
    let size: usize = trail.iter().map(|it| it.reason.len()).sum();
    assert!(trail.len() <= 128 && size < 64 * 1024, "{} verdicts, {size} bytes", trail.len());
    assert_eq!(trail[0].reason, "not seen before");
    assert!(trail.iter().any(|it| it.reason.contains("ended refused")), "{:?}", trail.last());
    bench.check().await;
}

#[tokio::test]
async fn a_signal_kept_by_an_earlier_version_was_seen_when_it_was_received() {
    let bench = Bench::new(Mode::Observe).await;
    let (mut model, in_force) = (Model::default(), InForce::default());
    let mut take = |start: i64, forget: bool| {
        let mut signal = bench.alert(Status::Firing, "f1");
        signal.starts_at = Some(At(start));
        let mut digests = Digests::default();
        let mut desk = Desk::new(&mut model, &in_force, &*bench.clock, "controller.test", &mut digests);
        let receipt = desk.signal(signal);
        desk.done();
        if forget {
            model.signals.values_mut().for_each(|row| row.seen_at = None);
        }
        receipt
    };
    let first = take(990_000, true);
    let again = take(995_000, false);
    assert_eq!((again.new, again.signal), (false, first.signal));
}
