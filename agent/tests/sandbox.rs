//! What steps that only read may not do, tried by steps that do nothing else: as root's agent starts them, and as an
//! ordinary user's.

#![expect(clippy::disallowed_methods, reason = "a test starts what others try to harm")]

#[path = "sandbox/place.rs"]
mod place;
#[path = "common/proc.rs"]
mod proc;
#[path = "sandbox/tries.rs"]
mod tries;
#[path = "common/wait.rs"]
mod wait;

#[path = "sandbox/escapes.rs"]
mod escapes;
#[path = "sandbox/files.rs"]
mod files;
#[path = "sandbox/network.rs"]
mod network;
#[path = "sandbox/processes.rs"]
mod processes;
#[path = "sandbox/useful.rs"]
mod useful;
