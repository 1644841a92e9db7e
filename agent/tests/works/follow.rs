//! Runs that go on from others: what the works believe of the earlier one.

use std::collections::BTreeMap;

use fettle_proto::signed::start::Of;
use fettle_proto::signed::{Namespace, Signed, plan, sign};
use fettle_proto::{signed, v1};
use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::RunId;

use crate::bench::{self, Bench, SARA, content, diagnose, key, remediate};
use crate::carry::runbook;

const LATER: [&str; 2] = ["run_0193a1b2c3d4e5f60718293a4b5c6d80", "run_0193a1b2c3d4e5f60718293a4b5c6d81"];

/// Sara goes on from the run that the bench is at; the bench is then at the new one.
fn follow(bench: &mut Bench, run: &str, how: FollowUp, runbook: &str, found: &[(&str, bool)]) -> Signed {
    let earlier: RunId = bench.run;
    bench.run = run.parse().unwrap();
    let plain = signed::Start::decode(&bench::start(bench, runbook).bytes).unwrap();
    let host: fettle_runbooks::id::Host = "web-1".parse().unwrap();
    let found: BTreeMap<_, _> =
        found.iter().map(|(path, ran)| ((host.clone(), (*path).to_owned()), *ran)).collect();
    let of = Of { run: earlier, how, reason: String::new(), found };
    sign(&key(SARA), Namespace::Start, &signed::Start { of: Some(of), ..plain }.encode()).unwrap()
}

fn first_order(bench: &Bench, runbook: &str, start: Signed) -> v1::OrderContent {
    v1::OrderContent { start: Some(start.into()), ..content(bench, 1, runbook, diagnose()) }
}

/// The plan of a run that goes on.
#[track_caller]
fn planned(bench: &mut Bench, order: &v1::OrderContent) -> Vec<u8> {
    bench.order(order);
    let planned = bench.until("plan", |what| matches!(what, v1::report::What::Planned(_)));
    bench.ended();
    let v1::report::What::Planned(planned) = planned else { panic!("{planned:?}") };
    planned.plan.to_vec()
}

/// Both steps low; the second waits for a file.
fn two_low(bench: &Bench) -> String {
    let text = runbook(bench).replace("risk: high", "risk: low");
    let (first, second) = text.split_once("  - id: hard").unwrap();
    let outputs =
        first.replace("    repeat: never", "    outputs: { left: trim(stdout) }\n    repeat: never");
    let wait = second
        .replace("leave.sh", "wait.sh")
        .replace("    undo: none\nverify", "    if: steps.easy.left == \"low\"\n    undo: none\nverify");
    let go = bench.file("go");
    std::fs::write(bench.file("leave.sh"), "echo $1 >> $2\necho $1\n").unwrap();
    let wait_for =
        format!("until [ -e {} ]; do sleep 0.02; done\n[ -s {0} ] && exit 1\necho $1 >> $2\n", go.display());
    std::fs::write(bench.file("wait.sh"), wait_for).unwrap();
    format!("{outputs}  - id: hard{wait}")
}

#[test]
fn a_run_that_is_still_going_on_is_not_gone_on_from() {
    let mut bench = Bench::new();
    let text = two_low(&bench);
    let plan_bytes = bench.plan(&text);
    bench.order(&content(&bench, 2, &text, remediate(&plan_bytes, "remediate/easy", None)));
    bench.until(
        "start of the second step",
        |what| matches!(what, v1::report::What::StepStarted(step) if step.path == "remediate/hard"),
    );
    let earlier = bench.run;
    let start = follow(&mut bench, LATER[0], FollowUp::Retry, &text, &[]);
    bench.order(&first_order(&bench, &text, start));
    assert_eq!(bench.refused(), "earlier-open");

    // Its second step fails; what the first has left is known to the retry, also after a restart.
    std::fs::write(bench.file("go"), "x").unwrap();
    bench.ended();
    bench.stop();
    bench.start();
    bench.connect(bench.heard.last().unwrap().seq);
    std::fs::write(bench.file("go"), "").unwrap();
    bench.run = earlier;
    let start = follow(&mut bench, LATER[1], FollowUp::Retry, &text, &[]);
    let order = first_order(&bench, &text, start);
    let plan_bytes = planned(&mut bench, &order);
    let made = plan::decode(&plan_bytes).unwrap();
    assert_eq!(made.steps[0].done_in, Some(earlier), "{:?}", made.of);
    assert_eq!(made.evidence.get("easy.left").map(String::as_str), Some("\"low\""));
    bench.order(&v1::OrderContent {
        start: order.start.clone(),
        ..content(&bench, 2, &text, remediate(&plan_bytes, "remediate/easy", None))
    });
    let ended = bench.ended();
    assert_eq!(ended.verification(), v1::Verification::Passed, "{}", bench.transcript());
    assert_eq!(bench.written("marker"), "low\nhigh\n");
}

#[test]
fn an_outcome_that_nobody_knows_stops_whoever_goes_on_until_a_person_has_said_what_it_was() {
    let mut bench = Bench::new();
    let text = two_low(&bench);
    // Its supervisor dies with the second step half done.
    std::fs::write(bench.file("wait.sh"), "echo $1 >> $2\nkill -9 $PPID\n").unwrap();
    let plan_bytes = bench.plan(&text);
    bench.order(&content(&bench, 2, &text, remediate(&plan_bytes, "remediate/easy", None)));
    bench.ended();
    assert!(bench.transcript().contains("end: unknown remediate/hard"), "{}", bench.transcript());
    let earlier = bench.run;
    for how in [FollowUp::Retry, FollowUp::Undo] {
        let start = follow(&mut bench, LATER[0], how, &text, &[]);
        bench.order(&first_order(&bench, &text, start));
        assert_eq!(bench.refused(), "outcome-unknown");
        bench.run = earlier;
    }
    let start = follow(&mut bench, LATER[1], FollowUp::Retry, &text, &[("remediate/hard", true)]);
    let order = first_order(&bench, &text, start);
    let made = plan::decode(&planned(&mut bench, &order)).unwrap();
    assert!(made.steps.iter().all(|step| step.done_in == Some(earlier)), "{:?}", made.of);
}
