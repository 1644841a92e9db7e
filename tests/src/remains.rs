//! What a test left running: steps are meant to outlive their agents, so they must be looked for.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// Processes that have something to do with a directory (it stands in their command line or environment, or they are in
/// it), and everything beneath them.
pub fn of(directory: &Path) -> BTreeSet<i32> {
    let needle = directory.as_os_str().as_bytes();
    let mut parents = Vec::new();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let path = entry.path();
        let mentions = |file: &str| {
            fs::read(path.join(file)).is_ok_and(|text| text.windows(needle.len()).any(|part| part == needle))
        };
        let is_inside = fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
        if is_inside || mentions("cmdline") || mentions("environ") {
            found.insert(pid);
        }
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<i32>().ok());
        parents.push((pid, parent.unwrap_or_default()));
    }
    found.remove(&(std::process::id() as i32));
    loop {
        let children = parents.iter().filter(|(pid, parent)| found.contains(parent) && !found.contains(pid));
        let children: Vec<i32> = children.map(|(pid, _)| *pid).collect();
        if children.is_empty() {
            return found;
        }
        found.extend(children);
    }
}

/// Kills them.
pub fn kill(directory: &Path) {
    // Twice: something may have been starting.
    for pid in [of(directory), of(directory)].into_iter().flatten().filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}
