//! The language and the engine.
//!
//! A runbook is [`read`], checked, and becomes a [`runbook::Runbook`], which there is no other way to get. Its `remediate`
//! phase is rendered once into a plan, whose bytes people approve and hosts run. Two pure state machines move it: one
//! driven by the controller, one by the agent.
//!
//! Deliberately missing from this crate: time, tasks, sockets, files, processes and randomness. Whatever is needed of
//! them comes in as data and goes out as an effect; that is what lets the tests, the simulation and recovery drive the
//! same code that hosts run.

pub mod id; // what things are called
pub mod duration; // lengths of time, as written
pub mod unit; // units of systemd
pub mod value; // what inputs, outputs and facts are made of
pub mod problem; // what is wrong, where, and what to write instead
mod yaml; // bytes to a tree that knows where it stands
mod draft; // the tree as a runbook that may be wrong everywhere
mod check; // … and everything that is wrong with it
pub mod expr; // conditions and values
pub mod template; // text with values in it
pub mod runbook; // a runbook that passed every check
pub mod input; // what is given to it from outside
pub mod plan; // what remediation would do, exactly
pub mod follow; // … when it goes on from a run that is over
pub mod segment; // how a host carries part of it out
pub mod run; // and how all of it moves on one host
pub mod detect; // how late an alert can be that starts it
#[cfg(test)]
mod table; // the machines as documentation

use problem::Problem;
use runbook::Runbook;

/// A runbook that passed every check, and what a person should still look at.
#[derive(Clone, Debug)]
pub struct Read {
    /// The runbook.
    pub runbook: Runbook,
    /// None of them an error.
    pub warnings: Vec<Problem>,
}

/// Reads the bytes of a runbook file and checks them; reports every problem at once, warnings included.
pub fn read(bytes: &[u8]) -> Result<Read, Vec<Problem>> {
    check::read(bytes)
}
