//! What travels between the parts, and what gets signed.
//!
//! Two kinds of bytes cross the wire. Messages ([`v1`]) are protobuf and may be read by whoever receives them. Signed
//! objects ([`signed`]) are JSON texts, produced once, carried verbatim, verified before they are parsed and never
//! encoded again: what a person signed is exactly what everybody sees.
//!
//! ```text
//! runbook ─ certificate ─┐
//! start ─────────────────┤            approval ┐
//!                        ├─ plan ─ leaf ─ root ┴ request ─▶ grant::check ─▶ Permit
//! trust ─ roster ────────┘
//! ```
//!
//! Everything here is a pure function of bytes: the time is an argument, and there is no randomness, no file and no
//! socket. That is what lets the host, the controller and the command line come to the same answer.

/// Messages and services of `fettle.v1`, generated from the `.proto` files beside this crate.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    reason = "generated; the comments are those of the .proto files"
)]
pub mod v1 {
    tonic::include_proto!("fettle.v1");
    pub use crate::hello::Hello;
    pub use crate::reports::{Reports, ToldAgain};
}

pub mod codec; // messages as bytes, in small buffers
pub mod hello; // the first word of an agent, counted
pub mod reports; // many at once, counted
pub mod refusal; // a "no", with its stable code
pub mod signed; // the formats people sign
pub mod merkle; // many plans under one signature
pub mod grant; // may this host act?
pub mod convert; // messages ⇄ what they mean

pub use refusal::{Code, Refusal};
