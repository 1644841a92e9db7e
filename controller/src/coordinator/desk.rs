//! Where one decision is made: the model, what is in force, and what comes of it.
//!
//! Nothing here waits and nothing acts: changes go into the model at once and into a transaction, effects are held until
//! that transaction is durable.

use std::collections::BTreeSet;
use std::sync::Arc;

use fettle_runbooks::id::{Host, IncidentId, RunId};
use tokio::sync::mpsc;

use super::handle::{InForce, Reply, RosterInForce};
use crate::dispatch::{Digests, Message};
use crate::model::{Change, Model, Row, RowKey};
use crate::problem::Problem;
use crate::store::{Record, Transaction};
use crate::world::{At, World};

/// What to do once a decision is durable, in order.
pub(super) enum Effect {
    /// Answer somebody: with this if the decision is durable, else that it is not known.
    Reply(Box<dyn FnOnce(Result<(), Problem>) + Send>),
    /// Say something to a host, if it is connected; what it must hear in any case is said again when it connects.
    Tell(Host, Message),
    /// A host's stream is open from now on; these come first.
    Attach { host: Host, epoch: u64, sender: mpsc::Sender<Message>, first: Vec<Message> },
    /// End a host's stream.
    Detach(Host),
    /// Count a run that only its host knows and that was not taken in.
    Missed,
}

/// One decision in the making.
pub(super) struct Desk<'a> {
    pub(super) model: &'a mut Model,
    pub(super) in_force: &'a InForce,
    pub(super) world: &'a dyn World,
    /// The root fingerprint of the controller's trust bundle.
    pub(super) root: &'a str,
    pub(super) now: At,
    pub(super) digests: &'a mut Digests,
    records: Vec<Record>,
    touched: BTreeSet<RowKey>,
    effects: Vec<Effect>,
}

/// What a decision came to.
pub(super) struct Decided {
    pub(super) transaction: Transaction,
    pub(super) touched: BTreeSet<RowKey>,
    pub(super) effects: Vec<Effect>,
}

impl<'a> Desk<'a> {
    pub(super) fn new(
        model: &'a mut Model,
        in_force: &'a InForce,
        world: &'a dyn World,
        root: &'a str,
        digests: &'a mut Digests,
    ) -> Desk<'a> {
        let now = world.now();
        Desk {
            model,
            in_force,
            world,
            root,
            now,
            digests,
            records: Vec::new(),
            touched: BTreeSet::new(),
            effects: Vec::new(),
        }
    }

    /// Makes something true.
    pub(super) fn change(&mut self, change: Change) {
        let number = self.model.last_event + 1;
        self.touched.extend(self.model.apply(number, self.now, &change));
        let run = self.run_of(&change);
        let incident = self.incident_of(&change, run);
        self.records.push(Record { number, at: self.now, run, incident, change });
    }

    /// Whether a run ended with this very decision.
    pub(super) fn has_ended(&self, run: RunId) -> bool {
        self.records.iter().any(|record| matches!(record.change, Change::RunEnded { run: of } if of == run))
    }

    fn run_of(&self, change: &Change) -> Option<RunId> {
        if let Change::Decided { gate, .. } | Change::Escalated { gate } | Change::GateClosed { gate, .. } =
            change
        {
            return self.model.gates.get(gate).map(|row| row.run);
        }
        change.run()
    }

    fn incident_of(&self, change: &Change, run: Option<RunId>) -> Option<IncidentId> {
        if let Change::SignalRepeated { signal }
        | Change::SignalTurned { signal, .. }
        | Change::SignalTaken { signal, .. }
        | Change::Judged { signal, .. } = change
        {
            return self.model.signals.get(signal).and_then(|row| row.incident);
        }
        change.incident().or_else(|| self.model.runs.get(&run?)?.incident)
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Answers once everything decided up to here is durable.
    pub(super) fn reply<T: Send + 'static>(&mut self, to: Reply<T>, answer: Result<T, Problem>) {
        self.effects.push(Effect::Reply(Box::new(move |durable| {
            // Whoever asked may have left.
            let _ = to.send(durable.and(answer));
        })));
    }

    /// The roster in force, as far as it still lets anyone do anything.
    pub(super) fn roster(&self) -> Result<Arc<RosterInForce>, Problem> {
        let roster = self.in_force.roster.clone();
        roster
            .ok_or_else(|| Problem::conflict("no-roster", "no roster is in force: nobody can be recognised"))
    }

    /// Whether a host may be given work.
    pub(super) fn enrolled(&self, host: &Host) -> bool {
        self.model.agents.get(host).is_some_and(|row| row.revoked.is_none())
    }

    /// Ends the decision.
    pub(super) fn done(self) -> Decided {
        let Desk { model, now, records, touched, effects, .. } = self;
        let rows: Vec<Row> = touched.iter().filter_map(|key| model.row(key)).collect();
        for record in &records {
            model.forget(&record.change, now);
        }
        Decided { transaction: Transaction { records, rows }, touched, effects }
    }
}
