//! The transitions as documentation: every state met with everything that can come, on the runbooks of the tests.

use super::tests::{Bench, DISK, MOVE, Say, base, remediate, runbook};
use super::{At, Effect, How, Note, Program, Stage, State};
use crate::table::Rows;

/// A state, the step that is being carried out in it, and how it came to be.
pub(super) fn states() -> Vec<(&'static str, Bench)> {
    let bench = |program: Program, said: &[Say]| {
        let mut bench = Bench::new(program);
        for said in said {
            bench.say(said.clone());
        }
        bench
    };
    let disk = |from: &str, said: &[Say]| bench(remediate(DISK, from, &[], vec![]), said);
    let (vacuum, purge) = ("remediate/vacuum", "remediate/purge");
    vec![
        (vacuum, disk(vacuum, &[])),
        ("diagnose/biggest", {
            let program = Program::diagnose(runbook(DISK), base("/var"));
            bench(program, &[Say::Begin, Say::Exit("diagnose/usage", 1, 0, "91")])
        }),
        (purge, disk(purge, &[Say::Begin])),
        (purge, bench(remediate(DISK, purge, &[purge], vec![]), &[Say::Begin])),
        (vacuum, disk(vacuum, &[Say::Begin])),
        (vacuum, disk(vacuum, &[Say::Pause, Say::Begin])),
        (vacuum, disk(vacuum, &[Say::Begin, Say::Exit(vacuum, 1, 1, "")])),
        (purge, disk(purge, &[Say::Begin, Say::Used(90.0)])),
        (purge, disk(purge, &[Say::Begin, Say::Used(90.0), Say::Unknown(purge, 1, true)])),
        ("remediate/drain/undo", {
            let (drain, stop) = ("remediate/drain", "remediate/stop");
            let said = [
                Say::Begin,
                Say::Exit(drain, 1, 0, ""),
                Say::Exit(stop, 1, 0, ""),
                Say::Exit("remediate/move", 1, 1, ""),
            ];
            let mut undoing = bench(remediate(MOVE, drain, &[], vec![]), &said);
            undoing.say(Say::Exit("remediate/stop/undo", 1, 0, ""));
            undoing
        }),
        ("verify/below", disk(purge, &[Say::Begin, Say::Used(10.0)])),
        ("verify/below", disk(purge, &[Say::Begin, Say::Used(10.0), Say::Used(10.0)])),
        (vacuum, disk(vacuum, &[Say::Begin, Say::Cancel])),
        (vacuum, disk(vacuum, &[Say::Begin, Say::Cancel, Say::Killed(vacuum, 1)])),
    ]
}

fn events(path: &'static str, attempt: u32) -> Vec<(&'static str, Say)> {
    vec![
        ("the beginning", Say::Begin),
        ("facts: 90 percent used", Say::Used(90.0)),
        ("facts: 10 percent used", Say::Used(10.0)),
        ("facts cannot be read", Say::NoAnswer),
        ("exit 0", Say::Exit(path, attempt, 0, "")),
        ("exit 1", Say::Exit(path, attempt, 1, "")),
        ("killed", Say::Killed(path, attempt)),
        ("unknown, dead", Say::Unknown(path, attempt, true)),
        ("unknown, perhaps alive", Say::Unknown(path, attempt, false)),
        ("the host forbids it", Say::Barred(path, attempt)),
        ("its timer", Say::Timer(3)),
        ("cancel asked", Say::Cancel),
        ("pause asked", Say::Pause),
        ("resumption asked", Say::Resume),
    ]
}

/// The table of `docs/architecture.md`. A pair that is not in it is refused.
pub(super) fn markdown() -> String {
    let mut rows = Rows::new();
    for (path, bench) in states() {
        let name = if bench.program.closed.contains(path) {
            format!("{}, no permit", state(path, &bench.state))
        } else {
            state(path, &bench.state)
        };
        let mut ignored = Vec::new();
        for (event, said) in events(path, 1) {
            let mut bench = bench.copy();
            let event_of_bench = bench.event(said);
            let Ok((next, effects)) = bench.state.next(&bench.program, bench.now, event_of_bench) else {
                continue;
            };
            if effects.is_empty() && next.at().word() == bench.state.at().word() {
                ignored.push(event.to_owned());
            } else {
                let to_do: Vec<String> = effects.iter().map(short).collect();
                rows.row(&name, event, next.at().word(), &to_do.join("; "));
            }
        }
        rows.ignored(&name, &ignored);
    }
    rows.finish()
}

fn state(path: &str, state: &State) -> String {
    let stage = match state.at() {
        At::Ready | At::Stopping { .. } | At::Ended => return state.at().word().to_owned(),
        At::Diagnosing(stages) => stages.last(),
        At::Remediating { stage, .. } | At::Undoing { stage, .. } | At::Verifying { stage, .. } => {
            Some(stage)
        }
    };
    let stage = match stage {
        None | Some(Stage::Over) => "over",
        Some(Stage::Waiting) => "waiting",
        Some(Stage::Deciding { .. }) => "deciding",
        Some(Stage::Paused { .. }) => "paused",
        Some(Stage::Running { .. }) => "running",
        Some(Stage::Pausing { .. }) => "pausing",
        Some(Stage::Looking { .. }) => "looking",
        Some(Stage::Resting { .. }) => "resting",
        Some(Stage::Reading { .. }) => "reading outputs",
        Some(Stage::Delayed { .. }) => "delayed",
        Some(Stage::Checking { .. }) => "checking",
    };
    format!("{}, `{path}` {stage}", state.at().word())
}

fn short(effect: &Effect) -> String {
    match effect {
        Effect::ReadFacts { .. } => "read facts".to_owned(),
        Effect::Start { path, attempt, .. } => format!("**start** `{path}` {attempt}"),
        Effect::SetTimer { .. } => "set a timer".to_owned(),
        Effect::Hold { .. } => "hold it".to_owned(),
        Effect::Kill { path, attempt } => format!("kill `{path}` {attempt}"),
        Effect::Report(Note::Started { .. }) => "report: started".to_owned(),
        Effect::Report(Note::Skipped { .. }) => "report: skipped".to_owned(),
        Effect::Report(Note::Ended { result, .. }) => format!("report: {}", result.word()),
        Effect::Diagnosed(_) => "render the plan".to_owned(),
        Effect::Ended { outcome, .. } => match &outcome.how {
            How::Done => "end: done".to_owned(),
            How::Gate { path } => format!("end: gate at `{path}`"),
            How::Failed { path, .. } => format!("end: `{path}` failed"),
            How::Unknown { path, .. } => format!("end: `{path}` unknown"),
            How::Stopped { .. } => "end: stopped".to_owned(),
        },
    }
}
