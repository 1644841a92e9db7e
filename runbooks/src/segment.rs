//! What a segment of a host run is and how it moves.

use serde::{Deserialize, Serialize};

/// How a segment ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What ended it.
    pub how: How,
    /// What `verify` said, when it ran.
    pub verification: Verification,
    /// Whether any remediate step of this segment was started.
    pub effects: bool,
    /// Whether finished steps were undone, and how that went.
    pub undoing: Undoing,
}

/// What ended a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// All its steps were done or skipped.
    Done,
    /// A step that needs approval was reached, its `if` held, and there was no permit.
    Gate {
        /// The step.
        path: String,
    },
    /// A step failed and the runbook says to stop.
    Failed {
        /// The step.
        path: String,
        /// For people.
        reason: String,
    },
    /// It cannot be told whether a step took effect.
    Unknown {
        /// The step.
        path: String,
        /// Which attempt of it.
        attempt: u32,
        /// For people.
        reason: String,
    },
    /// The host was told to stop.
    Stopped {
        /// For people.
        reason: String,
    },
}

/// What `verify` said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verification {
    /// It did not run.
    NotRun,
    /// The symptom is gone.
    Passed,
    /// It is still there.
    Failed,
}

/// Whether finished steps were undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undoing {
    /// Nothing was asked to be undone.
    None,
    /// Everything that has an undo is undone.
    Done,
    /// An undo failed.
    Failed,
}
