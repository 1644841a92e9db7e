//! How each change makes the model what it is afterwards.

use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::{Host, RunId};
use fettle_runbooks::run::{Checking, Ending, HostRun, State, Wait};

use super::row::{AgentRow, Ahead, HostRunRow, KeptRow, Origin, StepRow, Tally};
use super::{Change, Model, Remediation, Row, RowKey, StepEnd};
use crate::policy::Mode;
use crate::signal::{Signal, Status};
use crate::world::At;

/// Verdicts in the trail of a signal.
const LONGEST_TRAIL: usize = 128;

impl Model {
    /// Folds one change in and names the rows it touched. A change about a row that is not here touches nothing; the
    /// coordinator makes no such change, and the checker finds one if it ever does.
    pub fn apply(&mut self, number: u64, at: At, change: &Change) -> Vec<RowKey> {
        self.last_event = number;
        match change {
            Change::SignalReceived(row) => self.put(Row::Signal((**row).clone())),
            Change::SignalRepeated { signal } => self.signals.get_mut(signal).map_or_else(Vec::new, |row| {
                row.repeats += 1;
                if row.signal.status == Status::Firing {
                    row.seen_at = Some(at);
                }
                vec![RowKey::Signal(*signal)]
            }),
            Change::SignalTurned { signal, status, ends_at } => {
                let Some(row) = self.signals.get_mut(signal) else { return Vec::new() };
                row.signal.status = *status;
                row.signal.ends_at = *ends_at;
                if *status == Status::Firing {
                    row.seen_at = Some(at);
                }
                let mut touched = vec![RowKey::Signal(*signal)];
                if let Some(incident) = row.incident.and_then(|id| self.incidents.get_mut(&id)) {
                    match status {
                        Status::Firing => {
                            incident.readings.remediated = None;
                            incident.firing.insert(*signal)
                        }
                        Status::Resolved => incident.firing.remove(signal),
                    };
                    touched.push(RowKey::Incident(incident.id));
                }
                touched
            }
            Change::SignalTaken { signal, said, host } => {
                self.signals.get_mut(signal).map_or_else(Vec::new, |row| {
                    let received_at = row.signal.received_at;
                    row.signal = Signal { received_at, ..(**said).clone() };
                    (row.late_until, row.seen_at) = (None, Some(at));
                    row.host.clone_from(host);
                    vec![RowKey::Signal(*signal)]
                })
            }
            Change::Judged { signal, verdicts } => {
                self.signals.get_mut(signal).map_or_else(Vec::new, |row| {
                    row.trail.extend_from_slice(verdicts);
                    // How it began and what came last tells most; history keeps the rest.
                    let more = row.trail.len().saturating_sub(LONGEST_TRAIL);
                    let begin = LONGEST_TRAIL / 2;
                    row.trail.drain(begin.min(row.trail.len())..begin.min(row.trail.len()) + more);
                    vec![RowKey::Signal(*signal)]
                })
            }

            Change::IncidentOpened(row) => self.put(Row::Incident((**row).clone())),
            Change::IncidentJoined { incident, signal, run } => {
                let Some(row) = self.incidents.get_mut(incident) else { return Vec::new() };
                let mut touched = vec![RowKey::Incident(*incident)];
                if let Some(signal) = signal {
                    if !row.signals.contains(signal) {
                        row.signals.push(*signal);
                    }
                    row.firing.insert(*signal);
                    let began = self.signals.get(signal).map(|row| row.signal.began());
                    // What began before the symptom was verified gone was gone with it.
                    if row.readings.remediated.is_some_and(|verified| began > Some(verified)) {
                        row.readings.remediated = None;
                    }
                    if let Some(signal_row) = self.signals.get_mut(signal) {
                        signal_row.incident = Some(*incident);
                        touched.push(RowKey::Signal(*signal));
                    }
                }
                if let Some(run) = run {
                    row.runs.push(*run);
                }
                touched
            }
            Change::Investigated { incident } => {
                self.incidents.get_mut(incident).map_or_else(Vec::new, |row| {
                    row.readings.investigated.get_or_insert(at);
                    vec![RowKey::Incident(*incident)]
                })
            }
            Change::Remediated { incident, look_again_at } => {
                self.incidents.get_mut(incident).map_or_else(Vec::new, |row| {
                    (row.readings.remediated, row.verified_at) = (Some(at), Some(at));
                    row.look_again_at = *look_again_at;
                    vec![RowKey::Incident(*incident)]
                })
            }
            Change::StillFiring { incident } => {
                self.incidents.get_mut(incident).map_or_else(Vec::new, |row| {
                    row.look_again_at = None;
                    vec![RowKey::Incident(*incident)]
                })
            }
            Change::IncidentClosed { incident, reason } => {
                let Some(row) = self.incidents.get_mut(incident) else { return Vec::new() };
                row.closed = Some((at, reason.clone()));
                row.readings.closed = Some(at);
                if !row.unhelped.is_empty() {
                    row.readings.remediated = None;
                }
                row.look_again_at = None;
                if self.open_incidents.get(&row.key) == Some(incident) {
                    self.open_incidents.remove(&row.key);
                }
                vec![RowKey::Incident(*incident)]
            }

            Change::RunCreated { run, hosts } => {
                let mut touched = self.put(Row::Run((**run).clone()));
                if let Some(signal) = run.signal.and_then(|id| self.signals.get_mut(&id)) {
                    signal.run = Some(run.id);
                    touched.push(RowKey::Signal(signal.id));
                }
                touched.extend(hosts.iter().flat_map(|row| self.put(Row::HostRun(row.clone()))));
                // Whoever starts it by hand has looked.
                if matches!(run.origin, Origin::Person(_)) && run.mode >= Mode::Approve {
                    let hosts = run.hosts.iter();
                    let reset = hosts
                        .filter_map(|host| self.tally(host, &run.runbook, |tally| *tally = Tally::default()));
                    touched.extend(reset);
                }
                touched
            }
            Change::Moved { run, host, machine, reason } => {
                let mut touched = self.count(at, *run, host, machine);
                if matches!(machine.state, State::Ended(_)) && !machine.effects {
                    self.forget_remediation(*run, host);
                }
                touched.extend(self.host_run(*run, host, |row| {
                    row.machine = machine.clone();
                    row.reason.clone_from(reason);
                    if matches!(row.machine.state, State::Ended(_)) {
                        row.ended_at = Some(at);
                    }
                }));
                touched
            }
            Change::Marked { run, host, machine } => {
                self.host_run(*run, host, |row| row.machine = machine.clone())
            }
            Change::Admitted { run, host } => {
                let mut touched = self.host_run(*run, host, |row| row.remediated_at = Some(at));
                if let Some(row) = self.host_runs.get(&(*run, host.clone())) {
                    let runbook = row.runbook.clone();
                    let times = self.remediations.entry((row.runbook.clone(), host.clone())).or_default();
                    times.retain(|before| before.at >= at.minus(super::MEMORY));
                    let root = row.root.unwrap_or(*run);
                    times.push(Remediation { at, run: *run, root, about: row.about.clone() });
                    touched.extend(self.tally(host, &runbook, |tally| tally.told = None));
                }
                touched
            }
            Change::RefusalTold { run, host, runbook } => {
                let incident = self.runs.get(run).and_then(|row| row.incident);
                self.tally(host, runbook, |tally| tally.told = Some((at, incident))).into_iter().collect()
            }
            Change::Planned { run, host, plan } => {
                self.host_run(*run, host, |row| row.plan = Some(plan.clone()))
            }
            Change::StepStarted { run, host, path, attempt, at } => self.put(Row::Step(StepRow {
                run: *run,
                host: host.clone(),
                path: path.clone(),
                attempt: *attempt,
                state: "running".to_owned(),
                message: String::new(),
                started_at: Some(*at),
                ended_at: None,
                exit_code: None,
                outputs: Default::default(),
                stdout: KeptRow::default(),
                stderr: KeptRow::default(),
            })),
            Change::StepEnded(end) => {
                let StepEnd { run, host, path, attempt, outcome, message, .. } = (**end).clone();
                let StepEnd { exit_code, outputs, stdout, stderr, at, began_at, .. } = (**end).clone();
                let key = (run, host.clone(), path.clone(), attempt);
                let started_at = self.steps.get(&key).and_then(|row| row.started_at).or(Some(began_at));
                self.put(Row::Step(StepRow {
                    run,
                    host,
                    path,
                    attempt,
                    state: outcome,
                    message,
                    started_at,
                    ended_at: Some(at),
                    exit_code,
                    outputs,
                    stdout,
                    stderr,
                }))
            }
            Change::StepSkipped { run, host, path, reason, at } => self.put(Row::Step(StepRow {
                run: *run,
                host: host.clone(),
                path: path.clone(),
                attempt: 0,
                state: "skipped".to_owned(),
                message: reason.clone(),
                started_at: None,
                ended_at: Some(*at),
                exit_code: None,
                outputs: Default::default(),
                stdout: KeptRow::default(),
                stderr: KeptRow::default(),
            })),
            Change::Resolved { run, host, path, ran, .. } => self.host_run(*run, host, |row| {
                row.found.insert(path.clone(), *ran);
            }),
            Change::CancelAsked { .. }
            | Change::PauseAsked { .. }
            | Change::PauseConfirmed { .. }
            | Change::AgainAsked { .. }
            | Change::Noted { .. } => Vec::new(),

            Change::OrderIssued(row) => self.put(Row::Order((**row).clone())),
            Change::OrderAccepted { run, host, segment } => {
                let order = self.orders.get_mut(&(*run, host.clone(), *segment));
                let mut touched = order.map_or_else(Vec::new, |row| {
                    row.accepted_at = Some(at);
                    vec![RowKey::Order(*run, host.clone(), *segment)]
                });
                touched.extend(self.now_told(*run, host));
                touched
            }
            Change::OrderClosed { run, host, segment } => {
                if let Some(open) = self.open_orders.get_mut(host) {
                    open.remove(&(*run, *segment));
                    if open.is_empty() {
                        self.open_orders.remove(host);
                    }
                }
                self.orders.get_mut(&(*run, host.clone(), *segment)).map_or_else(Vec::new, |row| {
                    row.closed_at = Some(at);
                    vec![RowKey::Order(*run, host.clone(), *segment)]
                })
            }
            Change::RunEnded { run } => self.runs.get_mut(run).map_or_else(Vec::new, |row| {
                row.ended_at = Some(at);
                vec![RowKey::Run(*run)]
            }),

            Change::GateOpened(row) => {
                let mut touched = self.put(Row::Gate((**row).clone()));
                for leaf in &row.leaves {
                    touched
                        .extend(self.host_run(row.run, &leaf.host, |host_run| host_run.gate = Some(row.id)));
                }
                touched
            }
            Change::Decided { gate, decision } => self.gates.get_mut(gate).map_or_else(Vec::new, |row| {
                row.decisions.push(decision.clone());
                vec![RowKey::Gate(*gate)]
            }),
            Change::Escalated { gate } => self.gates.get_mut(gate).map_or_else(Vec::new, |row| {
                row.escalated_at = Some(at);
                vec![RowKey::Gate(*gate)]
            }),
            Change::GateClosed { gate, state, reason } => {
                self.gates.get_mut(gate).map_or_else(Vec::new, |row| {
                    row.state = *state;
                    row.reason.clone_from(reason);
                    row.closed_at = Some(at);
                    vec![RowKey::Gate(*gate)]
                })
            }

            Change::AgentCertified { host, labels, serial, not_after } => {
                let row = self.agents.entry(host.clone()).or_insert_with(|| unknown_agent(host, at));
                if let Some(labels) = labels {
                    row.labels.clone_from(labels);
                    row.bound.clone_from(labels);
                    // Only a token, which an operator made for this name, ends a revocation.
                    row.revoked = None;
                }
                row.serial.clone_from(serial);
                row.not_after = *not_after;
                vec![RowKey::Agent(host.clone())]
            }
            Change::AgentConnected(row) => self.put(Row::Agent((**row).clone())),
            Change::AgentGone { host, epoch, .. } => self.agents.get_mut(host).map_or_else(Vec::new, |row| {
                if row.epoch == *epoch {
                    row.connected = false;
                    row.last_seen_at = at;
                }
                vec![RowKey::Agent(host.clone())]
            }),
            Change::AgentRevoked { host, reason, .. } => {
                self.agents.get_mut(host).map_or_else(Vec::new, |row| {
                    row.revoked = Some((at, reason.clone()));
                    row.void_until = at;
                    row.connected = false;
                    vec![RowKey::Agent(host.clone())]
                })
            }
            Change::ReportsTaken { host, journal, upto } => {
                self.agents.get_mut(host).map_or_else(Vec::new, |row| {
                    row.acked.insert(journal.clone(), *upto);
                    row.last_seen_at = at;
                    vec![RowKey::Agent(host.clone())]
                })
            }
            Change::Adopted { run, host } => {
                self.adopted_at = Some(at);
                let mut touched = self.now_told(*run, host);
                touched.extend(self.ahead(host, |ahead| ahead.runs = ahead.runs.saturating_sub(1)));
                touched
            }
            Change::Missed { host, .. } => {
                self.ahead(host, |ahead| ahead.missed = ahead.missed.saturating_add(1))
            }
            Change::Restored { .. } => {
                for row in self.agents.values_mut() {
                    row.acked.clear();
                    row.connected = false;
                    row.ahead = Some(Ahead::from(at));
                }
                self.agents.keys().cloned().map(RowKey::Agent).collect()
            }

            Change::TokenCreated(row) => self.put(Row::Token((**row).clone())),
            Change::TokenSpent { hash } => self.tokens.get_mut(hash).map_or_else(Vec::new, |row| {
                row.spent_at = Some(at);
                vec![RowKey::Token(hash.clone())]
            }),
            Change::SessionOpened(row) => self.put(Row::Session(row.clone())),

            Change::NotificationQueued(row) => self.put(Row::Notification((**row).clone())),
            Change::NotificationTried { id, next_at, note } => {
                self.notifications.get_mut(id).map_or_else(Vec::new, |row| {
                    row.tries += 1;
                    row.next_at = *next_at;
                    row.note.clone_from(note);
                    vec![RowKey::Notification(*id)]
                })
            }
        }
    }

    fn ahead(&mut self, host: &Host, change: impl FnOnce(&mut Ahead)) -> Vec<RowKey> {
        self.agents.get_mut(host).map_or_else(Vec::new, |row| {
            row.ahead.as_mut().map(change);
            vec![RowKey::Agent(host.clone())]
        })
    }

    /// The host itself says something of a run that another host of it had told of.
    fn now_told(&mut self, run: RunId, host: &Host) -> Vec<RowKey> {
        let untold = self.host_runs.get(&(run, host.clone())).is_some_and(|row| row.told == Some(false));
        if untold { self.host_run(run, host, |row| row.told = Some(true)) } else { Vec::new() }
    }

    fn tally(&mut self, host: &Host, runbook: &str, change: impl FnOnce(&mut Tally)) -> Option<RowKey> {
        let agent = self.agents.get_mut(host)?;
        let tally = agent.tallies.entry(runbook.to_owned()).or_default();
        change(tally);
        if *tally == Tally::default() {
            agent.tallies.remove(runbook);
        }
        Some(RowKey::Agent(host.clone()))
    }

    /// Keeps the tally of a host run that comes to stand so, and whether its incident saw anything changed.
    fn count(&mut self, at: At, run: RunId, host: &Host, machine: &HostRun) -> Vec<RowKey> {
        let mut touched = Vec::new();
        touched.extend(self.helped(run, host, machine));
        let Some(row) = self.runs.get(&run).filter(|_| machine.effects) else { return touched };
        let (incident, runbook) = (row.incident, row.runbook.clone());
        if let Some(row) = incident.and_then(|id| self.incidents.get_mut(&id)).filter(|row| !row.acted) {
            row.acted = true;
            touched.push(RowKey::Incident(row.id));
        }
        let State::Ended(how) = &machine.state else { return touched };
        // What was taken back, because a person wanted it so, was no remediation.
        if self.runs.get(&run).and_then(|row| row.of.as_ref()).is_some_and(|of| of.how == FollowUp::Undo) {
            return touched;
        }
        match how.ending {
            Ending::Unverified | Ending::Failed | Ending::Undone => {
                touched.extend(self.tally(host, &runbook, |tally| {
                    // What is forgotten does not come back with the next.
                    let forgotten = at >= tally.failed_at.plus(super::BREAKER_MEMORY);
                    let before = if forgotten { 0 } else { tally.failed };
                    (tally.failed, tally.failed_at) = (before.saturating_add(1), at);
                }));
            }
            Ending::Verified | Ending::Succeeded => {
                touched.extend(
                    self.tally(host, &runbook, |tally| (tally.failed, tally.failed_at) = (0, At::default())),
                );
            }
            Ending::Rejected | Ending::Expired | Ending::Cancelled | Ending::Refused => {}
        }
        touched
    }

    /// Keeps for the incident which of its remediations did not help.
    fn helped(&mut self, run: RunId, host: &Host, machine: &HostRun) -> Option<RowKey> {
        let how = machine.ended()?;
        let host_run = self.host_runs.get(&(run, host.clone()))?;
        let which = (host_run.runbook.clone(), host_run.about.clone());
        let incident = self.runs.get(&run)?.incident?;
        let row = self.incidents.get_mut(&incident)?;
        let changed = match how.ending {
            Ending::Unverified | Ending::Failed | Ending::Undone => {
                machine.effects && row.unhelped.insert(which)
            }
            Ending::Verified | Ending::Succeeded => row.unhelped.remove(&which),
            Ending::Rejected | Ending::Expired | Ending::Cancelled | Ending::Refused => false,
        };
        changed.then_some(RowKey::Incident(incident))
    }

    fn put(&mut self, row: Row) -> Vec<RowKey> {
        let key = row.key();
        self.insert(row);
        vec![key]
    }

    /// A remediation that was let through and never began, because nobody approved it, limits no other.
    fn forget_remediation(&mut self, run: RunId, host: &Host) {
        let Some(row) = self.host_runs.get_mut(&(run, host.clone())) else { return };
        row.remediated_at = None;
        if let Some(times) = self.remediations.get_mut(&(row.runbook.clone(), host.clone())) {
            times.retain(|before| before.run != run);
        }
    }

    fn host_run(&mut self, run: RunId, host: &Host, change: impl FnOnce(&mut HostRunRow)) -> Vec<RowKey> {
        let Some(row) = self.host_runs.get_mut(&(run, host.clone())) else { return Vec::new() };
        change(row);
        let row = row.clone();
        self.placed(&row);
        vec![RowKey::HostRun(run, host.clone())]
    }

    /// Keeps what is found by a host run's state.
    pub(super) fn placed(&mut self, row: &HostRunRow) {
        self.retake(row);
        self.readopt(row.run, &row.host, row.told.is_some() && row.machine.ended().is_none());
        if row.machine.ended().is_some() {
            self.close(row.run, &row.host);
        } else if self.open_on.entry(row.host.clone()).or_default().insert(row.run) {
            *self.open_hosts.entry(row.run).or_default() += 1;
        }
    }

    /// A run is not open on a host any more.
    pub(super) fn close(&mut self, run: RunId, host: &Host) {
        let Some(open) = self.open_on.get_mut(host).filter(|open| open.contains(&run)) else { return };
        open.remove(&run);
        if open.is_empty() {
            self.open_on.remove(host);
        }
        let left = self.open_hosts.get(&run).map_or(0, |left| left.saturating_sub(1));
        match left {
            0 => self.open_hosts.remove(&run),
            left => self.open_hosts.insert(run, left),
        };
    }

    /// A host is taken by the run that changes it now. A run that waits for people holds nothing, except where it waits
    /// because it may have changed something.
    fn retake(&mut self, row: &HostRunRow) {
        let holds = match &row.machine.state {
            State::Remediating | State::Undoing => true,
            State::Verifying { .. } | State::Cancelling { .. } => {
                row.machine.effects || row.remediated_at.is_some()
            }
            State::Waiting(Wait::Resolve { .. }) => true,
            // It goes on by itself as soon as the look at the symptom is over.
            State::Waiting(Wait::Gate { checking: Some(Checking::Approved), .. }) => true,
            State::Waiting(Wait::Gate { .. } | Wait::Wave { .. } | Wait::Window { .. })
            | State::Created
            | State::Diagnosing
            | State::Planned { .. }
            | State::Ended(_) => false,
        };
        if holds {
            let holders = self.taken.entry(row.host.clone()).or_default();
            if !holders.contains(&row.run) {
                holders.push(row.run);
            }
        } else if let Some(holders) = self.taken.get_mut(&row.host) {
            holders.retain(|run| *run != row.run);
            if holders.is_empty() {
                self.taken.remove(&row.host);
            }
        }
    }
}

fn unknown_agent(host: &Host, at: At) -> AgentRow {
    AgentRow {
        host: host.clone(),
        labels: Default::default(),
        bound: Default::default(),
        epoch: 0,
        connected: false,
        version: String::new(),
        last_seen_at: at,
        serial: String::new(),
        not_after: At(0),
        revoked: None,
        void_until: At(0),
        roster_version: 0,
        missing: Vec::new(),
        boot_id: String::new(),
        acked: Default::default(),
        journal: String::new(),
        tallies: Default::default(),
        ahead: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fettle_runbooks::id::RunId;
    use fettle_runbooks::run::Until;

    #[test]
    fn a_run_that_only_looks_does_not_free_a_host_that_another_changes() {
        let host: Host = "web-1".parse().expect("a host");
        let mut model = Model::default();
        let id = |run: u128| RunId::new(uuid::Uuid::from_u128(run));
        let mut row = |run: u128, state: State| {
            let mut machine = HostRun::new(Until::End);
            (machine.state, machine.effects) = (state, true);
            let row = HostRunRow {
                run: id(run),
                host: host.clone(),
                runbook: "host/x".to_owned(),
                about: String::new(),
                machine,
                reason: String::new(),
                plan: None,
                gate: None,
                remediated_at: None,
                ended_at: None,
                root: None,
                found: Default::default(),
                told: None,
            };
            model.host_runs.insert((id(run), host.clone()), row.clone());
            model.retake(&row);
            model.taken_by(&host)
        };
        let verifying = || State::Verifying { otherwise: None };
        assert_eq!(row(1, State::Remediating), Some(id(1)));
        assert_eq!(row(2, verifying()), Some(id(1)));
        assert_eq!(row(2, State::Diagnosing), Some(id(1)), "the first still changes it");
        assert_eq!(row(2, verifying()), Some(id(1)));
        assert_eq!(row(1, State::Diagnosing), Some(id(2)));
        assert_eq!(row(2, State::Diagnosing), None);
        let gate = |checking| State::Waiting(Wait::Gate { from: "remediate/x".to_owned(), checking });
        assert_eq!(row(2, gate(Some(Checking::Undecided))), None);
        assert_eq!(
            row(2, gate(Some(Checking::Approved))),
            Some(id(2)),
            "it goes on without being asked again"
        );
        let asks = || {
            let (path, attempt) = ("remediate/x".to_owned(), 1);
            State::Waiting(Wait::Resolve { path, attempt, cancelled: false })
        };
        assert_eq!(row(2, asks()), Some(id(2)));
        assert_eq!(row(1, verifying()), Some(id(1)), "one that waits for a person stands back");
        assert_eq!(row(1, State::Diagnosing), Some(id(2)));
    }
}
