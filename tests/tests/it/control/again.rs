//! Nobody knows what became of a step: a person says that it ran, that it did not, or has it run again.

use fettle_tests::Cluster;
use fettle_tests::cluster::told;

use super::{Play, runbook};

fn resolve<'a>(play: &'a Play<'_>, found: &'a str) -> Vec<&'a str> {
    let words = ["run", "resolve", &play.run, "--host", "web-1", "--step", "remediate/first", found];
    [&words[..], &["--reason", "I looked"]].concat()
}

#[test]
fn a_step_of_low_risk_runs_again_when_the_person_who_looked_signs_and_the_rest_follows() {
    let cluster = Cluster::builder().runbook(&runbook("low", "low")).agent("web-1").start();
    let play = Play::start(&cluster, "ana", "low", "web-1");
    play.lose(play.began("first", 1));

    let shown = cluster.fettle("ana", &["run", "show", &play.run]);
    assert!(told(&shown).contains("--run-again --reason"), "{}", told(&shown));
    let stranger = cluster.fettle("ben", &resolve(&play, "--run-again"));
    assert_eq!(stranger.status.code(), Some(5), "{}", told(&stranger));

    // She started the run herself; nobody would have to approve it.
    let again = cluster.fettle("ana", &[&resolve(&play, "--run-again")[..], &["--yes"]].concat());
    assert!(again.status.success(), "{}", told(&again));
    let words = told(&again).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("remediate/first attempt 1 MAY HAVE RUN"),
        "it is on her screen: {}",
        told(&again)
    );
    play.began("first", 2);
    play.go("first");
    play.go("second");
    assert_eq!(cluster.ending(&play.run), "verified");
    assert_eq!((play.pids("first").len(), play.pids("second").len()), (2, 1));
    play.told(&[
        "ana: wants remediate/first to run again after attempt 1: I looked",
        "ana: approved: I looked",
        "remediate/first (attempt 2) started",
    ]);
}

#[test]
fn a_risky_step_runs_again_when_those_sign_who_had_to_approve_it_and_a_no_leaves_it_unknown() {
    let cluster = Cluster::builder().runbook(&runbook("high", "high")).agent("web-1").start();
    let play = Play::start(&cluster, "ana", "high", "web-1");
    let gate = cluster.gate(&play.run);
    let approved = cluster.fettle("ben", &["approve", &gate, "--yes"]);
    assert!(approved.status.success(), "{}", told(&approved));
    play.lose(play.began("first", 1));

    // She asked for the run, so she may not approve it; the gate is open for others.
    let again = cluster.fettle("ana", &[&resolve(&play, "--run-again")[..], &["--yes"]].concat());
    assert_eq!(again.status.code(), Some(8), "{}", told(&again));
    let asked = cluster.until(&play.run, "asks people", |run| run["hosts"][0]["again"] == true);
    let gate = asked["hosts"][0]["gate"].as_str().expect("a gate").to_owned();
    assert!(told(&again).contains(&format!("fettle approve {gate}")), "{}", told(&again));
    let twice = cluster.fettle("ana", &resolve(&play, "--run-again"));
    assert_eq!(twice.status.code(), Some(1), "{}", told(&twice));

    let no = cluster.fettle("rosa", &["reject", &gate, "--reason", "it is not idempotent"]);
    assert!(no.status.success(), "{}", told(&no));
    let still = cluster.until(&play.run, "waits as before", |run| run["hosts"][0]["again"] == false);
    assert_eq!(still["hosts"][0]["waiting_for"], "resolve", "{still:#}");

    let again = cluster.fettle("ana", &resolve(&play, "--run-again"));
    assert_eq!(again.status.code(), Some(8), "there is no terminal: {}", told(&again));
    let asked = cluster.until(&play.run, "asks people anew", |run| run["hosts"][0]["again"] == true);
    let gate = asked["hosts"][0]["gate"].as_str().expect("a gate").to_owned();
    let approved = cluster.fettle("ben", &["approve", &gate, "--yes"]);
    assert!(told(&approved).contains("MAY HAVE RUN"), "{}", told(&approved));
    play.began("first", 2);
    play.go("first");
    play.go("second");
    assert_eq!(cluster.ending(&play.run), "verified");
    assert_eq!(play.pids("first").len(), 2);
}

#[test]
fn what_a_person_says_they_found_ends_the_run_without_a_later_step() {
    let cluster = Cluster::builder().runbook(&runbook("low", "low")).agent("web-1").start();
    for (found, ending) in [("--ran", "unverified"), ("--did-not-run", "failed")] {
        let play = Play::start(&cluster, "ana", "low", "web-1");
        play.lose(play.began("first", 1));
        let resolved = cluster.fettle("ana", &resolve(&play, found));
        assert!(resolved.status.success(), "{}", told(&resolved));
        assert_eq!(cluster.ending(&play.run), ending, "{found}");
        assert_eq!((play.pids("first").len(), play.pids("second").len()), (1, 0), "{found}");
    }
}
