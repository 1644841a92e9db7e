//! Runs that go on from others: what the works believe of the earlier one.

use std::collections::BTreeMap;

use fettle_agent::message::ToWorks;
use fettle_proto::signed::start::Of;
use fettle_proto::signed::{Namespace, Signed, plan, sign};
use fettle_proto::{signed, v1};
use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::RunId;

use crate::bench::{self, Bench, SARA, content, diagnose, key, remediate};
use crate::carry::runbook;

const LATER: [&str; 4] = [
    "run_0193a1b2c3d4e5f60718293a4b5c6d80",
    "run_0193a1b2c3d4e5f60718293a4b5c6d81",
    "run_0193a1b2c3d4e5f60718293a4b5c6d82",
    "run_0193a1b2c3d4e5f60718293a4b5c6d83",
];

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

/// The order to carry a plan out from its first step that is not done.
fn carry_out(bench: &Bench, runbook: &str, plan_bytes: &[u8], start: Option<&Signed>) -> v1::OrderContent {
    let first = &plan::decode(plan_bytes).unwrap().steps[0].path;
    v1::OrderContent {
        start: start.cloned().map(Into::into),
        ..content(bench, 2, runbook, remediate(plan_bytes, first, None))
    }
}

/// A run whose first step was done and whose second has failed.
fn half_done(bench: &mut Bench) -> String {
    let text = two_low(bench);
    std::fs::write(bench.file("go"), "x").unwrap();
    let plan_bytes = bench.plan(&text);
    bench.order(&carry_out(bench, &text, &plan_bytes, None));
    bench.ended();
    assert_eq!(bench.written("marker"), "low\n", "{}", bench.transcript());
    text
}

/// Sara retries the run that the bench is at, and it is carried out; the bench is then at the new one.
#[track_caller]
fn retried(bench: &mut Bench, run: &str, runbook: &str) {
    let start = follow(bench, run, FollowUp::Retry, runbook, &[]);
    let order = first_order(bench, runbook, start.clone());
    let plan_bytes = planned(bench, &order);
    bench.order(&carry_out(bench, runbook, &plan_bytes, Some(&start)));
    bench.ended();
}

/// The plan of a run that was overtaken is not carried out, whatever the agent remembers only on disk.
#[track_caller]
fn is_refused_even_after_a_restart(bench: &mut Bench, late: &v1::OrderContent) {
    for restarts in [false, true] {
        if restarts {
            bench.stop();
            bench.start();
            bench.connect(bench.heard.last().unwrap().seq);
        }
        bench.order(late);
        assert_eq!(bench.refused(), "run-cancelled");
    }
}

#[test]
fn once_another_retry_went_on_the_plan_of_one_that_was_held_back_is_not_carried_out_any_more() {
    let mut bench = Bench::new();
    let text = half_done(&mut bench);
    let earlier = bench.run;
    std::fs::write(bench.file("go"), "").unwrap();
    let start = follow(&mut bench, LATER[0], FollowUp::Retry, &text, &[]);
    let order = first_order(&bench, &text, start.clone());
    let held_back = planned(&mut bench, &order);
    bench.run = earlier;
    retried(&mut bench, LATER[1], &text);
    assert_eq!(bench.written("marker"), "low\nhigh\n", "{}", bench.transcript());

    bench.run = LATER[0].parse().unwrap();
    let late = carry_out(&bench, &text, &held_back, Some(&start));
    is_refused_even_after_a_restart(&mut bench, &late);
    assert_eq!(bench.written("marker"), "low\nhigh\n");
}

#[test]
fn an_undo_that_was_held_back_while_a_retry_went_on_undoes_nothing_any_more() {
    let mut bench = Bench::new();
    let undo = format!("    undo: [/bin/sh, -c, \"echo undone >> {}\"]", bench.file("marker").display());
    let text = two_low(&bench).replacen("    undo: none", &undo, 1);
    std::fs::write(bench.file("go"), "x").unwrap();
    let plan_bytes = bench.plan(&text);
    bench.order(&carry_out(&bench, &text, &plan_bytes, None));
    bench.ended();
    let earlier = bench.run;
    let start = follow(&mut bench, LATER[0], FollowUp::Undo, &text, &[]);
    let order = first_order(&bench, &text, start.clone());
    let held_back = planned(&mut bench, &order);
    bench.run = earlier;
    std::fs::write(bench.file("go"), "").unwrap();
    retried(&mut bench, LATER[1], &text);
    assert_eq!(bench.written("marker"), "low\nhigh\n", "{}", bench.transcript());

    bench.run = LATER[0].parse().unwrap();
    let order = content(&bench, 2, &text, remediate(&held_back, "remediate/easy/undo", None));
    let late = v1::OrderContent { start: Some(start.into()), ..order };
    is_refused_even_after_a_restart(&mut bench, &late);
    assert_eq!(bench.written("marker"), "low\nhigh\n");
}

#[test]
fn a_run_whose_retry_was_retried_is_not_gone_on_from_over_what_that_one_did() {
    let mut bench = Bench::new();
    let text = half_done(&mut bench);
    let earlier = bench.run;
    retried(&mut bench, LATER[0], &text);
    assert_eq!(bench.written("marker"), "low\n", "{}", bench.transcript());
    std::fs::write(bench.file("go"), "").unwrap();
    retried(&mut bench, LATER[1], &text);
    assert_eq!(bench.written("marker"), "low\nhigh\n", "{}", bench.transcript());
    for how in [FollowUp::Retry, FollowUp::Undo] {
        bench.run = earlier;
        let start = follow(&mut bench, LATER[2], how, &text, &[]);
        bench.order(&first_order(&bench, &text, start));
        assert_eq!(bench.refused(), "earlier-mismatch");
    }
}

#[test]
fn a_run_that_was_retried_before_its_first_order_came_starts_nothing_and_is_not_retried_twice() {
    let mut bench = Bench::new();
    let text = two_low(&bench);
    std::fs::write(bench.file("go"), "").unwrap();
    let earlier = bench.run;
    let late = v1::OrderContent {
        start: Some(bench::start(&bench, &text).into()),
        ..content(&bench, 1, &text, diagnose())
    };
    retried(&mut bench, LATER[0], &text);
    assert_eq!(bench.written("marker"), "low\nhigh\n", "{}", bench.transcript());
    for restarts in [false, true] {
        if restarts {
            bench.stop();
            bench.start();
            bench.connect(bench.heard.last().unwrap().seq);
        }
        bench.order(&late);
        assert_eq!(bench.refused(), "run-cancelled");
        bench.run = earlier;
        let start = follow(&mut bench, LATER[1], FollowUp::Retry, &text, &[]);
        bench.order(&first_order(&bench, &text, start));
        assert_eq!(bench.refused(), "earlier-mismatch");
    }
}

#[test]
fn a_retry_that_did_nothing_does_not_make_its_host_forget_what_was_done_before_it() {
    let mut bench = Bench::new();
    let look = bench.file("look");
    std::fs::write(&look, "7").unwrap();
    let reads = format!("run: [cat, \"{}\"]", look.display());
    let text = two_low(&bench).replacen("run: [echo, \"7\"]", &reads, 1);
    std::fs::write(bench.file("go"), "x").unwrap();
    let plan_bytes = bench.plan(&text);
    bench.order(&carry_out(&bench, &text, &plan_bytes, None));
    bench.ended();
    let first = bench.run;

    // The diagnosis of its retry fails, and so its plan lacks what that has found.
    std::fs::remove_file(&look).unwrap();
    let start = follow(&mut bench, LATER[0], FollowUp::Retry, &text, &[]);
    let order = first_order(&bench, &text, start);
    let made = plan::decode(&planned(&mut bench, &order)).unwrap();
    assert_eq!(made.steps[0].done_in, None);
    std::fs::write(&look, "7").unwrap();
    let start = follow(&mut bench, LATER[1], FollowUp::Retry, &text, &[]);
    let order = first_order(&bench, &text, start);
    let made = plan::decode(&planned(&mut bench, &order)).unwrap();
    assert_eq!(made.steps[0].done_in, Some(first), "{:?}", made.of);
    assert!(made.of.unwrap().says[0].contains(&first.to_string()));

    std::fs::write(bench.file("go"), "").unwrap();
    retried(&mut bench, LATER[2], &text);
    assert_eq!(bench.written("marker"), "low\nhigh\n", "{}", bench.transcript());
}

/// The first step is rendered with what diagnosis finds; the second waits, and when it fails the first is undone.
fn found_and_undone(bench: &Bench, undo: &str) -> String {
    let text = two_low(bench);
    let look = format!("run: [cat, \"{}\"]", bench.file("look").display());
    let undo = format!("    undo: [/bin/sh, -c, \"{undo}\"]");
    text.replacen("run: [echo, \"7\"]", &look, 1)
        .replacen("found: int(stdout)", "found: trim(stdout)", 1)
        .replacen("    if: steps.look.found == 7", "    env: { SEEN: \"${{ steps.look.found }}\" }", 1)
        .replacen("    undo: none", &undo, 1)
        .replacen("    undo: none", "    undo: none\n    on_failure: undo", 1)
}

#[test]
fn what_a_retry_did_anew_and_took_back_is_not_counted_as_done_before_it() {
    let mut bench = Bench::new();
    let text = found_and_undone(&bench, &format!("echo undone >> {}", bench.file("marker").display()));
    let env = "    env: { SEEN: \"${{ steps.look.found }}\" }\n";
    let first = format!(
        "  - id: before\n    risk: low\n{env}    run: [/bin/true]\n    repeat: never\n    undo: [/bin/true]\n"
    );
    let text = text.replacen(env, "", 1).replacen("  - id: easy", &format!("{first}  - id: easy"), 1);
    std::fs::write(bench.file("look"), "seven").unwrap();
    let plan_bytes = bench.plan(&text);
    bench.order(&carry_out(&bench, &text, &plan_bytes, None));
    bench.until(
        "start of the second step",
        |what| matches!(what, v1::report::What::StepStarted(step) if step.path == "remediate/hard"),
    );
    bench.tell(ToWorks::Cancel { run: bench.run, reason: "ana stopped it".to_owned() });
    bench.until("the host's word", |what| matches!(what, v1::report::What::Cancelled(_)));
    let first = bench.run;

    // What comes first would be done otherwise: so it, and all that follows, is done anew, and taken back.
    std::fs::write(bench.file("look"), "eight").unwrap();
    std::fs::write(bench.file("go"), "x").unwrap();
    retried(&mut bench, LATER[0], &text);
    assert_eq!(bench.written("marker"), "low\nlow\nundone\n", "{}", bench.transcript());

    std::fs::write(bench.file("look"), "seven").unwrap();
    std::fs::write(bench.file("go"), "").unwrap();
    bench.run = first;
    let start = follow(&mut bench, LATER[1], FollowUp::Retry, &text, &[]);
    let order = first_order(&bench, &text, start.clone());
    let plan_bytes = planned(&mut bench, &order);
    let made = plan::decode(&plan_bytes).unwrap();
    let done: Vec<_> = made.steps.iter().map(|step| step.done_in).collect();
    assert_eq!(
        done,
        [Some(first), None, None],
        "what was done in another way is another thing: {:?}",
        made.of
    );
    bench.order(&carry_out(&bench, &text, &plan_bytes, Some(&start)));
    bench.ended();
    assert_eq!(bench.written("marker"), "low\nlow\nundone\nlow\nhigh\n", "{}", bench.transcript());
}

#[test]
fn a_step_whose_undo_did_not_run_as_a_person_found_is_gone_on_from_and_only_by_whoever_names_it() {
    let mut bench = Bench::new();
    // Its supervisor dies with the undo.
    let text = found_and_undone(&bench, "kill -9 $PPID");
    std::fs::write(bench.file("look"), "seven").unwrap();
    std::fs::write(bench.file("go"), "x").unwrap();
    let plan_bytes = bench.plan(&text);
    bench.order(&carry_out(&bench, &text, &plan_bytes, None));
    bench.ended();
    assert!(bench.transcript().contains("end: unknown remediate/easy/undo"), "{}", bench.transcript());
    let first = bench.run;

    std::fs::write(bench.file("go"), "").unwrap();
    let undo = &[("remediate/easy/undo", false)];
    let start = follow(&mut bench, LATER[0], FollowUp::Retry, &text, undo);
    let order = first_order(&bench, &text, start);
    let made = plan::decode(&planned(&mut bench, &order)).unwrap();
    assert_eq!(made.steps[0].done_in, Some(first), "{:?}", made.of);
    // What people find out about an undo since, they say of the first.
    let start = follow(&mut bench, LATER[1], FollowUp::Retry, &text, &[]);
    bench.order(&first_order(&bench, &text, start));
    assert_eq!(bench.refused(), "outcome-unknown");
    bench.run = first;
    let start = follow(&mut bench, LATER[2], FollowUp::Retry, &text, undo);
    let order = first_order(&bench, &text, start.clone());
    let plan_bytes = planned(&mut bench, &order);
    bench.order(&carry_out(&bench, &text, &plan_bytes, Some(&start)));
    bench.ended();
    assert_eq!(bench.written("marker"), "low\nhigh\n", "{}", bench.transcript());
}

#[test]
fn a_retry_whose_steps_were_never_born_does_not_make_its_host_forget_what_was_done_before_it() {
    let mut bench = Bench::new();
    let marker = format!("echo undone >> {}", bench.file("marker").display());
    let seen = bench.file("${{ steps.look.found }}");
    let cwd = format!("    cwd: \"{}\"\n    env: {{ SEEN", seen.display());
    let text = found_and_undone(&bench, &marker).replacen("    env: { SEEN", &cwd, 1);
    let text = text.replacen("    on_failure: undo", "    on_failure: stop", 1);
    std::fs::create_dir(bench.file("seven")).unwrap();
    std::fs::write(bench.file("look"), "seven").unwrap();
    std::fs::write(bench.file("go"), "x").unwrap();
    let plan_bytes = bench.plan(&text);
    bench.order(&carry_out(&bench, &text, &plan_bytes, None));
    bench.ended();
    let first = bench.run;

    std::fs::write(bench.file("look"), "nowhere").unwrap();
    retried(&mut bench, LATER[0], &text);
    assert!(bench.transcript().contains("not-started remediate/easy"), "{}", bench.transcript());
    std::fs::write(bench.file("look"), "seven").unwrap();
    let start = follow(&mut bench, LATER[1], FollowUp::Retry, &text, &[]);
    let order = first_order(&bench, &text, start);
    let made = plan::decode(&planned(&mut bench, &order)).unwrap();
    assert_eq!(made.steps[0].done_in, Some(first), "{:?}", made.of);
}

#[test]
fn what_the_journal_knows_of_a_step_is_not_what_a_person_says() {
    let mut bench = Bench::new();
    let text = half_done(&mut bench);
    let start = follow(&mut bench, LATER[0], FollowUp::Retry, &text, &[("remediate/hard", true)]);
    let order = first_order(&bench, &text, start);
    let made = plan::decode(&planned(&mut bench, &order)).unwrap();
    assert!(made.steps[0].done_in.is_some() && made.steps[1].done_in.is_none(), "{:?}", made.of);
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

#[test]
fn whether_a_step_that_people_stopped_midway_is_done_a_person_says() {
    let mut bench = Bench::new();
    let undo = "    undo: [/bin/true]\nverify";
    let text = two_low(&bench).replace("    undo: none\nverify", undo);
    let began = format!("touch {}\nexec sleep 60\n", bench.file("began").display());
    std::fs::write(bench.file("wait.sh"), began).unwrap();
    let plan_bytes = bench.plan(&text);
    bench.order(&carry_out(&bench, &text, &plan_bytes, None));
    crate::wait::eventually("the second step runs", || {
        if bench.file("began").exists() { Ok(()) } else { Err(bench.transcript()) }
    });
    bench.tell(ToWorks::Cancel { run: bench.run, reason: "ana stopped it".to_owned() });
    let what = bench.until("the host's word", |what| matches!(what, v1::report::What::Cancelled(_)));
    assert_eq!(what, v1::report::What::Cancelled(v1::Cancelled { interrupted: "remediate/hard".to_owned() }));

    let earlier = bench.run;
    let start = follow(&mut bench, LATER[0], FollowUp::Undo, &text, &[]);
    bench.order(&first_order(&bench, &text, start));
    assert_eq!(bench.refused(), "nothing-to-undo", "it is not known to be done");
    for (run, how, steps) in
        [(LATER[1], FollowUp::Undo, vec!["remediate/hard/undo"]), (LATER[2], FollowUp::Retry, vec![])]
    {
        bench.run = earlier;
        let start = follow(&mut bench, run, how, &text, &[("remediate/hard", true)]);
        let order = first_order(&bench, &text, start);
        let made = plan::decode(&planned(&mut bench, &order)).unwrap();
        let to_do = made.steps.iter().filter(|step| how == FollowUp::Undo || step.done_in.is_none());
        assert_eq!(to_do.map(|step| step.path.as_str()).collect::<Vec<_>>(), steps, "{:?}", made.of);
    }
}
