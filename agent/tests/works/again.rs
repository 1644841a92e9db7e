//! A controller that was restored from a backup has forgotten what it acknowledged, and is told again.

use fettle_agent::message::ToWorks;
use fettle_proto::v1;
use fettle_proto::v1::report::What;

use crate::bench::{Bench, content, diagnose, remediate};
use crate::carry::runbook;

pub(crate) const RUNS: [&str; 3] = [
    "run_0193a1b2c3d4e5f60718293a4b5c6d91",
    "run_0193a1b2c3d4e5f60718293a4b5c6d92",
    "run_0193a1b2c3d4e5f60718293a4b5c6d93",
];

/// Three runs that came to their plans, all of it acknowledged; the last number.
pub(crate) fn three_runs(bench: &mut Bench) -> u64 {
    let text = runbook(bench);
    for run in RUNS {
        bench.run = run.parse().unwrap();
        bench.plan(&text);
    }
    let last = bench.heard.last().unwrap().seq;
    bench.tell(ToWorks::Acked { upto: last });
    last
}

/// The run that is told next, and the number of that report.
#[track_caller]
fn told(bench: &mut Bench) -> (String, u64) {
    let what = bench.until("a run that is told again", |what| matches!(what, What::ToldAgain(_)));
    let What::ToldAgain(told) = what else { panic!("{what:?}") };
    assert_eq!(told.reports.len(), 3, "accepted, planned, ended: {told:?}");
    let last = bench.heard.last().unwrap();
    (last.run.clone(), last.seq)
}

/// Takes in all that is told, one after the other.
#[track_caller]
fn all_told(bench: &mut Bench, count: usize) -> Vec<String> {
    let mut runs = Vec::new();
    for _ in 0..count {
        let (run, seq) = told(bench);
        runs.push(run);
        bench.tell(ToWorks::Acked { upto: seq });
    }
    runs
}

fn again(bench: &mut Bench, acked: u64) {
    bench.stop();
    bench.start();
    bench.connect(acked);
}

#[test]
fn runs_are_told_again_one_by_one_and_a_crash_between_two_of_them_leaves_out_none() {
    let mut bench = Bench::new();
    three_runs(&mut bench);
    bench.connect(0);
    // The newest first. Nobody has acknowledged it, so that no other follows before or after a crash.
    let (first, _) = told(&mut bench);
    assert_eq!(first, RUNS[2]);
    again(&mut bench, 0);
    let (once_more, seq) = told(&mut bench);
    assert_eq!((once_more.as_str(), bench.heard.len()), (RUNS[2], 1));
    // The controller has the first when the agent dies again; the others are not forgotten.
    again(&mut bench, seq);
    assert_eq!(all_told(&mut bench, 2), [RUNS[1], RUNS[0]]);
}

#[test]
fn a_controller_that_is_restored_twice_is_told_everything_twice() {
    let mut bench = Bench::new();
    three_runs(&mut bench);
    bench.connect(0);
    let (first, seq) = told(&mut bench);
    assert_eq!(first, RUNS[2]);
    bench.tell(ToWorks::Acked { upto: seq });
    // In the middle of the telling it is restored again, and knows nothing of what it has just heard.
    let (_, _) = told(&mut bench);
    bench.connect(0);
    let all = all_told(&mut bench, 3);
    assert_eq!(all, [RUNS[1], RUNS[2], RUNS[0]], "what was owed comes first");
    bench.connect(0);
    assert_eq!(all_told(&mut bench, 3), [RUNS[2], RUNS[1], RUNS[0]]);
}

#[test]
fn what_a_controller_that_forgot_a_run_has_not_heard_of_it_is_told_with_the_run() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let plan = bench.plan(&text);
    let last = bench.heard.last().unwrap().seq;
    bench.tell(ToWorks::Acked { upto: last });
    // Of what follows nothing is acknowledged.
    bench.order(&content(&bench, 2, &text, remediate(&plan, "remediate/easy", None)));
    bench.ended();
    bench.connect(0);
    let what = bench.until("the run", |what| matches!(what, What::ToldAgain(_)));
    let What::ToldAgain(told) = what else { panic!("{what:?}") };
    let ends = told.reports.iter().filter(|report| matches!(report.what, Some(What::SegmentEnded(_))));
    assert_eq!((ends.count(), bench.heard.len()), (2, 1), "{}", bench.transcript());
    assert!(told.unheard, "nobody has acknowledged how it ended");
    // As long as nobody has; and what it does from now on follows.
    bench.tell(ToWorks::Acked { upto: bench.heard[0].seq });
    again(&mut bench, 0);
    let what = bench.until("the run", |what| matches!(what, What::ToldAgain(_)));
    assert!(matches!(what, What::ToldAgain(told) if told.unheard), "{}", bench.transcript());
    assert_eq!(bench.heard.len(), 1, "{}", bench.transcript());
    bench.order(&content(&bench, 3, &text, remediate(&plan, "remediate/hard", None)));
    bench.ended();
}

#[test]
fn what_a_run_does_before_it_was_its_turn_to_be_told_follows_what_it_did_before() {
    let mut bench = Bench::new();
    three_runs(&mut bench);
    bench.connect(0);
    assert_eq!(told(&mut bench).0, RUNS[2]);
    bench.run = RUNS[0].parse().unwrap();
    bench.tell(ToWorks::Pause { run: bench.run, on: true, count: 1 });
    assert_eq!(told(&mut bench).0, RUNS[0]);
    bench.until("the pause", |what| matches!(what, What::Paused(_)));
}

#[test]
fn what_goes_on_while_runs_are_told_again_is_heard_as_well() {
    let mut bench = Bench::new();
    three_runs(&mut bench);
    bench.connect(0);
    let (_, seq) = told(&mut bench);
    // Another order comes before the others are told.
    let text = runbook(&bench);
    bench.run = "run_0193a1b2c3d4e5f60718293a4b5c6d94".parse().unwrap();
    bench.order(&content(&bench, 1, &text, diagnose()));
    let planned = bench.until("a plan", |what| matches!(what, What::Planned(_)));
    let What::Planned(planned) = planned else { panic!("{planned:?}") };
    bench.ended();
    bench.order(&content(&bench, 2, &text, remediate(&planned.plan, "remediate/easy", None)));
    let ended = bench.ended();
    assert!(matches!(ended.how, Some(v1::segment_ended::How::Gate(_))), "{ended:?}");
    bench.tell(ToWorks::Acked { upto: seq });
    assert_eq!(all_told(&mut bench, 2), [RUNS[1], RUNS[0]], "a run that came since is known");
}

#[test]
fn numbers_that_a_controller_has_made_up_do_not_keep_a_host_from_the_next_one() {
    let mut bench = Bench::new();
    let last = three_runs(&mut bench);
    let epoch = bench.written("state/epoch");
    for (epoch, acked) in [(u64::MAX, 0), (5, u64::MAX), (1 << 63, 1 << 63)] {
        bench.tell(ToWorks::Connected { epoch, credits: 1000, acked });
    }
    bench.connect(last);
    bench.run = "run_0193a1b2c3d4e5f60718293a4b5c6d94".parse().unwrap();
    let text = runbook(&bench);
    bench.plan(&text);
    assert_eq!(bench.heard.first().map(|report| report.seq), Some(last + 1));
    assert_eq!((epoch.as_str(), bench.written("state/epoch").as_str()), ("1", "2"));
}
