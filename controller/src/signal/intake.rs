//! What sources post, read into signals.
//!
//! One outside format is read: the webhook body of Alertmanager, version 4 (and 3), which Grafana's unified alerting
//! posts too. Everything else is refused with a reason that says what it looks like.
//!
//! Deliberately missing: who may post it (HTTP's affair), whether it was seen before (the coordinator's).

use crate::signal::Signal;
use crate::world::At;

/// The largest body that is read, bytes. Checked before anything is parsed.
pub const LARGEST_BODY: usize = 1024 * 1024;

/// What a body held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intake {
    /// One per alert, in the order of the body.
    pub signals: Vec<Signal>,
    /// Alerts the sender says it left out of the body.
    pub truncated: u64,
}

/// Why a body is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    /// What is the matter, for the people who run the source.
    pub why: String,
    /// What to change there.
    pub fix: String,
}

/// Reads a body that `source` posted at `received_at`.
pub fn read(_source: &str, _body: &[u8], _received_at: At) -> Result<Intake, Refused> {
    Err(Refused { why: "nothing is read yet".to_owned(), fix: String::new() })
}
