//! The shipped runbooks, against what they are for: a real Debian under a real systemd is broken, and healed; and what they
//! must not do is tried on them.
//!
//! The agent is a unit of that systemd, so that everything is where it is on a host: the journal, the package cache, `/var`.
//! Only root can boot one; elsewhere each test says that it did not run.

mod deleted;
mod disk;
mod inodes;
mod memory;
mod scene;
mod services;
mod triggers;
