//! Orders in, reports out: the works of an agent with a real journal and real processes, and no network.

#[path = "works/bench.rs"]
mod bench;
#[path = "common/wait.rs"]
mod wait;

#[path = "common/proc.rs"]
mod proc;
#[path = "works/cancel.rs"]
mod cancel; // people stop a run
#[path = "works/carry.rs"]
mod carry;
#[path = "works/again.rs"]
mod again; // what a restored controller is told
#[path = "works/earlier.rs"]
mod earlier; // a disk that was put back
#[path = "works/first.rs"]
mod first; // what the first version left on a disk
#[path = "works/follow.rs"]
mod follow;
#[path = "works/pause.rs"]
mod pause;
#[path = "works/refuse.rs"]
mod refuse;
#[path = "works/restart.rs"]
mod restart;
