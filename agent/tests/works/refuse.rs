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
fn a_runbook_that_puts_a_value_into_a_shell_is_refused_whoever_let_it_pass_before() {
    let texts = [
        "    run: [sh, -c, \"echo ${{ inputs.x }}\"]\n",
        "    run: |\n      echo ${{ inputs.x }}\n",
        "    run: [env, bash, -ec, \"echo ${{ inputs.x }}\"]\n",
    ];
    for run in texts {
        check("runbook-invalid", |order| {
            let text = format!(
                "fettle: 1\nrunbook: test/never\ninputs: {{ x: {{ type: string, default: y }} }}\ndiagnose:\n  - id: never\n{run}"
            );
            order.runbook = text.into();
        });
    }
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

#[test]
fn a_run_is_diagnosed_once_so_that_its_plan_stands() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    bench.plan(&text);
    bench.order(&content(&bench, 2, &text, diagnose()));
    assert_eq!(bench.refused(), "segment-conflict");
}

#[test]
fn what_an_uncertified_runbook_says_of_its_own_risk_does_not_get_it_past_the_hosts_veto() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    let plan = bench.plan(&text);
    let policy = "fettle-host-policy: 1\ndeny: [{ risk_above: high }]\n";
    std::fs::write(bench.file("state/policy.yaml"), policy).unwrap();
    let both = crate::bench::grant(&bench, &text, &plan, &["ana", "ben"]);
    let mut order = content(&bench, 2, &text, remediate(&plan, "remediate/easy", Some(both)));
    order.certificates.clear();
    bench.order(&order);
    assert_eq!(bench.refused(), "vetoed");
    assert_eq!(bench.written("marker"), "");
}

#[test]
fn a_step_whose_outcome_is_unknown_is_not_gone_over_by_another_segment() {
    let mut bench = Bench::new();
    let text = runbook(&bench);
    // Its supervisor dies with the step half done.
    std::fs::write(bench.file("leave.sh"), "echo $1 >> $2\nkill -9 $PPID\n").unwrap();
    let plan = bench.plan(&text);
    bench.order(&content(&bench, 2, &text, remediate(&plan, "remediate/easy", None)));
    bench.ended();
    let transcript = bench.transcript();
    assert!(transcript.ends_with("end: unknown remediate/easy, verified"), "{transcript}");
    bench.order(&content(&bench, 3, &text, remediate(&plan, "remediate/easy", None)));
    assert_eq!(bench.refused(), "outcome-unknown");
    assert_eq!(bench.written("marker"), "low\n");
}

#[test]
fn a_verification_with_other_inputs_than_the_plan_has_is_refused() {
    let mut bench = Bench::new();
    let text =
        runbook(&bench).replace("diagnose:", "inputs: { depth: { type: int, default: 1 } }\ndiagnose:");
    let plan = bench.plan(&text);
    let verify = v1::Verify { plan_digest: fettle_proto::signed::plan::digest_of(&plan).0.to_vec().into() };
    let mut order = content(&bench, 2, &text, v1::order_content::Work::Verify(verify));
    order.inputs.insert("depth".to_owned(), "2".to_owned());
    bench.order(&order);
    assert_eq!(bench.refused(), "plan-mismatch");
}
