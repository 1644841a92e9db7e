//! Everything that can happen, as the store keeps it. A change says what became true; folding all of them gives the model.

use std::collections::BTreeMap;

use fettle_runbooks::id::{GateId, Host, IncidentId, RunId, SignalId};
use fettle_runbooks::run::HostRun;
use serde::{Deserialize, Serialize};

use super::row::{
    AgentRow, DecisionRow, GateRow, GateState, HostRunRow, IncidentRow, KeptRow, NotificationRow, OrderRow,
    PlanRow, RunRow, SessionRow, SignalRow, TokenRow,
};
use crate::signal::{Signal, Status, Verdict};
use crate::world::At;

/// One thing that happened. The names are those in the store: changing one breaks reading what was written before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "members are named after the rows they change")]
pub enum Change {
    /// A signal arrived that was not known.
    SignalReceived(Box<SignalRow>),
    /// A known signal arrived again and said nothing new.
    SignalRepeated { signal: SignalId },
    /// A known signal changed between firing and resolved.
    SignalTurned { signal: SignalId, status: Status, ends_at: Option<At> },
    /// A known signal is taken for an alert only now: it was thought late, or was about its source. As it is said now.
    SignalTaken { signal: SignalId, said: Box<Signal>, host: Option<Host> },
    /// More of the decision trail of a signal.
    Judged { signal: SignalId, verdicts: Vec<Verdict> },

    /// An incident was opened.
    IncidentOpened(Box<IncidentRow>),
    /// A signal or a run joined it.
    IncidentJoined { incident: IncidentId, signal: Option<SignalId>, run: Option<RunId> },
    /// A plan, or the end of a diagnosis, was known.
    Investigated { incident: IncidentId },
    /// The symptom was verified gone; when to look whether the alert agrees.
    Remediated {
        incident: IncidentId,
        #[serde(default)]
        look_again_at: Option<At>,
    },
    /// The symptom was verified gone a while ago, and the alert still fires.
    StillFiring { incident: IncidentId },
    /// Its signals are resolved and nothing of it runs any more.
    IncidentClosed { incident: IncidentId, reason: String },

    /// A run was started.
    RunCreated { run: Box<RunRow>, hosts: Vec<HostRunRow> },
    /// A host run moved.
    Moved { run: RunId, host: Host, machine: HostRun, reason: String },
    /// A host run stays where it is; whether it is paused, or a step of it is to run again, changed.
    Marked { run: RunId, host: Host, machine: HostRun },
    /// Its guards let it remediate: the host is taken from now on.
    Admitted { run: RunId, host: Host },
    /// The plan of a host run is known.
    Planned { run: RunId, host: Host, plan: PlanRow },
    /// An attempt of a step began.
    StepStarted { run: RunId, host: Host, path: String, attempt: u32, at: At },
    /// An attempt of a step is over.
    StepEnded(Box<StepEnd>),
    /// A step was not needed.
    StepSkipped { run: RunId, host: Host, path: String, reason: String, at: At },
    /// A person asked for a run to be stopped.
    CancelAsked { run: RunId, by: String, reason: String },
    /// A person asked for a run to be paused on some of its hosts, or to go on.
    PauseAsked { run: RunId, hosts: Vec<Host>, on: bool, by: String, reason: String },
    /// The host has on its disk whether the run is paused there.
    PauseConfirmed { run: RunId, host: Host, on: bool },
    /// A person wants a step to run again whose outcome is unknown: people are asked to sign for that.
    AgainAsked { run: RunId, host: Host, path: String, attempt: u32, by: String, reason: String },
    /// A person looked at a step whose outcome was unknown, and said whether it ran.
    Resolved { run: RunId, host: Host, path: String, ran: bool, by: String, reason: String },
    /// The host said something that is kept for people and changes nothing.
    Noted { run: RunId, host: Host, text: String },

    /// An order entered the outbox.
    OrderIssued(Box<OrderRow>),
    /// The host has it on its disk and will carry it out.
    OrderAccepted { run: RunId, host: Host, segment: u32 },
    /// Its segment is over.
    OrderClosed { run: RunId, host: Host, segment: u32 },
    /// Everything of a run has ended.
    RunEnded { run: RunId },
    /// People were told that guards refuse this runbook on this host.
    RefusalTold { run: RunId, host: Host, runbook: String },

    /// A gate was opened.
    GateOpened(Box<GateRow>),
    /// A person decided.
    Decided { gate: GateId, decision: DecisionRow },
    /// Nobody had decided, and others were told.
    Escalated { gate: GateId },
    /// A gate is not open any more.
    GateClosed { gate: GateId, state: GateState, reason: String },

    /// A host got a certificate.
    AgentCertified { host: Host, labels: Option<BTreeMap<String, String>>, serial: String, not_after: At },
    /// An agent's stream was accepted.
    AgentConnected(Box<AgentRow>),
    /// It ended.
    AgentGone { host: Host, epoch: u64, reason: String },
    /// A host may not come back.
    AgentRevoked { host: Host, by: String, reason: String },
    /// Reports up to this one are in this history.
    ReportsTaken { host: Host, journal: String, upto: u64 },

    /// A run that only its host knew was taken in.
    Adopted { run: RunId, host: Host },
    /// A host told of a run that is not known here, and too many of such are open on it: it is to tell again later, of this one
    /// and of those that it tells of until then, which are only counted.
    Missed { run: RunId, host: Host },
    /// The store was put back from a backup; this was its last event, and when that was. What hosts have told since is not in it,
    /// so that they are asked to tell it again.
    Restored { event: u64, at: At },

    /// An enrolment token was made.
    TokenCreated(Box<TokenRow>),
    /// It was spent.
    TokenSpent { hash: String },
    /// A person signed in.
    SessionOpened(SessionRow),

    /// A notification is to go out.
    NotificationQueued(Box<NotificationRow>),
    /// It was tried.
    NotificationTried { id: u64, next_at: Option<At>, note: String },
}

/// How an attempt of a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepEnd {
    /// The run.
    pub run: RunId,
    /// The host.
    pub host: Host,
    /// The step.
    pub path: String,
    /// Which attempt.
    pub attempt: u32,
    /// `succeeded`, `failed`, `timed-out`, `killed`, `unknown` or `not-started`.
    pub outcome: String,
    /// Why, for people.
    pub message: String,
    /// When the process ended by itself.
    pub exit_code: Option<i32>,
    /// Values it left, as JSON texts.
    pub outputs: BTreeMap<String, String>,
    /// Its output.
    pub stdout: KeptRow,
    /// Its errors.
    pub stderr: KeptRow,
    /// When, by the host's clock.
    pub at: At,
    /// When it began, by the host's clock.
    pub began_at: At,
}

impl Change {
    /// The run it is about, so that a run's history can be found.
    pub fn run(&self) -> Option<RunId> {
        match self {
            Change::RunCreated { run, .. } => Some(run.id),
            Change::Moved { run, .. }
            | Change::Marked { run, .. }
            | Change::Admitted { run, .. }
            | Change::Planned { run, .. }
            | Change::StepStarted { run, .. }
            | Change::StepSkipped { run, .. }
            | Change::CancelAsked { run, .. }
            | Change::PauseAsked { run, .. }
            | Change::PauseConfirmed { run, .. }
            | Change::AgainAsked { run, .. }
            | Change::Resolved { run, .. }
            | Change::Noted { run, .. }
            | Change::RefusalTold { run, .. }
            | Change::Adopted { run, .. }
            | Change::Missed { run, .. }
            | Change::OrderAccepted { run, .. }
            | Change::OrderClosed { run, .. }
            | Change::RunEnded { run } => Some(*run),
            Change::StepEnded(end) => Some(end.run),
            Change::OrderIssued(order) => Some(order.run),
            Change::GateOpened(gate) => Some(gate.run),
            // The model knows the run of a gate; the coordinator adds it.
            Change::Decided { .. } | Change::Escalated { .. } | Change::GateClosed { .. } => None,
            Change::SignalReceived(_)
            | Change::SignalRepeated { .. }
            | Change::SignalTurned { .. }
            | Change::SignalTaken { .. }
            | Change::Judged { .. }
            | Change::IncidentOpened(_)
            | Change::IncidentJoined { .. }
            | Change::Investigated { .. }
            | Change::Remediated { .. }
            | Change::StillFiring { .. }
            | Change::IncidentClosed { .. }
            | Change::AgentCertified { .. }
            | Change::AgentConnected(_)
            | Change::AgentGone { .. }
            | Change::AgentRevoked { .. }
            | Change::ReportsTaken { .. }
            | Change::Restored { .. }
            | Change::TokenCreated(_)
            | Change::TokenSpent { .. }
            | Change::SessionOpened(_)
            | Change::NotificationQueued(_)
            | Change::NotificationTried { .. } => None,
        }
    }

    /// The incident it is about by its own words; that of its run or signal is for the model to say.
    pub fn incident(&self) -> Option<IncidentId> {
        if let Change::IncidentJoined { incident, .. }
        | Change::Investigated { incident }
        | Change::Remediated { incident, .. }
        | Change::StillFiring { incident }
        | Change::IncidentClosed { incident, .. } = self
        {
            return Some(*incident);
        }
        if let Change::IncidentOpened(row) = self {
            return Some(row.id);
        }
        if let Change::SignalReceived(row) = self { row.incident } else { None }
    }
}
