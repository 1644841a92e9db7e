//! What the works do to the host: start, kill, look, read. A script that remembers stands in for it in tests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fettle_runbooks::expr::{FactCall, Facts};
use fettle_runbooks::id::RunId;
use fettle_runbooks::segment::Kind;

use super::attempt::{Attempts, Observer, Running, Spec, StartBy, StartError as AttemptError};
use super::driver::StartError;
use super::handle::Config;
use super::policy::{HostPolicy, ReadOnly};
use super::record::AttemptKey;
use super::recovery::Found;

/// Longest time one fact may take.
const FACT_LIMIT: Duration = Duration::from_secs(5);

/// Reads facts, on whatever thread it is called.
pub(super) type FactReader = Box<dyn FnOnce(&[FactCall]) -> Facts + Send>;

/// The host, as the works need it.
pub(super) trait Hands: Send + 'static {
    /// Starts an attempt.
    fn start(
        &self,
        spec: &Spec,
        kind: Kind,
        start_by: &StartBy,
        observer: Observer,
    ) -> Result<Running, AttemptError>;
    /// What became of an attempt that was intended.
    fn look(&self, key: &AttemptKey) -> std::io::Result<Found>;
    /// Follows an attempt that runs.
    fn reattach(&self, key: &AttemptKey, observer: Observer) -> std::io::Result<Running>;
    /// Kills what is left of an attempt; true: nothing is, for certain.
    fn bury(&self, key: &AttemptKey) -> std::io::Result<bool>;
    /// No attempt of the run starts any more.
    fn tombstone(&self, run: RunId) -> std::io::Result<()>;
    /// What is kept of a run's attempts may go.
    fn forget(&self, run: RunId) -> std::io::Result<()>;
    /// Something that reads facts, on a thread of its own.
    fn facts(&self) -> FactReader;
    /// The host's own veto, as it is now.
    fn policy(&self) -> HostPolicy;
    /// What this host cannot do to keep steps that only read from acting, in words for people.
    fn missing(&self) -> Vec<String>;
    /// How sure this host is that they only read.
    fn sure_of_reading(&self) -> ReadOnly;
}

/// This host.
#[derive(Debug)]
pub(super) struct HostHands {
    attempts: Attempts,
    state: PathBuf,
}

impl HostHands {
    pub(super) fn open(config: &Config) -> Result<HostHands, StartError> {
        let state: &Path = &config.state;
        let mut attempts = Attempts::open(state).map_err(|source| StartError::Io {
            what: format!("open {}", state.join("attempts").display()),
            source,
        })?;
        if let Some(shim) = &config.shim {
            attempts = attempts.supervised_by(shim.clone());
        }
        Ok(HostHands { attempts, state: state.to_owned() })
    }
}

impl Hands for HostHands {
    fn start(
        &self,
        spec: &Spec,
        kind: Kind,
        start_by: &StartBy,
        observer: Observer,
    ) -> Result<Running, AttemptError> {
        match kind {
            Kind::Read => self.attempts.start_read(spec, observer),
            Kind::Act => self.attempts.start_effect(spec, start_by, observer),
        }
    }

    fn look(&self, key: &AttemptKey) -> std::io::Result<Found> {
        self.attempts.look(key)
    }

    fn reattach(&self, key: &AttemptKey, observer: Observer) -> std::io::Result<Running> {
        self.attempts.reattach(key, observer)
    }

    fn bury(&self, key: &AttemptKey) -> std::io::Result<bool> {
        self.attempts.bury(key)
    }

    fn tombstone(&self, run: RunId) -> std::io::Result<()> {
        self.attempts.tombstone(run)
    }

    fn forget(&self, run: RunId) -> std::io::Result<()> {
        self.attempts.forget(run)
    }

    fn facts(&self) -> FactReader {
        let state = self.state.clone();
        Box::new(move |calls| super::facts::read(calls, FACT_LIMIT, &state))
    }

    fn policy(&self) -> HostPolicy {
        HostPolicy::read(&self.state.join("policy.yaml"))
    }

    fn missing(&self) -> Vec<String> {
        self.attempts.confinement().missing()
    }

    fn sure_of_reading(&self) -> ReadOnly {
        self.attempts.confinement().sure()
    }
}
