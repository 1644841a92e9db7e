//! Living with change: what is upgraded, restarted, reloaded or restored goes on, loses nothing and does nothing twice.
//!
//! As in [`crate::crash`], a *ledger* tells what really happened: each step appends a line to it, and waits for a file before it
//! goes on where a test wants to hold it.

mod backup; // the store is copied while it is written to, and put back
mod online; // … again and again, while alerts pour in
mod drain; // the controller ends and comes back with everything open
mod load; // policy and library change while alerts pour in
mod upgrade; // the agent's program is another one
mod versions; // command line and controller are one version apart
mod between; // … by whoever stands between them

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use fettle_tests::alerts::firing;
use fettle_tests::cluster::LIMIT;
use fettle_tests::programs::binary;
use fettle_tests::{Cluster, eventually};
use serde_json::Value;

/// A step that needs nobody, and one that needs a person.
const STEPS: &str = r#"fettle: 1
runbook: change/steps
title: Two steps that leave a line each
owner: tests
inputs:
  dir: { type: path }
on:
  - alert: Change
    host: labels.instance
    inputs: { dir: "${{ labels.dir }}" }
diagnose:
  - id: look
    run: [echo, looked]
remediate:
  - id: low
    risk: low
    run: |
      until [ -e "$DIR/go-low" ]; do sleep 0.02; done
      echo low >> "$DIR/ledger"
      echo low is done
    env: { DIR: "${{ inputs.dir }}" }
    repeat: never
    undo: none
  - id: high
    risk: high
    run: |
      until [ -e "$DIR/go-high" ]; do sleep 0.02; done
      echo high >> "$DIR/ledger"
    env: { DIR: "${{ inputs.dir }}" }
    repeat: never
    undo: none
    approval: { from: [on-call], need: 1, within: 20m }
verify:
  - id: both
    that: file(inputs.dir + "/ledger").exists
    within: 5s
"#;

/// One step, that tells its process and is held.
const ALONE: &str = r#"fettle: 1
runbook: change/alone
title: A step that takes as long as it is told
owner: tests
inputs:
  dir: { type: path }
diagnose:
  - id: look
    run: [echo, looked]
remediate:
  - id: alone
    risk: low
    run: |
      echo $$ >> "$DIR/pid"
      until [ -e "$DIR/go" ]; do sleep 0.02; done
      echo alone >> "$DIR/ledger"
    env: { DIR: "${{ inputs.dir }}" }
    repeat: never
    undo: none
verify:
  - id: done
    that: file(inputs.dir + "/ledger").exists
    within: 5s
"#;

/// One run of [`STEPS`]: its folder, and what happens in it.
struct Story<'c> {
    cluster: &'c Cluster,
    dir: PathBuf,
    run: String,
}

impl<'c> Story<'c> {
    /// An alert comes in. The steps named are held until told to go.
    #[track_caller]
    fn begin(cluster: &'c Cluster, name: &str, held: &[&str]) -> Story<'c> {
        let dir = cluster.path(&format!("stories/{name}"));
        fs::create_dir_all(&dir).expect("a folder can be made");
        let story = Story { cluster, run: String::new(), dir: dir.clone() };
        ["low", "high"].iter().filter(|step| !held.contains(step)).for_each(|step| story.go(step));
        let run = cluster
            .fire_body(&firing("Change", &[("instance", "web-1"), ("dir", &dir.display().to_string())]));
        Story { run, ..story }
    }

    fn go(&self, step: &str) {
        fs::write(self.dir.join(format!("go-{step}")), "").expect("a file can be written");
    }

    /// Approves, and it must work.
    #[track_caller]
    fn approve(&self, gate: &str) {
        let output = self.cluster.fettle("ana", &["approve", gate, "--yes", "--reason", "seen"]);
        assert!(output.status.success(), "{}", fettle_tests::cluster::told(&output));
    }
}

/// A command of the controller's own program, with the cluster's configuration.
fn controller(cluster: &Cluster, arguments: &[&str]) -> Output {
    let (command, rest) = arguments.split_first().expect("a command");
    Command::new(binary("fettle-controller"))
        .args([command, "--config"])
        .arg(cluster.path("controller.yaml"))
        .args(rest)
        .output()
        .expect("fettle-controller can be run")
}

/// Folds the controller's whole history and compares it with its tables; the controller must have ended.
#[track_caller]
fn history_gives_the_tables(cluster: &Cluster) {
    let store = fettle_controller::store::Sqlite::open(&cluster.path("controller/store")).expect("a store");
    let differences = fettle_controller::store::check_fold(&store).expect("it can be read");
    assert!(differences.is_empty(), "{differences:#?}");
}

/// A run of one host, as people see it once it is as wanted.
#[track_caller]
fn until(cluster: &Cluster, run: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("the run {what}"), LIMIT, || {
        let output = cluster.fettle("ana", &["run", "show", run, "-o", "json"]);
        let seen: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if wanted(&seen["hosts"][0]) { Ok(seen) } else { Err(format!("{seen:#}\n{}", cluster.said())) }
    })
}
