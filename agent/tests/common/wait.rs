//! Waiting without guessing how long it takes.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Longer than anything here takes, however busy the machine is.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Looks until `look` sees what it hopes for; panics with what it saw last when that takes longer than [`LIMIT`].
#[track_caller]
pub(crate) fn eventually<T, E: Display>(what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(last) if Instant::now() >= deadline => {
                panic!("{what}: not within {LIMIT:?}; saw last:\n{last}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
