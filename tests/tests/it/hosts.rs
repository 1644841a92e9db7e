//! How hosts come and go: tokens, joining, revocation.

use std::fs;
use std::path::Path;
use std::process::Output;

use fettle_agent::works::journal::Journal;
use fettle_agent::works::record::Record;
use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::programs::{Program, binary};
use fettle_tests::{Cluster, eventually};

/// What `fettle-agent` says when the controller refuses it.
const REFUSED: i32 = 5;

#[track_caller]
fn token(cluster: &Cluster, arguments: &[&str]) -> String {
    let made = cluster.json("ana", &[&["agent", "token", "create"], arguments].concat());
    made["token"].as_str().expect("a token is text").to_owned()
}

#[track_caller]
fn refused(output: &Output, words: &str) {
    assert_eq!(output.status.code(), Some(REFUSED), "{}", told(output));
    assert!(told(output).contains(words), "`{words}` is missing: {}", told(output));
}

fn state_of(cluster: &Cluster, host: &str) -> String {
    let shown = cluster.json("ana", &["agent", "show", host]);
    shown["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_token_is_spent_once_in_time_by_a_host_that_knows_the_controller() {
    let cluster = Cluster::builder().start();
    let root = cluster.root_fingerprint();
    let good = token(&cluster, &["web-1", "--label", "role=web"]);
    // A wrong fingerprint is found out before the token is shown, and costs nothing.
    let stranger = format!("sha256:{}", "0".repeat(64));
    let output = cluster.join_with("web-1", &good, &stranger);
    assert_eq!(output.status.code(), Some(REFUSED), "{}", told(&output));
    assert!(!cluster.path("web-1/identity/cert.pem").exists());
    let output = cluster.join_with("web-1", "not a token", &root);
    assert!(matches!(output.status.code(), Some(2 | REFUSED)), "{}", told(&output));
    refused(&cluster.join_with("web-1", &format!("{}0000", &good[..good.len() - 4]), &root), "not known");

    let output = cluster.join_with("web-1", &good, &root);
    assert!(output.status.success(), "{}", told(&output));
    refused(&cluster.join_with("web-2", &good, &root), "spent");
    let twice = cluster.join_with("web-1", &good, &root);
    assert_eq!(twice.status.code(), Some(3), "a host joins once: {}", told(&twice));

    let short = token(&cluster, &["web-3", "--valid", "1ms"]);
    refused(&cluster.join_with("web-3", &short, &root), "expired");
    for (arguments, code) in [(["web 3", "--valid", "1h"], 2), (["web-3", "--valid", "8d"], 2)] {
        let output = cluster.fettle("ana", &[&["agent", "token", "create"], &arguments[..]].concat());
        assert_eq!(output.status.code(), Some(code), "{}", told(&output));
    }
    // The token's name is the host's, whatever the host calls itself.
    let shown = cluster.json("ana", &["agent", "show", "web-1"]);
    assert_eq!(shown["labels"]["role"], "web", "{shown:#}");
    // Nothing secret is told to others on the host.
    let log = fs::read_to_string(cluster.path("controller.log")).unwrap_or_default();
    assert!(!log.contains(&good), "the token is in the controller's log");
}

#[test]
fn a_revoked_certificate_stays_refused_after_a_restart_and_after_the_host_joined_again() {
    let mut cluster = Cluster::builder().agent("web-1").start();
    copy(&cluster.path("web-1"), &cluster.path("stolen"));
    let output = cluster.fettle("ana", &["agent", "revoke", "web-1", "--reason", "lost"]);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(state_of(&cluster, "web-1"), "revoked");
    cluster.agent("web-1").kill();

    turned_away(&cluster, "stolen", 1);
    cluster.restart_controller();
    turned_away(&cluster, "stolen", 2);

    // The host itself, made anew, joins under its old name with a token of its own.
    fs::remove_dir_all(cluster.path("web-1")).expect("it is ours");
    cluster.join("web-1", &[]);
    cluster.start_agent("web-1");
    assert_eq!(state_of(&cluster, "web-1"), "connected");
    turned_away(&cluster, "stolen", 3);
    assert_eq!(state_of(&cluster, "web-1"), "connected", "the thief throws nobody out");
    cluster.restart_controller();
    turned_away(&cluster, "stolen", 4);
    eventually("the host is back after the restart", LIMIT, || {
        let state = state_of(&cluster, "web-1");
        if state == "connected" { Ok(()) } else { Err(state) }
    });
}

/// Its risky step leaves a line.
const LEDGER: &str = r#"fettle: 1
runbook: test/ledger
title: One risky step that leaves a line
owner: tests
inputs:
  file: { type: path }
remediate:
  - id: act
    risk: high
    run: |
      echo acted >> "$FILE"
    env: { FILE: "${{ inputs.file }}" }
    repeat: never
    undo: none
verify:
  - id: there
    that: file(inputs.file).exists
"#;

/// Starts it, approves it, waits for its end or for a person to look, and gives how often it acted and how it ended.
#[track_caller]
fn act(cluster: &Cluster, name: &str) -> (usize, String) {
    let file = cluster.path(name);
    let input = format!("file={}", file.display());
    let words = ["start", "test/ledger", "--host", "web-1", "-i", &input, "--detach"];
    let run = cluster.json("ben", &words)["run"].as_str().expect("its id").to_owned();
    let gate = cluster.gate(&run);
    let approved = cluster.fettle("ana", &["approve", &gate, "--yes"]);
    assert!(approved.status.success(), "{}", told(&approved));
    let seen = cluster.until(&run, "is over, or waits for a person", |run| {
        run["hosts"][0]["state"] == "ended" || run["hosts"][0]["waiting_for"] == "resolve"
    });
    let times = fs::read_to_string(&file).unwrap_or_default().lines().count();
    (times, seen["hosts"][0]["ending"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn two_agents_of_one_identity_are_named_to_people_and_what_is_approved_acts_once_at_most() {
    let warning = "warning: web-1 says: its disk was put back to an earlier state, or there are two of it";
    let mut cluster = Cluster::builder().runbook(LEDGER).agent("web-1").start();
    copy(&cluster.path("web-1"), &cluster.path("twin"));
    assert_eq!(act(&cluster, "before"), (1, "verified".to_owned()));
    let argv = [
        binary("fettle-agent").display().to_string(),
        "run".to_owned(),
        "--state".to_owned(),
        cluster.path("twin").display().to_string(),
    ];
    let mut twin = Program::start(&argv, &cluster.path("twin.log"));
    eventually("the twin finds out", LIMIT, || {
        let said = fs::read_to_string(cluster.path("twin.log")).unwrap_or_default();
        if said.contains("there are two of it") { Ok(()) } else { Err(said) }
    });
    // An agent says what is the matter with its host when it connects.
    cluster.restart_controller();
    eventually("the status warns", LIMIT, || {
        let status = cluster.fettle("ana", &["status"]);
        if told(&status).contains(warning) { Ok(()) } else { Err(told(&status)) }
    });
    // Which of the two is asked is chance; the one that has not planned it refuses.
    let (times, ending) = act(&cluster, "both");
    assert!(times <= 1 && (ending != "verified" || times == 1), "{times} {ending}");

    // One is stopped, and the host joins anew.
    twin.kill();
    let revoked = cluster.fettle("ana", &["agent", "revoke", "web-1", "--reason", "there were two of it"]);
    assert!(revoked.status.success(), "{}", told(&revoked));
    cluster.agent("web-1").kill();
    fs::remove_dir_all(cluster.path("web-1")).expect("it is ours");
    cluster.join("web-1", &[]);
    cluster.start_agent("web-1");
    let status = cluster.fettle("ana", &["status"]);
    assert!(status.status.success() && !told(&status).contains(warning), "{}", told(&status));
    turned_away(&cluster, "twin", 1);
}

/// Before the risky step, one that runs by itself.
const EASY: &str = r#"remediate:
  - id: easy
    risk: low
    run: |
      echo easy >> "$FILE"
    env: { FILE: "${{ inputs.file }}" }
    repeat: never
    undo: none
"#;

#[test]
fn a_host_that_boots_from_an_earlier_disk_runs_nothing_again_and_people_are_told() {
    let both = LEDGER.replace("remediate:\n", EASY);
    let mut cluster = Cluster::builder().runbook(&both).agent("web-1").start();
    let file = cluster.path("lines");
    let input = format!("file={}", file.display());
    let words = ["start", "test/ledger", "--host", "web-1", "-i", &input, "--detach"];
    let run = cluster.json("ben", &words)["run"].as_str().expect("its id").to_owned();
    let gate = cluster.gate(&run);
    cluster.agent("web-1").kill();

    // The disk of before the first step, in another boot: a test cannot boot the machine.
    let journal = cluster.path("web-1/journal");
    let opened = Journal::open(&journal).expect("its journal");
    let is_intent = |record: &Record| matches!(record, Record::Intent { .. });
    let mut known: Vec<Record> = opened.records.into_iter().take_while(|record| !is_intent(record)).collect();
    for record in &mut known {
        if let Record::Accepted { boot, .. } = record {
            "an earlier one".clone_into(boot);
        }
    }
    opened.journal.compact(&known).wait().expect("a journal");
    drop(opened.journal);
    fs::remove_dir_all(cluster.path("web-1/attempts")).expect("they are ours");

    let mut agent = cluster.launch_agent("web-1", &[]);
    eventually("the agent ends by itself", LIMIT, || if agent.runs() { Err(agent.said()) } else { Ok(()) });
    // As its service manager does.
    cluster.start_agent("web-1");
    let status = told(&cluster.fettle("ana", &["status"]));
    let warning = "warning: web-1 says: its disk was put back to an earlier state, or there are two of it";
    assert!(status.contains(warning) && status.contains("put-back-0"), "{status}");
    // What people approved then is not carried out by a host that does not know what it is about.
    let approved = cluster.fettle("ana", &["approve", &gate, "--yes"]);
    assert!(approved.status.success(), "{}", told(&approved));
    let seen = cluster.until(&run, "is over, or waits for a person", |run| {
        run["hosts"][0]["state"] == "ended" || run["hosts"][0]["waiting_for"] == "resolve"
    });
    assert_eq!(seen["hosts"][0]["ending"], "refused", "{seen:#}");
    assert_eq!(seen["hosts"][0]["reason"], "plan-mismatch: this host has made no plan for the run");
    assert_eq!(fs::read_to_string(&file).unwrap_or_default(), "easy\n", "{seen:#}");
}

/// Starts an agent with a state folder, and waits until the controller has refused it.
#[track_caller]
fn turned_away(cluster: &Cluster, state: &str, time: usize) {
    let argv = [
        binary("fettle-agent").display().to_string(),
        "run".to_owned(),
        "--state".to_owned(),
        cluster.path(state).display().to_string(),
    ];
    let log = cluster.path(&format!("{state}-{time}.log"));
    let mut agent = Program::start(&argv, &log);
    eventually("the agent is refused", LIMIT, || {
        let said = fs::read_to_string(&log).unwrap_or_default();
        assert!(!said.contains(" Connected."), "it was let in: {said}");
        if said.contains("certificate was revoked") { Ok(()) } else { Err(said) }
    });
    agent.kill();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else if from.is_file() {
            fs::copy(&from, &to).expect("a copy");
        }
    }
}
