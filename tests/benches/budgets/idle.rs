//! What the programs cost while nothing happens.

use std::time::Duration;

use fettle_tests::alerts::firing;
use fettle_tests::{Cluster, eventually, remains};

use crate::{marker, table};

const WATCHED: Duration = Duration::from_secs(30);

const RUNBOOK: &str = r#"fettle: 1
runbook: bench/sleep
title: Sleep
owner: benches
on:
  - alert: Bench
    host: labels.instance
remediate:
  - id: sleep
    risk: low
    run: [sleep, "600"]
    repeat: safe
    undo: none
verify:
  - id: alive
    that: load.one >= 0.0
"#;

pub(crate) fn measure() {
    let mut cluster = Cluster::builder().runbook(RUNBOOK).agent("web-1").start();
    let (agent, controller) = (cluster.agent("web-1").pid(), cluster.controller().pid());
    // The first connection's buffers come and go.
    std::thread::sleep(Duration::from_secs(2));
    let before = (on_cpu(agent), on_cpu(controller), marker::now());
    std::thread::sleep(WATCHED);
    let passed = (marker::now() - before.2).as_secs_f64();
    let part = |pid, before: Duration| 100.0 * (on_cpu(pid).saturating_sub(before)).as_secs_f64() / passed;
    let (agent_cpu, controller_cpu) = (part(agent, before.0), part(controller, before.1));
    let idle = Memory::of(agent);
    table::line("agent, connected and idle", idle);
    table::line("controller, one agent, idle", Memory::of(controller));
    table::line("controller CPU, idle", format!("{controller_cpu:.4} % of a core"));

    let answer = cluster.post(&firing("Bench", &[("instance", "web-1")]));
    assert!((200..300).contains(&answer.status), "{answer:?}");
    let shim =
        eventually("a shim watches over the step", Duration::from_secs(30), || shim(&cluster).ok_or("none"));
    std::thread::sleep(Duration::from_millis(500));
    let shim = Memory::of(shim);
    table::line("shim, while its step sleeps", shim);
    table::line("agent, while a step runs", Memory::of(agent));
    table::at_most("agent idle, resident", idle.resident / 1024.0, 8.0, "MiB");
    table::at_most("agent idle, CPU", agent_cpu, 0.05, "% of a core");
    table::at_most("shim, resident", shim.resident / 1024.0, 2.0, "MiB");
}

/// Time that all threads of a process were on a core.
fn on_cpu(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    let of = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    let nanoseconds: Vec<u64> = tasks.filter_map(of).collect();
    Duration::from_nanos(nanoseconds.iter().sum())
}

/// The one process below the cluster's that has a step and is none.
fn shim(cluster: &Cluster) -> Option<u32> {
    let all = remains::of(&cluster.path("")).into_iter();
    let mut shims = all.filter(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.starts_with(b"fettle-shim\0")
    });
    shims.next().map(|pid| pid as u32)
}

/// What `/proc/PID/smaps_rollup` says, in KiB.
#[derive(Clone, Copy)]
struct Memory {
    resident: f64,
    proportional: f64,
    anonymous: f64,
}

impl Memory {
    fn of(pid: u32) -> Memory {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it lives");
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix(" kB"));
            line.and_then(|number| number.trim().parse().ok()).unwrap_or(f64::NAN)
        };
        Memory { resident: field("Rss:"), proportional: field("Pss:"), anonymous: field("Anonymous:") }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |kib: f64| kib / 1024.0;
        write!(
            f,
            "resident {:.2} MiB, its own and its share of what is shared {:.2}, anonymous {:.2}",
            mib(self.resident),
            mib(self.proportional),
            mib(self.anonymous)
        )
    }
}
