//! Points at which a test may kill the process, so that every recovery is tried and not merely argued.
//!
//! `FETTLE_CRASH_AT=shim.started` makes the process that reaches that point kill itself with SIGKILL, which no
//! destructor, buffer or handler survives; `shim.started#3` waits for the third time. `FETTLE_CRASH_AT=@FILE` looks for
//! the point's name in a file, and removes it when dying: one death, in whichever process gets there first. The points
//! exist in debug builds and with the cargo feature `crash-points`; in a release build [`crash_point`] is nothing.

/// Every point there is, so that a test can go through all of them and a misspelt one is noticed.
pub const POINTS: &[&str] = &[
    "journal.before-write",
    "journal.before-sync",
    "journal.after-sync",
    "journal.compact.before-sync",
    "journal.compact.before-rename",
    "journal.compact.after-rename",
    "attempt.before-prepare",
    "attempt.before-spawn",
    "attempt.after-spawn",
    "shim.born",
    "shim.before-started",
    "shim.started-unsynced",
    "shim.started",
    "shim.before-spawn",
    "shim.after-spawn",
    "shim.step-over",
    "shim.exit-unsynced",
    "shim.exit-unnamed",
    "shim.exit-undurable",
    "shim.exit-durable",
];

/// Dies here when `FETTLE_CRASH_AT` says so.
#[cfg(not(any(debug_assertions, feature = "crash-points")))]
#[inline(always)]
pub fn crash_point(_name: &'static str) {}

/// Dies here when `FETTLE_CRASH_AT` says so.
#[cfg(any(debug_assertions, feature = "crash-points"))]
pub fn crash_point(name: &'static str) {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    enum Armed {
        Here { at: String, left: AtomicU32 },
        File(PathBuf),
    }
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    let armed = ARMED.get_or_init(|| {
        let asked = std::env::var("FETTLE_CRASH_AT").ok()?;
        if let Some(file) = asked.strip_prefix('@') {
            return Some(Armed::File(file.into()));
        }
        let (at, times) = asked.split_once('#').unwrap_or((&asked, "1"));
        Some(Armed::Here { at: at.to_owned(), left: AtomicU32::new(times.parse().unwrap_or(1)) })
    });
    let dies = match armed {
        None => false,
        Some(Armed::Here { at, left }) => at == name && left.fetch_sub(1, Ordering::Relaxed) == 1,
        Some(Armed::File(file)) => {
            std::fs::read_to_string(file).is_ok_and(|at| at == name) && std::fs::remove_file(file).is_ok()
        }
    };
    if !dies {
        return;
    }
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // SIGKILL has been delivered before the call returns; this is for readers of the types.
    std::process::abort();
}
