//! agent

pub mod message; // what the two halves say to each other
pub mod works; // carries orders out; never opens a socket

pub use works::shim::shim_if_asked;
