//! Cancelled, wherever the run stands. Every state of the machines is gone through in `runbooks`; here it is real programs.

use fettle_tests::Cluster;
use fettle_tests::cluster::told;

use super::{Play, runbook};

#[test]
fn a_paused_run_is_cancelled_with_everything_that_runs_of_it() {
    let cluster = Cluster::builder().runbook(&runbook("low", "low")).agent("web-1").start();
    let play = Play::start(&cluster, "ben", "low", "web-1");
    play.began("first", 1);
    let paused = cluster.fettle("ben", &["run", "pause", &play.run, "--reason", "wait"]);
    assert!(paused.status.success(), "{}", told(&paused));
    let cancelled = cluster.fettle("ben", &["run", "cancel", &play.run]);
    assert!(cancelled.status.success(), "{}", told(&cancelled));
    cluster.until(&play.run, "waits for somebody to look", |run| run["hosts"][0]["waiting_for"] == "resolve");
    assert_eq!(play.alive(), [0; 0], "whatever left its session or its parents is dead as well");
    let again = ["run", "resolve", &play.run, "--host", "web-1", "--run-again", "--yes", "--reason", "x"];
    let again = cluster.fettle("ana", &again);
    assert_eq!(again.status.code(), Some(1), "nothing of it starts any more: {}", told(&again));
    let found = ["run", "resolve", &play.run, "--host", "web-1", "--did-not-run", "--reason", "saw it"];
    assert!(cluster.fettle("ana", &found).status.success());
    assert_eq!(cluster.ending(&play.run), "cancelled");
}

#[test]
fn an_agent_that_dies_while_it_cancels_confirms_when_it_is_back_and_names_what_it_stopped() {
    let mut cluster = Cluster::builder().runbook(&runbook("low", "low")).agent("web-1").start();
    let play = Play::start(&cluster, "ben", "low", "web-1");
    play.began("first", 1);
    let (run, dir) = (play.run.clone(), play.dir.clone());
    cluster.agent("web-1").kill();
    let cancelled = cluster.fettle("ben", &["run", "cancel", &run]);
    assert!(told(&cancelled).contains("its agent is away"), "{}", told(&cancelled));
    let asked = cluster.json("ana", &["run", "show", &run]);
    assert_eq!(asked["hosts"][0]["state"], "cancelling", "not before the host confirms: {asked:#}");
    cluster.start_agent("web-1");
    cluster.until(&run, "waits for somebody to look", |run| run["hosts"][0]["waiting_for"] == "resolve");
    let play = Play { cluster: &cluster, dir, run };
    assert_eq!(play.alive(), [0; 0]);
}

#[test]
fn a_run_whose_step_is_to_run_again_is_cancelled_and_the_step_is_still_looked_at() {
    let cluster = Cluster::builder().runbook(&runbook("high", "high")).agent("web-1").start();
    let play = Play::start(&cluster, "ana", "high", "web-1");
    let gate = cluster.gate(&play.run);
    assert!(cluster.fettle("ben", &["approve", &gate, "--yes"]).status.success());
    play.lose(play.began("first", 1));
    let again = ["run", "resolve", &play.run, "--host", "web-1", "--run-again", "--reason", "x"];
    assert_eq!(cluster.fettle("ana", &again).status.code(), Some(8));
    let asked = cluster.until(&play.run, "asks people", |run| run["hosts"][0]["again"] == true);
    let gate = asked["hosts"][0]["gate"].as_str().expect("a gate").to_owned();
    assert!(cluster.fettle("ana", &["run", "cancel", &play.run]).status.success());
    cluster.until(&play.run, "waits as one that is cancelled", |run| {
        run["hosts"][0]["waiting_for"] == "resolve" && run["hosts"][0]["again"] == false
    });
    let late = cluster.fettle("ben", &["approve", &gate, "--yes"]);
    assert_eq!(late.status.code(), Some(9), "the gate is closed: {}", told(&late));
    let found = ["run", "resolve", &play.run, "--host", "web-1", "--ran", "--reason", "saw it"];
    assert!(cluster.fettle("ana", &found).status.success());
    assert_eq!(cluster.ending(&play.run), "cancelled");
    assert_eq!(play.pids("first").len(), 1, "it never ran again");
}
