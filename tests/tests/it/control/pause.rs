//! A run is held for a while: nothing that acts begins, whatever happens meanwhile.

use fettle_tests::Cluster;
use fettle_tests::cluster::told;
use serde_json::Value;

use super::{Play, runbook};

fn paused(run: &Value, confirmed: bool) -> bool {
    let pause = &run["hosts"][0]["pause"];
    pause["on"] == true && pause["confirmed"] == confirmed
}

#[test]
fn a_step_that_runs_goes_on_and_the_next_one_waits_through_restarts_until_it_is_resumed() {
    let mut cluster = Cluster::builder().runbook(&runbook("low", "low")).agent("web-1").start();
    let (run, dir) = {
        let play = Play::start(&cluster, "ben", "low", "web-1");
        play.began("first", 1);
        let stranger = cluster.fettle("wil", &["run", "pause", &play.run, "--reason", "no"]);
        assert_eq!(stranger.status.code(), Some(5), "{}", told(&stranger));
        let nowhere = cluster.fettle("ana", &["run", "pause", &play.run, "--host", "web-9", "--reason", "x"]);
        assert_eq!(nowhere.status.code(), Some(3), "{}", told(&nowhere));
        let early = cluster.fettle("ana", &["run", "resume", &play.run]);
        assert_eq!(early.status.code(), Some(1), "it is not paused: {}", told(&early));
        let said = cluster.fettle("ben", &["run", "pause", &play.run, "--reason", "wait for me"]);
        assert!(said.status.success(), "he started it: {}", told(&said));
        cluster.until(&play.run, "is paused", |run| paused(run, true));
        play.go("first");
        play.go("second");
        (play.run.clone(), play.dir.clone())
    };
    let first_ended = |run: &Value| {
        let steps = run["hosts"][0]["steps"].as_array().cloned().unwrap_or_default();
        steps.iter().any(|step| step["path"] == "remediate/first" && step["state"] == "succeeded")
    };
    cluster.until(&run, "has recorded what ran", first_ended);
    cluster.restart_agent("web-1");
    cluster.restart_controller();
    cluster.wait_for_agent("web-1");
    let play = Play { cluster: &cluster, dir, run };
    // A second pause is answered by the agent that was restarted, after whatever it would have begun.
    let shown = cluster.fettle("ana", &["run", "show", &play.run]);
    assert!(told(&shown).contains("remediating, paused"), "{}", told(&shown));
    assert!(told(&shown).contains("paused by ben: wait for me"), "{}", told(&shown));
    for words in [vec!["status"], vec!["run", "list", "--open"]] {
        let shown = cluster.fettle("ana", &words);
        assert!(told(&shown).contains("paused"), "{}", told(&shown));
    }
    assert_eq!(play.pids("second"), [0; 0], "nothing that acts began");
    let resumed = cluster.fettle("ana", &["run", "resume", &play.run]);
    assert!(resumed.status.success(), "{}", told(&resumed));
    assert_eq!(cluster.ending(&play.run), "verified");
    assert_eq!((play.pids("first").len(), play.pids("second").len()), (1, 1));
    play.told(&["ben: paused the run on web-1: wait for me", "it is paused here", "ana: let the run go on"]);
    let late = cluster.fettle("ana", &["run", "pause", &play.run, "--reason", "too late"]);
    assert_eq!(late.status.code(), Some(1), "{}", told(&late));
    assert!(told(&late).contains("ended"), "{}", told(&late));
}

#[test]
fn a_host_that_is_away_is_paused_when_it_is_back_before_it_gets_any_order() {
    let mut cluster = Cluster::builder().runbook(&runbook("high", "high")).agent("web-1").start();
    let play = Play::start(&cluster, "ben", "high", "web-1");
    let gate = cluster.gate(&play.run);
    let (run, dir) = (play.run.clone(), play.dir.clone());
    cluster.agent("web-1").kill();
    let said = cluster.fettle("ana", &["run", "pause", &run, "--reason", "not now"]);
    assert!(told(&said).contains("pause not confirmed yet"), "{}", told(&said));
    let unknown = cluster.until(&run, "is not confirmed", |run| paused(run, false));
    assert_eq!(unknown["hosts"][0]["waiting_for"], "gate", "the gate stays open: {unknown:#}");
    let approved = cluster.fettle("ana", &["approve", &gate, "--yes"]);
    assert!(approved.status.success(), "people can decide meanwhile: {}", told(&approved));
    cluster.start_agent("web-1");
    cluster.until(&run, "is confirmed", |run| paused(run, true));
    let play = Play { cluster: &cluster, dir, run };
    assert_eq!(play.pids("first"), [0; 0], "it was approved, and waits");
    play.go("first");
    play.go("second");
    let resumed = cluster.fettle("ben", &["run", "resume", &play.run, "--host", "web-1"]);
    assert!(resumed.status.success(), "{}", told(&resumed));
    assert_eq!(cluster.ending(&play.run), "verified");
}

#[test]
fn a_pause_extends_no_approval() {
    let policy = serde_json::json!({
        "modes": [{ "runbook": "*", "mode": "auto" }],
        "gates": { "decide_within": "6s", "start_within": "1s" },
    });
    let cluster = Cluster::builder().runbook(&runbook("high", "high")).agent("web-1").policy(policy).start();
    let play = Play::start(&cluster, "ben", "high", "web-1");
    cluster.gate(&play.run);
    let paused = cluster.fettle("ben", &["run", "pause", &play.run, "--reason", "not now"]);
    assert!(paused.status.success(), "{}", told(&paused));
    assert_eq!(cluster.ending(&play.run), "expired");
    assert_eq!(play.pids("first"), [0; 0]);
}
