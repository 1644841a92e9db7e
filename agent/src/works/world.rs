//! What the works cannot know by themselves: how late it is, which boot this is, and chance.
//!
//! The driver asks for none of these but through [`World`], so that a simulation can tell it other ones.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::clock;

/// Clocks, the boot they belong to, and chance.
pub trait World: Send + Sync + fmt::Debug + 'static {
    /// Time that nobody can set, since some moment of this process's life; timers are set by it.
    fn monotonic(&self) -> Duration;
    /// Time since boot, suspend included.
    fn since_boot(&self) -> Duration;
    /// The wall clock, milliseconds since the Unix epoch.
    fn wall_ms(&self) -> i64;
    /// The kernel's name for this boot.
    ///
    /// # Errors
    /// When the kernel does not tell.
    fn boot_id(&self) -> io::Result<String>;
    /// Fills `bytes` so that nobody can guess them.
    ///
    /// # Errors
    /// When the kernel has none.
    fn random(&self, bytes: &mut [u8]) -> io::Result<()>;
}

/// This host's.
#[derive(Debug)]
pub(super) struct HostWorld {
    began: Instant,
}

impl HostWorld {
    pub(super) fn new() -> HostWorld {
        HostWorld { began: Instant::now() }
    }
}

impl World for HostWorld {
    fn monotonic(&self) -> Duration {
        self.began.elapsed()
    }

    fn since_boot(&self) -> Duration {
        clock::since_boot()
    }

    fn wall_ms(&self) -> i64 {
        clock::wall_ms()
    }

    fn boot_id(&self) -> io::Result<String> {
        clock::boot_id()
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string()))
    }
}
