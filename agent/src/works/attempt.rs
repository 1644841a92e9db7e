//! One start of one step: its process, its output, its end.
//!
//! A step that only reads is a child of the agent, in a [sandbox](super::sandbox) ([`Attempts::start_read`]): should the
//! agent die, the step dies too and may simply run again. A step that acts is a child of its own [shim](super::shim), which outlives the agent
//! ([`Attempts::start_effect`], [`Attempts::reattach`]). Either way whoever started it is told through one closure, and
//! the step gets a fixed environment, no descriptors but its three, a session of its own, and no more time than it was
//! given.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fettle_runbooks::id::RunId;
use fettle_runbooks::runbook::Risk;
use fettle_runbooks::segment;
use fettle_runbooks::unit::{UnitName, Verb};
use serde::{Deserialize, Serialize};

use crate::crash::crash_point;

use super::output::{Kept, Stream};
use super::record::AttemptKey;
use super::sandbox::{Allowed, Confinement};

/// How long a step has, after TERM, to put itself in order before it is killed.
pub const GRACE: Duration = Duration::from_secs(10);

/// One attempt, rendered: nothing in here is interpreted any further.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Which attempt this is.
    pub key: AttemptKey,
    /// What to run.
    pub work: Work,
    /// Environment beside the fixed one; the values arrive as they are.
    pub env: BTreeMap<String, String>,
    /// Working directory; absent is `/`.
    pub cwd: Option<String>,
    /// The account to run as; absent is the agent's.
    pub user: Option<String>,
    /// What a step that only reads may beyond what every such step may; nothing limits one that acts.
    #[serde(default)]
    pub allowed: Allowed,
    /// How long it may take.
    pub timeout: Duration,
    /// How long it has after TERM; [`GRACE`] unless told.
    pub grace: Duration,
}

/// What a step runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Text that is written to a file, whose path is appended to the interpreter's words.
    Script {
        /// The exact text.
        source: String,
        /// Program and arguments.
        interpreter: Vec<String>,
    },
    /// A program and its arguments; no shell.
    Argv(Vec<String>),
    /// Something to be done with a unit of systemd, which this program does itself, as another process.
    Service {
        /// What.
        deed: Deed,
        /// With which.
        unit: UnitName,
        /// The runs that tried the step, the first of them first, where that is not the attempt's own alone. How the unit was
        /// is what the first of them kept that came so far.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tried_in: Vec<RunId>,
    },
}

/// What is done with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the first four are the verbs of the language")]
pub enum Deed {
    Start,
    Stop,
    Restart,
    Reload,
    /// It runs, or does not, as before the first attempt of the step that this is the undo of.
    PutBack,
}

impl From<segment::Deed> for Deed {
    fn from(deed: segment::Deed) -> Deed {
        match deed {
            segment::Deed::Do(Verb::Start) => Deed::Start,
            segment::Deed::Do(Verb::Stop) => Deed::Stop,
            segment::Deed::Do(Verb::Restart) => Deed::Restart,
            segment::Deed::Do(Verb::Reload) => Deed::Reload,
            segment::Deed::PutBack => Deed::PutBack,
        }
    }
}

impl Work {
    /// The program that is started, as the host's veto names it; empty for what is done with a unit.
    pub fn program(&self) -> &str {
        let words = match self {
            Work::Script { interpreter, .. } => interpreter,
            Work::Argv(words) => words,
            Work::Service { .. } => return "",
        };
        words.first().map_or("", String::as_str)
    }

    /// The unit that something is done with, as the host's veto names it; empty for a program.
    pub fn unit(&self) -> &str {
        match self {
            Work::Script { .. } | Work::Argv(_) => "",
            Work::Service { unit, .. } => unit.as_str(),
        }
    }
}

/// What must still hold when an attempt starts, which may be long after it was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartBy {
    /// Wall clock, milliseconds since the Unix epoch; later the attempt does not start.
    pub not_after_ms: i64,
    /// The same limit by the boot clock, and the boot it counts in. Another boot: does not start.
    pub boot: Option<BootLimit>,
    /// For the host's veto: the runbook's path.
    pub runbook: String,
    /// For the host's veto: the step's risk.
    #[serde(with = "super::shim::risk_text")]
    pub risk: Risk,
}

/// A moment of the boot clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootLimit {
    /// Which boot.
    pub boot: String,
    /// Milliseconds since it.
    pub not_after_ms: u64,
}

/// What happens to an attempt, told in this order: output any number of times, then one of the others, once.
#[derive(Debug)]
pub enum Happening<'a> {
    /// It wrote something. Whoever comes late (after a re-attach) is told from the beginning.
    Output {
        /// Where.
        stream: Stream,
        /// Bytes of that stream before these.
        offset: u64,
        /// What.
        bytes: &'a [u8],
    },
    /// It is over, and this is how.
    Ended(Ended),
    /// Its shim died before it started anything: no process of it was ever born, and it may be started.
    NeverBorn,
    /// Its shim died without leaving word: it cannot be told whether the step took effect.
    Unknown(String),
}

/// Told what happens to an attempt, on a thread of that attempt. May block: the step's output then waits.
pub type Observer = Box<dyn FnMut(Happening<'_>) + Send>;

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// What ended it.
    pub outcome: Outcome,
    /// Its exit code, when it exited.
    pub exit_code: Option<i32>,
    /// The signal that ended it, when one did.
    pub signal: Option<i32>,
    /// What it wrote to descriptor 1.
    pub stdout: Kept,
    /// What it wrote to descriptor 2.
    pub stderr: Kept,
    /// From the birth of its process to its end.
    pub took: Duration,
    /// Why it may have failed, for people; empty when nothing is known beyond what it wrote.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

/// What ended an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It exited, or died of a signal that we did not send.
    Exited,
    /// It took longer than it may.
    TimedOut,
    /// Somebody asked for its end.
    Killed,
    /// No process was born, so nothing happened.
    NotStarted {
        /// Stable: `expired`, `rebooted`, `cancelled`, `vetoed`, `veto-unreadable`, `spawn-failed`.
        code: String,
        /// For people.
        message: String,
    },
}

/// An attempt that did not even get a supervisor. Nothing ran.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The attempt's directory could not be made, or not made durable.
    #[error("failed to prepare {path}")]
    Prepare {
        /// What could not be written.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The attempt was started before. It is never started again; look what became of it.
    #[error("failed to start {0} because it was started before")]
    StartedBefore(AttemptKey),
    /// The program could not be started.
    #[error("failed to start `{program}`")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
}

/// A running attempt, as a handle: dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Running {
    key: AttemptKey,
    stop: Arc<dyn Stop>,
}

/// How an attempt is told to end.
pub trait Stop: Send + Sync + std::fmt::Debug {
    /// Asks for TERM, grace, KILL.
    ///
    /// # Errors
    /// When the request cannot be left for whoever looks after it.
    fn stop(&self) -> std::io::Result<()>;
}

impl Running {
    /// An attempt that is told to end by `stop`.
    pub fn new(key: AttemptKey, stop: Arc<dyn Stop>) -> Running {
        Running { key, stop }
    }

    /// Which attempt this is.
    pub fn key(&self) -> &AttemptKey {
        &self.key
    }

    /// Asks for its end: TERM to all its processes, KILL after its grace. Returns at once; the end is told as
    /// [`Happening::Ended`] with [`Outcome::Killed`], unless it ended by itself before.
    ///
    /// # Errors
    /// When the request cannot be left for the shim (a full disk).
    pub fn kill(&self) -> std::io::Result<()> {
        self.stop.stop()
    }
}

/// All attempts of this host: the directory that remembers them, and the way to start more.
#[derive(Clone, Debug)]
pub struct Attempts {
    dir: PathBuf,
    program: PathBuf,
    policy: PathBuf,
    confinement: Confinement,
}

impl Attempts {
    /// The attempts under `state/attempts`, watched over by `state/policy.yaml`. Only whoever holds the journal's lock
    /// may open them.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(state: &Path) -> std::io::Result<Attempts> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state.join("attempts"))?;
        // Shims stand elsewhere, and a later agent may spell the path another way.
        let state = state.canonicalize()?;
        let dir = state.join("attempts");
        crash_point("attempts.undurable");
        super::disk::sync_dir(&state)?;
        crash_point("attempts.durable");
        super::ballast::put_back(&state);
        let program = PathBuf::from(super::shim::itself());
        let confinement = Confinement::new(program.clone(), state.clone());
        Ok(Attempts { dir, program, policy: state.join("policy.yaml"), confinement })
    }

    /// Supervises with another program than the running one: a test's, for instance. It must call
    /// [`shim_if_asked`](super::shim::shim_if_asked) first.
    #[must_use]
    pub fn supervised_by(self, program: PathBuf) -> Attempts {
        Attempts { confinement: self.confinement.helped_by(program.clone()), program, ..self }
    }

    /// What keeps steps that only read from doing anything else.
    pub fn confinement(&self) -> &Confinement {
        &self.confinement
    }
}

mod effect; // steps that act
mod read; // steps that only read
