//! What the works refuse, each with its code. Nothing of it ever runs.

use fettle_proto::v1;

use crate::bench::{Bench, content, diagnose, remediate};
use crate::carry::runbook;

/// Changes one thing of a good order to diagnose and expects its refusal.
#[track_caller]
fn check(code: &str, spoil: impl FnOnce(&mut v1::OrderContent)) {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let mut order = content(&bench, 1, &text, diagnose());
    spoil(&mut order);
    bench.order(&order);
    assert_eq!(bench.refused(), code);
    assert_eq!(bench.transcript().lines().count(), 1, "{}", bench.transcript());
}

#[test]
fn an_order_for_another_host_is_refused() {
    check("order-host", |order| order.host = "web-2".to_owned());
}

#[test]
fn an_order_that_comes_too_late_is_refused() {
    check("order-expired", |order| order.not_after_ms = 1);
}

#[test]
fn an_order_without_work_is_refused() {
    check("order-malformed", |order| order.work = None);
}

#[test]
fn a_runbook_that_cannot_be_read_is_refused() {
    check("runbook-invalid", |order| order.runbook = vec![0xff, 0xfe].into());
}

#[test]
fn an_input_the_runbook_does_not_have_is_refused() {
    check("inputs-invalid", |order| {
        order.inputs.insert("mount".to_owned(), "/var".to_owned());
    });
}

#[test]
fn a_plan_this_host_never_made_is_refused() {
    check("plan-mismatch", |order| order.work = Some(remediate(b"no plan", "remediate/easy", None)));
}

#[test]
fn a_plan_changed_by_a_byte_and_a_step_it_does_not_have_are_refused() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let mut plan = bench.plan(&text);
    bench.order(&content(&bench, 2, &text, remediate(&plan, "remediate/other", None)));
    assert_eq!(bench.refused(), "step-unknown");
    plan[40] ^= 1;
    bench.order(&content(&bench, 3, &text, remediate(&plan, "remediate/easy", None)));
    assert_eq!(bench.refused(), "plan-mismatch");
    assert_eq!(bench.written("marker"), "");
}

#[test]
fn a_runbook_relabelled_after_its_plan_was_made_is_refused() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let plan = bench.plan(&text);
    let relabelled = text.replace("risk: high", "risk: low");
    bench.order(&content(&bench, 2, &relabelled, remediate(&plan, "remediate/easy", None)));
    assert_eq!(bench.refused(), "plan-mismatch");
}

#[test]
fn the_hosts_own_veto_holds_whoever_asks() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let plan = bench.plan(&text);
    std::fs::write(bench.file("state/policy.yaml"), "fettle-host-policy: 1\nfreeze: true\n").unwrap();
    bench.order(&content(&bench, 2, &text, remediate(&plan, "remediate/easy", None)));
    assert_eq!(bench.refused(), "vetoed");
    assert_eq!(bench.written("marker"), "");
}
