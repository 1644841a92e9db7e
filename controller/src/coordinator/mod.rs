//! The one task that knows all stages: it decides, has the decision made durable, then acts.
//!
//! [`Handle`] is how everybody else talks to it.

mod handle;
mod policy_watch;

pub use policy_watch::watch_policy;

pub use handle::{AgentCertificate, Enrolment, Gone, Handle, Receipt, RosterInForce, RunEvents, Session};
