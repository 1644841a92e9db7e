//! The transitions as documentation: every state met with every event, on a small example.

use super::{
    Checking, Ending, Event, Final, Held, HostRun, Passage, Pause, Resolution, State, Unclear, Until, Wait,
};
use crate::segment::{How, Outcome, Undoing, Verification};
use crate::table::Rows;

/// One run per state, each with a name.
pub(super) fn states() -> Vec<(String, HostRun)> {
    let first = || "remediate/a".to_owned();
    let from = || "remediate/b".to_owned();
    let all = [
        ("", State::Created, 0),
        ("", State::Diagnosing, 1),
        ("", State::Planned { first: first() }, 1),
        ("", State::Waiting(Wait::Wave { first: first() }), 1),
        ("", State::Waiting(Wait::Window { first: first() }), 1),
        ("", State::Remediating, 2),
        ("", State::Undoing, 2),
        ("", State::Verifying { otherwise: None }, 2),
        ("", State::Waiting(Wait::Gate { from: from(), checking: None }), 2),
        (", looking", State::Waiting(Wait::Gate { from: from(), checking: Some(Checking::Undecided) }), 2),
        (
            ", approved, looking",
            State::Waiting(Wait::Gate { from: from(), checking: Some(Checking::Approved) }),
            2,
        ),
        (
            ", after a no",
            State::Verifying { otherwise: Some(Final { ending: Ending::Rejected, reason: "no".to_owned() }) },
            2,
        ),
        ("", State::Waiting(Wait::Resolve { path: from(), attempt: 1, cancelled: false }), 2),
        (", cancelled", State::Waiting(Wait::Resolve { path: from(), attempt: 1, cancelled: true }), 2),
        ("", State::Cancelling { reason: "stop".to_owned(), meanwhile: None }, 2),
        ("", State::Ended(Final { ending: Ending::Verified, reason: "gone".to_owned() }), 2),
    ];
    all.into_iter()
        .map(|(more, state, segment)| {
            let name = format!("{state}{more}");
            (name, HostRun { state, segment, effects: segment > 1, ..HostRun::new(Until::End) })
        })
        .flat_map(|(name, run)| {
            let mut all = vec![(name.clone(), run.clone())];
            let unclear = || Some(Unclear { path: from(), attempt: 1 });
            if name == "remediating" {
                all.push((format!("{name}, again not begun"), HostRun { again: unclear(), ..run.clone() }));
            }
            if name == "waiting (resolve)" {
                all.push((format!("{name}, again asked"), HostRun { again: unclear(), ..run }));
            }
            all
        })
        .collect()
}

/// The same, paused, and confirmed by the host.
pub(super) fn paused() -> Vec<(String, HostRun)> {
    let pause = Pause { on: true, reason: "ana".to_owned(), asked: 1, confirmed: 1 };
    let all = states().into_iter().filter(|(_, run)| run.ended().is_none());
    all.map(|(name, run)| (format!("{name}, paused"), HostRun { pause: pause.clone(), ..run })).collect()
}

/// Every event, of this segment where it is of one.
pub(super) fn events(segment: u32) -> Vec<Event> {
    let because = || "because".to_owned();
    let path = || "remediate/b".to_owned();
    let outcome = |how, verification, undoing| Outcome { how, verification, effects: true, undoing };
    let failed = || How::Failed { path: path(), reason: because() };
    let unknown = How::Unknown { path: path(), attempt: 1, reason: because() };
    let outcomes = [
        outcome(How::Done, Verification::NotRun, Undoing::None),
        outcome(How::Done, Verification::Passed, Undoing::None),
        outcome(How::Done, Verification::Failed, Undoing::None),
        outcome(How::Gate { path: path() }, Verification::NotRun, Undoing::None),
        outcome(failed(), Verification::Failed, Undoing::None),
        outcome(failed(), Verification::Failed, Undoing::Done),
        outcome(failed(), Verification::Failed, Undoing::Failed),
        outcome(unknown, Verification::Failed, Undoing::None),
        outcome(How::Stopped { reason: because() }, Verification::NotRun, Undoing::None),
    ];
    let entered =
        |passage, path: &str| Event::Entered { segment, passage, path: path.to_owned(), attempt: 1 };
    let mut events = vec![
        Event::Started,
        Event::Accepted { segment },
        Event::Refused { segment, code: "vetoed".to_owned(), message: because() },
        Event::Planned { segment, first: Some("remediate/a".to_owned()) },
        Event::Planned { segment, first: None },
        entered(Passage::Diagnose, "diagnose/a"),
        entered(Passage::Remediate, "remediate/a"),
        entered(Passage::Undo, "remediate/a/undo"),
        entered(Passage::Verify, "verify/a"),
    ];
    events.extend(outcomes.map(|outcome| Event::SegmentEnded { segment, outcome }));
    events.extend([
        Event::Admitted,
        Event::Held(Held::Wave),
        Event::Held(Held::Window),
        Event::Barred { reason: because() },
        Event::GateApproved,
        Event::GateDenied { reason: because() },
        Event::GateExpired { reason: because() },
        Event::GateClosed { reason: because() },
        Event::AlertResolved,
        Event::CancelAsked { reason: because() },
        Event::Cancelled { interrupted: None },
        Event::Cancelled { interrupted: Some(path()) },
        Event::Resolved(Resolution::Ran),
        Event::Resolved(Resolution::DidNotRun),
        Event::Resolved(Resolution::Again),
        Event::PauseAsked { reason: because() },
        Event::ResumeAsked,
        Event::PauseTold { on: true, count: 1 },
        Event::PauseTold { on: false, count: 2 },
    ]);
    events
}

/// The table of `docs/architecture.md`. A pair that is not in it is refused.
pub(super) fn markdown() -> String {
    let mut rows = Rows::new();
    for (name, run) in states() {
        let mut ignored = Vec::new();
        for event in events(run.segment) {
            match run.apply(&event) {
                Err(_) => {}
                Ok((next, effects)) if next.state == run.state && effects.is_empty() => {
                    ignored.push(event.to_string());
                }
                Ok((next, effects)) => {
                    rows.row(&name, &event.to_string(), &then(&next), &told(&effects));
                }
            }
        }
        rows.ignored(&name, &ignored);
    }
    rows.finish()
}

/// The table of what a pause changes: what is refused, or done otherwise, than without it.
pub(super) fn markdown_paused() -> String {
    let mut rows = Rows::new();
    let awake = states();
    for (name, run) in paused() {
        let (_, same) = awake.iter().find(|(of, _)| format!("{of}, paused") == name).expect("each is of one");
        for event in events(run.segment) {
            let (with, without) = (run.apply(&event), same.apply(&event));
            let of_pause =
                matches!(event, Event::PauseAsked { .. } | Event::ResumeAsked | Event::PauseTold { .. });
            match (with, without) {
                (Ok((next, effects)), Ok((other, others))) => {
                    let otherwise = next.state != other.state || effects != others;
                    if if of_pause { !effects.is_empty() } else { otherwise } {
                        rows.row(&name, &event.to_string(), &then(&next), &told(&effects));
                    }
                }
                (Ok((next, effects)), Err(_)) if !effects.is_empty() => {
                    rows.row(&name, &event.to_string(), &then(&next), &told(&effects));
                }
                (Err(_), Ok(_)) => rows.row(&name, &event.to_string(), "", "*refused*"),
                (Ok(_) | Err(_), Err(_)) => {}
            }
        }
    }
    rows.finish()
}

fn then(run: &HostRun) -> String {
    format!("{}{}", run.state, if run.pause.on { ", paused" } else { "" })
}

fn told(effects: &[super::Effect]) -> String {
    let all: Vec<String> = effects.iter().map(ToString::to_string).collect();
    all.join("; ")
}
