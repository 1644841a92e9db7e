//! What remediation would do, exactly.
//!
//! After diagnosis, the `remediate` and `verify` steps of a runbook are rendered once into a [`Plan`]. Its bytes (the
//! format is `fettle_proto::signed::plan`) are journaled, reported, shown to people, approved, and run: nothing is
//! rendered a second time. What cannot be rendered stands in the plan as [`PlannedWork::Impossible`], with the reason,
//! in its place, so that whoever approves sees what will not happen.
//!
//! Conditions (`if`, `that`, `check`, `outputs`) are carried as source: they are evaluated when their step comes, from the
//! runbook whose digest the plan names.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::follow::FollowUp;
use crate::id::{Digest, Host, RunId};
use crate::runbook::{Approval, OnFailure, Repeat, Retry, Risk, Sandbox};
use crate::unit::{UnitName, Verb};

pub(crate) mod evidence; // what diagnosis found, as text and back
mod render; // from a runbook to steps

pub(crate) use render::render_step;
pub use render::{MAX_PLAN_BYTES, render};

/// The rendered remediation of one host run. Immutable once made.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The host it is for, which is also the agent that rendered it.
    pub agent: Host,
    /// The run it belongs to.
    pub run: RunId,
    /// 32 random bytes as 64 hex digits; a grant names them and spends them.
    pub nonce: String,
    /// The kernel's boot id when the plan was made; a grant does not survive a reboot.
    pub boot: String,
    /// The runbook's name.
    pub runbook: String,
    /// Digest of the runbook's exact bytes.
    pub runbook_digest: Digest,
    /// Inputs by name, as text.
    pub inputs: BTreeMap<String, String>,
    /// Every output that diagnosis left, `usage.used` → JSON text. Conditions of later segments see these values.
    pub evidence: BTreeMap<String, String>,
    /// The `remediate` steps, in order.
    pub steps: Vec<PlannedStep>,
    /// The `verify` steps, in order. They have risk `read`, no undo and no approval.
    pub verify: Vec<PlannedStep>,
    /// The run that it goes on from, if it is of a follow-up.
    pub of: Option<Of>,
}

/// What the plan of a follow-up says of the run that it goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Of {
    /// That run.
    pub run: RunId,
    /// What is done with it. To undo, `steps` are the undos of its steps, in the order in which they run, each at the path
    /// `remediate/…/undo`, and `verify` is empty.
    pub how: FollowUp,
    /// For people: what is skipped, what cannot be undone, and why.
    pub says: Vec<String>,
}

/// One rendered step.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedStep {
    /// `remediate/purge`, `verify/below`.
    pub path: String,
    /// As the runbook says; what a host demands for it depends on whether the runbook is certified.
    pub risk: Risk,
    /// For people.
    pub name: String,
    /// What it does.
    pub work: PlannedWork,
    /// Environment of the process, beside the fixed one.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: String,
    /// The user it runs as; empty: the agent's own.
    pub user: String,
    /// What a `verify` step may beyond what every step that only reads may; a `remediate` step is not confined.
    pub sandbox: Sandbox,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Further attempts after a failed one.
    pub retry: Retry,
    /// Whether it may start again when its outcome is unknown.
    pub repeat: Repeat,
    /// Source of `if:`; evaluated again just before the step, it can only skip it.
    pub condition: Option<String>,
    /// How it is made as if not done, covered by the same approval.
    pub undo: PlannedUndo,
    /// Source of `check:`, which decides after an unknown outcome.
    pub check: Option<String>,
    /// What its failure means.
    pub on_failure: OnFailure,
    /// Approval the author asks for, beyond what the risk needs.
    pub approval: Option<Approval>,
    /// Sources of `outputs:`.
    pub outputs: BTreeMap<String, String>,
    /// The run in which it was done, in the plan of a follow-up: to retry, it is not run again; to undo, what was done there is
    /// what this step undoes.
    pub done_in: Option<RunId>,
}

/// What a planned step does.
#[derive(Clone, Debug, PartialEq)]
pub enum PlannedWork {
    /// A script, given to its interpreter as a file.
    Script {
        /// The exact text.
        source: String,
        /// Program and arguments; the script's path is appended.
        interpreter: Vec<String>,
    },
    /// A command, element by element.
    Argv(Vec<String>),
    /// Poll until it holds.
    That {
        /// Source of what must hold.
        condition: String,
        /// How long to keep trying; zero: look once.
        within: Duration,
        /// How long it must go on holding.
        stable_for: Duration,
        /// Time between looks.
        every: Duration,
    },
    /// Do nothing for a while.
    Wait(Duration),
    /// Do something with a unit of systemd.
    Service {
        /// What.
        verb: Verb,
        /// With which.
        unit: UnitName,
    },
    /// Put a unit of systemd back as it was before the first attempt of the step that this one undoes.
    PutBack {
        /// Which.
        unit: UnitName,
    },
    /// It could not be rendered, and why. Reached, it fails without starting anything.
    Impossible(String),
}

/// How a planned step is undone.
#[derive(Clone, Debug, PartialEq)]
pub enum PlannedUndo {
    /// There is nothing to undo, or no way to.
    None,
    /// This, with the step's own environment, directory, user and timeout.
    Work(PlannedWork),
    /// The step's unit is put back: it runs, or does not, as before the step's first attempt.
    Previous,
}

/// The part of a plan that comes from the runbook and from diagnosis; the host adds who, when and for what.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendering {
    /// See [`Plan::steps`].
    pub steps: Vec<PlannedStep>,
    /// See [`Plan::verify`].
    pub verify: Vec<PlannedStep>,
    /// See [`Plan::evidence`].
    pub evidence: BTreeMap<String, String>,
}

impl Rendering {
    /// Steps that cannot be carried out, with the reason.
    pub fn impossible(&self) -> BTreeMap<String, String> {
        self.steps
            .iter()
            .chain(&self.verify)
            .filter_map(|step| match &step.work {
                PlannedWork::Impossible(reason) => Some((step.path.clone(), reason.clone())),
                PlannedWork::Script { .. }
                | PlannedWork::Argv(_)
                | PlannedWork::That { .. }
                | PlannedWork::Wait(_)
                | PlannedWork::Service { .. }
                | PlannedWork::PutBack { .. } => None,
            })
            .collect()
    }
}

/// A plan that nobody could be asked to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("render the plan: it would have {bytes} bytes, at most {limit} are allowed")]
pub struct TooLarge {
    /// What it would have.
    pub bytes: usize,
    /// What it may have.
    pub limit: usize,
}
