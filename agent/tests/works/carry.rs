//! What the works do with orders they accept.

use fettle_agent::message::ToWorks;
use fettle_proto::signed::plan;

use crate::bench::{Bench, content, diagnose, grant, remediate};

/// A low step and a high one, each of which leaves a line in a file; verified when both are there.
pub(crate) fn runbook(bench: &Bench) -> String {
    let marker = bench.file("marker");
    let marker = marker.display();
    format!(
        r#"
fettle: 1
runbook: test/works
title: Leave two lines
owner: test
description: x
diagnose:
  - id: look
    run: [echo, "7"]
    outputs: {{ found: int(stdout) }}
remediate:
  - id: easy
    risk: low
    if: steps.look.found == 7
    run: [/bin/sh, "{script}", low, "{marker}"]
    repeat: never
    undo: none
  - id: hard
    risk: high
    run: [/bin/sh, "{script}", high, "{marker}"]
    repeat: never
    undo: none
verify:
  - id: there
    that: file("{marker}").exists
    within: 5s
"#,
        script = script(bench).display(),
    )
}

fn script(bench: &Bench) -> std::path::PathBuf {
    let path = bench.file("leave.sh");
    std::fs::write(&path, "echo $1 >> $2\n").unwrap();
    path
}

#[test]
fn a_diagnosis_ends_in_a_plan_that_names_what_would_run() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let bytes = bench.plan(&text);
    assert_eq!(
        bench.transcript(),
        "accepted\nstarted diagnose/look 1\nsucceeded diagnose/look 1\nplanned\nend: done, not verified"
    );
    let plan = plan::decode(&bytes).unwrap();
    assert_eq!(plan.evidence.get("look.found").map(String::as_str), Some("7"));
    assert_eq!(
        plan.steps.iter().map(|step| step.path.as_str()).collect::<Vec<_>>(),
        ["remediate/easy", "remediate/hard"]
    );
    assert_eq!(plan.run, bench.run);
    assert_eq!(plan.nonce.len(), 64);
}

#[test]
fn a_low_step_runs_at_once_and_the_high_one_waits_for_people_who_then_let_it_run() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let plan = bench.plan(&text);
    bench.order(&content(&bench, 2, &text, remediate(&plan, "remediate/easy", None)));
    bench.ended();
    assert!(
        bench.transcript().ends_with("succeeded remediate/easy 1\nend: gate remediate/hard, not verified"),
        "{}",
        bench.transcript()
    );
    assert_eq!(bench.written("marker"), "low\n");

    let granted = remediate(&plan, "remediate/hard", Some(grant(&bench, &text, &plan, &["ana"])));
    bench.order(&content(&bench, 3, &text, granted.clone()));
    bench.ended();
    assert!(
        bench.transcript().ends_with("succeeded verify/there 1\nend: done, verified"),
        "{}",
        bench.transcript()
    );
    assert_eq!(bench.written("marker"), "low\nhigh\n");

    // The same grant a second time starts nothing.
    bench.order(&content(&bench, 4, &text, granted));
    assert_eq!(bench.refused(), "nonce-consumed");
    assert_eq!(bench.written("marker"), "low\nhigh\n");
    // Nor does any other order: the run's remediation is over here.
    bench.order(&content(&bench, 5, &text, remediate(&plan, "remediate/hard", None)));
    assert_eq!(bench.refused(), "step-order");
}

#[test]
fn every_remediate_step_of_an_uncertified_runbook_waits_for_two_persons() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let plan = bench.plan(&text);
    let mut uncertified = content(&bench, 2, &text, remediate(&plan, "remediate/easy", None));
    uncertified.certificates.clear();
    bench.order(&uncertified);
    bench.ended();
    assert!(bench.transcript().ends_with("end: gate remediate/easy, not verified"), "{}", bench.transcript());

    let mut one = content(
        &bench,
        3,
        &text,
        remediate(&plan, "remediate/easy", Some(grant(&bench, &text, &plan, &["ana"]))),
    );
    one.certificates.clear();
    bench.order(&one);
    assert_eq!(bench.refused(), "quorum");
    assert_eq!(bench.written("marker"), "");

    let both = grant(&bench, &text, &plan, &["ana", "ben"]);
    let mut both = content(&bench, 4, &text, remediate(&plan, "remediate/easy", Some(both)));
    both.certificates.clear();
    bench.order(&both);
    bench.ended();
    assert_eq!(bench.written("marker"), "low\nhigh\n");
}

#[test]
fn a_controller_can_ask_for_people_where_the_host_would_not() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let plan = bench.plan(&text);
    let mut work = remediate(&plan, "remediate/easy", None);
    if let fettle_proto::v1::order_content::Work::Remediate(work) = &mut work {
        work.gate_from_risk = "low".to_owned();
    }
    bench.order(&content(&bench, 2, &text, work));
    bench.ended();
    assert!(bench.transcript().ends_with("end: gate remediate/easy, not verified"), "{}", bench.transcript());
}

#[test]
fn a_cancelled_step_is_killed_and_the_run_never_starts_anything_again() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    std::fs::write(bench.file("leave.sh"), "echo $1 >> $2\nexec sleep 60\n").unwrap();
    let plan = bench.plan(&text);
    bench.order(&content(&bench, 2, &text, remediate(&plan, "remediate/easy", None)));
    bench.until("start of the step", |what| {
        matches!(what, fettle_proto::v1::report::What::StepStarted(step) if step.path == "remediate/easy")
    });
    bench.tell(ToWorks::Cancel { run: bench.run, reason: "ana stopped it".to_owned() });
    bench.until("tombstone", |what| matches!(what, fettle_proto::v1::report::What::Cancelled(_)));
    let transcript = bench.transcript();
    assert!(transcript.contains("end: stopped: ana stopped it, not verified\ncancelled"), "{transcript}");
    bench.order(&content(&bench, 3, &text, diagnose()));
    assert_eq!(bench.refused(), "run-cancelled");
}

#[test]
fn the_same_order_again_starts_nothing_and_another_one_of_its_number_is_a_conflict() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let plan = bench.plan(&text);
    let order = content(&bench, 2, &text, remediate(&plan, "remediate/easy", None));
    bench.order(&order);
    bench.ended();
    let all = bench.heard.last().unwrap().seq;
    bench.tell(ToWorks::Acked { upto: all });
    bench.order(&order);
    bench.ended();
    assert!(
        bench.transcript().ends_with("accepted\nend: gate remediate/hard, not verified"),
        "{}",
        bench.transcript()
    );
    assert_eq!(bench.written("marker"), "low\n");
    bench.order(&content(&bench, 2, &text, diagnose()));
    assert_eq!(bench.refused(), "segment-conflict");
}
