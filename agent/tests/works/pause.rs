//! A run is paused on this host: nothing that acts begins, whatever happens to the works meanwhile.

use fettle_agent::message::ToWorks;
use fettle_proto::v1;

use crate::bench::{Bench, content, grant, remediate};
use crate::carry::runbook;

fn tell(bench: &Bench, on: bool, count: u32) {
    bench.tell(ToWorks::Pause { run: bench.run, on, count });
}

fn told(on: bool, count: u32) -> impl Fn(&v1::report::What) -> bool {
    move |what| matches!(what, v1::report::What::Paused(told) if (told.on, told.count) == (on, count))
}

#[test]
fn a_pause_outlives_the_works_and_the_step_begins_when_it_is_over() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let plan = bench.plan(&text);
    tell(&bench, true, 1);
    bench.until("it is paused", told(true, 1));
    bench.order(&content(&bench, 2, &text, remediate(&plan, "remediate/easy", None)));
    bench.until("the order is taken on", |what| matches!(what, v1::report::What::Accepted(_)));
    bench.stop();
    bench.start();
    bench.connect(0);
    // Whatever it would have begun after the restart, it would have begun before it answers this.
    tell(&bench, true, 2);
    bench.until("it says so again", told(true, 2));
    assert_eq!(bench.written("marker"), "");

    tell(&bench, false, 3);
    bench.until("it goes on", told(false, 3));
    bench.ended();
    assert!(bench.transcript().contains("end: gate remediate/hard"), "{}", bench.transcript());
    assert_eq!(bench.written("marker"), "low\n");
}

#[test]
fn what_runs_when_a_pause_comes_goes_on_and_what_was_approved_waits() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let plan = bench.plan(&text);
    bench.order(&content(&bench, 2, &text, remediate(&plan, "remediate/easy", None)));
    bench.ended();
    tell(&bench, true, 1);
    bench.until("it is paused", told(true, 1));
    let granted = remediate(&plan, "remediate/hard", Some(grant(&bench, &text, &plan, &["ana"])));
    bench.order(&content(&bench, 3, &text, granted));
    bench.until("the order is taken on", |what| matches!(what, v1::report::What::Accepted(_)));
    tell(&bench, true, 1);
    bench.until("it is paused", told(true, 1));
    assert_eq!(bench.written("marker"), "low\n");

    tell(&bench, false, 2);
    bench.ended();
    assert!(bench.transcript().ends_with("end: done, verified"), "{}", bench.transcript());
    assert_eq!(bench.written("marker"), "low\nhigh\n");
}

#[test]
fn a_paused_run_is_cancelled_like_any_other() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let plan = bench.plan(&text);
    tell(&bench, true, 1);
    bench.order(&content(&bench, 2, &text, remediate(&plan, "remediate/easy", None)));
    bench.tell(ToWorks::Cancel { run: bench.run, reason: "ana stopped it".to_owned() });
    bench.until("tombstone", |what| matches!(what, v1::report::What::Cancelled(_)));
    let transcript = bench.transcript();
    assert!(transcript.ends_with("end: stopped: ana stopped it, not verified\ncancelled"), "{transcript}");
    assert_eq!(bench.written("marker"), "");
}

#[test]
fn a_pause_that_comes_when_too_much_is_owed_is_heard_when_less_is() {
    const OWED: u32 = 10_001;
    let mut bench = Bench::new();
    bench.tell(ToWorks::Connected { epoch: 2, credits: 2 * OWED, acked: 0 });
    for _ in 0..OWED {
        tell(&bench, false, 1);
    }
    tell(&bench, true, 2);
    tell(&bench, false, 3);
    tell(&bench, true, 4);
    let heard = std::cell::Cell::new(0);
    bench.until("all that is owed", |_| {
        heard.set(heard.get() + 1);
        heard.get() == OWED
    });
    bench.tell(ToWorks::Acked { upto: 1_000 });
    bench.until("it is paused", |what| matches!(what, v1::report::What::Paused(told) if told.on));
    let last = bench.heard.last().unwrap();
    assert_eq!(last.seq, u64::from(OWED) + 1, "what was said last, once");
    let told = last.what.as_ref().is_some_and(told(true, 4));
    assert!(told, "{:?}", last.what);
}
