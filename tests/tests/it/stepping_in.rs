//! When it does not go as meant: people stop a run, say what became of a step, and a failed step takes the others back.

use std::fs;
use std::io::Read as _;
use std::process::Stdio;

use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::{Cluster, eventually};

/// Starts processes that would outlive the test: a child, a grandchild, and one that leaves its session.
const LONG: &str = r#"fettle: 1
runbook: test/long
title: Take very long
owner: tests
inputs:
  file: { type: path }
diagnose:
  - id: look
    run: [true]
remediate:
  - id: long
    risk: low
    timeout: 30m
    run: |
      sleep 3001 & echo $! >> "$FILE"
      ( sleep 3002 & echo $! >> "$FILE"; wait ) &
      setsid sh -c 'echo $$ >> "$FILE"; exec sleep 3003' &
      echo $$ >> "$FILE"
      wait
    env: { FILE: "${{ inputs.file }}" }
    repeat: never
    undo: none
verify:
  - id: exists
    that: file(inputs.file).exists
"#;

/// Its second step fails, and its first knows how to be undone.
const HALF: &str = r#"fettle: 1
runbook: test/half
title: Fail in the middle
owner: tests
inputs:
  file: { type: path }
diagnose:
  - id: look
    run: [true]
remediate:
  - id: make
    risk: low
    run: [touch, "${{ inputs.file }}"]
    repeat: safe
    undo: [mv, "${{ inputs.file }}", "${{ inputs.file }}.undone"]
  - id: fail
    risk: low
    run: test ! -e "$FILE"
    env: { FILE: "${{ inputs.file }}" }
    repeat: safe
    undo: none
    on_failure: undo
  - id: never
    risk: low
    run: [touch, "${{ inputs.file }}.never"]
    repeat: safe
    undo: none
verify:
  - id: exists
    that: file(inputs.file).exists
"#;

/// What runs under these process ids.
fn alive(pids: &str) -> Vec<String> {
    let commands = pids.lines().filter_map(|pid| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        // A zombie has no command line.
        (!command.is_empty()).then(|| format!("{pid} {}", command.replace('\0', " ")))
    });
    commands.collect()
}

#[test]
fn a_cancelled_run_leaves_nothing_running_and_waits_for_a_person_to_look() {
    let cluster = Cluster::builder().runbook(LONG).agent("web-1").start();
    let file = cluster.path("pids").display().to_string();
    let input = format!("file={file}");
    let started = cluster.json("ben", &["start", "test/long", "--host", "web-1", "-i", &input, "--detach"]);
    let run = started["run"].as_str().or(started["id"].as_str()).expect("a start names its run").to_owned();
    let pids = eventually("all processes of the step run", LIMIT, || {
        let pids = fs::read_to_string(&file).unwrap_or_default();
        if alive(&pids).len() == 4 { Ok(pids) } else { Err(format!("{pids}\n{}", cluster.said())) }
    });

    let stranger = cluster.fettle("wil", &["run", "cancel", &run]);
    assert_eq!(stranger.status.code(), Some(5), "{}", told(&stranger));
    let nobody = cluster.fettle("ana", &["run", "cancel", "run_01930000000070008000000000000001"]);
    assert_eq!(nobody.status.code(), Some(3), "{}", told(&nobody));
    let early = ["run", "resolve", &run, "--host", "web-1", "--ran", "--reason", "I guess"];
    assert_eq!(cluster.fettle("ana", &early).status.code(), Some(1), "nothing waits to be resolved yet");

    // Somebody is watching while it happens.
    let mut watch = cluster.typed("ana", &["watch", &run]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("fettle can be run");
    let mut beginning = [0; 1];
    watch.stdout.as_mut().expect("it has an output").read_exact(&mut beginning).expect("it shows something");

    let cancelled = cluster.fettle("ana", &["run", "cancel", &run, "--reason", "wrong host"]);
    assert!(cancelled.status.success(), "{}", told(&cancelled));
    let live = watch.wait_with_output().expect("it ends");
    assert_eq!(live.status.code(), Some(15), "{}", told(&live));
    assert!(told(&live).contains("fettle run resolve"), "it says what to type: {}", told(&live));
    cluster.until(&run, "waits for somebody to look", |run| run["hosts"][0]["waiting_for"] == "resolve");
    assert_eq!(alive(&pids), [""; 0], "the host has confirmed, so nothing of the step is left");

    let next = format!("fettle run resolve {run} --host web-1 --step remediate/long --did-not-run");
    for arguments in [vec!["status"], vec!["run", "show", &run]] {
        let shown = cluster.fettle("ana", &arguments);
        assert!(String::from_utf8_lossy(&shown.stdout).contains(&next), "{}", told(&shown));
    }
    let watched = cluster.fettle("ana", &["watch", &run]);
    assert_eq!(watched.status.code(), Some(15), "{}", told(&watched));

    let words = [
        "run",
        "resolve",
        &run,
        "--host",
        "web-1",
        "--step",
        "remediate/long",
        "--did-not-run",
        "--reason",
        "saw it",
    ];
    let resolved = cluster.fettle("ana", &words);
    assert!(resolved.status.success(), "{}", told(&resolved));
    assert_eq!(cluster.ending(&run), "cancelled");
    let story = cluster.fettle("ana", &["watch", &run]);
    let story = String::from_utf8_lossy(&story.stdout).into_owned();
    for said in
        ["ana: asked to cancel the run: wrong host", "ana: looked at remediate/long: it did not run: saw it"]
    {
        assert!(story.contains(said), "`{said}` is not in:\n{story}");
    }
    let late = cluster.fettle("ana", &["run", "cancel", &run]);
    assert_eq!(late.status.code(), Some(1), "{}", told(&late));
}

#[test]
fn a_run_at_a_gate_is_cancelled_without_anybody_to_look() {
    let risky = HALF.replacen("risk: low", "risk: high", 1);
    let cluster = Cluster::builder().runbook(&risky).agent("web-1").start();
    let input = format!("file={}", cluster.path("made").display());
    let started = cluster.json("ben", &["start", "test/half", "--host", "web-1", "-i", &input, "--detach"]);
    let run = started["run"].as_str().or(started["id"].as_str()).expect("a start names its run").to_owned();
    let gate = cluster.gate(&run);
    let cancelled = cluster.fettle("ben", &["run", "cancel", &run]);
    assert!(cancelled.status.success(), "ben started it: {}", told(&cancelled));
    assert_eq!(cluster.ending(&run), "cancelled");
    let late = cluster.fettle("ana", &["approve", &gate, "--yes"]);
    assert_eq!(late.status.code(), Some(9), "{}", told(&late));
}

#[test]
fn a_step_that_fails_takes_back_what_was_done_before_it() {
    let cluster = Cluster::builder().runbook(HALF).agent("web-1").start();
    let file = cluster.path("made").display().to_string();
    let input = format!("file={file}");
    let run = cluster.fettle("ana", &["start", "test/half", "--host", "web-1", "-i", &input]);
    assert_eq!(run.status.code(), Some(7), "{}", told(&run));
    let there = |suffix: &str| fs::exists(format!("{file}{suffix}")).unwrap_or_default();
    assert_eq!((there(""), there(".undone"), there(".never")), (false, true, false), "{}", told(&run));
    let runs = cluster.json("ana", &["run", "list"]);
    assert_eq!(runs[0]["hosts"][0]["ending"], "undone", "{runs:#}");
}
