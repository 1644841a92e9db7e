//! The language and the engine.
//!
//! A runbook is read ([`draft`]), checked ([`check`]) and becomes a [`Runbook`], which there is no other way to get. Its
//! `remediate` phase is rendered once into a [`plan`], whose bytes people approve and hosts run. Two pure state machines
//! move it: [`run`], driven by the controller, and [`segment`], driven by the agent.
//!
//! Deliberately missing from this crate: time, tasks, sockets, files, processes and randomness. Whatever is needed of
//! them comes in as data and goes out as an effect; that is what lets the tests, the simulation and recovery drive the
//! same code that hosts run.

pub mod id;         // what things are called
pub mod value;      // what inputs, outputs and facts are made of
pub mod runbook;    // a runbook that passed every check
