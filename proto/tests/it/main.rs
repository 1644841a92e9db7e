//! What travels and what gets signed, from outside: golden bytes, `ssh-keygen`, the check of grants, properties.

mod golden; // formats do not drift
mod grants; // who may make a host act
mod properties; // for all bytes
mod ssh_keygen; // the other implementation agrees
mod wire; // messages do not drift
mod world; // persons, keys, a plan, a gate
