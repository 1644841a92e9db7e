//! Tests of the segment: events in, a transcript out. The runbooks are real ones.

mod halting; // cancelled, paused, run again
mod outputs; // what a condition leaves

use proptest::prelude::*;

use super::*;
use crate::id::Digest;
use crate::plan::{PlannedUndo, PlannedWork};

mod service;

pub(crate) const DISK: &str = r#"
fettle: 1
runbook: host/disk-full
title: Reclaim space
owner: core
description: x
inputs:
  mount: { type: path, default: /var }
diagnose:
  - id: usage
    run: [df, "${{ inputs.mount }}"]
    outputs: { used: int(stdout) }
  - id: biggest
    after: [usage]
    run: [du, "${{ inputs.mount }}"]
remediate:
  - id: vacuum
    risk: low
    if: steps.usage.used >= 85
    run: [journalctl, --vacuum-size=200M]
    repeat: safe
    undo: none
    retry: { times: 1, first: 2s }
  - id: purge
    risk: high
    if: disk(inputs.mount).used_percent >= 85.0
    run: [find, "${{ inputs.mount }}", -delete]
    repeat: never
    undo: none
    check: disk(inputs.mount).used_percent < 85.0
    on_failure: continue
verify:
  - id: below
    that: disk(inputs.mount).used_percent < 85.0
    within: 10s
    stable_for: 4s
    every: 3s
"#;

pub(crate) const MOVE: &str = r#"
fettle: 1
runbook: host/move
title: Move
owner: core
description: x
diagnose:
  - id: look
    run: [true]
remediate:
  - id: drain
    risk: low
    run: [drain]
    repeat: never
    undo: { run: [undrain] }
  - id: stop
    risk: low
    run: [stop]
    repeat: never
    undo: { run: [start] }
  - id: move
    risk: low
    run: [move]
    repeat: never
    undo: none
    on_failure: undo
verify:
  - id: up
    run: [curl]
"#;

/// What a test says happened.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    Begin,
    /// The answer to the latest question: what `disk("/var").used_percent` is.
    Used(f64),
    /// The latest question cannot be answered.
    NoAnswer,
    Exit(&'static str, u32, i32, &'static str),
    Killed(&'static str, u32),
    Unknown(&'static str, u32, bool),
    Barred(&'static str, u32),
    /// The latest timer, after so many seconds.
    Timer(u64),
    Cancel,
    Pause,
    Resume,
}

pub(crate) struct Bench {
    pub(crate) program: Program,
    pub(crate) state: State,
    pub(crate) now: Duration,
    ask: u32,
    timer: u32,
    calls: Vec<FactCall>,
    rendering: Option<Rendering>,
}

pub(crate) fn runbook(text: &str) -> Arc<Runbook> {
    match crate::read(text.as_bytes()) {
        Ok(read) => Arc::new(read.runbook),
        Err(problems) => panic!("{}", crate::problem::render("test.yaml", text.as_bytes(), &problems, false)),
    }
}

pub(crate) fn base(mount: &str) -> Scope {
    let map = |name: &str, value: Value| Value::Map(BTreeMap::from([(name.to_owned(), value)]));
    Scope(BTreeMap::from([
        ("inputs".to_owned(), map("mount", Value::String(mount.to_owned()))),
        ("host".to_owned(), map("labels", Value::Map(BTreeMap::new()))),
    ]))
}

fn exit(code: i32, stdout: &str) -> Exit {
    let stdout = Kept { head: stdout.as_bytes().to_vec(), ..Kept::default() };
    Exit { code: Some(code), stdout, ..Exit::default() }
}

/// The plan of a runbook whose diagnosis found 91 percent.
pub(crate) fn plan(runbook: &Arc<Runbook>) -> Arc<Plan> {
    let mut bench = Bench::new(Program::diagnose(Arc::clone(runbook), base("/var")));
    bench.say(Say::Begin);
    for step in ["diagnose/usage", "diagnose/look", "diagnose/biggest"] {
        if bench.is_running(step) {
            bench.say(Say::Exit(step, 1, 0, "91"));
        }
    }
    planned(runbook, bench.rendering.expect("diagnosis ends in a plan"))
}

fn planned(runbook: &Runbook, rendering: Rendering) -> Arc<Plan> {
    Arc::new(Plan {
        agent: "web-1".parse().unwrap(),
        run: "run_0193a1b2c3d4e5f60718293a4b5c6d7e".parse().unwrap(),
        nonce: "00".repeat(32),
        boot: "boot".to_owned(),
        runbook: runbook.name().to_owned(),
        runbook_digest: runbook.digest(),
        inputs: BTreeMap::new(),
        evidence: rendering.evidence,
        steps: rendering.steps,
        verify: rendering.verify,
        of: None,
    })
}

impl Bench {
    pub(crate) fn outcome(&self) -> &Outcome {
        &self.state.outcome
    }

    pub(crate) fn new(program: Program) -> Bench {
        Bench {
            program,
            state: State::ready(),
            now: Duration::ZERO,
            ask: 0,
            timer: 0,
            calls: Vec::new(),
            rendering: None,
        }
    }

    pub(crate) fn copy(&self) -> Bench {
        Bench {
            program: self.program.clone(),
            state: self.state.clone(),
            calls: self.calls.clone(),
            rendering: self.rendering.clone(),
            ..*self
        }
    }

    pub(crate) fn event(&mut self, said: Say) -> Event {
        let none = || (String::new(), 0);
        let (path, attempt) = match &said {
            Say::Exit(path, attempt, ..)
            | Say::Killed(path, attempt)
            | Say::Unknown(path, attempt, _)
            | Say::Barred(path, attempt) => ((*path).to_owned(), *attempt),
            Say::Begin | Say::Used(_) | Say::NoAnswer | Say::Timer(_) => none(),
            Say::Cancel | Say::Pause | Say::Resume => none(),
        };
        let reason = "power was lost".to_owned();
        match said {
            Say::Begin => Event::Begin,
            Say::Used(percent) => {
                let disk = BTreeMap::from([("used_percent".to_owned(), Value::Number(percent))]);
                let facts = self.calls.iter().map(|call| (call.to_string(), Ok(Value::Map(disk.clone()))));
                Event::Facts { ask: self.ask, facts: facts.collect() }
            }
            Say::NoAnswer => {
                let facts = self.calls.iter().map(|call| (call.to_string(), Err("it hangs".to_owned())));
                Event::Facts { ask: self.ask, facts: facts.collect() }
            }
            Say::Exit(_, _, code, stdout) => Event::Exited { path, attempt, exit: exit(code, stdout) },
            Say::Killed(..) => Event::Exited {
                path,
                attempt,
                exit: Exit { by: ExitBy::Kill, signal: Some(15), ..Exit::default() },
            },
            Say::Unknown(_, _, dead) => Event::Unknown { path, attempt, reason, dead },
            Say::Barred(..) => Event::Barred { path, attempt, reason: "vetoed".to_owned() },
            Say::Timer(seconds) => {
                self.now += Duration::from_secs(seconds);
                Event::TimerFired { timer: self.timer }
            }
            Say::Cancel => Event::CancelAsked { reason: "ana stopped it".to_owned() },
            Say::Pause => Event::PauseAsked,
            Say::Resume => Event::ResumeAsked,
        }
    }

    pub(crate) fn say(&mut self, said: Say) -> String {
        let event = self.event(said);
        match self.state.next(&self.program, self.now, event) {
            Err(illegal) => format!("failed to {illegal}"),
            Ok((state, effects)) => {
                self.state = state;
                effects.iter().map(|effect| self.heard(effect)).collect::<Vec<_>>().join("; ")
            }
        }
    }

    fn heard(&mut self, effect: &Effect) -> String {
        match effect {
            Effect::ReadFacts { ask, calls } => {
                self.ask = *ask;
                self.calls.clone_from(calls);
                let calls: Vec<String> = calls.iter().map(ToString::to_string).collect();
                format!("read {}", calls.join(" "))
            }
            Effect::Start { path, attempt, spec, kind } => {
                let words = match &spec.command {
                    Command::Script { source, .. } => source.clone(),
                    Command::Argv(words) => words.join(" "),
                    Command::Service { deed: Deed::Do(verb), unit } => format!("{verb} {unit}"),
                    Command::Service { deed: Deed::PutBack, unit } => format!("put back {unit}"),
                };
                let kind = match kind {
                    Kind::Read => "",
                    Kind::Act => " (acts)",
                };
                format!("start {path} {attempt}{kind}: {words}")
            }
            Effect::SetTimer { timer, after } => {
                self.timer = *timer;
                format!("timer {after:?}")
            }
            Effect::Hold { path, attempt, timer } => {
                self.timer = *timer;
                format!("hold {path} {attempt}")
            }
            Effect::Kill { path, attempt } => format!("kill {path} {attempt}"),
            Effect::Report(Note::Started { path, attempt }) => format!("started {path} {attempt}"),
            Effect::Report(Note::Skipped { path, reason }) => format!("skipped {path}: {reason}"),
            Effect::Report(Note::Ended { path, attempt, result, message, outputs, .. }) => {
                let outputs: String =
                    outputs.iter().map(|(name, value)| format!(" {name}={value}")).collect();
                let message = if message.is_empty() { String::new() } else { format!(": {message}") };
                format!("{} {path} {attempt}{outputs}{message}", result.word())
            }
            Effect::Diagnosed(rendering) => {
                self.rendering = Some((**rendering).clone());
                format!("planned {} steps", rendering.steps.len())
            }
            Effect::Ended { outcome, interrupted } => {
                let interrupted =
                    interrupted.as_ref().map(|path| format!(", interrupted {path}")).unwrap_or_default();
                let how = match &outcome.how {
                    How::Done => "done".to_owned(),
                    How::Gate { path } => format!("gate {path}"),
                    How::Failed { path, reason } => format!("failed {path}: {reason}"),
                    How::Unknown { path, attempt, .. } => format!("unknown {path} {attempt}"),
                    How::Stopped { reason } => format!("stopped: {reason}"),
                };
                let effects = if outcome.effects { "effects" } else { "no effects" };
                let (verify, undo) = (outcome.verification, outcome.undoing);
                format!("END {how} ({effects}, verify {verify:?}, undo {undo:?}{interrupted})")
            }
        }
    }

    fn is_running(&self, path: &str) -> bool {
        let exit = exit(0, "");
        let event = Event::Exited { path: path.to_owned(), attempt: 1, exit };
        self.state.next(&self.program, self.now, event).is_ok()
    }
}

/// The one place these tests touch the machine.
#[track_caller]
fn check(program: Program, said: &[Say], expected: &str) {
    let mut bench = Bench::new(program);
    let transcript: Vec<String> = said.iter().map(|said| bench.say(said.clone())).collect();
    let expected: Vec<&str> = expected.trim().lines().map(str::trim).collect();
    assert_eq!(transcript.join("\n").trim(), expected.join("\n"));
}

pub(crate) fn remediate(text: &str, from: &str, closed: &[&str], past: Vec<Past>) -> Program {
    let runbook = runbook(text);
    let plan = plan(&runbook);
    let closed = closed.iter().map(|path| (*path).to_owned()).collect();
    Program::remediate(runbook, plan, base("/var"), from, closed, past).unwrap()
}

fn past(path: &str, attempt: u32, exit: Option<Exit>) -> Past {
    Past { path: path.to_owned(), attempt, exit }
}

#[test]
fn diagnosis_goes_side_by_side_unless_told_otherwise_and_ends_in_the_plan() {
    check(
        Program::diagnose(runbook(DISK), base("/var")),
        &[Say::Begin, Say::Exit("diagnose/usage", 1, 0, "91"), Say::Exit("diagnose/biggest", 1, 0, "")],
        "
        start diagnose/usage 1: df /var; started diagnose/usage 1
        succeeded diagnose/usage 1 used=91; start diagnose/biggest 1: du /var; started diagnose/biggest 1
        succeeded diagnose/biggest 1; planned 2 steps; END done (no effects, verify NotRun, undo None)
        ",
    );
}

#[test]
fn a_failed_diagnose_step_is_evidence_and_only_what_needs_it_becomes_impossible() {
    let mut bench = Bench::new(Program::diagnose(runbook(DISK), base("/var")));
    bench.say(Say::Begin);
    bench.say(Say::Exit("diagnose/usage", 1, 0, "not a number"));
    let last = bench.say(Say::Exit("diagnose/biggest", 1, 2, ""));
    assert!(last.starts_with("failed diagnose/biggest 1: it exited with 2; planned 2 steps"), "{last}");
    let impossible = bench.rendering.unwrap().impossible();
    assert_eq!(impossible.keys().collect::<Vec<_>>(), ["remediate/vacuum"]);
    assert!(impossible["remediate/vacuum"].contains("steps.usage.used"), "{impossible:?}");
}

#[test]
fn a_value_that_looks_like_an_option_makes_its_step_impossible() {
    let runbook = runbook(DISK);
    let mut bench = Bench::new(Program::diagnose(runbook, base("-delete")));
    bench.say(Say::Begin);
    // Both diagnose steps take the value as an argument, so neither starts and both say why.
    assert!(!bench.is_running("diagnose/usage"));
    let impossible = bench.rendering.expect("there is a plan all the same").impossible();
    assert!(
        impossible["remediate/purge"].contains("would begin with `-` because of a value"),
        "{impossible:?}"
    );
}

#[test]
fn remediation_runs_in_order_and_verifies_the_symptom_until_it_is_stable() {
    check(
        remediate(DISK, "remediate/vacuum", &[], vec![]),
        &[
            Say::Begin,
            Say::Exit("remediate/vacuum", 1, 0, ""),
            Say::Used(90.0),
            Say::Exit("remediate/purge", 1, 0, ""),
            Say::Used(90.0),
            Say::Timer(3),
            Say::Used(50.0),
            Say::Timer(3),
            Say::Used(50.0),
            Say::Timer(1),
            Say::Used(50.0),
        ],
        r#"
        start remediate/vacuum 1 (acts): journalctl --vacuum-size=200M; started remediate/vacuum 1
        succeeded remediate/vacuum 1; read disk("/var")
        start remediate/purge 1 (acts): find /var -delete; started remediate/purge 1
        succeeded remediate/purge 1; started verify/below 1; read disk("/var")
        timer 3s
        read disk("/var")
        timer 3s
        read disk("/var")
        timer 1s
        read disk("/var")
        succeeded verify/below 1; END done (effects, verify Passed, undo None)
        "#,
    );
}

#[test]
fn a_condition_that_is_false_skips_its_step() {
    check(
        remediate(DISK, "remediate/purge", &[], vec![]),
        &[Say::Begin, Say::Used(10.0), Say::Used(10.0)],
        r#"
        read disk("/var")
        skipped remediate/purge: its condition was false: disk(inputs.mount).used_percent >= 85.0 (disk("/var").used_percent = 10.0); started verify/below 1; read disk("/var")
        timer 3s
        "#,
    );
}

#[test]
fn a_condition_that_cannot_be_read_fails_its_step_without_starting_it() {
    let mut bench = Bench::new(remediate(DISK, "remediate/purge", &[], vec![]));
    bench.say(Say::Begin);
    let heard = bench.say(Say::NoAnswer);
    assert!(heard.starts_with("not-started remediate/purge 1: its condition"), "{heard}");
    assert!(!heard.contains("start remediate"), "{heard}");
}

#[test]
fn the_segment_stops_at_the_first_step_that_needs_people_and_does_not_verify() {
    check(
        remediate(DISK, "remediate/vacuum", &["remediate/purge"], vec![]),
        &[Say::Begin, Say::Exit("remediate/vacuum", 1, 0, ""), Say::Used(90.0)],
        r#"
        start remediate/vacuum 1 (acts): journalctl --vacuum-size=200M; started remediate/vacuum 1
        succeeded remediate/vacuum 1; read disk("/var")
        END gate remediate/purge (effects, verify NotRun, undo None)
        "#,
    );
}

#[test]
fn a_step_that_is_skipped_needs_nobody() {
    let mut bench = Bench::new(remediate(DISK, "remediate/purge", &["remediate/purge"], vec![]));
    bench.say(Say::Begin);
    let heard = bench.say(Say::Used(10.0));
    assert!(heard.starts_with("skipped remediate/purge"), "{heard}");
}

#[test]
fn a_failed_attempt_is_tried_again_after_its_delay_and_then_fails_the_segment() {
    check(
        remediate(DISK, "remediate/vacuum", &[], vec![]),
        &[
            Say::Begin,
            Say::Exit("remediate/vacuum", 1, 7, ""),
            Say::Timer(2),
            Say::Exit("remediate/vacuum", 2, 7, ""),
            Say::Used(90.0),
            Say::Timer(20),
            Say::Used(90.0),
        ],
        r#"
        start remediate/vacuum 1 (acts): journalctl --vacuum-size=200M; started remediate/vacuum 1
        failed remediate/vacuum 1: it exited with 7; timer 2s
        start remediate/vacuum 2 (acts): journalctl --vacuum-size=200M; started remediate/vacuum 2
        failed remediate/vacuum 2: it exited with 7; started verify/below 1; read disk("/var")
        timer 3s
        read disk("/var")
        failed verify/below 1: after 10s: `disk(inputs.mount).used_percent < 85.0` is false (disk("/var").used_percent = 90.0); END failed remediate/vacuum: it exited with 7 (effects, verify Failed, undo None)
        "#,
    );
}

#[test]
fn a_step_that_may_repeat_is_started_again_after_an_unknown_outcome_once_it_is_dead() {
    check(
        remediate(DISK, "remediate/vacuum", &[], vec![]),
        &[Say::Begin, Say::Unknown("remediate/vacuum", 1, true)],
        "
        start remediate/vacuum 1 (acts): journalctl --vacuum-size=200M; started remediate/vacuum 1
        unknown remediate/vacuum 1: power was lost; it may repeat; start remediate/vacuum 2 (acts): journalctl --vacuum-size=200M; started remediate/vacuum 2
        ",
    );
}

#[test]
fn a_step_whose_attempts_are_lost_again_and_again_is_put_before_a_person() {
    let mut bench = Bench::new(remediate(DISK, "remediate/vacuum", &[], vec![]));
    bench.say(Say::Begin);
    let mut attempt = 1;
    let last = loop {
        let said = bench.say(Say::Unknown("remediate/vacuum", attempt, true));
        attempt += 1;
        if !said.contains(&format!("start remediate/vacuum {attempt} ")) || attempt > 100 {
            break said;
        }
    };
    assert!(last.contains("after 16 attempts a person must look"), "{attempt}: {last}");
}

#[test]
fn a_step_that_must_not_repeat_asks_its_check_and_then_a_person() {
    let unknown = |used: Option<f64>, dead| {
        let mut bench = Bench::new(remediate(DISK, "remediate/purge", &[], vec![]));
        bench.say(Say::Begin);
        bench.say(Say::Used(90.0));
        bench.say(Say::Unknown("remediate/purge", 1, dead));
        bench.say(used.map_or(Say::NoAnswer, Say::Used))
    };
    let present = unknown(Some(10.0), true);
    assert!(present.starts_with("succeeded remediate/purge 1: power was lost; its check"), "{present}");
    let absent = unknown(Some(90.0), true);
    assert!(absent.contains("start remediate/purge 2 (acts)"), "{absent}");
    let perhaps_alive = unknown(Some(90.0), false);
    assert!(perhaps_alive.starts_with("unknown remediate/purge 1"), "{perhaps_alive}");
    assert!(!perhaps_alive.contains("start remediate"), "{perhaps_alive}");
    let not_readable = unknown(None, true);
    assert!(not_readable.starts_with("unknown remediate/purge 1"), "{not_readable}");
    assert!(
        not_readable.contains("started verify/below 1"),
        "the symptom is read all the same: {not_readable}"
    );
}

#[test]
fn a_failure_undoes_what_is_done_latest_first_and_then_verifies() {
    check(
        remediate(MOVE, "remediate/drain", &[], vec![]),
        &[
            Say::Begin,
            Say::Exit("remediate/drain", 1, 0, ""),
            Say::Exit("remediate/stop", 1, 0, ""),
            Say::Exit("remediate/move", 1, 1, ""),
            Say::Exit("remediate/stop/undo", 1, 0, ""),
            Say::Exit("remediate/drain/undo", 1, 0, ""),
            Say::Exit("verify/up", 1, 0, ""),
        ],
        "
        start remediate/drain 1 (acts): drain; started remediate/drain 1
        succeeded remediate/drain 1; start remediate/stop 1 (acts): stop; started remediate/stop 1
        succeeded remediate/stop 1; start remediate/move 1 (acts): move; started remediate/move 1
        failed remediate/move 1: it exited with 1; start remediate/stop/undo 1 (acts): start; started remediate/stop/undo 1
        succeeded remediate/stop/undo 1; start remediate/drain/undo 1 (acts): undrain; started remediate/drain/undo 1
        succeeded remediate/drain/undo 1; start verify/up 1: curl; started verify/up 1
        succeeded verify/up 1; END failed remediate/move: it exited with 1 (effects, verify Passed, undo Done)
        ",
    );
}

#[test]
fn an_undo_that_fails_is_said() {
    check(
        remediate(MOVE, "remediate/move", &[], vec![past("remediate/drain", 1, Some(exit(0, "")))]),
        &[
            Say::Begin,
            Say::Exit("remediate/move", 1, 1, ""),
            Say::Exit("remediate/drain/undo", 1, 9, ""),
            Say::Exit("verify/up", 1, 7, ""),
        ],
        "
        start remediate/move 1 (acts): move; started remediate/move 1
        failed remediate/move 1: it exited with 1; start remediate/drain/undo 1 (acts): undrain; started remediate/drain/undo 1
        failed remediate/drain/undo 1: it exited with 9; start verify/up 1: curl; started verify/up 1
        failed verify/up 1: it exited with 7; END failed remediate/move: it exited with 1; and then remediate/drain/undo failed: it exited with 9 (effects, verify Failed, undo Failed)
        ",
    );
}

#[test]
fn a_host_that_forbids_a_start_stops_the_segment() {
    check(
        remediate(MOVE, "remediate/drain", &[], vec![]),
        &[
            Say::Begin,
            Say::Exit("remediate/drain", 1, 0, ""),
            Say::Barred("remediate/stop", 1),
            Say::Exit("verify/up", 1, 0, ""),
        ],
        "
        start remediate/drain 1 (acts): drain; started remediate/drain 1
        succeeded remediate/drain 1; start remediate/stop 1 (acts): stop; started remediate/stop 1
        not-started remediate/stop 1: vetoed; start verify/up 1: curl; started verify/up 1
        succeeded verify/up 1; END stopped: remediate/stop: vetoed (effects, verify Passed, undo None)
        ",
    );
}

#[test]
fn a_cancel_kills_what_runs_and_names_what_it_interrupted() {
    check(
        remediate(MOVE, "remediate/drain", &[], vec![]),
        &[Say::Begin, Say::Cancel, Say::Cancel, Say::Killed("remediate/drain", 1), Say::Begin],
        "
        start remediate/drain 1 (acts): drain; started remediate/drain 1
        kill remediate/drain 1

        killed remediate/drain 1: it was told to stop; END stopped: ana stopped it (effects, verify NotRun, undo None, interrupted remediate/drain)
        failed to apply the beginning to a segment that is ended
        ",
    );
    check(
        Program::diagnose(runbook(DISK), base("/var")),
        &[Say::Begin, Say::Cancel, Say::Killed("diagnose/usage", 1)],
        "
        start diagnose/usage 1: df /var; started diagnose/usage 1
        kill diagnose/usage 1
        killed diagnose/usage 1: it was told to stop; END stopped: ana stopped it (no effects, verify NotRun, undo None)
        ",
    );
}

#[test]
fn after_a_restart_an_attempt_that_was_intended_is_taken_up_and_not_started_again() {
    check(
        remediate(
            MOVE,
            "remediate/drain",
            &[],
            vec![past("remediate/drain", 1, Some(exit(0, ""))), past("remediate/stop", 1, None)],
        ),
        &[Say::Begin, Say::Exit("remediate/stop", 1, 0, "")],
        "
        succeeded remediate/drain 1
        succeeded remediate/stop 1; start remediate/move 1 (acts): move; started remediate/move 1
        ",
    );
}

#[test]
fn after_a_restart_a_step_without_a_trace_before_one_with_a_trace_was_skipped() {
    check(
        remediate(DISK, "remediate/vacuum", &[], vec![past("remediate/purge", 1, None)]),
        &[Say::Begin, Say::Unknown("remediate/purge", 1, true)],
        r#"

        read disk("/var")
        "#,
    );
}

#[test]
fn a_step_without_a_permit_is_neither_tried_again_nor_undone_though_it_once_had_one() {
    check(
        remediate(
            DISK,
            "remediate/vacuum",
            &["remediate/vacuum"],
            vec![past("remediate/vacuum", 1, Some(exit(1, "")))],
        ),
        &[Say::Begin, Say::Timer(2)],
        "
        failed remediate/vacuum 1: it exited with 1; timer 2s
        END gate remediate/vacuum (effects, verify NotRun, undo None)
        ",
    );
    check(
        remediate(
            MOVE,
            "remediate/drain",
            &["remediate/stop"],
            vec![past("remediate/drain", 1, Some(exit(0, ""))), past("remediate/stop", 1, Some(exit(0, "")))],
        ),
        &[Say::Begin, Say::Exit("remediate/move", 1, 1, "")],
        "
        succeeded remediate/drain 1; succeeded remediate/stop 1; start remediate/move 1 (acts): move; started remediate/move 1
        failed remediate/move 1: it exited with 1; start verify/up 1: curl; started verify/up 1
        ",
    );
}

#[test]
fn after_a_restart_an_undo_goes_on_where_it_was() {
    check(
        remediate(
            MOVE,
            "remediate/drain",
            &[],
            vec![
                past("remediate/drain", 1, Some(exit(0, ""))),
                past("remediate/stop", 1, Some(exit(0, ""))),
                past("remediate/move", 1, Some(exit(1, ""))),
                past("remediate/stop/undo", 1, Some(exit(0, ""))),
            ],
        ),
        &[Say::Begin],
        "
        succeeded remediate/drain 1; succeeded remediate/stop 1; failed remediate/move 1: it exited with 1; succeeded remediate/stop/undo 1; start remediate/drain/undo 1 (acts): undrain; started remediate/drain/undo 1
        ",
    );
}

#[test]
fn a_plan_of_another_runbook_is_not_carried_out() {
    let (disk, other) = (runbook(DISK), runbook(MOVE));
    let plan = plan(&other);
    let refused = Program::remediate(disk, plan, base("/var"), "remediate/drain", BTreeSet::new(), vec![]);
    assert_eq!(refused.map(|_| ()), Err(NotAProgram::OtherRunbook));
    assert_ne!(runbook(DISK).digest(), Digest([0; 32]));
}

#[test]
fn a_plan_names_work_and_undo_of_every_step() {
    let plan = plan(&runbook(MOVE));
    let undo = |at: usize| plan.steps[at].undo.clone();
    assert_eq!(undo(0), PlannedUndo::Work(PlannedWork::Argv(vec!["undrain".to_owned()])));
    assert_eq!(undo(2), PlannedUndo::None);
    assert_eq!(plan.steps[1].work, PlannedWork::Argv(vec!["stop".to_owned()]));
}

#[test]
fn the_documented_table_is_the_one_in_the_code() {
    crate::table::documented("segment", &super::table::markdown());
}

fn anything() -> impl Strategy<Value = Say> {
    let path = prop::sample::select(vec![
        "diagnose/usage",
        "diagnose/biggest",
        "remediate/vacuum",
        "remediate/purge",
        "verify/below",
        "remediate/drain",
        "remediate/stop",
        "remediate/move",
        "remediate/stop/undo",
        "remediate/drain/undo",
        "verify/up",
    ]);
    prop_oneof![
        Just(Say::Begin),
        prop::sample::select(vec![10.0, 90.0]).prop_map(Say::Used),
        Just(Say::NoAnswer),
        (path.clone(), 1u32..3, prop::sample::select(vec![0, 0, 1]))
            .prop_map(|(p, n, code)| Say::Exit(p, n, code, "91")),
        (path.clone(), 1u32..3).prop_map(|(p, n)| Say::Killed(p, n)),
        (path.clone(), 1u32..3, any::<bool>()).prop_map(|(p, n, dead)| Say::Unknown(p, n, dead)),
        (path, 1u32..3).prop_map(|(p, n)| Say::Barred(p, n)),
        (0u64..5).prop_map(Say::Timer),
        Just(Say::Cancel),
        Just(Say::Pause),
        Just(Say::Resume),
    ]
}

proptest! {
    #[test]
    fn no_sequence_of_events_breaks_the_machine_or_passes_a_gate(
        which in 0usize..5,
        said in prop::collection::vec(anything(), 0..80),
    ) {
        let program = match which {
            0 => Program::diagnose(runbook(DISK), base("/var")),
            1 => remediate(DISK, "remediate/vacuum", &["remediate/purge"], vec![]),
            2 => remediate(MOVE, "remediate/drain", &["remediate/stop", "remediate/move"], vec![]),
            3 => remediate(MOVE, "remediate/drain", &["remediate/drain"], vec![past("remediate/drain", 1, None)]),
            _ => remediate(MOVE, "remediate/drain", &[], vec![past("remediate/drain", 1, None)]),
        };
        let closed = program.closed.clone();
        let mut bench = Bench::new(program);
        let mut started = BTreeSet::new();
        let mut ends = 0;
        for said in std::iter::once(Say::Begin).chain(said) {
            let was_over = matches!(bench.state.at(), At::Ended);
            let event = bench.event(said);
            let Ok((next, effects)) = bench.state.next(&bench.program, bench.now, event) else { continue };
            bench.state = next;
            prop_assert!(!was_over || effects.is_empty());
            for effect in effects {
                bench.heard(&effect);
                if let Effect::Start { path, attempt, kind, .. } = &effect {
                    let step = path.strip_suffix("/undo").unwrap_or(path);
                    prop_assert!(!closed.contains(step), "{path} started without a permit");
                    prop_assert!(started.insert((path.clone(), *attempt)), "{path} {attempt} started twice");
                    prop_assert!(*kind == Kind::Read || path.starts_with("remediate/"));
                    prop_assert!(*kind == Kind::Read || !bench.state.paused, "{path} started in a pause");
                }
                ends += u32::from(matches!(effect, Effect::Ended { .. }));
            }
            prop_assert!(ends <= 1);
            prop_assert_eq!(ends == 1, matches!(bench.state.at(), At::Ended));
        }
    }
}
