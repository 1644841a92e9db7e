//! What is true now: the fold of every change there ever was.
//!
//! [`Model::apply`] is the only way anything changes, and is pure: the coordinator uses it to decide, the store's checker
//! to compare the tables with the history. It answers with the keys of the rows it touched; those are what a
//! transaction writes beside the changes.
//!
//! A coordinator's model need not hold what is over: [`Model::forget`] drops it once it is written, and remembers of it only
//! what guards and deduplication ask for.

mod apply;
pub mod change;
pub mod row;
mod settled;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use fettle_runbooks::id::{GateId, Host, IncidentId, RunId, SignalId};
use fettle_runbooks::run::Wait;

pub use change::{Change, StepEnd};
use row::{
    AgentRow, GateRow, HostRunRow, IncidentRow, NotificationRow, OrderRow, RunRow, SessionRow, SignalRow,
    StepRow, TokenRow,
};
pub use settled::{Over, Settled};

use crate::signal::{Key as SignalKey, Status};
use crate::world::At;

/// How far back guards and deduplication remember; no guard may be longer.
pub const MEMORY: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// So long after the last remediation that did not help, the breaker has forgotten it.
pub const BREAKER_MEMORY: Duration = Duration::from_secs(24 * 60 * 60);

/// Names one row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the key of the row of the same name")]
pub enum RowKey {
    Signal(SignalId),
    Incident(IncidentId),
    Run(RunId),
    HostRun(RunId, Host),
    Step(RunId, Host, String, u32),
    Order(RunId, Host, u32),
    Gate(GateId),
    Agent(Host),
    Token(String),
    Session(String),
    Notification(u64),
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the row of the same name")]
pub enum Row {
    Signal(SignalRow),
    Incident(IncidentRow),
    Run(RunRow),
    HostRun(HostRunRow),
    Step(StepRow),
    Order(OrderRow),
    Gate(GateRow),
    Agent(AgentRow),
    Token(TokenRow),
    Session(SessionRow),
    Notification(NotificationRow),
}

impl Row {
    /// Its key.
    pub fn key(&self) -> RowKey {
        match self {
            Row::Signal(row) => RowKey::Signal(row.id),
            Row::Incident(row) => RowKey::Incident(row.id),
            Row::Run(row) => RowKey::Run(row.id),
            Row::HostRun(row) => RowKey::HostRun(row.run, row.host.clone()),
            Row::Step(row) => RowKey::Step(row.run, row.host.clone(), row.path.clone(), row.attempt),
            Row::Order(row) => RowKey::Order(row.run, row.host.clone(), row.segment),
            Row::Gate(row) => RowKey::Gate(row.id),
            Row::Agent(row) => RowKey::Agent(row.host.clone()),
            Row::Token(row) => RowKey::Token(row.hash.clone()),
            Row::Session(row) => RowKey::Session(row.hash.clone()),
            Row::Notification(row) => RowKey::Notification(row.id),
        }
    }
}

/// A remediation that was let through.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remediation {
    /// When.
    pub at: At,
    /// Of which run.
    pub run: RunId,
    /// The first of the runs that it goes on from; itself, if it goes on from none.
    pub root: RunId,
    /// With which inputs, in short.
    pub about: String,
}

/// What is true now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// Number of the last event folded in.
    pub last_event: u64,
    /// Signals by id.
    pub signals: BTreeMap<SignalId, SignalRow>,
    /// Incidents by id.
    pub incidents: BTreeMap<IncidentId, IncidentRow>,
    /// Runs by id.
    pub runs: BTreeMap<RunId, RunRow>,
    /// Host runs.
    pub host_runs: BTreeMap<(RunId, Host), HostRunRow>,
    /// Attempts of steps.
    pub steps: BTreeMap<(RunId, Host, String, u32), StepRow>,
    /// The outbox.
    pub orders: BTreeMap<(RunId, Host, u32), OrderRow>,
    /// Gates by id.
    pub gates: BTreeMap<GateId, GateRow>,
    /// Agents by host.
    pub agents: BTreeMap<Host, AgentRow>,
    /// Tokens by hash.
    pub tokens: BTreeMap<String, TokenRow>,
    /// Sessions by hash.
    pub sessions: BTreeMap<String, SessionRow>,
    /// Notifications by number.
    pub notifications: BTreeMap<u64, NotificationRow>,

    /// Finds a signal that arrives again.
    signal_keys: HashMap<SignalKey, SignalId>,
    /// The signals here of an alert, by source and fingerprint, whatever their starts.
    alerts: HashMap<(String, String), BTreeSet<SignalId>>,
    /// Signals that are over and whose rows are not here any more.
    settled: Settled,
    /// Finds the open incident of a key.
    open_incidents: HashMap<String, IncidentId>,
    /// Orders that have not ended, by host, so that a reconnect does not search all.
    open_orders: BTreeMap<Host, BTreeSet<(RunId, u32)>>,
    /// When remediations were let through, by runbook and host; outlives the runs.
    remediations: BTreeMap<(String, Host), Vec<Remediation>>,
    /// Which runs may be changing a host now, the one it belongs to first. A second one only looks whether what it did
    /// earlier has helped.
    taken: BTreeMap<Host, Vec<RunId>>,
    /// Which runs have not ended on a host, so that nobody searches all for one host's.
    open_on: BTreeMap<Host, BTreeSet<RunId>>,
    /// On how many of its hosts a run has not ended.
    open_hosts: HashMap<RunId, usize>,
    /// The number of the newest notification.
    last_notification: u64,
    /// When a run that only its host knew was taken in last; forgotten with the process.
    adopted_at: Option<At>,
    /// Runs that only their host knew, and that are not over there.
    adopted: BTreeMap<Host, BTreeSet<RunId>>,
}

impl Model {
    /// The signal that arrived before under this key.
    pub fn signal_by_key(&self, key: &SignalKey) -> Option<&SignalRow> {
        self.signal_keys.get(key).and_then(|id| self.signals.get(id))
    }

    /// The signals of this alert that fire, whatever their starts, the oldest first.
    pub fn firing(&self, source: &str, fingerprint: &str) -> impl Iterator<Item = &SignalRow> {
        let ids = self.alerts.get(&(source.to_owned(), fingerprint.to_owned())).into_iter().flatten();
        ids.filter_map(|id| self.signals.get(id)).filter(|row| row.signal.status == Status::Firing)
    }

    /// The signal that was over under this key, when its row is not here any more.
    pub fn settled_signal(&self, key: &SignalKey) -> Option<Over> {
        self.settled.get(key)
    }

    /// The signal of this alert that was over last, whatever its start, when its row is not here any more.
    pub fn settled_alert(&self, source: &str, fingerprint: &str) -> Option<Over> {
        self.settled.of_alert(source, fingerprint)
    }

    /// The open incident that groups this key.
    pub fn open_incident(&self, key: &str) -> Option<&IncidentRow> {
        self.open_incidents.get(key).and_then(|id| self.incidents.get(id))
    }

    /// How many incidents are open.
    pub fn incidents_open(&self) -> usize {
        self.open_incidents.len()
    }

    /// Orders of a host that have not ended, in the order they were issued.
    pub fn orders_open(&self, host: &Host) -> Vec<&OrderRow> {
        let keys = self.open_orders.get(host).into_iter().flatten();
        let mut orders: Vec<&OrderRow> =
            keys.filter_map(|(run, segment)| self.orders.get(&(*run, host.clone(), *segment))).collect();
        orders.sort_by_key(|order| (order.issued_at, order.run, order.segment));
        orders
    }

    /// The remediations of this runbook on this host, oldest first, but for those that are one with that of `except`: it, what it
    /// goes on from and what else goes on from that.
    pub fn remediations(&self, runbook: &str, host: &Host, except: RunId) -> Vec<&Remediation> {
        let all = self.remediations.get(&(runbook.to_owned(), host.clone())).into_iter().flatten();
        let root = self.host_runs.get(&(except, host.clone())).and_then(|row| row.root).unwrap_or(except);
        all.filter(|before| before.root != root).collect()
    }

    /// How many remediations of this runbook on this host in a row did not help, the last of them not longer ago than the breaker
    /// remembers.
    pub fn failed_in_a_row(&self, runbook: &str, host: &Host, now: At) -> u32 {
        let tally = self.agents.get(host).and_then(|row| row.tallies.get(runbook));
        tally.filter(|tally| now < tally.failed_at.plus(BREAKER_MEMORY)).map_or(0, |tally| tally.failed)
    }

    /// Which run remediates on this host now. One that waits until a person has looked stands back for those that may be acting.
    pub fn taken_by(&self, host: &Host) -> Option<RunId> {
        let waits = |run: &&RunId| {
            let row = self.host_runs.get(&(**run, host.clone()));
            row.is_some_and(|row| matches!(row.machine.state.wait(), Some(Wait::Resolve { .. })))
        };
        self.taken.get(host)?.iter().min_by_key(waits).copied()
    }

    /// The host runs of a host that have not ended, the oldest run first.
    pub fn open_on(&self, host: &Host) -> impl Iterator<Item = &HostRunRow> {
        let runs = self.open_on.get(host).into_iter().flatten();
        runs.filter_map(|run| self.host_runs.get(&(*run, host.clone())))
    }

    /// On how many of its hosts a run has not ended.
    pub fn open_hosts(&self, run: RunId) -> usize {
        self.open_hosts.get(&run).copied().unwrap_or(0)
    }

    /// Puts a row in, as read from its table; the way a model comes back after a restart.
    pub fn insert(&mut self, row: Row) {
        match row {
            Row::Signal(row) => {
                // An alert may come back under the key of one that is over.
                let newest = self.signal_keys.entry(row.signal.key()).or_insert(row.id);
                *newest = row.id.max(*newest);
                let alert = (row.signal.source.clone(), row.signal.fingerprint.clone());
                self.alerts.entry(alert).or_default().insert(row.id);
                self.signals.insert(row.id, row);
            }
            Row::Incident(row) => {
                if row.closed.is_none() {
                    self.open_incidents.insert(row.key.clone(), row.id);
                }
                self.incidents.insert(row.id, row);
            }
            Row::Run(row) => {
                self.runs.insert(row.id, row);
            }
            Row::HostRun(row) => {
                if let Some(at) = row.remediated_at {
                    let times = self.remediations.entry((row.runbook.clone(), row.host.clone())).or_default();
                    let root = row.root.unwrap_or(row.run);
                    // Of a run that is over it is remembered, and known again when the run is.
                    times.retain(|it| it.run != row.run);
                    times.push(Remediation { at, run: row.run, root, about: row.about.clone() });
                    times.sort_unstable();
                }
                self.placed(&row);
                self.host_runs.insert((row.run, row.host.clone()), row);
            }
            Row::Step(row) => {
                let key = (row.run, row.host.clone(), row.path.clone(), row.attempt);
                self.steps.insert(key, row);
            }
            Row::Order(row) => {
                if row.closed_at.is_none() {
                    self.open_orders.entry(row.host.clone()).or_default().insert((row.run, row.segment));
                }
                self.orders.insert((row.run, row.host.clone(), row.segment), row);
            }
            Row::Gate(row) => {
                self.gates.insert(row.id, row);
            }
            Row::Agent(row) => {
                self.agents.insert(row.host.clone(), row);
            }
            Row::Token(row) => {
                self.tokens.insert(row.hash.clone(), row);
            }
            Row::Session(row) => {
                self.sessions.insert(row.hash.clone(), row);
            }
            Row::Notification(row) => {
                self.last_notification = self.last_notification.max(row.id);
                self.notifications.insert(row.id, row);
            }
        }
    }

    /// The row of a key, as it stands.
    pub fn row(&self, key: &RowKey) -> Option<Row> {
        match key {
            RowKey::Signal(id) => self.signals.get(id).cloned().map(Row::Signal),
            RowKey::Incident(id) => self.incidents.get(id).cloned().map(Row::Incident),
            RowKey::Run(id) => self.runs.get(id).cloned().map(Row::Run),
            RowKey::HostRun(run, host) => {
                self.host_runs.get(&(*run, host.clone())).cloned().map(Row::HostRun)
            }
            RowKey::Step(run, host, path, attempt) => {
                self.steps.get(&(*run, host.clone(), path.clone(), *attempt)).cloned().map(Row::Step)
            }
            RowKey::Order(run, host, segment) => {
                self.orders.get(&(*run, host.clone(), *segment)).cloned().map(Row::Order)
            }
            RowKey::Gate(id) => self.gates.get(id).cloned().map(Row::Gate),
            RowKey::Agent(host) => self.agents.get(host).cloned().map(Row::Agent),
            RowKey::Token(hash) => self.tokens.get(hash).cloned().map(Row::Token),
            RowKey::Session(hash) => self.sessions.get(hash).cloned().map(Row::Session),
            RowKey::Notification(id) => self.notifications.get(id).cloned().map(Row::Notification),
        }
    }

    /// Every row, by its key.
    pub fn rows(&self) -> BTreeMap<RowKey, Row> {
        let mut rows: Vec<Row> = Vec::new();
        rows.extend(self.signals.values().cloned().map(Row::Signal));
        rows.extend(self.incidents.values().cloned().map(Row::Incident));
        rows.extend(self.runs.values().cloned().map(Row::Run));
        rows.extend(self.host_runs.values().cloned().map(Row::HostRun));
        rows.extend(self.steps.values().cloned().map(Row::Step));
        rows.extend(self.orders.values().cloned().map(Row::Order));
        rows.extend(self.gates.values().cloned().map(Row::Gate));
        rows.extend(self.agents.values().cloned().map(Row::Agent));
        rows.extend(self.tokens.values().cloned().map(Row::Token));
        rows.extend(self.sessions.values().cloned().map(Row::Session));
        rows.extend(self.notifications.values().cloned().map(Row::Notification));
        rows.into_iter().map(|row| (row.key(), row)).collect()
    }

    /// Keeps whether an adopted run is open on its host.
    fn readopt(&mut self, run: RunId, host: &Host, open: bool) {
        if open {
            self.adopted.entry(host.clone()).or_default().insert(run);
        } else if let Some(runs) = self.adopted.get_mut(host) {
            runs.remove(&run);
            if runs.is_empty() {
                self.adopted.remove(host);
            }
        }
    }

    /// How many runs that only this host knew are not over there.
    pub fn adopted_open(&self, host: &Host) -> usize {
        self.adopted.get(host).map_or(0, BTreeSet::len)
    }

    /// When a run that only its host knew was taken in last, as far as this process remembers.
    pub fn adopted_at(&self) -> Option<At> {
        self.adopted_at
    }

    /// The number the next notification gets.
    pub fn next_notification(&self) -> u64 {
        self.last_notification + 1
    }

    /// Drops what a change ended from memory; its rows stay in the store. To be called once they are read for writing.
    pub fn forget(&mut self, change: &Change, now: At) {
        if let Change::RunEnded { run } = change {
            self.forget_run(*run);
        }
        if let Change::IncidentClosed { incident, .. } = change {
            self.forget_incident(*incident, now);
        }
        if let Change::SignalReceived(row) = change {
            self.forget_signal(row.id, now);
        }
        if let Change::SignalTurned { signal, .. } = change {
            self.forget_signal(*signal, now);
        }
        if let Change::SessionOpened(_) = change {
            self.sessions.retain(|_, row| row.expires_at > now);
        }
        if let Change::TokenCreated(_) = change {
            self.tokens.retain(|_, row| row.expires_at > now.minus(MEMORY));
        }
    }

    /// Drops everything that is over, as after reading rows from a store. No end lies ahead of `now`, whatever its source says.
    pub fn forget_settled(&mut self, now: At) {
        let runs = &self.runs;
        self.host_runs.retain(|(run, _), _| runs.contains_key(run));
        self.open_on.values_mut().for_each(|open| open.retain(|run| runs.contains_key(run)));
        self.open_on.retain(|_, open| !open.is_empty());
        self.open_hosts.retain(|run, _| runs.contains_key(run));
        // In the order of their ids, which is that of their coming: of two under one key the later one counts.
        let all: Vec<(SignalId, At)> = self
            .signals
            .values()
            .map(|row| (row.id, row.signal.received_at.max(row.signal.ends_at.unwrap_or(At(0))).min(now)))
            .collect();
        for (signal, at) in all {
            self.forget_signal(signal, at);
        }
    }

    /// What guards remember of it stays.
    fn forget_run(&mut self, run: RunId) {
        if self.runs.get(&run).is_none_or(|row| row.ended_at.is_none()) {
            return;
        }
        let Some(row) = self.runs.remove(&run) else { return };
        self.steps.retain(|key, _| key.0 != run);
        self.orders.retain(|key, _| key.0 != run);
        self.gates.retain(|_, gate| gate.run != run);
        for host in row.hosts {
            self.readopt(run, &host, false);
            self.close(run, &host);
            self.host_runs.remove(&(run, host));
        }
    }

    fn forget_incident(&mut self, incident: IncidentId, now: At) {
        if self.incidents.get(&incident).is_none_or(|row| row.closed.is_none()) {
            return;
        }
        let Some(row) = self.incidents.remove(&incident) else { return };
        for signal in row.signals {
            self.forget_signal(signal, now);
        }
    }

    /// A signal is over when no open incident has it, and it is not a late message that may yet turn out to be none. Its key stays,
    /// so that it is known when it comes again.
    fn forget_signal(&mut self, signal: SignalId, now: At) {
        let over = self
            .signals
            .get(&signal)
            .filter(|row| row.late_until.is_none() || row.signal.status == Status::Resolved)
            .is_some_and(|row| row.incident.is_none_or(|id| !self.incidents.contains_key(&id)));
        if !over {
            return;
        }
        let Some(row) = self.signals.remove(&signal) else { return };
        let key = row.signal.key();
        if self.signal_keys.get(&key) == Some(&signal) {
            self.signal_keys.remove(&key);
        }
        let alert = (key.source.clone(), key.fingerprint.clone());
        if let Some(known) = self.alerts.get_mut(&alert) {
            known.remove(&signal);
            if known.is_empty() {
                self.alerts.remove(&alert);
            }
        }
        // A late message moves no end.
        let late = row.late_until.is_some();
        if (row.signal.status == Status::Resolved && !late) || self.settled.get(&key).is_none() {
            let ended = row.signal.ends_at.unwrap_or(now).min(now);
            let last = match row.signal.status {
                Status::Firing => self.settled.of_alert(&key.source, &key.fingerprint),
                Status::Resolved => None,
            };
            let (at, ended) = last.map_or((now, ended), |last| (last.at, last.ended));
            self.settled.put(&key, Over { signal, run: row.run, at, ended });
        }
    }

    /// Drops notifications that are done from memory.
    pub fn forget_notification(&mut self, id: u64) {
        if self.notifications.get(&id).is_some_and(|row| row.next_at.is_none()) {
            self.notifications.remove(&id);
        }
    }
}
