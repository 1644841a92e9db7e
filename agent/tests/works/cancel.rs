//! People stop a run, and the host has lost something of it, or is to tell more of it.

use fettle_agent::message::ToWorks;
use fettle_proto::v1;
use fettle_proto::v1::report::What;

use crate::again::{RUNS, three_runs};
use crate::bench::{Bench, content, remediate};
use crate::carry::runbook;
use crate::proc::lives;

fn cancel(bench: &Bench) {
    bench.tell(ToWorks::Cancel { run: bench.run, reason: "ana stopped it".to_owned() });
}

#[test]
fn what_runs_without_a_journal_is_ended_before_its_end_is_confirmed() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let pid = bench.file("pid");
    std::fs::write(bench.file("leave.sh"), format!("echo $$ > {}\nexec sleep 60\n", pid.display())).unwrap();
    let plan = bench.plan(&text);
    bench.order(&content(&bench, 2, &text, remediate(&plan, "remediate/easy", None)));
    let began = crate::wait::eventually("the step runs", || match bench.written("pid").trim() {
        "" => Err("it has not begun"),
        pid => Ok(pid.to_owned()),
    });
    bench.stop();
    std::fs::remove_dir_all(bench.file("state/journal")).unwrap();
    bench.start();
    bench.connect(0);
    assert!(lives(&began), "it outlives the agent");
    cancel(&bench);
    let what = bench.until("the host's word", |what| matches!(what, What::Cancelled(_)));
    assert_eq!(what, What::Cancelled(v1::Cancelled { interrupted: String::new() }));
    assert!(!lives(&began), "it was said that nothing of it runs");
}

#[test]
fn a_restored_controller_is_told_of_a_run_before_it_is_told_that_the_run_was_stopped() {
    let mut bench = Bench::new();
    three_runs(&mut bench);
    bench.connect(0);
    bench.until("the first that is told again", |what| matches!(what, What::ToldAgain(_)));
    bench.run = RUNS[0].parse().unwrap();
    cancel(&bench);
    let what = bench.until("the next", |what| matches!(what, What::ToldAgain(_) | What::Cancelled(_)));
    let What::ToldAgain(told) = what else { panic!("{what:?}") };
    assert_eq!(bench.heard.last().unwrap().run, RUNS[0]);
    let last = told.reports.last().and_then(|report| report.what.clone());
    assert_eq!(last, Some(What::Cancelled(v1::Cancelled { interrupted: String::new() })));
}

#[test]
fn when_it_is_said_that_a_run_was_stopped_its_tombstone_is_on_the_disk() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    bench.plan(&text);
    cancel(&bench);
    bench.until("the host's word", |what| matches!(what, What::Cancelled(_)));
    let tombstone = bench.file("state/attempts").join(format!("{}.tombstone", bench.run));
    assert!(tombstone.exists(), "it was said to be stopped, and {} is not there", tombstone.display());
}
