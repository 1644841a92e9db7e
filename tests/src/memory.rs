//! What a program holds in memory, as its kernel counts, MiB.

use std::fs;

/// Now.
#[track_caller]
pub fn resident(pid: u32) -> u64 {
    of(pid, "VmRSS:").expect("it runs")
}

/// At most, since it began or since [`forget_highest`].
#[track_caller]
pub fn highest(pid: u32) -> u64 {
    of(pid, "VmHWM:").expect("it runs")
}

/// What it held before counts no more for the most that it holds.
#[track_caller]
pub fn forget_highest(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("it runs, and is ours");
}

/// One of the kernel's numbers, by its name in `/proc/PID/status`; none, if it does not run.
pub fn of(pid: u32, which: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(which))?;
    Some(line.trim().split(' ').next()?.parse::<u64>().ok()? / 1024)
}
