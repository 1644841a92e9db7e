//! People decide, or do not: gates close.

use fettle_proto::signed::{Decision, Signed};
use fettle_proto::v1;
use fettle_runbooks::id::{GateId, Host};
use fettle_runbooks::run::{Event, Wait};

use super::desk::Desk;
use super::handle::Session;
use super::notices::Told;
use super::timers::of_gate;
use crate::gate::{self, BallotBox};
use crate::model::Change;
use crate::model::row::{DecisionRow, GateState, SignedBlob};
use crate::problem::Problem;

impl Desk<'_> {
    /// Takes one person's signed decision.
    pub(super) fn decide(
        &mut self,
        session: &Session,
        request: v1::DecideRequest,
    ) -> Result<GateId, Problem> {
        let id: GateId = parse(&request.gate)?;
        let roster = self.roster()?;
        let signed =
            request.approval.ok_or_else(|| Problem::invalid("approval-missing", "no approval was sent"))?;
        let blob = SignedBlob::from(signed.clone());
        let signed = Signed::try_from(signed)
            .map_err(|error| Problem::invalid("signature-malformed", error.to_string()))?;
        let Some(row) = self.model.gates.get(&id) else { return Err(over("is over")) };
        if row.decisions.iter().any(|decision| decision.signed == blob) {
            return Ok(id);
        }
        if row.state != GateState::Open {
            return Err(over(&format!("is {}: {}", row.state.word(), row.reason)));
        }
        let ballot_box = BallotBox {
            digest: row.digest,
            excluded: &row.excluded,
            decide_by: row.decide_by,
            now: self.now,
        };
        let ballot = gate::judge(&ballot_box, &signed, &roster.roster, &session.person)?;
        let approves = ballot.decision == Decision::Approve;
        let mut approvers = gate::approvers(&row.decisions, &roster.roster);
        let again = approves && approvers.contains(&ballot.person.as_str());
        if !again {
            approvers.push(&ballot.person);
        }
        let enough = gate::missing(&row.factors, &approvers, &roster.roster).is_empty();
        // Said before it is enough only when the roster has changed since.
        if again && !enough {
            return Ok(id);
        }
        let (run, hosts): (_, Vec<_>) = (row.run, row.leaves.iter().map(|leaf| leaf.host.clone()).collect());
        let who = match ballot.reason.is_empty() {
            true => ballot.person.clone(),
            false => format!("{}: {}", ballot.person, ballot.reason),
        };
        let decision = DecisionRow {
            person: ballot.person,
            approves,
            reason: ballot.reason,
            at: self.now,
            signed: blob,
        };
        if !again {
            self.change(Change::Decided { gate: id, decision });
        }
        match (approves, enough) {
            (false, _) => {
                self.change(Change::GateClosed { gate: id, state: GateState::Denied, reason: who.clone() });
                self.tell_decided(id);
                for host in hosts {
                    let reason = format!("denied by {who}");
                    self.host_event(run, &host, Event::GateDenied { reason });
                }
            }
            (true, true) => {
                self.change(Change::GateClosed { gate: id, state: GateState::Approved, reason: who });
                self.tell_decided(id);
                for host in hosts {
                    self.begin_approved(run, &host);
                }
            }
            (true, false) => {}
        }
        Ok(id)
    }

    /// A moment of a gate has come: looks at what is due now, whatever woke it.
    pub(super) fn gate_due(&mut self, id: GateId) {
        let Some(row) = self.model.gates.get(&id) else { return };
        let run = row.run;
        // A host at another gate by now is no matter of this one.
        let hosts = row.leaves.iter().map(|leaf| leaf.host.clone());
        let here = |host: &Host| {
            self.model.host_runs.get(&(run, host.clone())).is_some_and(|of| of.gate == Some(id))
        };
        let hosts: Vec<Host> = hosts.filter(here).collect();
        match row.state {
            GateState::Open if self.now >= of_gate(self.model, row, row.decide_by) => {
                let some = row.decisions.iter().any(|decision| decision.approves);
                let who = if some { "too few approved" } else { "nobody decided" };
                let reason = format!("{who} by {}", row.decide_by);
                self.change(Change::GateClosed {
                    gate: id,
                    state: GateState::Expired,
                    reason: reason.clone(),
                });
                self.tell_decided(id);
                for host in hosts {
                    self.host_event(run, &host, Event::GateExpired { reason: reason.clone() });
                }
            }
            GateState::Open => {
                let due =
                    row.escalate.as_ref().filter(|(at, _)| self.now >= *at && row.escalated_at.is_none());
                let Some(to) = due.map(|(_, to)| to.clone()) else { return };
                let title = format!("{} still waits for approval", row.runbook);
                let text =
                    format!("nobody has decided; decide by {}; then: fettle approve {id}", row.decide_by);
                self.change(Change::Escalated { gate: id });
                let (kind, run, gate, host) = ("gate-escalated", Some(run), Some(id), hosts.first());
                self.notify(Told { kind, title, run, gate, host, to: &to, text: &text, ..Told::default() });
            }
            GateState::Approved if self.now >= of_gate(self.model, row, row.start_by) => {
                let late = format!("the approved plan did not begin by {}", row.start_by);
                for host in hosts {
                    let Some(row) = self.model.host_runs.get(&(run, host.clone())) else { continue };
                    let waits = match row.machine.state.wait() {
                        Some(Wait::Gate { .. }) => true,
                        Some(Wait::Resolve { .. }) => row.machine.again.is_some(),
                        Some(Wait::Wave { .. } | Wait::Window { .. }) | None => false,
                    };
                    let why = match self.model.taken_by(&host).filter(|other| *other != run) {
                        _ if row.machine.pause.on => "; the run was paused".to_owned(),
                        Some(other) => format!("; {other} changed the host meanwhile"),
                        None => String::new(),
                    };
                    if waits {
                        self.host_event(run, &host, Event::GateExpired { reason: format!("{late}{why}") });
                    }
                }
            }
            GateState::Approved | GateState::Denied | GateState::Expired | GateState::Closed => {}
        }
    }
}

fn over(how: &str) -> Problem {
    Problem::conflict("gate-closed", format!("the gate {how}"))
}

/// An id of a request.
pub(super) fn parse<T: std::str::FromStr<Err = E>, E: std::fmt::Display>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: E| Problem::invalid("malformed", error.to_string()))
}
