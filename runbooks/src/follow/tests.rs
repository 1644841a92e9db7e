//! What is skipped and what is undone, and how a host carries such plans out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::plan::{Of, Rendering};
use crate::segment::tests::{Bench, MOVE, Say, base, plan, runbook};
use crate::segment::{Past, Program};

fn first() -> RunId {
    "run_0193a1b2c3d4e5f60718293a4b5c6d7e".parse().unwrap()
}

fn second() -> RunId {
    "run_0193a1b2c3d4e5f60718293a4b5c6d7f".parse().unwrap()
}

/// What became of `drain`, `stop` and `move`.
fn became(all: [Became; 3]) -> impl Fn(&PlannedStep) -> Became {
    move |step| {
        let place = ["remediate/drain", "remediate/stop", "remediate/move"];
        all[place.iter().position(|path| *path == step.path).expect("one of them")].clone()
    }
}

fn done() -> Became {
    Became::Done(first())
}

fn failed(born: bool) -> Became {
    Became::Failed { born, run: first() }
}

fn unknown() -> Became {
    Became::Unknown { path: "remediate/stop".to_owned(), run: first() }
}

#[test]
fn only_leading_steps_that_are_done_and_would_be_the_same_are_skipped() {
    let earlier = plan(&runbook(MOVE));
    let check = |all: [Became; 3], change: &dyn Fn(&mut [PlannedStep]), skipped: usize, says: &str| {
        let mut fresh = earlier.steps.clone();
        change(&mut fresh);
        let said = resume(&earlier, &mut fresh, became(all.clone())).join("; ");
        let marked: Vec<usize> =
            fresh.iter().enumerate().filter(|(_, step)| step.done_in.is_some()).map(|(at, _)| at).collect();
        assert_eq!(marked, (0..skipped).collect::<Vec<_>>(), "{all:?}");
        assert!(said.contains(says), "{said} has no `{says}`");
    };
    let same = |_: &mut [PlannedStep]| {};
    check([done(), failed(true), Became::Nothing], &same, 1, "it resumes at remediate/stop");
    check([done(), done(), failed(true)], &same, 2, "2 steps were done");
    check([done(), done(), done()], &same, 3, "3 steps");
    check([failed(true), done(), done()], &same, 0, "no step is skipped");
    check([done(), Became::Undone, done()], &same, 1, "it resumes at remediate/stop");
    check([done(), unknown(), done()], &same, 1, "it resumes at remediate/stop");
    check([done(), failed(false), done()], &same, 1, "it resumes at remediate/stop");
    check([done(), Became::Nothing, failed(true)], &same, 1, "it resumes at remediate/move");
    let other = |fresh: &mut [PlannedStep]| fresh[0].cwd = "/tmp".to_owned();
    check([done(), done(), failed(true)], &other, 0, "remediate/drain would now be done otherwise");
    let other = |fresh: &mut [PlannedStep]| drop(fresh[1].env.insert("A".to_owned(), "b".to_owned()));
    check([done(), done(), failed(true)], &other, 1, "remediate/stop would now be done otherwise");
    let other = |fresh: &mut [PlannedStep]| fresh[2].timeout *= 2;
    check([done(), failed(true), Became::Nothing], &other, 1, "it resumes at remediate/stop");
}

#[test]
fn what_was_done_two_runs_ago_is_skipped_as_done_there() {
    let mut earlier = (*plan(&runbook(MOVE))).clone();
    let mut fresh = earlier.steps.clone();
    earlier.steps[0].done_in = Some(second());
    resume(&earlier, &mut fresh, became([Became::Done(second()), failed(true), Became::Nothing]));
    assert_eq!(fresh[0].done_in, Some(second()));
}

#[test]
fn undos_come_in_reverse_and_only_of_what_is_done() {
    let earlier = plan(&runbook(MOVE));
    let check = |all: [Became; 3], steps: &[&str], stays: &str| {
        let back = backwards(&earlier, became(all)).expect("everything is known");
        let paths: Vec<&str> = back.steps.iter().map(|step| step.path.as_str()).collect();
        assert_eq!((paths, back.stays.join("; ")), (steps.to_vec(), stays.to_owned()));
    };
    let (drain, stop) = ("remediate/drain/undo", "remediate/stop/undo");
    check([done(), done(), done()], &[stop, drain], "remediate/move has no undo");
    check(
        [done(), done(), failed(true)],
        &[stop, drain],
        "remediate/move failed midway: its undo is for a finished step",
    );
    check([done(), failed(false), Became::Nothing], &[drain], "");
    check([Became::Undone, done(), Became::Nothing], &[stop], "");
    check([Became::Nothing, Became::Nothing, Became::Nothing], &[], "");
    let nobody_knows = backwards(&earlier, became([done(), unknown(), Became::Nothing]));
    assert_eq!(nobody_knows, Err(("remediate/stop".to_owned(), first())));

    let step = &backwards(&earlier, became([done(), Became::Nothing, Became::Nothing])).unwrap().steps[0];
    assert_eq!((step.risk, step.done_in), (earlier.steps[0].risk, Some(first())));
    assert_eq!(step.work, PlannedWork::Argv(vec!["undrain".to_owned()]));
    assert_eq!((step.repeat, &step.undo), (Repeat::Never, &PlannedUndo::None));
}

#[test]
fn a_unit_is_put_back_after_half_a_step_and_after_one_nobody_knows_of() {
    let mut earlier = (*plan(&runbook(MOVE))).clone();
    let unit: crate::unit::UnitName = "web.service".parse().unwrap();
    earlier.steps[1].work = PlannedWork::Service { verb: crate::unit::Verb::Stop, unit: unit.clone() };
    earlier.steps[1].undo = PlannedUndo::Previous;
    for what in [done(), failed(true), unknown()] {
        let back = backwards(&earlier, became([Became::Nothing, what, Became::Nothing])).unwrap();
        assert_eq!(back.steps[0].work, PlannedWork::PutBack { unit: unit.clone() });
    }
    let back = backwards(&earlier, became([Became::Nothing, failed(false), Became::Nothing])).unwrap();
    assert_eq!(back.steps, [], "no attempt of it was born");
}

/// A plan that goes on from `first`.
fn follows(how: FollowUp, change: impl FnOnce(&mut Plan)) -> Arc<Plan> {
    let mut plan = (*plan(&runbook(MOVE))).clone();
    plan.run = second();
    plan.of = Some(Of { run: first(), how, says: Vec::new() });
    change(&mut plan);
    Arc::new(plan)
}

fn carried_out(plan: &Arc<Plan>, past: Vec<Past>) -> Bench {
    let from = plan.steps[0].path.clone();
    let program =
        Program::remediate(runbook(MOVE), Arc::clone(plan), base("/"), &from, Default::default(), past);
    Bench::new(program.expect("it fits"))
}

#[test]
fn a_step_that_is_done_is_not_started_and_is_undone_with_the_others() {
    let plan = follows(FollowUp::Retry, |plan| plan.steps[0].done_in = Some(first()));
    let mut bench = carried_out(&plan, Vec::new());
    let said = bench.say(Say::Begin);
    assert!(
        said.starts_with(&format!("skipped remediate/drain: done in {}; start remediate/stop 1", first())),
        "{said}"
    );
    let said = bench.say(Say::Exit("remediate/stop", 1, 0, ""));
    assert!(said.contains("start remediate/move 1"), "{said}");
    let said = bench.say(Say::Exit("remediate/move", 1, 1, ""));
    assert!(said.contains("start remediate/stop/undo 1 (acts): start"), "{said}");
    let said = bench.say(Say::Exit("remediate/stop/undo", 1, 0, ""));
    assert!(said.contains("start remediate/drain/undo 1 (acts): undrain"), "{said}");
}

#[test]
fn a_plan_that_undoes_is_carried_out_step_by_step_and_stops_at_the_first_that_fails() {
    let undo = |plan: &mut Plan| {
        let back = backwards(plan, became([done(), done(), Became::Nothing])).unwrap();
        (plan.steps, plan.verify) = (back.steps, Vec::new());
    };
    let plan = follows(FollowUp::Undo, undo);
    let mut bench = carried_out(&plan, Vec::new());
    assert!(bench.say(Say::Begin).starts_with("start remediate/stop/undo 1 (acts): start"));
    let mut failed = bench.copy();
    let said = bench.say(Say::Exit("remediate/stop/undo", 1, 0, ""));
    assert!(said.contains("start remediate/drain/undo 1"), "{said}");
    let said = bench.say(Say::Exit("remediate/drain/undo", 1, 0, ""));
    assert!(said.ends_with("undo Done)"), "{said}");
    let how = |bench: &Bench| crate::run::Final::of(bench.outcome()).expect("it is over");
    assert_eq!(how(&bench).ending, crate::run::Ending::Undone);
    let said = failed.say(Say::Exit("remediate/stop/undo", 1, 1, ""));
    assert!(!said.contains("drain"), "{said}");
    assert_eq!(how(&failed).ending, crate::run::Ending::Failed);
    assert!(
        how(&failed).reason.starts_with("an undo failed: remediate/stop/undo"),
        "{}",
        how(&failed).reason
    );
}

#[test]
fn undos_are_planned_without_a_diagnosis() {
    let known = Rendering { steps: Vec::new(), verify: Vec::new(), evidence: BTreeMap::new() };
    let mut bench = Bench::new(Program::undo(runbook(MOVE), base("/"), known));
    let said = bench.say(Say::Begin);
    assert!(!said.contains("start"), "nothing runs: {said}");
}
