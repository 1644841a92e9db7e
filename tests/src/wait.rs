//! Waiting without guessing how long it takes.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Looks until `look` sees what it hopes for; panics with what it saw last when that takes longer than `limit`.
#[track_caller]
pub fn eventually<T, E: Display>(what: &str, limit: Duration, look: impl FnMut() -> Result<T, E>) -> T {
    eventually_every(Duration::from_millis(20), what, limit, look)
}

/// The same, with another pause between two looks: longer where a look costs more than coming late.
#[track_caller]
pub fn eventually_every<T, E: Display>(
    pause: Duration,
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(last) if Instant::now() >= deadline => {
                panic!("waited {limit:?} in vain until {what}; saw last:\n{last}")
            }
            Err(_) => std::thread::sleep(pause),
        }
    }
}
