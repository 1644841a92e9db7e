//! The works end and begin again; the connection ends and begins again. Nothing is lost and nothing runs twice.

use fettle_proto::signed::{Tag, digest};
use fettle_proto::v1;
use fettle_proto::v1::segment_ended::How::Done;

use fettle_agent::message::ToWorks;
use fettle_agent::works::journal::Journal;
use fettle_agent::works::record::Record;

use crate::bench::{self, Bench, content, diagnose, remediate};
use crate::carry::runbook;

/// Works that have stopped while a step goes on, until there is a file `go`.
fn stopped_in_a_step() -> Bench {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let wait = format!("echo $1 >> $2\nuntil [ -e {} ]; do sleep 0.02; done\n", bench.file("go").display());
    std::fs::write(bench.file("leave.sh"), wait).unwrap();
    let plan = bench.plan(&text);
    bench.order(&content(&bench, 2, &text, remediate(&plan, "remediate/easy", None)));
    bench.until(
        "start of the step",
        |what| matches!(what, v1::report::What::StepStarted(step) if step.path == "remediate/easy"),
    );
    bench.stop();
    bench
}

#[test]
fn a_step_outlives_the_works_and_its_result_is_reported_by_the_next() {
    let mut bench = stopped_in_a_step();
    std::fs::write(bench.file("go"), "").unwrap();
    bench.start();
    bench.connect(0);
    // Segment 1, sent again from the spool, then segment 2.
    bench.ended();
    bench.ended();
    assert!(
        bench.transcript().ends_with("succeeded remediate/easy 1\nend: gate remediate/hard, not verified"),
        "{}",
        bench.transcript()
    );
    assert_eq!(bench.written("marker"), "low\n");
}

#[test]
fn of_a_step_under_way_that_cannot_be_gone_on_with_nobody_says_that_it_failed() {
    let mut bench = stopped_in_a_step();
    // As of another version, whose orders this one does not read.
    let order = Record::Accepted {
        run: bench.run,
        segment: 3,
        digest: digest(Tag::Order, b"?"),
        content: b"?".to_vec(),
        nonce_consumed: None,
        boot: String::new(),
    };
    let journal = Journal::open(&bench.file("state/journal")).unwrap().journal;
    journal.append(&[order]).wait().unwrap();
    drop(journal);
    bench.start();
    bench.connect(0);
    bench.until(
        "end",
        |what| matches!(what, v1::report::What::SegmentEnded(ended) if !matches!(ended.how, Some(Done(_)))),
    );
    assert!(
        bench.transcript().ends_with("end: unknown remediate/easy, not verified"),
        "{}",
        bench.transcript()
    );
    std::fs::write(bench.file("go"), "").unwrap();
}

#[test]
fn reports_wait_for_the_connection_and_come_again_until_acknowledged() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    bench.plan(&text);
    let first = bench.transcript();
    let last = bench.heard.last().unwrap().seq;
    bench.connect(0);
    bench.ended();
    assert_eq!(bench.transcript(), first);
    bench.connect(last - 1);
    bench.ended();
    assert_eq!(bench.transcript(), "end: done, not verified");
}

#[test]
fn a_plan_and_its_spent_nonce_survive_a_restart() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let plan = bench.plan(&text);
    bench.order(&content(&bench, 2, &text, remediate(&plan, "remediate/easy", None)));
    bench.ended();
    let again = |bench: &mut Bench| {
        let acked = bench.heard.last().unwrap().seq;
        bench.stop();
        bench.start();
        bench.connect(acked);
    };
    again(&mut bench);
    let granted = crate::bench::grant(&bench, &text, &plan, &["ana"]);
    let granted = remediate(&plan, "remediate/hard", Some(granted));
    bench.order(&content(&bench, 3, &text, granted.clone()));
    bench.ended();
    assert_eq!(bench.written("marker"), "low\nhigh\n");
    again(&mut bench);
    bench.order(&content(&bench, 4, &text, granted));
    assert_eq!(bench.refused(), "nonce-consumed");
}

#[test]
fn who_started_a_run_is_known_after_a_restart_without_a_roster() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let mut first = content(&bench, 1, &text, diagnose());
    first.start = Some(bench::start(&bench, &text).into());
    bench.order(&first);
    let planned = bench.until("plan", |what| matches!(what, v1::report::What::Planned(_)));
    let v1::report::What::Planned(planned) = planned else { panic!("{planned:?}") };
    bench.ended();
    let acked = bench.heard.last().unwrap().seq;
    bench.stop();
    std::fs::remove_file(bench.file("state/roster.json")).unwrap();
    bench.start();
    bench.connect(acked);
    bench.tell(ToWorks::Roster(bench::roster().into()));
    // As if a trigger had started it, so that Sara might approve her own wish.
    let grant = bench::grant(&bench, &text, &planned.plan, &["ana"]);
    bench.order(&content(&bench, 2, &text, remediate(&planned.plan, "remediate/easy", Some(grant))));
    assert_eq!(bench.refused(), "request-start");
}
