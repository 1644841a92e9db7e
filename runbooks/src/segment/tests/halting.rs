//! A segment is cancelled, paused, or carries out once more what may have been done.

use super::*;

#[test]
fn in_every_state_a_cancel_stops_what_runs_and_starts_nothing() {
    for (path, bench) in super::super::table::states() {
        let mut bench = bench;
        let was_over = matches!(bench.state.at(), At::Ended);
        let runs: Vec<u32> = (1..4).filter(|attempt| runs(&bench, path, *attempt)).collect();
        let told = bench.say(Say::Cancel);
        assert!(!told.contains("start "), "{path}: {told}");
        if was_over || told.is_empty() {
            continue; // Over, or being stopped already.
        }
        match runs.as_slice() {
            [] => assert!(told.contains("END stopped"), "{path}: nothing of it runs: {told}"),
            [attempt] => {
                assert!(told.contains(&format!("kill {path} {attempt}")), "{path}: {told}");
                assert!(!told.contains("END"), "{path}: its process runs: {told}");
                let end = bench.say(Say::Killed(path, *attempt));
                let acts = path.starts_with("remediate/");
                assert!(end.contains("END stopped"), "{path}: {end}");
                assert_eq!(end.contains(&format!("interrupted {path}")), acts, "{path}: {end}");
            }
            more => panic!("{path} runs {more:?} times"),
        }
        assert!(matches!(bench.state.at(), At::Ended));
        assert_eq!(bench.say(Say::Cancel), "", "{path}: once is enough");
    }
}

fn runs(bench: &Bench, path: &'static str, attempt: u32) -> bool {
    let mut bench = bench.copy();
    let event = bench.event(Say::Killed(path, attempt));
    !matches!(bench.state.at(), At::Stopping { .. })
        && bench.state.next(&bench.program, bench.now, event).is_ok()
}

#[test]
fn a_cancel_tells_the_end_of_every_step_that_was_told_to_have_begun() {
    check(
        remediate(DISK, "remediate/purge", &[], vec![]),
        &[Say::Begin, Say::Used(10.0), Say::Cancel],
        r#"
        read disk("/var")
        skipped remediate/purge: its condition was false: disk(inputs.mount).used_percent >= 85.0 (disk("/var").used_percent = 10.0); started verify/below 1; read disk("/var")
        killed verify/below 1: it was told to stop; END stopped: ana stopped it (no effects, verify NotRun, undo None)
        "#,
    );
    check(
        remediate(DISK, "remediate/purge", &[], vec![]),
        &[Say::Begin, Say::Used(90.0), Say::Unknown("remediate/purge", 1, true), Say::Cancel],
        r#"
        read disk("/var")
        start remediate/purge 1 (acts): find /var -delete; started remediate/purge 1
        read disk("/var")
        unknown remediate/purge 1: power was lost; END stopped: ana stopped it (effects, verify NotRun, undo None, interrupted remediate/purge)
        "#,
    );
}

#[test]
fn a_cancelled_segment_that_is_begun_again_after_a_restart_starts_nothing() {
    let killed = Exit { by: ExitBy::Kill, signal: Some(15), ..Exit::default() };
    check(
        remediate(MOVE, "remediate/drain", &[], vec![past("remediate/drain", 1, Some(killed))]),
        &[Say::Cancel],
        "killed remediate/drain 1: it was told to stop; END stopped: ana stopped it (effects, verify NotRun, undo None, interrupted remediate/drain)",
    );
    let both = vec![past("remediate/drain", 1, Some(exit(0, ""))), past("remediate/stop", 1, None)];
    check(
        remediate(MOVE, "remediate/drain", &[], both),
        &[Say::Cancel, Say::Unknown("remediate/stop", 1, true)],
        "
        succeeded remediate/drain 1; kill remediate/stop 1
        unknown remediate/stop 1: it was stopped, and nobody saw its end; END stopped: ana stopped it (effects, verify NotRun, undo None, interrupted remediate/stop)
        ",
    );
}

#[test]
fn in_a_pause_what_runs_ends_and_the_next_step_waits() {
    check(
        remediate(MOVE, "remediate/drain", &[], vec![]),
        &[
            Say::Begin,
            Say::Pause,
            Say::Exit("remediate/drain", 1, 0, ""),
            Say::Pause,
            Say::Resume,
            Say::Resume,
        ],
        "
        start remediate/drain 1 (acts): drain; started remediate/drain 1

        succeeded remediate/drain 1; hold remediate/stop 1

        start remediate/stop 1 (acts): stop; started remediate/stop 1

        ",
    );
}

#[test]
fn a_pause_keeps_an_undo_and_another_try_waiting_and_conditions_are_read_anew() {
    check(
        remediate(MOVE, "remediate/move", &[], vec![past("remediate/stop", 1, Some(exit(0, "")))]),
        &[Say::Begin, Say::Pause, Say::Exit("remediate/move", 1, 1, ""), Say::Resume],
        "
        start remediate/move 1 (acts): move; started remediate/move 1

        failed remediate/move 1: it exited with 1; hold remediate/stop/undo 1
        start remediate/stop/undo 1 (acts): start; started remediate/stop/undo 1
        ",
    );
    check(
        remediate(DISK, "remediate/vacuum", &[], vec![]),
        &[Say::Begin, Say::Exit("remediate/vacuum", 1, 1, ""), Say::Pause, Say::Timer(2), Say::Resume],
        "
        start remediate/vacuum 1 (acts): journalctl --vacuum-size=200M; started remediate/vacuum 1
        failed remediate/vacuum 1: it exited with 1; timer 2s

        hold remediate/vacuum 2
        start remediate/vacuum 2 (acts): journalctl --vacuum-size=200M; started remediate/vacuum 2
        ",
    );
    check(
        remediate(DISK, "remediate/purge", &[], vec![]),
        &[Say::Begin, Say::Pause, Say::Used(90.0), Say::Resume, Say::Used(10.0)],
        r#"
        read disk("/var")

        hold remediate/purge 1
        read disk("/var")
        skipped remediate/purge: its condition was false: disk(inputs.mount).used_percent >= 85.0 (disk("/var").used_percent = 10.0); started verify/below 1; read disk("/var")
        "#,
    );
}

#[test]
fn a_pause_extends_no_time_to_start() {
    check(
        remediate(MOVE, "remediate/drain", &[], vec![]),
        &[Say::Pause, Say::Begin, Say::Timer(60), Say::Resume],
        "

        hold remediate/drain 1
        not-started remediate/drain 1: the time to start it passed while the run was paused; END stopped: remediate/drain: the time to start it passed while the run was paused (no effects, verify NotRun, undo None)

        ",
    );
}

#[test]
fn a_step_that_is_run_again_gets_the_attempt_after_the_unknown_one_and_the_rest_follows() {
    let program = || {
        remediate(
            MOVE,
            "remediate/stop",
            &[],
            vec![past("remediate/drain", 1, Some(exit(0, ""))), past("remediate/stop", 1, None)],
        )
        .again("remediate/stop".to_owned(), 1)
    };
    check(
        program(),
        &[Say::Begin, Say::Exit("remediate/stop", 2, 0, "")],
        "
        start remediate/stop 2 (acts): stop; started remediate/stop 2
        succeeded remediate/stop 2; start remediate/move 1 (acts): move; started remediate/move 1
        ",
    );
    let mut bench = Bench::new(program());
    bench.say(Say::Begin);
    let why = bench.say(Say::Unknown("remediate/stop", 2, true));
    assert!(why.starts_with("unknown remediate/stop 2: power was lost"), "{why}");
    let after_a_restart = remediate(
        MOVE,
        "remediate/stop",
        &[],
        vec![past("remediate/stop", 1, None), past("remediate/stop", 2, None)],
    );
    check(
        after_a_restart.again("remediate/stop".to_owned(), 1),
        &[Say::Begin, Say::Exit("remediate/stop", 2, 0, "")],
        "

        succeeded remediate/stop 2; start remediate/move 1 (acts): move; started remediate/move 1
        ",
    );
}

/// A drain, then a stop of unknown outcome that is to run again, then a move.
fn stop_again(stop: &str, more: Vec<Past>) -> Program {
    let text = MOVE.replacen("    run: [stop]\n", stop, 1);
    assert!(text != MOVE || stop == "    run: [stop]\n");
    let known = vec![past("remediate/drain", 1, Some(exit(0, ""))), past("remediate/stop", 1, None)];
    remediate(&text, "remediate/stop", &[], known.into_iter().chain(more).collect())
        .again("remediate/stop".to_owned(), 1)
}

const ONLY_IF: &str =
    "    if: disk(\"/var\").used_percent >= 85.0\n    run: [stop]\n    on_failure: continue\n";

fn unborn() -> Exit {
    Exit { by: ExitBy::NotStarted("no such program".to_owned()), ..Exit::default() }
}

#[test]
fn a_step_that_is_run_again_and_is_not_born_stays_unknown_and_none_after_it_begins() {
    check(
        stop_again(ONLY_IF, vec![]),
        &[Say::Begin, Say::Used(10.0), Say::Exit("verify/up", 1, 0, "")],
        r#"
        read disk("/var")
        skipped remediate/stop: its condition was false: disk("/var").used_percent >= 85.0 (disk("/var").used_percent = 10.0); start verify/up 1: curl; started verify/up 1
        succeeded verify/up 1; END unknown remediate/stop 1 (no effects, verify Passed, undo None)
        "#,
    );
    check(
        stop_again(ONLY_IF, vec![]),
        &[Say::Begin, Say::NoAnswer, Say::Exit("verify/up", 1, 0, "")],
        r#"
        read disk("/var")
        not-started remediate/stop 2: its condition `disk("/var").used_percent >= 85.0` cannot be read: line 18, column 9: disk("/var") cannot be read: it hangs; start verify/up 1: curl; started verify/up 1
        succeeded verify/up 1; END unknown remediate/stop 1 (no effects, verify Passed, undo None)
        "#,
    );
    check(
        stop_again(ONLY_IF, vec![]),
        &[Say::Begin, Say::Used(90.0), Say::Barred("remediate/stop", 2), Say::Exit("verify/up", 1, 0, "")],
        r#"
        read disk("/var")
        start remediate/stop 2 (acts): stop; started remediate/stop 2
        not-started remediate/stop 2: vetoed; start verify/up 1: curl; started verify/up 1
        succeeded verify/up 1; END unknown remediate/stop 1 (effects, verify Passed, undo None)
        "#,
    );
    let mut bench = Bench::new(stop_again(ONLY_IF, vec![]));
    bench.say(Say::Begin);
    bench.say(Say::Used(90.0));
    let said = Event::Exited { path: "remediate/stop".to_owned(), attempt: 2, exit: unborn() };
    bench.state = bench.state.next(&bench.program, bench.now, said).unwrap().0;
    let over = bench.say(Say::Exit("verify/up", 1, 0, ""));
    assert!(over.contains("END unknown remediate/stop 1 "), "{over}");
    // What nobody approves any more.
    let program = stop_again(ONLY_IF, vec![]);
    let closed = Program { closed: BTreeSet::from(["remediate/stop".to_owned()]), ..program };
    check(
        closed,
        &[Say::Begin, Say::Used(90.0), Say::Exit("verify/up", 1, 0, "")],
        r#"
        read disk("/var")
        start verify/up 1: curl; started verify/up 1
        succeeded verify/up 1; END unknown remediate/stop 1 (no effects, verify Passed, undo None)
        "#,
    );
}

#[test]
fn a_step_that_was_born_again_goes_on_as_any_other() {
    check(
        stop_again(ONLY_IF, vec![]),
        &[Say::Begin, Say::Used(90.0), Say::Exit("remediate/stop", 2, 1, "")],
        r#"
        read disk("/var")
        start remediate/stop 2 (acts): stop; started remediate/stop 2
        failed remediate/stop 2: it exited with 1; start remediate/move 1 (acts): move; started remediate/move 1
        "#,
    );
    // The agent was restarted on the way.
    check(
        stop_again(ONLY_IF, vec![past("remediate/stop", 2, Some(exit(1, "")))]),
        &[Say::Begin],
        "failed remediate/stop 2: it exited with 1; start remediate/move 1 (acts): move; started remediate/move 1",
    );
}

#[test]
fn an_attempt_that_was_not_born_is_followed_by_another_when_people_want_that() {
    check(
        stop_again(ONLY_IF, vec![past("remediate/stop", 2, Some(unborn()))]),
        &[Say::Begin, Say::Used(90.0)],
        r#"
        read disk("/var")
        start remediate/stop 3 (acts): stop; started remediate/stop 3
        "#,
    );
}

#[test]
fn a_run_that_is_cancelled_before_its_step_has_run_again_leaves_that_one_unknown() {
    check(
        stop_again(ONLY_IF, vec![]),
        &[Say::Begin, Say::Cancel],
        r#"
        read disk("/var")
        END stopped: ana stopped it (no effects, verify NotRun, undo None, interrupted remediate/stop)
        "#,
    );
    let begun = [Say::Begin, Say::Used(90.0), Say::Cancel];
    let mut bench = Bench::new(stop_again(ONLY_IF, vec![]));
    begun.iter().for_each(|said| drop(bench.say(said.clone())));
    let over = bench.copy().say(Say::Barred("remediate/stop", 2));
    assert!(over.ends_with("interrupted remediate/stop)"), "{over}");
    let over = bench.say(Say::Exit("remediate/stop", 2, 0, ""));
    assert!(over.ends_with("undo None)"), "it ran, and well: {over}");
    let mut bench = Bench::new(stop_again(ONLY_IF, vec![past("remediate/stop", 2, Some(exit(0, "")))]));
    bench.say(Say::Begin);
    bench.say(Say::Cancel);
    let over = bench.say(Say::Killed("remediate/move", 1));
    assert!(over.ends_with("interrupted remediate/move)"), "{over}");
}

#[test]
fn an_undo_of_which_nobody_can_tell_is_unknown_and_no_other_follows_it() {
    let done =
        || vec![past("remediate/drain", 1, Some(exit(0, ""))), past("remediate/stop", 1, Some(exit(0, "")))];
    check(
        remediate(MOVE, "remediate/move", &[], done()),
        &[
            Say::Begin,
            Say::Exit("remediate/move", 1, 1, ""),
            Say::Unknown("remediate/stop/undo", 1, true),
            Say::Exit("verify/up", 1, 7, ""),
        ],
        "
        start remediate/move 1 (acts): move; started remediate/move 1
        failed remediate/move 1: it exited with 1; start remediate/stop/undo 1 (acts): start; started remediate/stop/undo 1
        unknown remediate/stop/undo 1: power was lost; start verify/up 1: curl; started verify/up 1
        failed verify/up 1: it exited with 7; END unknown remediate/stop/undo 1 (effects, verify Failed, undo Failed)
        ",
    );
    // Also where people stop the run while the symptom is read.
    check(
        remediate(MOVE, "remediate/move", &[], done()),
        &[
            Say::Begin,
            Say::Exit("remediate/move", 1, 1, ""),
            Say::Unknown("remediate/stop/undo", 1, true),
            Say::Cancel,
            Say::Killed("verify/up", 1),
        ],
        "
        start remediate/move 1 (acts): move; started remediate/move 1
        failed remediate/move 1: it exited with 1; start remediate/stop/undo 1 (acts): start; started remediate/stop/undo 1
        unknown remediate/stop/undo 1: power was lost; start verify/up 1: curl; started verify/up 1
        kill verify/up 1
        killed verify/up 1: it was told to stop; END stopped: ana stopped it (effects, verify NotRun, undo Failed, interrupted remediate/stop/undo)
        ",
    );
}
