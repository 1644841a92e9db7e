//! A host whose memory another program eats: nothing of ours.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use fettle_tests::cluster::LIMIT;
use fettle_tests::{Cluster, eventually};
use rustix::process::{Pid, Signal, kill_process_group};

use super::host::{Fence, QUICK, over, runbook, start, with};

/// An alert starts it. Each phase has a program of its own.
fn on_alert(name: &str, act: &str) -> String {
    let alert = format!("on:\n  - alert: {name}\n    host: labels.instance\ndiagnose:");
    runbook(&name.to_lowercase(), "grep MemFree /proc/meminfo", act, "60s").replace("diagnose:", &alert)
}

/// Another program, and what it has started. It is ended with its owner.
struct Other(Child);

impl Other {
    /// Runs a script inside the fence.
    fn inside(fence: &Fence, script: &str) -> Other {
        let script = format!("echo $$ > {}/cgroup.procs && {script}", fence.at().display());
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        Other(shell.spawn().expect("a shell can be run"))
    }

    /// Waits until all of it have what they want: then they say so.
    #[track_caller]
    fn are_full(&mut self, so_many: usize) {
        let stdout = self.0.stdout.as_mut().expect("it has an output");
        let said: Vec<String> = BufReader::new(stdout).lines().take(so_many).map_while(Result::ok).collect();
        assert_eq!(said, vec!["full"; so_many]);
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let _ = kill_process_group(group.expect("it had a number"), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Eats so many MiB, and then `then`.
fn eats(mebibytes: u32, then: &str) -> String {
    format!(r#"perl -e '$| = 1; push @y, ("a" x (1 << 20)) . $_ for 1 .. {mebibytes}; {then}'"#)
}

/// An alert starts a run there, and it ends well: each step ran, how it ended is known, and so is what it printed.
#[track_caller]
fn goes_well(cluster: &Cluster, alert: &str) {
    let run = cluster.fire(alert, &[("instance", "web-1")]);
    assert_eq!(cluster.ending(&run), "verified", "{:#}", cluster.json("ana", &["run", "show", &run]));
    for path in ["diagnose/look", "remediate/act"] {
        assert_eq!(over(cluster, &run, path)["state"], "succeeded");
    }
    let logs = cluster.json("ana", &["logs", &run]).to_string();
    assert!(logs.contains("MemFree") && logs.contains("acted\\n"), "{logs}");
}

/// So many processes hold it, each of them little, so that the kernel ends a step that wants too much before any of them.
const HOLDERS: usize = 40;

#[test]
fn a_host_whose_memory_others_hold_carries_out_what_there_is_memory_for_and_says_what_there_is_not() {
    let hungry = eats(96, r#"print "acted\n""#);
    let mut cluster = with(&[on_alert("Eaten", "echo acted"), on_alert("Hungry", &hungry)]);
    let Some(fence) = Fence::around(&mut cluster, "memory") else { return };
    let agent = cluster.agent("web-1").pid();
    // Nothing of it outlives this test, however that ends.
    let holds = eats(4, &format!(r#"print "full\n"; sleep 1 while kill 0, {}"#, std::process::id()));
    let mut others = Other::inside(&fence, &format!("for n in $(seq {HOLDERS}); do {holds} & done; wait"));
    others.are_full(HOLDERS);
    for left in [64, 32, 16, 8, 4] {
        fence.leave(left);
        let before = fence.killed();
        goes_well(&cluster, "Eaten");
        assert_eq!(fence.killed(), before, "{left} MiB are enough");
        // As long as there is so much that the step is the largest of all when there is no more.
        if left >= 32 {
            let run = cluster.fire("Hungry", &[("instance", "web-1")]);
            let act = over(&cluster, &run, "remediate/act");
            assert_eq!(act["state"], "failed", "{act:#}");
            assert!(act.to_string().contains("for want of memory"), "{act:#}");
            assert_eq!(cluster.ending(&run), "failed");
            assert_eq!(fence.killed(), before + 1, "nobody but the step was ended");
        }
    }
    let who = cluster.agent("web-1");
    assert!(who.runs() && who.pid() == agent, "{}", who.said());
    drop(others);
    // What did not help twice only a person starts.
    let by_hand = start(&cluster, "sick/hungry");
    assert_eq!(cluster.ending(&by_hand), "verified");
}

#[test]
fn a_host_whose_memory_another_program_eats_up_over_and_over_carries_out_runs_meanwhile() {
    let mut cluster = with(&[on_alert("Eaten", "sleep 2; echo acted")]);
    let Some(fence) = Fence::around(&mut cluster, "memory") else { return };
    let agent = cluster.agent("web-1").pid();
    fence.limit_memory("256M");
    {
        let eats = eats(4000, "");
        let script = format!("while kill -0 {}; do {eats}; done 2> /dev/null", std::process::id());
        let _other = Other::inside(&fence, &script);
        eventually("the kernel ends it for the first time", LIMIT, || match fence.killed() {
            0 => Err("it is not full yet"),
            _ => Ok(()),
        });
        for _ in 0..3 {
            let before = fence.killed();
            goes_well(&cluster, "Eaten");
            println!("the kernel ended {} of the others meanwhile", fence.killed() - before);
            assert!(fence.killed() > before, "it was under pressure all the time");
        }
    }
    let who = cluster.agent("web-1");
    assert!(who.runs() && who.pid() == agent, "{}", who.said());
    let quick = start(&cluster, QUICK);
    assert_eq!(cluster.ending(&quick), "verified");
}
