//! What a test left running: steps are meant to outlive their agents, so they must be looked for.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// Processes that have something to do with a directory (it stands in their command line or environment, or they are in
/// it), and everything beneath them.
pub fn of(directory: &Path) -> BTreeSet<i32> {
    of_any(&[directory])
}

/// The same for any of several directories.
pub fn of_any(directories: &[&Path]) -> BTreeSet<i32> {
    let mut parents = Vec::new();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let path = entry.path();
        let [command, environment] =
            ["cmdline", "environ"].map(|file| fs::read(path.join(file)).unwrap_or_default());
        let cwd = fs::read_link(path.join("cwd")).unwrap_or_default();
        let is_of = |directory: &&Path| {
            let named = directory.as_os_str().as_bytes();
            cwd.starts_with(directory) || mentions(&command, named) || mentions(&environment, named)
        };
        if directories.iter().any(is_of) {
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

/// Whether bytes are in a text. Looked for by the last of them, for these are debug builds and the texts are many.
fn mentions(text: &[u8], wanted: &[u8]) -> bool {
    let mut skip = [wanted.len(); 256];
    for (place, byte) in wanted.iter().enumerate().take(wanted.len().saturating_sub(1)) {
        skip[usize::from(*byte)] = wanted.len() - 1 - place;
    }
    let mut end = wanted.len();
    while end <= text.len() {
        if &text[end - wanted.len()..end] == wanted {
            return true;
        }
        end += skip[usize::from(text[end - 1])];
    }
    false
}

/// Kills them.
pub fn kill(directory: &Path) {
    // Twice: something may have been starting.
    for pid in [of(directory), of(directory)].into_iter().flatten().filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}
