//! agent

pub mod message; // what the two halves say to each other
