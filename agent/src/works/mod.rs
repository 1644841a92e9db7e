//! Carries orders out: verifies, journals, executes. Never opens a socket.

pub mod policy; // what this host refuses whoever asks
pub mod record; // what it must not forget …
pub mod journal; // … and where it keeps that
pub mod facts; // what it reads by itself
pub mod output; // what a step wrote
pub mod attempt; // one start of one step
pub mod shim; // the process that watches over a step that acts
pub mod recovery; // what became of an attempt nobody watched
pub mod clock; // when, and in which boot
pub mod crash; // where tests may kill us
mod disk; // so that it is there after a power failure
mod base64_bytes;
