//! How states, events and effects are told: in logs, in tests, in the documentation.

use std::fmt;

use super::{Effect, Event, Held, Passage, Resolution, State, Work};
use crate::segment::{How, Outcome, Undoing, Verification};

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Ended(how) => write!(f, "ended ({})", how.ending.word()),
            State::Created
            | State::Diagnosing
            | State::Planned { .. }
            | State::Remediating
            | State::Waiting(_)
            | State::Verifying { .. }
            | State::Undoing
            | State::Cancelling { .. } => match self.waiting_for() {
                Some(what) => write!(f, "waiting ({what})"),
                None => f.write_str(self.word()),
            },
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Event::Started => "started",
            Event::Accepted { .. } => "accepted",
            Event::Refused { .. } => "refused",
            Event::Planned { first: Some(_), .. } => "planned",
            Event::Planned { first: None, .. } => "planned, nothing to do",
            Event::Entered { passage: Passage::Diagnose, .. } => "a diagnose step began",
            Event::Entered { passage: Passage::Remediate, .. } => "a remediate step began",
            Event::Entered { passage: Passage::Undo, .. } => "an undo began",
            Event::Entered { passage: Passage::Verify, .. } => "a verify step began",
            Event::SegmentEnded { outcome, .. } => return write!(f, "segment ended: {}", in_short(outcome)),
            Event::Admitted => "admitted",
            Event::Held(Held::Wave) => "held for its wave",
            Event::Held(Held::Window) => "held for a window",
            Event::Barred { .. } => "barred by a guard",
            Event::GateApproved => "approved",
            Event::GateDenied { .. } => "denied",
            Event::GateExpired { .. } => "expired",
            Event::GateClosed { .. } => "gate closed",
            Event::AlertResolved => "alert resolved",
            Event::CancelAsked { .. } => "cancel asked",
            Event::Cancelled { interrupted: None } => "the host stopped",
            Event::Cancelled { interrupted: Some(_) } => "the host stopped midway",
            Event::Resolved(Resolution::Ran) => "a person says that it ran",
            Event::Resolved(Resolution::DidNotRun) => "a person says that it did not run",
            Event::Resolved(Resolution::Again) => "a person wants it to run again",
            Event::PauseAsked { .. } => "pause asked",
            Event::ResumeAsked => "resumption asked",
            Event::PauseTold { on: true, .. } => "the host says that it is paused",
            Event::PauseTold { on: false, .. } => "the host says that it is not paused",
        };
        f.write_str(text)
    }
}

/// `done, verify passed`
fn in_short(outcome: &Outcome) -> String {
    let mut text = match &outcome.how {
        How::Done => "done".to_owned(),
        How::Gate { path } => format!("gate at {path}"),
        How::Failed { .. } => "failed".to_owned(),
        How::Unknown { .. } => "unknown".to_owned(),
        How::Stopped { .. } => "stopped".to_owned(),
    };
    text.push_str(match outcome.undoing {
        Undoing::None => "",
        Undoing::Done => ", undone",
        Undoing::Failed => ", undo failed",
    });
    text.push_str(match outcome.verification {
        Verification::NotRun => "",
        Verification::Passed => ", verify passed",
        Verification::Failed => ", verify failed",
    });
    text
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::SendSegment { segment, work } => write!(f, "send segment {segment} ({work})"),
            Effect::AskGuards => f.write_str("ask the guards"),
            Effect::OpenGate { from } => write!(f, "open a gate at {from}"),
            Effect::CloseGate { .. } => f.write_str("close the gate"),
            Effect::AskCancel { .. } => f.write_str("ask the host to stop"),
            Effect::AskResolve { path, .. } => write!(f, "ask a person about {path}"),
            Effect::OpenAgain(unclear) => write!(f, "open a gate to run {} again", unclear.path),
            Effect::AskGate => f.write_str("go on if people have approved"),
            Effect::SendAgain => f.write_str("send what was kept back"),
            Effect::AskPause => f.write_str("tell the host"),
            Effect::End(how) => write!(f, "end as {}", how.ending.word()),
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Diagnose => f.write_str("diagnose"),
            Work::Remediate { from, granted: false } => write!(f, "remediate from {from}"),
            Work::Remediate { from, granted: true } => write!(f, "remediate from {from}, granted"),
            Work::Verify => f.write_str("verify"),
        }
    }
}
