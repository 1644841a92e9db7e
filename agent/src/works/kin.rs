//! Which processes belong to a step, read from `/proc`, and how they are ended.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process};

use super::cgroup::Cgroup;

/// One living process, as `/proc/PID/stat` tells.
#[derive(Clone, Copy, Debug)]
struct Process {
    pid: i32,
    parent: i32,
    session: i32,
}

/// All living processes; zombies are not alive.
fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name, in parentheses, may hold anything, `)` and spaces as well.
            let mut rest = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
            if matches!(rest.next()?, "Z" | "X") {
                return None;
            }
            let parent = rest.next()?.parse().ok()?;
            let session = rest.nth(1)?.parse().ok()?;
            Some(Process { pid, parent, session })
        })
        .collect()
}

/// All living processes whose line of parents leads to `root`, which is not among them.
pub(crate) fn descendants(root: Pid) -> Vec<Pid> {
    below(&processes(), root.as_raw_nonzero().get())
}

fn below(all: &[Process], root: i32) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for one in all.iter().filter(|one| one.pid != root) {
        children.entry(one.parent).or_default().push(one.pid);
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(children.remove(&parent).unwrap_or_default());
        at += 1;
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}

/// What is left of a step that only reads when its keeper was killed: the processes of its session, their descendants,
/// whoever carries its marks in the environment it was started with, and everybody who is the user of its own, if it has one.
pub(crate) fn of_reader(leader: Pid, marks: &[Vec<u8>], uid: Option<u32>) -> Vec<Pid> {
    let all = processes();
    let leader = leader.as_raw_nonzero().get();
    let mut found = below(&all, leader);
    let ours = all.iter().filter(|one| {
        one.session == leader
            || uid.is_some_and(|uid| is_of(one.pid, uid))
            || std::fs::read(format!("/proc/{}/environ", one.pid)).is_ok_and(|environ| {
                marks.iter().all(|mark| environ.split(|b| *b == 0).any(|one| one == mark))
            })
    });
    found.extend(ours.filter_map(|one| Pid::from_raw(one.pid)));
    found.sort_by_key(|pid| pid.as_raw_nonzero());
    found.dedup();
    found
}

fn is_of(pid: i32, uid: u32) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|process| process.uid() == uid)
}

/// Sends a signal to each of them that is still there.
pub(crate) fn signal(pids: &[Pid], signal: Signal) {
    for pid in pids {
        let _ = kill_process(*pid, signal);
    }
}

/// Kills until `living` finds nobody any more, or gives up after `limit` (a process that waits for a dead disk cannot
/// die). Gives back whether all are gone.
pub(crate) fn kill_all(
    cgroup: Option<&Cgroup>,
    limit: Duration,
    mut living: impl FnMut() -> Vec<Pid>,
) -> bool {
    let deadline = Instant::now() + limit;
    if cgroup.is_none() {
        stop_all(Instant::now() + limit / 2, &mut living);
    }
    loop {
        if let Some(cgroup) = cgroup {
            let _ = cgroup.kill();
        }
        let found = living();
        if found.is_empty() {
            return true;
        }
        signal(&found, Signal::KILL);
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Stops them all, so that nobody forks while the others are killed: who forks faster than it is found would go on for
/// ever. The stopped count towards the limit of processes that such a step has.
fn stop_all(deadline: Instant, living: &mut impl FnMut() -> Vec<Pid>) {
    let mut stopped = BTreeSet::new();
    while Instant::now() < deadline {
        let mut found = living();
        found.retain(|pid| stopped.insert(pid.as_raw_nonzero()));
        if found.is_empty() {
            return;
        }
        signal(&found, Signal::STOP);
    }
}

/// Buries a child that has died, adopted ones included, and tells whom; to be called until there is none.
pub(crate) fn bury_one() -> Option<(Pid, WaitStatus)> {
    rustix::process::wait(WaitOptions::NOHANG).ok().flatten()
}
