//! A runbook that passed every check.
//!
//! [`Runbook`] has private fields and one maker, the check: whoever holds one may rely on what this module says of
//! it. Order and acyclicity of steps are one fact: a step names the steps it waits for by their place before it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::expr::Expr;
use crate::id::Digest;
use crate::template::Template;
use crate::unit::Verb;

/// How much harm a step can do. The order is meaningful.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Risk {
    /// Reads only.
    Read,
    /// Needs nobody.
    Low,
    /// One approval.
    Medium,
    /// One approval.
    High,
    /// Two persons.
    Critical,
}

/// The three phases of a runbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Finds out, read-only.
    Diagnose,
    /// Acts.
    Remediate,
    /// Reads the symptom again.
    Verify,
}

/// A checked runbook.
#[derive(Clone, Debug)]
pub struct Runbook {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) owner: String,
    pub(crate) description: String,
    pub(crate) digest: Digest,
    pub(crate) inputs: BTreeMap<String, Input>,
    pub(crate) triggers: Vec<Trigger>,
    pub(crate) guard: Guard,
    pub(crate) diagnose: Vec<Step>,
    pub(crate) remediate: Vec<Step>,
    pub(crate) verify: Vec<Step>,
}

impl Runbook {
    /// Its path in the library, `host/disk-full`.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// One line for people.
    pub fn title(&self) -> &str {
        &self.title
    }
    /// The team that owns it.
    pub fn owner(&self) -> &str {
        &self.owner
    }
    /// Markdown, shown to approvers.
    pub fn description(&self) -> &str {
        &self.description
    }
    /// Digest of the exact bytes of the file (tag `runbook`).
    pub fn digest(&self) -> Digest {
        self.digest
    }
    /// Inputs by name.
    pub fn inputs(&self) -> &BTreeMap<String, Input> {
        &self.inputs
    }
    /// What may start it by itself.
    pub fn triggers(&self) -> &[Trigger] {
        &self.triggers
    }
    /// The limits it asks for itself.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }
    /// The steps of a phase, in order.
    pub fn steps(&self, phase: Phase) -> &[Step] {
        match phase {
            Phase::Diagnose => &self.diagnose,
            Phase::Remediate => &self.remediate,
            Phase::Verify => &self.verify,
        }
    }
}

/// One typed input.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its type, with the limits it must keep.
    pub kind: InputType,
    /// Used when no value, or an empty one, is given. Absent: the input is required.
    pub default: Option<String>,
    /// For people.
    pub description: String,
}

/// What an input may be.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the limits are named as in the language reference")]
pub enum InputType {
    String {
        pattern: Option<String>,
        max_length: usize,
    },
    Int {
        min: Option<i64>,
        max: Option<i64>,
    },
    Number {
        min: Option<f64>,
        max: Option<f64>,
    },
    Bool,
    Duration {
        min: Option<Duration>,
        max: Option<Duration>,
    },
    /// An absolute path without `..`, NUL or control characters.
    Path {
        pattern: Option<String>,
    },
    /// A host's name.
    Host,
    Enum {
        of: Vec<String>,
    },
    List {
        of: Box<InputType>,
        max_length: usize,
    },
    /// The name of a secret, never its value.
    Secret,
}

/// An `on: - alert:` entry.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// The names of the alerts, at least one and each once.
    pub alerts: Vec<String>,
    /// Evaluated by the controller over `labels` and `annotations`; absent is true.
    pub matches: Option<Expr>,
    /// Gives the host's name; absent is `labels.instance` without its port.
    pub host: Option<Expr>,
    /// Inputs from the alert; empty text takes the input's default.
    pub inputs: BTreeMap<String, Template>,
}

/// `guard:` of a runbook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// After a remediation of the same runbook on the same host, none for this long.
    pub cooldown: Option<Duration>,
    /// At most so many remediations per length of time, on one host.
    pub max_runs: Option<(u32, Duration)>,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Unique within the runbook: letters, digits, `-` and `_`.
    pub id: String,
    /// For people; the id if the runbook gives none.
    pub name: String,
    /// Where it stands.
    pub phase: Phase,
    /// `Read` in diagnose and verify.
    pub risk: Risk,
    /// Evaluated just before the step; false skips it.
    pub condition: Option<Expr>,
    /// Places, within the phase, of the earlier steps it waits for. In remediate: none, steps go in order.
    pub after: Vec<usize>,
    /// What it does.
    pub action: Action,
    /// Environment of the process, beside the fixed one.
    pub env: BTreeMap<String, Template>,
    /// Working directory; absent is `/`.
    pub cwd: Option<Template>,
    /// What a step that only reads may beyond what every such step may.
    pub sandbox: Sandbox,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Further attempts after a failed one.
    pub retry: Retry,
    /// Values it leaves for later steps.
    pub outputs: BTreeMap<String, Expr>,
    /// Whether it may start again when its outcome is unknown.
    pub repeat: Repeat,
    /// How it is made as if not done.
    pub undo: Undo,
    /// Tells, after an unknown outcome, whether the effect is there. True: present.
    pub check: Option<Expr>,
    /// What its failure means.
    pub on_failure: OnFailure,
    /// Approval the author asks for, beyond what its risk needs.
    pub approval: Option<Approval>,
    /// Values may begin with `-`.
    pub allow_leading_dash: bool,
}

impl Step {
    /// Whether it asks the host for what is written in a log. All other facts are numbers, names and states.
    pub fn reads_logs(&self) -> bool {
        let looks_for = match &self.action {
            Action::That { condition, .. } => Some(condition),
            Action::Script { .. } | Action::Argv(_) | Action::Wait(_) | Action::Service { .. } => None,
        };
        let conditions = self.condition.iter().chain(&self.check).chain(looks_for);
        conditions.chain(self.outputs.values()).any(Expr::reads_logs)
    }
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Action {
    /// `run:` with a string: given to the interpreter as a file, without any interpolation.
    Script {
        /// The exact text.
        source: String,
        /// Program and arguments; the script's path is appended. Default `/bin/sh -eu`.
        interpreter: Vec<String>,
    },
    /// `run:` with a list: no shell.
    Argv(Vec<Template>),
    /// `that:`: poll until it holds.
    That {
        /// What must hold.
        condition: Expr,
        /// How long to keep trying; zero: look once.
        within: Duration,
        /// How long it must go on holding.
        stable_for: Duration,
        /// Time between looks.
        every: Duration,
    },
    /// `wait:`: do nothing for a while.
    Wait(Duration),
    /// `service:`: one verb, one unit of systemd.
    Service {
        /// What to do with it.
        verb: Verb,
        /// Its name.
        unit: Template,
        /// The author has written that it may be an instance of a template: `@` stands in the text, or in the limits of each
        /// input that is in the name.
        instances: bool,
    },
}

/// `sandbox:` of a step that only reads: what it may beyond what every such step may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// TCP ports it may connect to, on any host; ascending, none twice.
    pub connect: Vec<u16>,
    /// `read: all`: files that only root may read, and the kernel's log. Hosts grant it to certified runbooks only.
    pub read_all: bool,
}

/// `retry:`: a delay that doubles from `first` to `longest`, at most `times` further attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// Further attempts after the first; 0 is no retry.
    pub times: u32,
    /// Before the second attempt.
    pub first: Duration,
    /// At most.
    pub longest: Duration,
}

/// `repeat:`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// May start again when its outcome is unknown.
    Safe,
    /// Starts a second time only when a person signs for it.
    Never,
}

/// `undo:`
#[derive(Clone, Debug)]
pub enum Undo {
    /// `undo: none`: there is nothing to undo, or no way to.
    None,
    /// A script or argv, as in `run:`.
    Run(Action),
    /// `undo: previous`, of a `service:` step: the unit runs, or does not, as before the step.
    Previous,
}

/// `on_failure:`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// No later step starts.
    Stop,
    /// Go on with the next step.
    Continue,
    /// Undo what is done, latest first.
    Undo,
}

/// `approval:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Groups that may approve; empty: anyone the roster lets.
    pub from: Vec<String>,
    /// How many persons.
    pub need: u32,
    /// How long the gate stays open.
    pub within: Duration,
    /// Whom to tell when nobody has decided.
    pub escalate: Option<Escalate>,
}

/// `escalate:` of an approval. It only notifies: everyone named is eligible from the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalate {
    /// After this long without a decision.
    pub after: Duration,
    /// Groups.
    pub to: Vec<String>,
}
