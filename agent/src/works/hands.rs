//! What the works do to the host: start, kill, look, read. In a simulation there is another one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fettle_runbooks::expr::{FactCall, Facts};
use fettle_runbooks::id::RunId;
use fettle_runbooks::segment::Kind;

use super::attempt::{Attempts, Observer, Running, Spec, StartBy, StartError as AttemptError};
use super::driver::StartError;
use super::facts::Turn;
use super::handle::Config;
use super::policy::{HostPolicy, ReadOnly};
use super::record::AttemptKey;
use super::recovery::Found;

/// Longest time one fact may take.
const FACT_LIMIT: Duration = Duration::from_secs(5);

/// Told what was read, once, on any thread.
pub type Answer = Arc<dyn Fn(Facts) + Send + Sync>;

/// The host, as the works need it. Nothing here waits for a step, and only [`Hands::bury`] and what makes itself durable
/// waits at all.
pub trait Hands: Send + 'static {
    /// Starts an attempt. Whoever observes it is told on another thread, or later.
    ///
    /// # Errors
    /// When no process of it was born, or one was before.
    fn start(
        &self,
        spec: &Spec,
        kind: Kind,
        start_by: &StartBy,
        observer: Observer,
    ) -> Result<Running, AttemptError>;
    /// What became of an attempt that was intended.
    ///
    /// # Errors
    /// When what it left cannot be read.
    fn look(&self, key: &AttemptKey) -> io::Result<Found>;
    /// Follows an attempt that runs.
    ///
    /// # Errors
    /// When it cannot be followed.
    fn reattach(&self, key: &AttemptKey, observer: Observer) -> io::Result<Running>;
    /// Kills what is left of an attempt; true: nothing is, for certain.
    ///
    /// # Errors
    /// When that cannot be told.
    fn bury(&self, key: &AttemptKey) -> io::Result<bool>;
    /// Tells every attempt of a run that still runs to end, also one that no journal knows of; true: none does any more, as far as
    /// anybody can tell.
    ///
    /// # Errors
    /// When one cannot be told.
    fn stop_all(&self, run: RunId) -> io::Result<bool>;
    /// No attempt of the run starts any more. Durable when it returns.
    ///
    /// # Errors
    /// When it is not.
    fn tombstone(&self, run: RunId) -> io::Result<()>;
    /// What is kept of a run's attempts may go.
    ///
    /// # Errors
    /// When something is left.
    fn forget(&self, run: RunId) -> io::Result<()>;
    /// Reads facts and tells them, without waiting for them: a mount may hang.
    fn facts(&self, calls: Vec<FactCall>, answer: Answer);
    /// The host's own veto, as it is now.
    fn policy(&self) -> HostPolicy;
    /// What this host cannot do, in words for people.
    fn missing(&self) -> Vec<String>;
    /// How sure this host is that steps that only read do nothing else.
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

    fn look(&self, key: &AttemptKey) -> io::Result<Found> {
        self.attempts.look(key)
    }

    fn reattach(&self, key: &AttemptKey, observer: Observer) -> io::Result<Running> {
        self.attempts.reattach(key, observer)
    }

    fn bury(&self, key: &AttemptKey) -> io::Result<bool> {
        self.attempts.bury(key)
    }

    fn stop_all(&self, run: RunId) -> io::Result<bool> {
        self.attempts.stop_all(run)
    }

    fn tombstone(&self, run: RunId) -> io::Result<()> {
        self.attempts.tombstone(run)
    }

    fn forget(&self, run: RunId) -> io::Result<()> {
        self.attempts.forget(run)
    }

    fn facts(&self, calls: Vec<FactCall>, answer: Answer) {
        let unread = |why: &str| calls.iter().map(|call| (call.to_string(), Err(why.to_owned()))).collect();
        let turn = match Turn::take() {
            Ok(turn) => turn,
            Err(why) => return answer(unread(&why)),
        };
        let read = {
            let (calls, state, answer) = (calls.clone(), self.state.clone(), Arc::clone(&answer));
            move || {
                let facts = super::facts::read(&calls, FACT_LIMIT, &state);
                drop(turn);
                answer(facts);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("facts".to_owned()).spawn(read) {
            answer(unread(&format!("no thread could read it: {error}")));
        }
    }

    fn policy(&self) -> HostPolicy {
        HostPolicy::read(&self.state.join("policy.yaml"))
    }

    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if !super::cgroup::available() {
            missing.push("no control groups: a step that hides a process may leave it behind".to_owned());
        }
        if !rustix::process::geteuid().is_root() {
            missing.push("not root: steps run as the agent's own user".to_owned());
        }
        missing.extend(self.attempts.confinement().missing());
        missing
    }

    fn sure_of_reading(&self) -> ReadOnly {
        self.attempts.confinement().sure()
    }
}
