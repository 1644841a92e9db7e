//! Steps as real processes, under real shims, with real crashes.

#[path = "attempts/world.rs"]
mod world;

#[path = "attempts/crash.rs"]
mod crash;
#[path = "attempts/effect.rs"]
mod effect;
#[path = "attempts/read.rs"]
mod read;
