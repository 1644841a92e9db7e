//! People hold a run, stop it, or let a step run again that may have run.
//!
//! The stage of these tests is here. What a step really did is told by a file to which each of its attempts appends its process id.

mod anywhere; // what each way of stepping in answers in each state
mod again; // after an outcome that nobody knows
mod cancel; // at every turn
mod pause; // and resume

use std::fs;
use std::path::PathBuf;

use fettle_tests::cluster::LIMIT;
use fettle_tests::{Cluster, eventually};
use rustix::process::{Pid, Signal, kill_process};

/// Two steps, the first of this risk. Each waits until its file `go-STEP` is there.
fn runbook(name: &str, risk: &str) -> String {
    let step = |id: &str, risk: &str| {
        format!(
            r#"  - id: {id}
    risk: {risk}
    timeout: 30m
    run: |
      echo $$ >> "$DIR/{id}"
      setsid sh -c 'echo $$ >> "$DIR/all"; exec sleep 3003' &
      ( sleep 3002 & echo $! >> "$DIR/all" )
      echo $$ >> "$DIR/all"
      until [ -e "$DIR/go-{id}" ]; do sleep 0.02; done
      touch "$DIR/{id}.done"
    env: {{ DIR: "${{{{ inputs.dir }}}}" }}
    repeat: never
    undo: none
"#
        )
    };
    format!(
        r#"fettle: 1
runbook: control/{name}
title: Two steps that wait
owner: tests
inputs:
  dir: {{ type: path }}
diagnose:
  - id: look
    that: memory.total_bytes > 0
remediate:
{}{}verify:
  - id: done
    that: file(inputs.dir + "/second.done").exists
"#,
        step("first", risk),
        step("second", "low"),
    )
}

/// One run of it.
struct Play<'c> {
    cluster: &'c Cluster,
    dir: PathBuf,
    run: String,
}

impl<'c> Play<'c> {
    /// A person starts it on a host.
    #[track_caller]
    fn start(cluster: &'c Cluster, person: &str, name: &str, host: &str) -> Play<'c> {
        let dir = cluster.path(&format!("plays/{}", uuid::Uuid::now_v7()));
        fs::create_dir_all(&dir).expect("a folder can be made");
        let (input, runbook) = (format!("dir={}", dir.display()), format!("control/{name}"));
        let said = cluster.json(person, &["start", &runbook, "--host", host, "-i", &input, "--detach"]);
        let run = said["run"].as_str().or(said["id"].as_str()).expect("a start names its run").to_owned();
        Play { cluster, dir, run }
    }

    /// Lets a step end.
    fn go(&self, step: &str) {
        fs::write(self.dir.join(format!("go-{step}")), "").expect("a file can be written");
    }

    /// The process ids of a step's attempts; of `all`: of everything that ever ran.
    fn pids(&self, of: &str) -> Vec<i32> {
        let text = fs::read_to_string(self.dir.join(of)).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Waits until so many attempts of a step have begun, and everything that the last one starts runs.
    #[track_caller]
    fn began(&self, step: &str, attempts: usize) -> i32 {
        eventually(&format!("attempt {attempts} of {step} runs"), LIMIT, || {
            let pids = self.pids(step);
            match pids.last() {
                Some(pid) if pids.len() == attempts && self.alive().len() >= 3 => Ok(*pid),
                Some(_) | None => Err(format!("{pids:?}\n{}", self.cluster.said())),
            }
        })
    }

    /// What of it runs now.
    fn alive(&self) -> Vec<i32> {
        let runs = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| !text.is_empty());
        self.pids("all").into_iter().filter(runs).collect()
    }

    /// Kills the supervisor of a running step, so that nobody sees its end.
    #[track_caller]
    fn lose(&self, pid: i32) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the step runs");
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        let shim = parent.and_then(Pid::from_raw).expect("it has a parent");
        kill_process(shim, Signal::KILL).expect("it can be killed");
        self.cluster.until(&self.run, "waits for somebody to look", |run| {
            run["hosts"][0]["waiting_for"] == "resolve"
        });
    }

    /// What `fettle watch` tells of it.
    fn story(&self) -> String {
        let story = self.cluster.fettle("ana", &["watch", &self.run]);
        String::from_utf8_lossy(&story.stdout).into_owned()
    }

    #[track_caller]
    fn told(&self, all: &[&str]) {
        let story = self.story();
        for said in all {
            assert!(story.contains(said), "`{said}` is not in:\n{story}");
        }
    }
}
