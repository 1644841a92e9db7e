//! Facts: what the agent itself reads on its host.
//!
//! Only what is asked for is read. Each fact is read on a thread of its own, within a time: a mount that hangs makes one
//! fact an error, not the agent a corpse. A fact that cannot be read is an error with its reason, never a zero.
