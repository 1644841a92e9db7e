//! A process that says when it began.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Builds it into a directory. It is C, because that starts faster than anything that links this workspace, and because
/// where Rust links there is a C compiler.
pub(crate) fn build(directory: &Path) -> PathBuf {
    let program = directory.join("marker");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/budgets/marker.c");
    let status = Command::new("cc").args(["-O2", "-o"]).arg(&program).arg(source).status();
    assert!(status.expect("cc can be run").success(), "the marker does not compile");
    program
}

/// The clock that markers read.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// When the processes that marked this file began, so far.
pub(crate) fn read(file: &Path) -> Vec<Duration> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter_map(|line| line.parse().ok()).map(Duration::from_nanos).collect()
}

/// Spawns a marker and waits for it: how long until it began, and until it was over.
pub(crate) fn spawn_and_wait(program: &Path, file: &Path) -> (Duration, Duration) {
    let before = now();
    let mut child = Command::new(program)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a marker starts");
    child.wait().expect("a marker ends");
    let over = now() - before;
    let began = read(file).last().copied().expect("a marker marks");
    (began.saturating_sub(before), over)
}
