//! Carries orders out: verifies, journals, executes. Never speaks to the network, but for what a fact asks.

pub mod policy; // what this host refuses whoever asks
pub mod record; // what it must not forget …
pub mod journal; // … and where it keeps that
pub mod facts; // what it reads by itself
pub mod output; // what a step wrote
pub mod attempt; // one start of one step
pub mod sandbox; // steps that only read can do nothing else
pub mod shim; // the process that watches over a step that acts
pub mod recovery; // what became of an attempt nobody watched
pub mod clock; // when, and in which boot
pub mod handle; // how the connection talks to all of this
pub mod hands; // the host, as the works need it
pub mod world; // what the works cannot know by themselves
mod spool; // what the controller has not acknowledged
mod orders; // may this host do what the order asks?
mod follow; // … and of a run that goes on from an earlier one
mod here; // what it knows of one run
pub mod engine; // the works without their threads
mod driver; // what everything that happens comes to
mod carry; // a segment being carried out
mod cancel; // people stop a run, for good
mod pause; // people hold a run for a while
mod restore; // going on after a restart …
mod earlier; // … from what may be an earlier disk
mod again; // what a controller that has forgotten is told
mod place; // the directory of one attempt
mod launch; // from a rendered step to a process
mod service; // the process of a step that does something with a unit …
mod systemd; // … and how one speaks with systemd
mod oom; // whom the kernel ends first
mod kin; // which processes belong to a step
pub mod cgroup; // … named by the kernel
mod unix; // the only unsafe code
pub mod disk; // so that it is there after a power failure
mod ballast; // … and space for it on a disk that is full
mod base64_bytes;

pub use driver::StartError;
pub use handle::{Config, Handle, Works, spawn};
pub(crate) use oom::go_last;
