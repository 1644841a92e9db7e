//! A controller in a thief's hands, against a real agent.
//!
//! The thief has everything a controller has: its certificate authority, its TLS key, its database, every signature it
//! ever saw. It speaks to a real agent process and orders what it likes. Each test is a kind of attack; every row says
//! which code the host answers with, the thing that would show success never appears, and the same rig with people's
//! honest consent makes it appear, so that these tests can fail.
//!
//! What the thief *can* do is written in `docs/security.md`.

mod thief; // who speaks to the agent
mod raid; // … and the runs it invents

mod again; // what may have run, run again
mod approvals; // consent that is none
mod certificates; // files that nobody reviewed
mod going_on; // … from runs that are over, unasked
mod identity; // hosts under another's name
mod orders; // orders out of place
mod reads; // code that only pretends to read
mod rosters; // other people
mod starts; // wishes that nobody had
