//! How hosts come and go: tokens, joining, revocation.

use std::fs;
use std::path::Path;
use std::process::Output;

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
