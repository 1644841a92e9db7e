//! What became of an attempt, read from what its shim left.

use super::attempt::Ended;

/// What became of an attempt that was intended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is over; this is its result.
    Exit(Box<Ended>),
    /// Its shim lives: [re-attach](super::attempt::Attempts::reattach).
    Running,
    /// No process of it was ever born: it may be started now.
    NotStarted,
    /// It was started, and nobody saw its end.
    Unknown(Unknown),
}

/// An attempt that was started and left no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Why it cannot be told, for people.
    pub reason: String,
    /// Whether something of it may still run.
    pub dead: Dead,
}

/// Whether an attempt without a result is over at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dead {
    /// Nothing of it runs: its control group is empty, or the host has rebooted since.
    Certainly,
    /// It has a control group, and something in it runs: [`bury`](super::attempt::Attempts::bury) can end it.
    StillRunning,
    /// It had no control group, so nobody can tell.
    NotKnown,
}
