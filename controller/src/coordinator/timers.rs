//! When to look at which row again. Derived from the rows, so that there is nothing to lose.

use std::collections::{BTreeSet, HashMap};

use fettle_runbooks::id::Host;
use fettle_runbooks::run::State;

use crate::model::row::{GateRow, GateState, OrderRow};
use crate::model::{Model, RowKey};
use crate::signal::Status;
use crate::world::At;

/// The due moments of rows.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(At, RowKey)>,
    by_key: HashMap<RowKey, At>,
}

/// When a row is to be looked at next.
fn moment(model: &Model, key: &RowKey) -> Option<At> {
    match key {
        RowKey::Gate(id) => {
            let gate = model.gates.get(id)?;
            match gate.state {
                GateState::Open => {
                    let escalate =
                        gate.escalate.as_ref().filter(|_| gate.escalated_at.is_none()).map(|(at, _)| *at);
                    let decide_by = of_gate(model, gate, gate.decide_by);
                    Some(escalate.map_or(decide_by, |at| at.min(decide_by)))
                }
                GateState::Approved => {
                    let waits = gate.leaves.iter().any(|leaf| {
                        model.host_runs.get(&(gate.run, leaf.host.clone())).is_some_and(|row| {
                            row.gate == Some(*id) && matches!(row.machine.state, State::Waiting(_))
                        })
                    });
                    waits.then(|| of_gate(model, gate, gate.start_by))
                }
                GateState::Denied | GateState::Expired | GateState::Closed => None,
            }
        }
        RowKey::Order(run, host, segment) => {
            let order = model.orders.get(&(*run, host.clone(), *segment))?;
            (order.segment == 1 && order.accepted_at.is_none() && order.closed_at.is_none())
                .then(|| of_order(model, order))
        }
        RowKey::Notification(id) => model.notifications.get(id)?.next_at,
        RowKey::Incident(id) => model.incidents.get(id)?.look_again_at,
        RowKey::Signal(id) => {
            model.signals.get(id).filter(|row| row.signal.status == Status::Firing)?.late_until
        }
        RowKey::Run(_)
        | RowKey::HostRun(..)
        | RowKey::Step(..)
        | RowKey::Agent(_)
        | RowKey::Token(_)
        | RowKey::Session(_) => None,
    }
}

/// When something of a gate is too late, for all of its hosts.
pub(super) fn of_gate(model: &Model, gate: &GateRow, due: At) -> At {
    gate.leaves.iter().map(|leaf| not_before(model, &leaf.host, due)).max().unwrap_or(due)
}

/// When the order of a diagnosis is too late.
pub(super) fn of_order(model: &Model, order: &OrderRow) -> At {
    not_before(model, &order.host, order.not_after)
}

/// When something of a host is too late. Of a host that may know more than a restored store it is not before it had time to
/// tell: what seems to be too late may have been done.
fn not_before(model: &Model, host: &Host, due: At) -> At {
    let ahead = model.agents.get(host).and_then(|row| row.ahead);
    ahead.map_or(due, |ahead| ahead.until.max(due))
}

impl Timers {
    /// The timers of everything there is.
    pub(super) fn of(model: &Model) -> Timers {
        let mut timers = Timers::default();
        let gates = model.gates.keys().map(|id| RowKey::Gate(*id));
        let orders =
            model.orders.keys().map(|(run, host, segment)| RowKey::Order(*run, host.clone(), *segment));
        let notifications = model.notifications.keys().map(|id| RowKey::Notification(*id));
        let incidents = model.incidents.keys().map(|id| RowKey::Incident(*id));
        let signals = model.signals.keys().map(|id| RowKey::Signal(*id));
        for key in gates.chain(orders).chain(notifications).chain(incidents).chain(signals) {
            timers.arm(model, &key);
        }
        timers
    }

    /// A row changed.
    pub(super) fn arm(&mut self, model: &Model, key: &RowKey) {
        if let RowKey::HostRun(run, host) = key {
            // An approved gate waits for its host run.
            let gate = model.host_runs.get(&(*run, host.clone())).and_then(|row| row.gate);
            if let Some(gate) = gate {
                self.arm(model, &RowKey::Gate(gate));
            }
            return;
        }
        if let Some(before) = self.by_key.remove(key) {
            self.by_time.remove(&(before, key.clone()));
        }
        if let Some(at) = moment(model, key) {
            self.by_key.insert(key.clone(), at);
            self.by_time.insert((at, key.clone()));
        }
    }

    /// What it waits for may be later than when it was armed: its host is known to be ahead since.
    pub(super) fn put_off(&mut self, model: &Model, key: &RowKey, now: At) {
        if moment(model, key).is_some_and(|at| at > now) {
            self.arm(model, key);
        }
    }

    /// The next moment.
    pub(super) fn next(&self) -> Option<At> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out one row whose moment has come. Whatever is decided of it arms it again.
    pub(super) fn due(&mut self, now: At) -> Option<RowKey> {
        let (at, key) = self.by_time.first().filter(|(at, _)| *at <= now)?.clone();
        self.by_time.remove(&(at, key.clone()));
        self.by_key.remove(&key);
        Some(key)
    }
}
