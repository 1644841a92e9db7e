//! The transitions as documentation: every state met with every event, on a small example.

use super::{Checking, Ending, Event, Final, Held, HostRun, Passage, Resolution, State, Until, Wait};
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
            (name, HostRun { state, segment, effects: segment > 1, until: Until::End })
        })
        .collect()
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
    let mut events = vec![
        Event::Started,
        Event::Accepted { segment },
        Event::Refused { segment, code: "vetoed".to_owned(), message: because() },
        Event::Planned { segment, first: Some("remediate/a".to_owned()) },
        Event::Planned { segment, first: None },
        Event::Entered { segment, passage: Passage::Diagnose },
        Event::Entered { segment, passage: Passage::Remediate },
        Event::Entered { segment, passage: Passage::Undo },
        Event::Entered { segment, passage: Passage::Verify },
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
                    let to_do: Vec<String> = effects.iter().map(ToString::to_string).collect();
                    rows.row(&name, &event.to_string(), &next.state.to_string(), &to_do.join("; "));
                }
            }
        }
        rows.ignored(&name, &ignored);
    }
    rows.finish()
}
