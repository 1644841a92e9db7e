//! Steps that print, fork and eat without end.

use std::fs;
use std::time::{Duration, Instant};

use fettle_tests::Cluster;
use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::eventually;
use fettle_tests::memory::{self, highest};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat, open};
use rustix::io::write;

use super::host::{Fence, QUICK, over, processes, runbook, start, step, version_2, with};

#[test]
fn a_step_that_prints_gibibytes_leaves_its_ends_and_a_number() {
    let flood: u64 = 2 << 30;
    let pour = format!("echo FIRST; sleep 2; yes 0123456789abcde | head -c {flood}; echo LAST");
    let mut cluster = with(&[runbook("flood", &pour, &pour, "3m")]);
    let agent = cluster.agent("web-1").pid();
    let controller = cluster.controller().pid();
    let before = [agent, controller].map(highest);
    let run = start(&cluster, "sick/flood");
    eventually("it pours", LIMIT, || if processes(&run).is_empty() { Err("nothing") } else { Ok(()) });
    looks_meanwhile(&cluster);
    over(&cluster, &run, "diagnose/look");
    let mut shim = 0;
    eventually("the remediation is over", 4 * LIMIT, || {
        for pid in shims(&run) {
            shim = shim.max(memory::of(pid, "VmHWM:").unwrap_or_default());
        }
        let act = step(&cluster, &run, "remediate/act");
        if act["state"] == "succeeded" { Ok(()) } else { Err(format!("{act:#}\n{}", cluster.said())) }
    });
    assert_eq!(cluster.ending(&run), "verified");
    let logs = cluster.json("ana", &["logs", &run]);
    let poured = |step: &&serde_json::Value| step["path"] != "verify/fine";
    let steps: Vec<_> = logs.as_array().expect("steps are a list").iter().filter(poured).collect();
    assert_eq!(steps.len(), 2, "{logs:#}");
    for step in steps {
        let text = step["stdout"]["text"].as_str().expect("it is text");
        assert!(text.starts_with("FIRST\n") && text.ends_with("LAST\n"), "{}", step["path"]);
        assert_eq!(step["stdout"]["dropped_bytes"], flood + 11 - 64 * 1024, "{}", step["path"]);
    }
    let spooled = size_of(&cluster.path("web-1/attempts"));
    let after = [agent, controller].map(highest);
    println!(
        "agent and controller: {before:?} MiB before, {after:?} MiB at most; shim: {shim} MiB at most; on the disk: {spooled} bytes"
    );
    assert!(
        after[0] < before[0] + 32 && after[1] < before[1] + 64,
        "MiB: {before:?} before, {after:?} at most"
    );
    assert!(shim < 24, "{shim} MiB");
    assert!(spooled < (16 << 20) + (1 << 20), "{spooled} bytes");
}

/// The shims of a run.
fn shims(run: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
                let line = String::from_utf8_lossy(&line).into_owned();
                line.starts_with("fettle-shim") && line.contains(run)
            })
        })
        .collect()
}

fn size_of(folder: &std::path::Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size_of(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Forks for ever, all of it in sessions of its own, deaf to TERM; takes every place that becomes free.
const BOMB: &str = r#"exec perl -MPOSIX -e '$SIG{TERM} = "IGNORE";
while (1) { if (defined fork) { setsid() } else { select undef, undef, undef, 0.3 } }'"#;

/// Many that were forked twice, each in a session of its own, deaf to TERM.
const CROWD: &str = r#"exec perl -MPOSIX -e '$SIG{TERM} = "IGNORE"; $| = 1;
for (1 .. MANY) { my $p = fork; next unless defined $p; if (!$p) { setsid(); exit if fork; sleep 1000; exit } waitpid $p, 0 }
print "all born\n"; sleep 1000'"#;

#[test]
fn a_step_that_forks_without_end_is_ended_whole_and_the_host_answers_meanwhile() {
    let many = 10_000;
    let crowd = CROWD.replace("MANY", &many.to_string());
    let mut cluster = with(&[runbook("bomb", BOMB, "true", "3s"), runbook("crowd", "true", &crowd, "5m")]);
    let agent = cluster.agent("web-1").pid();
    let controller = cluster.controller().pid();
    let before = [agent, controller].map(highest);
    // One that only reads has a limit, and its time.
    let bomb = start(&cluster, "sick/bomb");
    let mut most = 0;
    eventually("the bomb is at its limit", LIMIT, || {
        most = most.max(processes(&bomb).len());
        if most > 900 { Ok(()) } else { Err(format!("{most} processes\n{}", cluster.said())) }
    });
    looks_meanwhile(&cluster);
    over(&cluster, &bomb, "diagnose/look");
    let left = processes(&bomb);
    assert!(left.is_empty() && most <= 1024 + 1, "{most} at most, {left:?} left");
    // What cannot be seen is no reason not to go on.
    assert_eq!(cluster.ending(&bomb), "verified");
    println!("a bomb that only reads: {most} processes at most, none left");

    // One that acts is its approvers' affair; a cancel ends all of it.
    if !fettle_has_groups() {
        eprintln!("NOT RUN: without control groups of version 2, so many processes end one by one");
        return;
    }
    let crowd = start(&cluster, "sick/crowd");
    eventually("all are born", 6 * LIMIT, || {
        let spool = fs::read_dir(cluster.path("web-1/attempts")).into_iter().flatten().flatten();
        let said = spool.filter(|entry| entry.file_name().to_string_lossy().starts_with(&crowd));
        let born = said.filter(|entry| {
            fs::read_to_string(entry.path().join("stdout")).is_ok_and(|text| text.contains("all born"))
        });
        if born.count() > 0 { Ok(()) } else { Err(cluster.said()) }
    });
    let born = processes(&crowd).len();
    assert!(born > many, "{born}");
    looks_meanwhile(&cluster);
    let cancelled = cluster.fettle("ana", &["run", "cancel", &crowd, "--reason", "too many"]);
    assert!(cancelled.status.success(), "{}", told(&cancelled));
    eventually("none is left", LIMIT + Duration::from_secs(15), || match processes(&crowd).len() {
        0 => Ok(()),
        left => Err(format!("{left} left\n{}", cluster.said())),
    });
    println!("{born} processes of a step that acts, none left");
    assert!(cluster.agent("web-1").runs());
    assert_eq!(cluster.agent("web-1").pid(), agent);
    // The cancelled run waits for a person who looks, and the host is its until then; diagnosis goes on.
    looks_meanwhile(&cluster);
    let after = [agent, controller].map(highest);
    println!("agent and controller: {before:?} MiB before, {after:?} MiB at most");
    assert!(
        after[0] < before[0] + 32 && after[1] < before[1] + 64,
        "MiB: {before:?} before, {after:?} at most"
    );
}

/// Another run on the same host is not held up for long.
#[track_caller]
fn looks_meanwhile(cluster: &Cluster) {
    let began = Instant::now();
    let quick = start(cluster, QUICK);
    let looked = over(cluster, &quick, "diagnose/look");
    assert_eq!(looked["state"], "succeeded", "{looked:#}");
    println!("another run looked within {:?}", began.elapsed());
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
}

fn fettle_has_groups() -> bool {
    ["/sys/fs/cgroup/unified/fettle", "/sys/fs/cgroup/fettle"]
        .iter()
        .any(|path| fs::exists(path).unwrap_or_default())
}

#[test]
fn a_fence_of_control_groups_of_version_2_is_around_the_steps_as_well() {
    let acts = "grep ^0:: /proc/self/cgroup";
    let mut cluster = with(&[runbook("where", "true", acts, "20s")]);
    let root = version_2().ok_or(std::io::ErrorKind::NotFound.into());
    let fence = match root.and_then(|root| Fence::of_version_2(&mut cluster, &root)) {
        Ok(fence) => fence,
        Err(error) => {
            eprintln!("NOT RUN: this host offers no control groups of version 2 ({error})");
            return;
        }
    };
    let run = start(&cluster, "sick/where");
    assert_eq!(over(&cluster, &run, "remediate/act")["state"], "succeeded");
    let logs = cluster.json("ana", &["logs", &run]).to_string();
    assert!(logs.contains(&format!("0::/{}/fettle/step-", fence.name())), "{logs}");
}

#[test]
fn memory_that_runs_out_costs_the_step_and_neither_agent_nor_shim() {
    let eat = r#"cat /proc/self/oom_score_adj; exec perl -e '$x = "a" x (1 << 20); push @y, $x . $_ for 1 .. 4000; sleep 9'"#;
    let mut cluster =
        with(&[runbook("eat-look", eat, "true", "60s"), runbook("eat-act", "true", eat, "60s")]);
    let Some(fence) = Fence::around(&mut cluster, "memory") else { return };
    let agent = cluster.agent("web-1").pid();
    fence.limit_memory("256M");
    for (runbook, path, score) in
        [("sick/eat-look", "diagnose/look", "500"), ("sick/eat-act", "remediate/act", "0")]
    {
        let run = start(&cluster, runbook);
        let ended = over(&cluster, &run, path);
        assert_eq!(ended["state"], "failed", "{ended:#}");
        assert!(ended.to_string().contains("for want of memory"), "{ended:#}");
        cluster.ending(&run);
        let logs = cluster.json("ana", &["logs", &run]).to_string();
        assert!(logs.contains(&format!("\"{score}\\n\"")), "{logs}");
        let who = cluster.agent("web-1");
        assert!(who.runs() && who.pid() == agent, "{}", who.said());
    }
    let adjusted = fs::read_to_string(format!("/proc/{agent}/oom_score_adj")).expect("it runs");
    // Not every root may.
    assert!(["-500", "0"].contains(&adjusted.trim()), "{adjusted}");
    let quick = start(&cluster, QUICK);
    assert_eq!(cluster.ending(&quick), "verified");
}

#[test]
fn a_host_without_free_processes_runs_nothing_says_so_and_recovers_by_itself() {
    let directory = tempfile::Builder::new().prefix("fettle-test-").tempdir().expect("a directory");
    let pipe = directory.path().join("pipe");
    mkfifoat(CWD, &pipe, Mode::RWXU).expect("a pipe can be made");
    // The shell needs no other process to wait, and to end.
    let waits = format!("read -r word < {}; echo \"$word\"", pipe.display());
    let mut cluster = with(&[runbook("waits", "true", &waits, "2m")]);
    let Some(fence) = Fence::around(&mut cluster, "pids") else { return };
    let agent = cluster.agent("web-1").pid();
    let full = |fence: &Fence| fence.limit_processes(&fence.processes().to_string());
    let current = || fence.processes();
    let idle = current();
    let acts = start(&cluster, "sick/waits");
    let flags = OFlags::WRONLY | OFlags::NONBLOCK;
    let pipe = eventually("the step reads", LIMIT, || open(&pipe, flags, Mode::empty()));
    full(&fence);
    // What ends meanwhile is written down and told, and verified by what needs no process.
    write(&pipe, b"done\n").expect("the step reads");
    assert_eq!(over(&cluster, &acts, "remediate/act")["state"], "succeeded");
    assert_eq!(cluster.ending(&acts), "verified");
    eventually("all of it has ended", LIMIT, || match current() {
        now if now <= idle => Ok(()),
        now => Err(format!("{now} instead of {idle}")),
    });
    full(&fence);
    let run = start(&cluster, QUICK);
    let ended = over(&cluster, &run, "diagnose/look");
    assert!(ended.to_string().contains("Resource temporarily unavailable"), "{ended:#}");
    assert_eq!(cluster.ending(&run), "failed");
    // The connection comes back, too, once there is a thread for asking where the controller is.
    cluster.restart_controller();
    eventually("the agent finds no thread to look for its controller with", LIMIT, || {
        let said = cluster.agent("web-1").said();
        if said.contains("Resource temporarily unavailable") { Ok(()) } else { Err(said) }
    });
    assert!(cluster.agent("web-1").runs(), "{}", cluster.said());
    fence.limit_processes("max");
    cluster.wait_for_agent("web-1");
    assert_eq!(cluster.agent("web-1").pid(), agent);
    // So few that a supervisor is born, and its step is not.
    let mut seen = Vec::new();
    for more in 0..4 {
        let run = {
            fence.limit_processes(&(current() + more).to_string());
            start(&cluster, QUICK)
        };
        let ending = cluster.ending(&run);
        seen.push((more, ending.clone()));
        assert!(["failed", "verified"].contains(&ending.as_str()), "{seen:?}\n{}", cluster.said());
        fence.limit_processes("max");
    }
    println!("endings by processes that were free: {seen:?}");
    let run = start(&cluster, QUICK);
    assert_eq!(cluster.ending(&run), "verified");
    assert_eq!(cluster.agent("web-1").pid(), agent);
}
