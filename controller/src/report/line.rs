//! Each change as one line for people: who, one word, and what.

use fettle_runbooks::id::Host;
use fettle_runbooks::run::{State, Wait};

use crate::gate;
use crate::model::Change;
use crate::model::row::GateState;
use crate::signal::Status;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `person ana`, `host web-1`, `controller`, `source alertmanager`.
    pub who: String,
    /// The host it is about, if it is about one.
    pub host: String,
    /// One word: `step-started`, `gate-opened`.
    pub kind: &'static str,
    /// For people.
    pub text: String,
}

/// The line of a change; absent where it is bookkeeping that tells people nothing.
pub fn line(change: &Change) -> Option<Line> {
    let controller = || "controller".to_owned();
    let by_host = |host: &Host| format!("host {host}");
    let on = |who: String, host: &Host, kind, text| Some(Line { who, host: host.to_string(), kind, text });
    let at_large = |who: String, kind, text| Some(Line { who, host: String::new(), kind, text });
    match change {
        Change::SignalReceived(row) => {
            let text = format!("{} {}", row.signal.name, row.signal.status.word());
            at_large(format!("source {}", row.signal.source), "signal", text)
        }
        Change::SignalTurned { status, .. } => {
            let text = match status {
                Status::Firing => "the alert fires again",
                Status::Resolved => "the alert is resolved",
            };
            at_large(controller(), "signal", text.to_owned())
        }
        Change::IncidentOpened(row) => at_large(controller(), "incident-opened", row.title.clone()),
        Change::IncidentClosed { reason, .. } => at_large(controller(), "incident-closed", reason.clone()),
        Change::RunCreated { run, .. } => {
            let hosts: Vec<&str> = run.hosts.iter().map(Host::as_str).collect();
            let of = run.of.as_ref().map_or(String::new(), |of| {
                let why = if of.reason.is_empty() { String::new() } else { format!(": {}", of.reason) };
                format!("; {} of {}{why}", of.how, of.run)
            });
            let text = format!("{} on {}, mode {}{of}", run.runbook, hosts.join(", "), run.mode.word());
            at_large(run.origin.to_string(), "run-started", text)
        }
        Change::Moved { host, machine, reason, .. } => moved(host, &machine.state, reason),
        Change::Planned { host, plan, .. } => {
            on(by_host(host), host, "planned", format!("plan {}", plan.digest))
        }
        Change::StepStarted { host, path, attempt, .. } => {
            let again = if *attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
            on(by_host(host), host, "step-started", format!("{path}{again} started"))
        }
        Change::StepEnded(end) => {
            let why = if end.message.is_empty() { String::new() } else { format!(": {}", end.message) };
            on(by_host(&end.host), &end.host, "step-ended", format!("{} {}{why}", end.path, end.outcome))
        }
        Change::StepSkipped { host, path, reason, .. } => {
            on(by_host(host), host, "step-skipped", format!("{path} skipped: {reason}"))
        }
        Change::CancelAsked { by, reason, .. } => {
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            at_large(format!("person {by}"), "cancel-asked", format!("asked to cancel the run{why}"))
        }
        Change::PauseAsked { hosts, on, by, reason, .. } => {
            let hosts: Vec<&str> = hosts.iter().map(Host::as_str).collect();
            let hosts = hosts.join(", ");
            let (kind, text) = match on {
                true => ("pause-asked", format!("paused the run on {hosts}: {reason}")),
                false => ("resumption-asked", format!("let the run go on, on {hosts}")),
            };
            at_large(format!("person {by}"), kind, text)
        }
        Change::PauseConfirmed { host, on, .. } => {
            let is = if *on { "it is paused here" } else { "it is not paused here any more" };
            Some(Line {
                who: by_host(host),
                host: host.to_string(),
                kind: "pause-confirmed",
                text: is.to_owned(),
            })
        }
        Change::AgainAsked { host, path, attempt, by, reason, .. } => {
            let text = format!("wants {path} to run again after attempt {attempt}: {reason}");
            on(format!("person {by}"), host, "again-asked", text)
        }
        Change::Resolved { host, path, ran, by, reason, .. } => {
            let found = if *ran { "it ran" } else { "it did not run" };
            let text = format!("looked at {path}: {found}: {reason}");
            on(format!("person {by}"), host, "resolved", text)
        }
        Change::Noted { host, text, .. } => on(by_host(host), host, "noted", text.clone()),
        Change::Adopted { host, .. } => {
            let text = "this controller did not know of the run, as after a restore from a backup, and took it in as the host tells it";
            on(by_host(host), host, "adopted", text.to_owned())
        }
        Change::Missed { host, .. } => {
            let text =
                "this controller did not take the run in yet: too many that only the host knew are open";
            on(by_host(host), host, "missed", text.to_owned())
        }
        Change::GateOpened(row) => {
            let needs: Vec<String> = row.factors.iter().map(gate::describe).collect();
            let from = row.leaves.first().map(|leaf| leaf.from.as_str()).unwrap_or_default();
            let text =
                format!("{from} waits for {} until {}: {}", needs.join(" and "), row.decide_by, row.id);
            at_large(controller(), "gate-opened", text)
        }
        Change::Decided { decision, .. } => {
            let word = if decision.approves { "approved" } else { "denied" };
            let why =
                if decision.reason.is_empty() { String::new() } else { format!(": {}", decision.reason) };
            at_large(format!("person {}", decision.person), "decided", format!("{word}{why}"))
        }
        Change::Escalated { .. } => {
            at_large(controller(), "escalated", "nobody has decided; others are told".to_owned())
        }
        Change::GateClosed { state, reason, .. } => {
            let word = match state {
                GateState::Open => "open",
                GateState::Approved => "enough people approved",
                GateState::Denied => "the gate is denied",
                GateState::Expired => "the gate expired",
                GateState::Closed => "the gate is not needed any more",
            };
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            at_large(controller(), "gate-closed", format!("{word}{why}"))
        }
        Change::Remediated { .. } => {
            at_large(controller(), "remediated", "the symptom is verified gone".to_owned())
        }
        Change::StillFiring { .. } => {
            let text = "verified, but still firing: the alert does not agree that the symptom is gone";
            at_large(controller(), "still-firing", text.to_owned())
        }
        Change::RefusalTold { host, runbook, .. } => {
            let text = format!("people are told that guards refuse {runbook} on {host}");
            on(controller(), host, "told", text)
        }
        Change::AgentRevoked { host, by, reason } => {
            on(format!("person {by}"), host, "revoked", format!("{host} revoked: {reason}"))
        }
        Change::SignalRepeated { .. }
        | Change::SignalTaken { .. }
        | Change::Judged { .. }
        | Change::IncidentJoined { .. }
        | Change::Investigated { .. }
        | Change::Admitted { .. }
        | Change::Marked { .. }
        | Change::OrderIssued(_)
        | Change::OrderAccepted { .. }
        | Change::OrderClosed { .. }
        | Change::RunEnded { .. }
        | Change::AgentCertified { .. }
        | Change::AgentConnected(_)
        | Change::AgentGone { .. }
        | Change::ReportsTaken { .. }
        | Change::Restored { .. }
        | Change::TokenCreated(_)
        | Change::TokenSpent { .. }
        | Change::SessionOpened(_)
        | Change::NotificationQueued(_)
        | Change::NotificationTried { .. } => None,
    }
}

fn moved(host: &Host, state: &State, reason: &str) -> Option<Line> {
    let text = match state {
        State::Ended(how) => format!("{}: {}", how.ending.word(), how.reason),
        State::Waiting(Wait::Gate { .. }) => return None,
        State::Waiting(Wait::Wave { .. } | Wait::Window { .. }) => format!("waits: {reason}"),
        State::Waiting(Wait::Resolve { path, .. }) => {
            let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
            format!("it cannot be told whether {path} took effect{why}; a person must look")
        }
        State::Created
        | State::Diagnosing
        | State::Planned { .. }
        | State::Remediating
        | State::Verifying { .. }
        | State::Undoing
        | State::Cancelling { .. } => state.word().to_owned(),
    };
    let kind = if matches!(state, State::Ended(_)) { "ended" } else { "state" };
    Some(Line { who: "controller".to_owned(), host: host.to_string(), kind, text })
}
