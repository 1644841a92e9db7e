//! What survives us: the history of changes, and the rows they made, written in one transaction.
//!
//! [`Store`] is a trait of domain transactions. Whoever implements it keeps three promises: a transaction is there
//! whole or not at all; its ticket resolves only once it would survive a power cut; transactions are taken in the order
//! of their numbers, so that nothing is kept that was decided on something that is not.
//!
//! Reads block and may be called from any thread but that of the coordinator.

pub mod backup;
mod fold;
mod read;
pub mod restore;
mod schema;
mod sqlite;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use fettle_runbooks::id::{GateId, Host, IncidentId, RunId, SignalId};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::model::row::{AgentRow, GateRow, HostRunRow, IncidentRow, RunRow, SignalRow, StepRow};
use crate::model::{Change, Model, Row};
use crate::world::At;

pub use fold::{Difference, check_fold};
pub use sqlite::Sqlite;

/// One change with its place in history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Counts up by one over everything, but for a gap where the store was restored from a backup.
    pub number: u64,
    /// When.
    pub at: At,
    /// The run it is about.
    pub run: Option<RunId>,
    /// The incident it is about.
    pub incident: Option<IncidentId>,
    /// What.
    pub change: Change,
}

/// What one decision made true: written whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The changes, their numbers without gaps.
    pub records: Vec<Record>,
    /// Every row they touched, as it is afterwards.
    pub rows: Vec<Row>,
}

/// The store did not do what was asked. After a commit this means that the outcome is unknown.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct Unavailable {
    /// Finishes "failed to …".
    pub doing: &'static str,
    /// Why.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Unavailable {
    /// The same for people, with its cause: `the store fails to commit: database or disk is full`.
    pub(crate) fn sentence(&self) -> String {
        let why = self.source.as_ref().map(|source| {
            let code = source.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
            match code {
                // Its text has the path, and anybody may ask whether the controller is ready.
                Some(rusqlite::ErrorCode::CannotOpen) => ": unable to open database file".to_owned(),
                Some(_) | None => format!(": {source}"),
            }
        });
        let why = why.unwrap_or_default();
        format!("the store fails to {}{why}", self.doing)
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its directory cannot be used.
    #[error("use the data directory {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another controller has it.
    #[error("lock the data directory {}: another controller uses it", path.display())]
    Taken {
        /// Which.
        path: PathBuf,
    },
    /// It was written by a newer version.
    #[error("read the store: its schema is version {found}, and this controller knows up to {known}")]
    Newer {
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The database cannot be opened.
    #[error("open the store")]
    Database {
        /// Why.
        source: rusqlite::Error,
    },
}

/// Resolves once a transaction is durable, or it is unknown whether it is.
pub type Ticket = oneshot::Receiver<Result<(), Unavailable>>;

/// Which runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Only on this host.
    pub host: Option<Host>,
    /// Only those that have not ended.
    pub open: bool,
    /// At most so many, newest first.
    pub limit: usize,
    /// Only those older than this.
    pub before: Option<RunId>,
}

/// Whose history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Everything's.
    Everything,
    /// A run's.
    Run(RunId),
    /// An incident's.
    Incident(IncidentId),
}

/// A run with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunParts {
    /// The run.
    pub run: RunRow,
    /// Its hosts.
    pub hosts: Vec<HostRunRow>,
    /// Their steps; empty where a list was asked for.
    pub steps: Vec<StepRow>,
}

/// See the module.
pub trait Store: Send + Sync + 'static {
    /// Queues a transaction; what is queued together is made durable together.
    fn commit(&self, transaction: Transaction) -> Ticket;

    /// Whether commits work, as far as the last one tells.
    fn commits(&self) -> Result<(), Unavailable> {
        Ok(())
    }

    /// What the coordinator needs to go on: everything unfinished, every agent, and what guards and deduplication
    /// remember since `since`.
    fn load(&self, since: At) -> Result<Model, Unavailable>;

    /// Runs, newest first, without their steps.
    fn runs(&self, filter: &RunFilter) -> Result<Vec<RunParts>, Unavailable>;
    /// A run with its steps.
    fn run(&self, run: RunId) -> Result<Option<RunParts>, Unavailable>;
    /// The runs that go on from this one, oldest first, without their steps.
    fn follow_ups(&self, run: RunId) -> Result<Vec<RunParts>, Unavailable>;
    /// Gates, newest first.
    fn gates(&self, open: bool, limit: usize) -> Result<Vec<GateRow>, Unavailable>;
    /// One gate.
    fn gate(&self, gate: GateId) -> Result<Option<GateRow>, Unavailable>;
    /// Signals, newest first.
    fn signals(&self, limit: usize) -> Result<Vec<SignalRow>, Unavailable>;
    /// One signal.
    fn signal(&self, signal: SignalId) -> Result<Option<SignalRow>, Unavailable>;
    /// Incidents, newest first.
    fn incidents(&self, open: bool, limit: usize) -> Result<Vec<IncidentRow>, Unavailable>;
    /// One incident.
    fn incident(&self, incident: IncidentId) -> Result<Option<IncidentRow>, Unavailable>;
    /// The fleet.
    fn agents(&self) -> Result<Vec<AgentRow>, Unavailable>;
    /// One agent.
    fn agent(&self, host: &Host) -> Result<Option<AgentRow>, Unavailable>;
    /// History after a number, oldest first, at most so much.
    fn history(&self, of: Of, after: u64, limit: usize) -> Result<Vec<Record>, Unavailable>;
    /// Every row of every table, for the checker.
    fn rows(&self) -> Result<Vec<Row>, Unavailable>;
}
