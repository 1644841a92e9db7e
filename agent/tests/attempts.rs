//! Steps as real processes, under real shims, with real crashes.

#![expect(clippy::disallowed_methods, reason = "a test starts what it wants to kill")]

#[path = "common/proc.rs"]
mod proc;
#[path = "common/wait.rs"]
mod wait;
#[path = "attempts/world.rs"]
mod world;

#[path = "attempts/crash.rs"]
mod crash;
#[path = "attempts/effect.rs"]
mod effect;
#[path = "attempts/read.rs"]
mod read;
