//! The agent: one per host. It dials its controller, carries out what people have approved, and remembers what it did.
//!
//! Two halves that share nothing but [`message`]:
//!
//! ```text
//! controller ◀── TLS ── link ◀── message ──▶ works ──▶ journal, shims, steps
//!                 never starts a process     never speaks to the network
//! ```

pub mod args; // how it is started
pub mod config; // what it is told
pub mod chain; // how it says what went wrong
pub mod identity; // who it is
pub mod join; // how it came to be that
pub mod link; // the connection to the controller
pub mod crash; // where tests may kill it
pub mod message; // what the two halves say to each other
pub mod works; // carries orders out; never speaks to the network
mod life; // from start to stop

pub use args::main_with;
pub use works::shim::shim_if_asked;
