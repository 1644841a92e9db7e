//! One host with a runbook that misbehaves, and what its kernel limits.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fettle_tests::cluster::LIMIT;
use fettle_tests::{Builder, Cluster, eventually};
use serde_json::Value;

/// A runbook of one step to diagnose and one to remediate; whatever comes of them is fine.
pub(super) fn runbook(name: &str, diagnose: &str, remediate: &str, timeout: &str) -> String {
    let indent = |script: &str| script.lines().map(|line| format!("      {line}\n")).collect::<String>();
    format!(
        "fettle: 1
runbook: sick/{name}
title: Misbehave
owner: tests
diagnose:
  - id: look
    run: |
{}    timeout: {timeout}
remediate:
  - id: act
    risk: low
    run: |
{}    timeout: {timeout}
    repeat: never
    undo: none
verify:
  - id: fine
    that: memory.total_bytes > 0
    within: 2s
",
        indent(diagnose),
        indent(remediate)
    )
}

/// The runbook whose steps do nothing at all.
pub(super) const QUICK: &str = "sick/quick";

/// A cluster of one host, `web-1`, that knows these runbooks, and [`QUICK`].
pub(super) fn with(runbooks: &[String]) -> Cluster {
    let quick = runbook("quick", "true", "true", "20s");
    let all = runbooks.iter().fold(Cluster::builder().runbook(&quick), |all: Builder, one| all.runbook(one));
    all.agent("web-1").start()
}

/// A person starts a runbook on it.
#[track_caller]
pub(super) fn start(cluster: &Cluster, runbook: &str) -> String {
    let started = cluster.json("ana", &["start", runbook, "--host", "web-1", "--detach"]);
    started["run"].as_str().expect("a start names its run").to_owned()
}

/// What is told of a step so far.
pub(super) fn step(cluster: &Cluster, run: &str, path: &str) -> Value {
    let shown = cluster.json("ana", &["run", "show", run]);
    let steps = shown["hosts"][0]["steps"].as_array().cloned().unwrap_or_default();
    steps.into_iter().rfind(|step| step["path"] == path).unwrap_or_default()
}

/// Waits until a step is over, and gives back what is told of it.
#[track_caller]
pub(super) fn over(cluster: &Cluster, run: &str, path: &str) -> Value {
    eventually(&format!("{path} is over"), 4 * LIMIT, || {
        let step = step(cluster, run, path);
        match step["state"].as_str() {
            None | Some("pending" | "running" | "waiting" | "started") => {
                Err(format!("{step:#}\n{}", cluster.said()))
            }
            Some(_) => Ok(step),
        }
    })
}

/// The processes of a run, whoever is their parent.
pub(super) fn processes(run: &str) -> BTreeSet<i32> {
    let mark = format!("FETTLE_RUN={run}");
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|text| text.split(|byte| *byte == 0).any(|one| one == mark.as_bytes()))
        })
        .collect()
}

/// What a program has held in memory at most, MiB.
pub(super) fn highest(pid: u32) -> u64 {
    memory(pid, "VmHWM:").expect("it runs")
}

/// One of the numbers that the kernel tells about a process's memory, MiB.
pub(super) fn memory(pid: u32, which: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(which))?;
    Some(line.trim().split(' ').next()?.parse::<u64>().ok()? / 1024)
}

/// A control group of version 1 around a program, which what it starts is born into. It goes away at the end.
pub(super) struct Fence(PathBuf);

impl Fence {
    /// Around a process. None, and loud, where there is none to be had.
    pub(super) fn around(controller: &str, pid: u32) -> Option<Fence> {
        let name = format!("fettle-test-{pid}");
        let at = Path::new("/sys/fs/cgroup").join(controller).join(name);
        let made = fs::create_dir(&at).and_then(|()| fs::write(at.join("cgroup.procs"), pid.to_string()));
        if let Err(error) = made {
            eprintln!(
                "NOT RUN: only root can limit {controller}, with control groups of version 1 ({error})"
            );
            return None;
        }
        Some(Fence(at))
    }

    pub(super) fn set(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).unwrap_or_else(|error| panic!("{file} = {value}: {error}"));
    }

    pub(super) fn get(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).expect("it can be read").trim().to_owned()
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        // Only an empty one can be removed.
        let above = self.0.parent().expect("it is in another").join("cgroup.procs");
        for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(&above, pid);
        }
        let _ = fs::remove_dir(&self.0);
    }
}
