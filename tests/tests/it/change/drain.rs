//! The controller ends and comes back while everything is open: streams, a gate, a step, a watch, a notification.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use fettle_tests::alerts::firing;
use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::receiver::Receiver;
use fettle_tests::{Cluster, eventually};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{ALONE, history_gives_the_tables, until};

/// Nothing of it runs before a person has said so.
const ASKS: &str = r#"fettle: 1
runbook: change/asks
title: A step that waits for a person
owner: tests
inputs:
  dir: { type: path }
on:
  - alert: Asks
    host: labels.instance
    inputs: { dir: "${{ labels.dir }}" }
diagnose:
  - id: look
    run: [echo, looked]
remediate:
  - id: high
    risk: high
    run: [touch, "${{ inputs.dir }}/never"]
    repeat: never
    undo: none
verify:
  - id: done
    that: file(inputs.dir + "/never").exists
    within: 1s
"#;

#[test]
fn a_controller_that_is_restarted_with_everything_open_goes_on_with_all_of_it() {
    let receiver = Receiver::start(503);
    let mut cluster = Cluster::builder()
        .runbook(ASKS)
        .runbook(ALONE)
        .policy(json!({
            "gates": { "decide_within": "6s", "start_within": "10m" },
            "notify": { "url": format!("http://127.0.0.1:{}/hook", receiver.port), "secret_file": "token" },
        }))
        .agent("web-1")
        .agent("web-2")
        .start();
    let dir = cluster.path("alone");
    fs::create_dir_all(&dir).expect("a folder can be made");
    let input = format!("dir={}", dir.display());
    let started =
        cluster.json("ben", &["start", "change/alone", "--host", "web-2", "-i", &input, "--detach"]);
    let alone = started["run"].as_str().or(started["id"].as_str()).expect("a start names its run").to_owned();
    eventually("the step runs", LIMIT, || {
        let there = fs::exists(dir.join("pid")).unwrap_or_default();
        if there { Ok(()) } else { Err(cluster.said()) }
    });
    let watch = cluster
        .typed("ana", &["watch", &alone])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("fettle can be run");
    let asks =
        cluster.fire_body(&firing("Asks", &[("instance", "web-1"), ("dir", &dir.display().to_string())]));
    let gate = cluster.gate(&asks);
    let shown = cluster.json("ana", &["status"]);
    let decide_by: Timestamp = shown["gates"][0]["decide_by"]
        .as_str()
        .and_then(|at| at.parse().ok())
        .expect("a gate says until when");
    eventually("its people were to be told, and nobody took it", LIMIT, || {
        let all = receiver.received();
        if all.is_empty() { Err("nothing was sent".to_owned()) } else { Ok(()) }
    });

    let status = cluster.controller().stop();
    assert!(status.success(), "{status}: {}", cluster.said());
    // What falls due falls due while nobody is there, and what runs ends.
    fs::write(dir.join("go"), "").expect("written");
    eventually("the step ends", LIMIT, || {
        let there = fs::exists(dir.join("ledger")).unwrap_or_default();
        if there { Ok(()) } else { Err(cluster.said()) }
    });
    eventually("the gate is due", LIMIT, || {
        let left = decide_by.duration_since(Timestamp::now());
        if left.is_negative() { Ok(()) } else { Err(format!("{left:?} is left")) }
    });
    receiver.answer(200);
    cluster.start_controller();
    cluster.wait_for_agent("web-1");
    cluster.wait_for_agent("web-2");

    let seen = until(&cluster, &asks, "has ended", |host| host["state"] == "ended");
    assert_eq!(seen["hosts"][0]["ending"], "expired", "{seen:#}");
    assert!(seen["hosts"][0]["reason"].to_string().contains("nobody decided by"), "{seen:#}");
    let late = cluster.fettle("ana", &["approve", &gate, "--yes"]);
    assert_eq!(late.status.code(), Some(9), "{}", told(&late));
    assert!(!fs::exists(dir.join("never")).unwrap_or(true), "nobody approved");
    assert_eq!(cluster.ending(&alone), "verified");
    assert_eq!(fs::read_to_string(dir.join("ledger")).unwrap_or_default(), "alone\n");

    // Whoever watched sees the end, or was told how to come back.
    let watched = watch.wait_with_output().expect("it ends");
    let said = told(&watched);
    match watched.status.code() {
        Some(0) => assert!(said.contains("trying again"), "{said}"),
        Some(14) => assert!(said.contains(&format!("fettle watch {alone} --after ")), "{said}"),
        other => panic!("{other:?}: {said}"),
    }
    eventually("the notification that was owed is delivered", Duration::from_secs(40), || {
        let all = receiver.received();
        let bodies = all.iter().filter(|request| request.answered == 200);
        let kinds: Vec<String> = bodies
            .filter_map(|request| serde_json::from_slice::<Value>(&request.body).ok())
            .map(|body| body["kind"].to_string())
            .collect();
        if kinds.iter().any(|kind| kind.contains("gate-opened")) { Ok(()) } else { Err(format!("{kinds:?}")) }
    });
    assert!(cluster.controller().stop().success());
    history_gives_the_tables(&cluster);
}
