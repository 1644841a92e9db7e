//! A disk that may be an earlier one: what was accepted in an earlier boot waits for the controller's word.

use fettle_agent::message::{FromWorks, ToWorks};
use fettle_agent::works::journal::Journal;
use fettle_agent::works::record::Record;
use fettle_proto::v1;
use prost::Message as _;

use crate::bench::{Bench, content, remediate};
use crate::carry::runbook;
use crate::wait::eventually;

/// What the journal of works that have stopped holds, up to the first record that is not `wanted`.
fn records(bench: &Bench, wanted: impl Fn(&Record) -> bool) -> Vec<Record> {
    let opened = Journal::open(&bench.file("state/journal")).unwrap();
    opened.records.into_iter().take_while(wanted).collect()
}

/// The machine has booted again, with the disk that it had when this was all.
fn put_back(bench: &Bench, mut known: Vec<Record>) {
    for record in &mut known {
        if let Record::Accepted { boot, .. } = record {
            *boot = "an earlier one".to_owned();
        }
    }
    forget(bench, &known);
}

/// This is all that the disk holds of runs.
fn forget(bench: &Bench, known: &[Record]) {
    let journal = Journal::open(&bench.file("state/journal")).unwrap().journal;
    journal.compact(known).wait().unwrap();
    std::fs::remove_dir_all(bench.file("state/attempts")).unwrap();
}

/// Works that were to do the easy step, and what they knew before it was intended.
fn about_to_begin(bench: &mut Bench) -> (Vec<u8>, Vec<Record>) {
    let text = runbook(bench);
    let plan = bench.plan(&text);
    bench.order(&content(bench, 2, &text, remediate(&plan, "remediate/easy", None)));
    bench.ended();
    assert_eq!(bench.written("marker"), "low\n");
    bench.stop();
    let known = records(bench, |record| !matches!(record, Record::Intent { .. }));
    (plan, known)
}

fn last(known: &[Record]) -> u64 {
    let numbers = known
        .iter()
        .filter_map(|record| if let Record::Report { seq, .. } = record { Some(*seq) } else { None });
    numbers.max().unwrap()
}

/// The works say how they are.
fn missing(bench: &mut Bench) -> Vec<String> {
    bench.tell(ToWorks::Greet);
    eventually("a greeting", || match bench.works.as_mut().unwrap().from.try_recv() {
        Ok(FromWorks::Greeting(greeting)) => Ok(greeting.missing),
        other => Err(format!("{other:?}")),
    })
}

#[test]
fn what_was_accepted_in_an_earlier_boot_goes_on_when_the_controller_has_welcomed_its_host() {
    let mut bench = Bench::new();
    let (_, known) = about_to_begin(&mut bench);
    put_back(&bench, known.clone());
    bench.start();
    missing(&mut bench);
    bench.stop();
    let intents = records(&bench, |_| true).iter().filter(|one| matches!(one, Record::Intent { .. })).count();
    assert_eq!((intents, bench.written("marker").as_str()), (0, "low\n"));
    // A controller that has heard no more than this disk knows of.
    bench.start();
    bench.connect(last(&known));
    let ended = bench.ended();
    assert!(matches!(ended.how, Some(v1::segment_ended::How::Gate(_))), "{ended:?}");
    assert_eq!(bench.written("marker"), "low\nlow\n");
}

#[test]
fn a_host_that_the_controller_has_heard_more_of_than_its_disk_knows_puts_its_journal_aside() {
    let mut bench = Bench::new();
    let (plan, known) = about_to_begin(&mut bench);
    put_back(&bench, known.clone());
    bench.start();
    bench.connect(last(&known) + 5);
    bench.works.take().unwrap().thread.join().unwrap();
    // As a service manager does.
    bench.start();
    bench.connect(0);
    let missing = missing(&mut bench).join("; ");
    assert!(
        missing.contains("its disk was put back to an earlier state, or there are two of it"),
        "{missing}"
    );
    assert!(missing.contains(".put-back-0; look at it, then remove it"), "{missing}");
    let text = runbook(&bench);
    bench.order(&content(&bench, 2, &text, remediate(&plan, "remediate/easy", None)));
    assert_eq!(bench.refused(), "plan-mismatch");
    assert_eq!(bench.written("marker"), "low\n");
}

#[test]
fn nothing_is_ordered_of_a_host_before_its_controller_has_welcomed_it() {
    let mut bench = Bench::new();
    let (plan, known) = about_to_begin(&mut bench);
    put_back(&bench, known.clone());
    bench.start();
    let text = runbook(&bench);
    bench.order(&content(&bench, 3, &text, remediate(&plan, "remediate/easy", None)));
    bench.connect(last(&known));
    bench.ended();
    let heard: Vec<u32> = bench.heard.iter().map(|report| report.segment).collect();
    assert!(heard.iter().all(|segment| *segment == 2), "{heard:?}\n{}", bench.transcript());
    assert_eq!(bench.written("marker"), "low\nlow\n");
}

#[test]
fn what_waits_for_the_controller_is_not_forgotten_however_late_it_is() {
    let mut bench = Bench::new();
    let (_, mut known) = about_to_begin(&mut bench);
    for record in &mut known {
        if let Record::Accepted { content, .. } = record {
            let mut order = v1::OrderContent::decode(&content[..]).unwrap();
            order.not_after_ms -= 3 * 24 * 3_600_000;
            *content = order.encode_to_vec();
        }
    }
    put_back(&bench, known.clone());
    bench.start();
    bench.connect(last(&known));
    let ended = bench.ended();
    assert!(matches!(ended.how, Some(v1::segment_ended::How::Stopped(_))), "{ended:?}");
    assert_eq!(bench.written("marker"), "low\n", "it is too late to begin");
}

#[test]
fn what_was_accepted_in_this_boot_goes_on_without_a_controller() {
    let mut bench = Bench::new();
    let (_, known) = about_to_begin(&mut bench);
    forget(&bench, &known);
    bench.start();
    eventually("the step", || match bench.written("marker") {
        twice if twice == "low\nlow\n" => Ok(()),
        other => Err(other),
    });
}
