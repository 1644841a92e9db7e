//! What a run on one host is and how it moves.
//!
//! [`HostRun::apply`] takes what happened and answers with what to do; the controller does it. Reports carry the number of
//! their segment: those of an earlier segment are history and change nothing, those of a later one come from a host that
//! knows more than we do (we were restored from a backup), and are believed.
//!
//! ```text
//! created → diagnosing → planned → remediating ⇄ waiting{gate | wave | window | resolve} → verifying → ended
//!                                       └→ undoing, cancelling
//! ```
//!
//! Deliberately missing: time (who may still approve, and until when, is decided before an event is made), the network,
//! the store, and any knowledge of what the steps are.

use serde::{Deserialize, Serialize};

use crate::segment::{How, Outcome, Undoing, Verification};

mod again; // a step whose outcome is unknown runs again, if people sign for it
mod apply; // the transitions
mod pause; // people hold it for a while
mod words; // how states, events and effects are told
#[cfg(test)]
mod table; // the transitions as documentation
#[cfg(test)]
mod tests;

/// One host's part of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRun {
    /// Where it stands.
    pub state: State,
    /// The number of the last segment sent; 0 before the first.
    pub segment: u32,
    /// Whether any remediate step was started.
    pub effects: bool,
    /// How far it may go.
    pub until: Until,
    /// Whether people have paused it. Not a state: whatever it waits for, it goes on waiting for.
    #[serde(default, skip_serializing_if = "Pause::never")]
    pub pause: Pause,
    /// The attempt whose outcome is unknown and that is to be followed by another one, from the wish of a person until that
    /// other one has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Unclear>,
}

/// Whether a host run is paused, and whether its host knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Nothing that acts is sent to the host, and the host starts nothing that acts.
    pub on: bool,
    /// Who paused it, and why.
    pub reason: String,
    /// Counts what was asked of the host: to pause, to resume.
    pub asked: u32,
    /// The last of these that the host has on its disk.
    pub confirmed: u32,
}

/// An attempt whose outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unclear {
    /// The step.
    pub path: String,
    /// Which attempt of it.
    pub attempt: u32,
}

/// How far a run may go by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// It stops when the plan is known.
    Plan,
    /// To its end.
    End,
}

/// Where a host run stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing has been sent.
    Created,
    /// Segment 1 is out.
    Diagnosing,
    /// The plan is known; the guards have not let it pass yet.
    Planned {
        /// The first step of the plan.
        first: String,
    },
    /// A remediate segment is out.
    Remediating,
    /// Nothing is out but perhaps a look at the symptom.
    Waiting(Wait),
    /// The symptom is being read, at the end of a remediate segment or in a segment of its own.
    Verifying {
        /// How the run ends if the symptom is still there; absent while a remediate segment does the verifying.
        otherwise: Option<Final>,
    },
    /// Finished steps are being undone.
    Undoing,
    /// The host was asked for its tombstone and has not confirmed it.
    Cancelling {
        /// Who asked, and why.
        reason: String,
        /// What the segment in flight turned out to have done.
        meanwhile: Option<Meanwhile>,
    },
    /// Over. Nothing changes any more.
    Ended(Final),
}

/// What a waiting run waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// People's decision.
    Gate {
        /// The first step behind the gate.
        from: String,
        /// The alert resolved, and a verify segment is out to see whether the gate is still needed.
        checking: Option<Checking>,
    },
    /// Its turn among several hosts.
    Wave {
        /// The first step of the plan.
        first: String,
    },
    /// A time when it may change something.
    Window {
        /// The first step of the plan.
        first: String,
    },
    /// A person who looks and says whether a step took effect.
    Resolve {
        /// The step.
        path: String,
        /// Which attempt of it.
        attempt: u32,
        /// The run is cancelled and ends so, whatever the answer.
        cancelled: bool,
    },
}

/// What to do when the look at the symptom fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checking {
    /// Go on waiting for people.
    Undecided,
    /// They approved meanwhile: remediate.
    Approved,
}

/// How a host run ended, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Final {
    /// The word.
    pub ending: Ending,
    /// For people.
    pub reason: String,
}

/// How a host run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The symptom is gone.
    Verified,
    /// Nothing failed, and there was nothing to verify.
    Succeeded,
    /// It ran, and the symptom is still there.
    Unverified,
    /// A step failed, or an undo did.
    Failed,
    /// A step failed, and what was done is undone.
    Undone,
    /// People said no.
    Rejected,
    /// Nobody decided in time.
    Expired,
    /// Somebody stopped it.
    Cancelled,
    /// A guard or the host refused it.
    Refused,
}

/// What a segment in flight turned out to have done before the tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Meanwhile {
    /// It had ended the run.
    Ended(Final),
    /// It had left a step whose outcome is unknown.
    Unknown {
        /// The step.
        path: String,
        /// Which attempt of it.
        attempt: u32,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The guards let diagnosis start.
    Started,
    /// The host has the segment and will carry it out.
    Accepted {
        /// Its number.
        segment: u32,
    },
    /// The host will not carry the segment out.
    Refused {
        /// Its number.
        segment: u32,
        /// Stable.
        code: String,
        /// For people.
        message: String,
    },
    /// Diagnosis is over.
    Planned {
        /// Its segment.
        segment: u32,
        /// The first step of the plan; absent when there is nothing to remediate.
        first: Option<String>,
    },
    /// An attempt of a step began.
    Entered {
        /// Its segment.
        segment: u32,
        /// What it is part of.
        passage: Passage,
        /// The step.
        path: String,
        /// Which attempt of it.
        attempt: u32,
    },
    /// A segment is over.
    SegmentEnded {
        /// Its number.
        segment: u32,
        /// How.
        outcome: Outcome,
    },
    /// The guards let remediation start.
    Admitted,
    /// The guards want it to wait.
    Held(Held),
    /// The guards refuse it.
    Barred {
        /// For people.
        reason: String,
    },
    /// Enough people approved.
    GateApproved,
    /// Someone denied.
    GateDenied {
        /// Who, and why.
        reason: String,
    },
    /// Nobody decided in time, or the approval was not used in time.
    GateExpired {
        /// For people.
        reason: String,
    },
    /// Somebody closed the gate.
    GateClosed {
        /// For people.
        reason: String,
    },
    /// The alert that started the run is over.
    AlertResolved,
    /// Somebody wants the run stopped.
    CancelAsked {
        /// Who, and why.
        reason: String,
    },
    /// The host has written its tombstone.
    Cancelled {
        /// A step that may have had effect when it was stopped.
        interrupted: Option<String>,
    },
    /// A person looked at a step whose outcome was unknown.
    Resolved(Resolution),
    /// Somebody wants nothing that acts to begin for a while.
    PauseAsked {
        /// Who, and why.
        reason: String,
    },
    /// Somebody wants it to go on.
    ResumeAsked,
    /// The host says whether it is paused there, and the count of the last it was asked.
    PauseTold {
        /// Nothing that acts begins there.
        on: bool,
        /// Of [`Pause::asked`].
        count: u32,
    },
}

/// What the guards want a planned run to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Its turn among several hosts.
    Wave,
    /// A time when it may change something.
    Window,
}

/// What a step is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// `diagnose/…`
    Diagnose,
    /// `remediate/…`
    Remediate,
    /// `remediate/…/undo`
    Undo,
    /// `verify/…`
    Verify,
}

impl Passage {
    /// What the step at `path` is part of; absent for a path that is none.
    pub fn of(path: &str) -> Option<Passage> {
        let (phase, rest) = path.split_once('/')?;
        match phase {
            "diagnose" => Some(Passage::Diagnose),
            "remediate" if rest.ends_with("/undo") => Some(Passage::Undo),
            "remediate" => Some(Passage::Remediate),
            "verify" => Some(Passage::Verify),
            _ => None,
        }
    }
}

/// What a person found out about a step whose outcome was unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It took effect.
    Ran,
    /// It did not.
    DidNotRun,
    /// It is to run again; people sign for that.
    Again,
}

/// What the controller should now do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send an order to the host.
    SendSegment {
        /// Its number.
        segment: u32,
        /// What it asks for.
        work: Work,
    },
    /// Ask the guards that bind at remediation; answer with `Admitted`, `Held` or `Barred`.
    AskGuards,
    /// Ask people.
    OpenGate {
        /// The first step behind the gate.
        from: String,
    },
    /// The gate is not needed any more; its people are told.
    CloseGate {
        /// For people.
        reason: String,
    },
    /// Ask the host for its tombstone.
    AskCancel {
        /// For people.
        reason: String,
    },
    /// Ask a person whether a step took effect.
    AskResolve {
        /// The step.
        path: String,
        /// Which attempt of it.
        attempt: u32,
        /// Why it cannot be told.
        reason: String,
    },
    /// Ask people whether an attempt that may have had its effect is followed by another one.
    OpenAgain(Unclear),
    /// People may have approved meanwhile: if so, answer with `GateApproved`.
    AskGate,
    /// Send again what the host was not sent because of the pause.
    SendAgain,
    /// Tell the host that it is paused, or not any more; again at each connect, until it confirms.
    AskPause,
    /// Record how it ended.
    End(Final),
}

/// What a segment asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Diagnose and plan.
    Diagnose,
    /// Carry the plan out from a step on, then verify.
    Remediate {
        /// The first step to consider.
        from: String,
        /// Whether people have approved; then the order carries the grant.
        granted: bool,
    },
    /// Only verify.
    Verify,
}

/// An event that cannot happen in the state the run is in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("apply `{event}` to a run that is {state}")]
pub struct Illegal {
    /// Where it stood, and stands.
    pub state: Box<State>,
    /// What was said to have happened.
    pub event: Box<Event>,
}

impl HostRun {
    /// A run nothing of which has been sent.
    pub fn new(until: Until) -> HostRun {
        let (state, pause) = (State::Created, Pause::default());
        HostRun { state, segment: 0, effects: false, until, pause, again: None }
    }

    /// How it ended, once it has.
    pub fn ended(&self) -> Option<&Final> {
        match &self.state {
            State::Ended(how) => Some(how),
            State::Created
            | State::Diagnosing
            | State::Planned { .. }
            | State::Remediating
            | State::Waiting(_)
            | State::Verifying { .. }
            | State::Undoing
            | State::Cancelling { .. } => None,
        }
    }
}

impl State {
    /// The word for it, the same in every interface.
    pub const fn word(&self) -> &'static str {
        match self {
            State::Created => "created",
            State::Diagnosing => "diagnosing",
            State::Planned { .. } => "planned",
            State::Remediating => "remediating",
            State::Waiting(_) => "waiting",
            State::Verifying { .. } => "verifying",
            State::Undoing => "undoing",
            State::Cancelling { .. } => "cancelling",
            State::Ended(_) => "ended",
        }
    }

    /// What it waits for, when it waits.
    pub const fn wait(&self) -> Option<&Wait> {
        match self {
            State::Waiting(wait) => Some(wait),
            State::Created
            | State::Diagnosing
            | State::Planned { .. }
            | State::Remediating
            | State::Verifying { .. }
            | State::Undoing
            | State::Cancelling { .. }
            | State::Ended(_) => None,
        }
    }

    /// What it waits for, when it waits: `gate`, `wave`, `window`, `resolve`.
    pub const fn waiting_for(&self) -> Option<&'static str> {
        match self.wait() {
            Some(Wait::Gate { .. }) => Some("gate"),
            Some(Wait::Wave { .. }) => Some("wave"),
            Some(Wait::Window { .. }) => Some("window"),
            Some(Wait::Resolve { .. }) => Some("resolve"),
            None => None,
        }
    }
}

impl Ending {
    /// Every ending, in the order of the table in the documentation.
    pub const ALL: [Ending; 9] = [
        Ending::Verified,
        Ending::Succeeded,
        Ending::Unverified,
        Ending::Failed,
        Ending::Undone,
        Ending::Rejected,
        Ending::Expired,
        Ending::Cancelled,
        Ending::Refused,
    ];

    /// The word for it, the same in every interface.
    pub const fn word(self) -> &'static str {
        match self {
            Ending::Verified => "verified",
            Ending::Succeeded => "succeeded",
            Ending::Unverified => "unverified",
            Ending::Failed => "failed",
            Ending::Undone => "undone",
            Ending::Rejected => "rejected",
            Ending::Expired => "expired",
            Ending::Cancelled => "cancelled",
            Ending::Refused => "refused",
        }
    }
}

impl Final {
    fn new(ending: Ending, reason: impl Into<String>) -> Final {
        Final { ending, reason: reason.into() }
    }

    /// How a run ends whose last segment ended so; absent when it goes on.
    pub(crate) fn of(outcome: &Outcome) -> Option<Final> {
        let symptom = match outcome.verification {
            Verification::Passed => "; the symptom is gone nevertheless",
            Verification::Failed => "; the symptom is still there",
            Verification::NotRun => "",
        };
        match (&outcome.how, outcome.undoing) {
            (How::Failed { path, reason }, Undoing::None) => {
                Some(Final::new(Ending::Failed, format!("{path}: {reason}{symptom}")))
            }
            (How::Failed { path, reason }, Undoing::Done) => Some(Final::new(
                Ending::Undone,
                format!("{path}: {reason}; what was done is undone{symptom}"),
            )),
            (How::Failed { path, reason }, Undoing::Failed) if path.ends_with("/undo") => Some(Final::new(
                Ending::Failed,
                format!("an undo failed: {path}: {reason}; no other was tried after it"),
            )),
            (How::Failed { path, reason }, Undoing::Failed) => {
                Some(Final::new(Ending::Failed, format!("an undo failed, after {path}: {reason}{symptom}")))
            }
            (How::Stopped { reason }, _) if outcome.effects => {
                Some(Final::new(Ending::Failed, format!("stopped midway: {reason}{symptom}")))
            }
            (How::Stopped { reason }, _) => Some(Final::new(Ending::Refused, reason)),
            (How::Done, Undoing::Done) => {
                Some(Final::new(Ending::Undone, "what was done is undone, as asked"))
            }
            (How::Done, Undoing::None | Undoing::Failed) => Some(match outcome.verification {
                Verification::Passed => Final::new(Ending::Verified, "the symptom is gone"),
                Verification::Failed => {
                    Final::new(Ending::Unverified, "it ran, and the symptom is still there")
                }
                Verification::NotRun => Final::new(Ending::Succeeded, "nothing to verify"),
            }),
            (How::Gate { .. } | How::Unknown { .. }, _) => None,
        }
    }
}
