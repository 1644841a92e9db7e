//! The language and the engine.
//!
//! A runbook is read ([`draft`]), checked ([`check`]) and becomes a [`Runbook`], which there is no other way to get. Its
//! A runbook is read, checked, and becomes a [`runbook::Runbook`], which there is no other way to get. Its `remediate`
//! phase is rendered once into a plan, whose bytes people approve and hosts run. Two pure state machines move it: one
//! driven by the controller, one by the agent.
//!
//! Deliberately missing from this crate: time, tasks, sockets, files, processes and randomness. Whatever is needed of
//! them comes in as data and goes out as an effect; that is what lets the tests, the simulation and recovery drive the
//! same code that hosts run.

pub mod id; // what things are called
pub mod value; // what inputs, outputs and facts are made of
pub mod expr; // conditions and values
pub mod template; // text with values in it
pub mod runbook; // a runbook that passed every check
pub mod plan; // what remediation would do, exactly
pub mod segment; // how a host carries part of it out
pub mod run; // and how all of it moves on one host
