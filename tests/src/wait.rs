//! Waiting without guessing how long it takes.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Looks until `look` sees what it hopes for; panics with what it saw last when that takes longer than `limit`.
#[track_caller]
pub fn eventually<T, E: Display>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(last) if Instant::now() >= deadline => {
                panic!("waited {limit:?} in vain until {what}; saw last:\n{last}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
