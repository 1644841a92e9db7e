//! Points at which a test may kill the process, so that every recovery is tried and not merely argued.
//!
//! `FETTLE_CRASH_AT=store.after-commit#3` makes the process kill itself with SIGKILL, which no destructor, buffer or
//! handler survives, when it gets there for the third time. The points exist in debug builds; in a release build
//! [`crash_point`] is nothing. The agent has points of its own.

/// Every point there is, so that a test can go through all of them.
pub const POINTS: &[&str] = &[
    // Decided, not durable.
    "store.before-commit",
    // Durable, and nobody knows.
    "store.after-commit",
    // The coordinator knows, and has neither answered, acknowledged nor sent.
    "coordinator.before-effects",
    // All of that is done.
    "coordinator.after-effects",
];

/// Dies here when `FETTLE_CRASH_AT` says so.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn crash_point(_name: &'static str) {}

/// Dies here when `FETTLE_CRASH_AT` says so.
#[cfg(debug_assertions)]
pub(crate) fn crash_point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static ARMED: OnceLock<Option<(String, AtomicU32)>> = OnceLock::new();

    let armed = ARMED.get_or_init(|| {
        let asked = std::env::var("FETTLE_CRASH_AT").ok()?;
        let (at, times) = asked.split_once('#').unwrap_or((&asked, "1"));
        Some((at.to_owned(), AtomicU32::new(times.parse().unwrap_or(1))))
    });
    let Some((at, left)) = armed else { return };
    if at != name || left.fetch_sub(1, Ordering::Relaxed) != 1 {
        return;
    }
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // SIGKILL has been delivered before the call returns; this is for readers of the types.
    std::process::abort();
}
