//! A store that is measured: how long transactions take to become durable, and how host runs ended.

use std::sync::Arc;
use std::time::Instant;

use fettle_runbooks::id::{GateId, Host, IncidentId, RunId, SignalId};
use tokio::sync::oneshot;

use crate::metrics::Metrics;
use crate::model::row::{AgentRow, GateRow, IncidentRow, SignalRow};
use crate::model::{Change, Model, Row};
use crate::store::{Of, Record, RunFilter, RunParts, Store, Ticket, Transaction, Unavailable};
use crate::tasks::{TaskKind, Tasks};
use crate::world::At;

/// Passes everything on, and counts. Commit from within the runtime.
pub struct Metered {
    store: Arc<dyn Store>,
    metrics: Metrics,
    tasks: Tasks,
}

impl Metered {
    /// Measures a store.
    pub fn new(store: Arc<dyn Store>, metrics: Metrics, tasks: Tasks) -> Metered {
        Metered { store, metrics, tasks }
    }
}

/// The endings of host runs that a transaction makes true.
fn endings(transaction: &Transaction) -> Vec<&'static str> {
    let moved = transaction.records.iter().filter_map(|record| {
        let Change::Moved { machine, .. } = &record.change else { return None };
        machine.ended()
    });
    moved.map(|how| how.ending.word()).collect()
}

impl Store for Metered {
    fn commit(&self, transaction: Transaction) -> Ticket {
        let endings = endings(&transaction);
        let since = Instant::now();
        let ticket = self.store.commit(transaction);
        let (tell, told) = oneshot::channel();
        let metrics = self.metrics.clone();
        self.tasks.spawn(TaskKind::Measurement, async move {
            // Dropping `tell` says what a dropped ticket says: it is not known.
            let Ok(outcome) = ticket.await else { return };
            if outcome.is_ok() {
                metrics.committed(since.elapsed());
                endings.iter().for_each(|ending| metrics.host_run_ended(ending));
            }
            let _ = tell.send(outcome);
        });
        told
    }

    fn commits(&self) -> Result<(), Unavailable> {
        self.store.commits()
    }
    fn load(&self, since: At) -> Result<Model, Unavailable> {
        self.store.load(since)
    }
    fn runs(&self, filter: &RunFilter) -> Result<Vec<RunParts>, Unavailable> {
        self.store.runs(filter)
    }
    fn run(&self, run: RunId) -> Result<Option<RunParts>, Unavailable> {
        self.store.run(run)
    }
    fn follow_ups(&self, run: RunId) -> Result<Vec<RunParts>, Unavailable> {
        self.store.follow_ups(run)
    }
    fn gates(&self, open: bool, limit: usize) -> Result<Vec<GateRow>, Unavailable> {
        self.store.gates(open, limit)
    }
    fn gate(&self, gate: GateId) -> Result<Option<GateRow>, Unavailable> {
        self.store.gate(gate)
    }
    fn signals(&self, limit: usize) -> Result<Vec<SignalRow>, Unavailable> {
        self.store.signals(limit)
    }
    fn signal(&self, signal: SignalId) -> Result<Option<SignalRow>, Unavailable> {
        self.store.signal(signal)
    }
    fn incidents(&self, open: bool, limit: usize) -> Result<Vec<IncidentRow>, Unavailable> {
        self.store.incidents(open, limit)
    }
    fn incident(&self, incident: IncidentId) -> Result<Option<IncidentRow>, Unavailable> {
        self.store.incident(incident)
    }
    fn agents(&self) -> Result<Vec<AgentRow>, Unavailable> {
        self.store.agents()
    }
    fn agent(&self, host: &Host) -> Result<Option<AgentRow>, Unavailable> {
        self.store.agent(host)
    }
    fn history(&self, of: Of, after: u64, limit: usize) -> Result<Vec<Record>, Unavailable> {
        self.store.history(of, after, limit)
    }
    fn rows(&self) -> Result<Vec<Row>, Unavailable> {
        self.store.rows()
    }
}
