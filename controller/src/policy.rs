//! What this organisation lets happen by itself: read from files, reloaded when they change.

use std::collections::BTreeMap;
use std::time::Duration;

/// The policy in force. Its default lets nothing happen by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Who may post signals, by name.
    pub sources: BTreeMap<String, Source>,
}

/// A source of signals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// SHA-256 of its bearer token.
    pub token_sha256: [u8; 32],
    /// How long its alerts take to come, if it says: the rule's `for` and the evaluation interval.
    pub onset: Option<Onset>,
}

/// What a source declares about its own delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Onset {
    /// The rule's `for`.
    pub held_for: Duration,
    /// The interval between evaluations.
    pub interval: Duration,
}
