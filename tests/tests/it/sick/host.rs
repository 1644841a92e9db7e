//! One host with a runbook that misbehaves, and what its kernel limits.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fettle_tests::cluster::LIMIT;
use fettle_tests::programs::binary;
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

/// Around the agent of `web-1` and all that it starts, a control group. Of version 1, into which what the agent starts is born; or,
/// where there is none of that, of version 2, which the agent takes for the whole of them, so that its attempts' groups are below.
pub(super) struct Fence {
    at: PathBuf,
    version: u8,
}

impl Fence {
    /// One that can limit `memory` or `pids`. None, and loud, where there is none to be had.
    pub(super) fn around(cluster: &mut Cluster, controller: &str) -> Option<Fence> {
        let first = Path::new("/sys/fs/cgroup").join(controller);
        let offers = |group: &Path| {
            let all = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
            all.split_whitespace().any(|one| one == controller)
        };
        let second = version_2().filter(|root| offers(root));
        let made = match (first.is_dir(), second) {
            (true, _) => Fence::of_version_1(cluster, &first),
            (false, Some(root)) => fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"))
                .and_then(|()| Fence::of_version_2(cluster, &root)),
            (false, None) => Err(std::io::ErrorKind::NotFound.into()),
        };
        made.inspect_err(|error| {
            eprintln!("NOT RUN: only root can limit {controller}, and with control groups ({error})");
        })
        .ok()
    }

    fn of_version_1(cluster: &mut Cluster, above: &Path) -> std::io::Result<Fence> {
        let pid = cluster.agent("web-1").pid();
        let at = above.join(format!("fettle-test-{pid}"));
        fs::create_dir(&at)?;
        let fence = Fence { at, version: 1 };
        fs::write(fence.at.join("cgroup.procs"), pid.to_string())?;
        Ok(fence)
    }

    /// Starts the agent anew, where nothing is above the fence.
    pub(super) fn of_version_2(cluster: &mut Cluster, above: &Path) -> std::io::Result<Fence> {
        let agent = cluster.agent("web-1");
        let at = above.join(format!("fettle-test-{}", agent.pid()));
        agent.stop();
        fs::create_dir(&at)?;
        let fence = Fence { at, version: 2 };
        let (at, above) = (fence.at.display(), above.display());
        let program = binary("fettle-agent");
        let script = format!(
            "#!/bin/sh\necho $$ > {at}/cgroup.procs &&\nexec unshare --mount --propagation private sh -c \
             'mount --bind {at} {above} && exec {} \"$@\"' sh \"$@\"\n",
            program.display()
        );
        let starter = cluster.path("fenced-agent");
        fs::write(&starter, script)?;
        fs::set_permissions(&starter, fs::Permissions::from_mode(0o755))?;
        cluster.start_agent_from("web-1", &starter);
        Ok(fence)
    }

    /// So much memory, and no swap where there is some.
    pub(super) fn limit_memory(&self, most: &str) {
        match self.version {
            1 => {
                self.set("memory.limit_in_bytes", most);
                // Not every kernel counts swap.
                let _ = fs::write(self.at.join("memory.memsw.limit_in_bytes"), most);
            }
            _ => {
                self.set("memory.max", most);
                let _ = fs::write(self.at.join("memory.swap.max"), "0");
            }
        }
    }

    /// Lets there be so many MiB beside what is held now. What is only kept of files gives way.
    pub(super) fn leave(&self, mebibytes: u64) {
        let (all, of_files) = match self.version {
            1 => ("memory.usage_in_bytes", "cache"),
            _ => ("memory.current", "file"),
        };
        let all: u64 = self.text(all).trim().parse().expect("a number");
        let held = all - self.number("memory.stat", of_files);
        self.limit_memory(&(held + (mebibytes << 20)).to_string());
    }

    /// How many the kernel has ended for want of memory.
    pub(super) fn killed(&self) -> u64 {
        let file = if self.version == 1 { "memory.oom_control" } else { "memory.events" };
        self.number(file, "oom_kill")
    }

    /// Where it is.
    pub(super) fn at(&self) -> &Path {
        &self.at
    }

    /// So many processes and threads; `max`: as many as there are to be had.
    pub(super) fn limit_processes(&self, most: &str) {
        self.set("pids.max", most);
    }

    /// How many processes and threads there are.
    pub(super) fn processes(&self) -> u32 {
        self.text("pids.current").trim().parse().expect("a number")
    }

    /// What it is called.
    pub(super) fn name(&self) -> String {
        self.at.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.at.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    fn number(&self, file: &str, name: &str) -> u64 {
        let text = self.text(file);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{file} has no {name}: {text}"))
    }

    fn set(&self, file: &str, value: &str) {
        fs::write(self.at.join(file), value).unwrap_or_else(|error| panic!("{file} = {value}: {error}"));
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        if self.version == 2 {
            let _ = fs::write(self.at.join("cgroup.kill"), "1");
            let deadline = Instant::now() + LIMIT;
            while !removed(&self.at) && Instant::now() < deadline {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            return;
        }
        // Only an empty one can be removed.
        let above = self.at.parent().expect("it is in another").join("cgroup.procs");
        for pid in fs::read_to_string(self.at.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(&above, pid);
        }
        let _ = fs::remove_dir(&self.at);
    }
}

/// Removes a group and those below it; false while something is in one.
fn removed(group: &Path) -> bool {
    let below = fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in below.filter(|path| path.is_dir()) {
        removed(&path);
    }
    fs::remove_dir(group).is_ok()
}

/// Where control groups of version 2 are, if they are.
pub(super) fn version_2() -> Option<PathBuf> {
    let mut roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].into_iter().map(PathBuf::from);
    roots.find(|root| root.join("cgroup.controllers").is_file())
}
