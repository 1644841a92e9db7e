//! The controller: takes signals in, decides what they ask for, dispatches it, and holds risky actions until people agree.
//!
//! Modules stand in the order in which an alert meets them. A stage may import types of the stages before it, never
//! after it; only the coordinator sees all of them.

pub mod world; // time and randomness, handed in
pub mod problem; // why a caller does not get what it asked for
pub mod crash; // where tests may kill us
pub mod tasks; // every long-lived task, and what its death means
pub mod policy; // what this organisation lets happen by itself

pub mod signal; // something is wrong
pub mod trigger; // … and these runbooks are about such things
pub mod incident; // … which people track, with three clocks
pub mod guard; // … unless a limit says no
pub mod gate; // … and only if people agree

pub mod model; // what is true now
pub mod store; // what survives us

pub mod run; // so we are doing it
pub mod dispatch; // … on that host
pub mod outcome; // … which says how it went
pub mod evidence; // … what a person needs who is woken up
pub mod report; // … and this is what happened
pub mod notify; // … which people are told

pub mod coordinator; // the one task that knows all of the above

pub mod ca; // who is whom
pub mod tls; // … proven on every connection
pub mod share; // … and how many at once, from where
pub mod accept; // connections in
pub mod grpc; // … and which service they reach
pub mod agents; // hosts: joining, control streams, live output

pub mod metrics; // what is counted
pub mod metered; // … of the store
pub mod library; // the folder of runbooks, and the roster
pub mod http; // signals in, and what monitors read
pub mod api; // what people's clients call
pub mod config; // what it needs to know before it starts
mod args; // how it is started
mod keep; // … to back its store up, or to put it back
mod life; // from start to stop

pub use args::main_with;
