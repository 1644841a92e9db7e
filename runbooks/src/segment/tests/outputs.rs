//! What a condition leaves for later steps.

use super::*;

#[test]
fn a_condition_that_held_leaves_outputs_and_one_that_did_not_leaves_none() {
    const LOOK: &str = "
fettle: 1
runbook: host/look
diagnose:
  - id: full
    that: disk(\"/var\").used_percent > 80.0
    outputs: { used: disk(\"/var\").used_percent, also: disk(\"/srv\").used_percent }
  - id: same
    after: [full]
    that: disk(\"/var\").used_percent > 80.0
    outputs: { used: disk(\"/var\").used_percent, before: steps.full.used }
";
    check(
        Program::diagnose(runbook(LOOK), base("/var")),
        &[Say::Begin, Say::Used(90.0), Say::Used(91.0), Say::Used(92.0)],
        r#"
        started diagnose/full 1; read disk("/var")
        read disk("/srv") disk("/var")
        succeeded diagnose/full 1 also=91.0 used=91.0; started diagnose/same 1; read disk("/var")
        succeeded diagnose/same 1 before=91.0 used=92.0; planned 0 steps; END done (no effects, verify NotRun, undo None)
        "#,
    );
    let mut bench = Bench::new(Program::diagnose(runbook(LOOK), base("/var")));
    bench.say(Say::Begin);
    let heard = bench.say(Say::Used(10.0));
    assert!(heard.starts_with("failed diagnose/full 1: `disk("), "{heard}");
    let mut bench = Bench::new(Program::diagnose(runbook(LOOK), base("/var")));
    bench.say(Say::Begin);
    bench.say(Say::Used(90.0));
    let heard = bench.say(Say::NoAnswer);
    assert!(heard.starts_with("failed diagnose/full 1: its output `also` has no value"), "{heard}");
}

#[test]
fn a_list_of_records_is_evidence_that_later_conditions_look_into() {
    const HOLDERS: &str = r#"
fettle: 1
runbook: host/holders
diagnose:
  - id: usage
    that: disk("/var").used_percent > 80.0
    outputs: { held: '[{"unit": "a.service", "bytes": 7}, {"unit": "", "bytes": 2}]' }
remediate:
  - id: act
    risk: low
    if: steps.usage.held.filter(f, f.unit != "").exists(f, f.bytes > 5)
    run: [act]
    repeat: safe
    undo: none
verify:
  - id: below
    that: disk("/var").used_percent < 80.0
"#;
    let runbook = runbook(HOLDERS);
    let mut bench = Bench::new(Program::diagnose(Arc::clone(&runbook), base("/var")));
    bench.say(Say::Begin);
    let heard = bench.say(Say::Used(90.0));
    assert!(heard.contains(r#"held=[{"bytes":7,"unit":"a.service"},{"bytes":2,"unit":""}]"#), "{heard}");
    let plan = planned(&runbook, bench.rendering.unwrap());
    let program =
        Program::remediate(runbook, plan, base("/var"), "remediate/act", BTreeSet::new(), []).unwrap();
    let heard = Bench::new(program).say(Say::Begin);
    assert!(heard.starts_with("start remediate/act 1"), "{heard}");
}
