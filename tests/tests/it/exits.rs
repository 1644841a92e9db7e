//! Exit codes of the command line, each from a run that really ended so.

use std::process::Output;

use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::{Cluster, eventually, remains};
use serde_json::Value;

/// Ends in every way there is, as its inputs say.
const ANY_END: &str = r#"fettle: 1
runbook: test/any-end
title: Ends as it is told to
owner: tests
inputs:
  dir: { type: path }
  code: { type: int, default: 0, min: 0, max: 9 }
  file: { type: path, default: /etc/hostname }
diagnose:
  - id: look
    run: [ls, "${{ inputs.dir }}"]
    sandbox: { read: all }
remediate:
  - id: act
    risk: low
    run: |
      touch "$DIR/mark-$HOST"
      exit "$CODE"
    env: { DIR: "${{ inputs.dir }}", CODE: "${{ inputs.code }}", HOST: "${{ host.name }}" }
    repeat: safe
    undo: none
verify:
  - id: there
    that: file(inputs.file).exists
"#;

/// Only reads.
const LOOK: &str = r#"fettle: 1
runbook: test/look
title: Looks
owner: tests
diagnose:
  - id: say
    run: |
      echo seen
      echo aside >&2
"#;

/// Undoes what it did.
const UNDONE: &str = r#"fettle: 1
runbook: test/undone
title: Fails, and undoes what it did
owner: tests
inputs: { dir: { type: path } }
remediate:
  - id: make
    risk: low
    run: |
      touch "$DIR/made"
    env: { DIR: "${{ inputs.dir }}" }
    repeat: safe
    undo:
      run: [rm, "${{ inputs.dir }}/made"]
  - id: fail
    risk: low
    run: |
      exit 3
    repeat: safe
    undo: none
    on_failure: undo
verify:
  - id: there
    that: file(inputs.dir).exists
"#;

/// Waits for a person, not for long.
const ASKS: &str = r#"fettle: 1
runbook: test/asks
title: Asks
owner: tests
inputs: { dir: { type: path } }
remediate:
  - id: act
    risk: high
    run: |
      touch "$DIR/asked"
    env: { DIR: "${{ inputs.dir }}" }
    repeat: safe
    undo: none
    approval: { need: 1, within: WITHIN }
verify:
  - id: there
    that: file(inputs.dir).exists
"#;

/// May not do so twice.
const SELDOM: &str = r#"fettle: 1
runbook: test/seldom
title: Seldom
owner: tests
guard: { cooldown: 1h }
remediate:
  - id: act
    risk: low
    run: ["true"]
    repeat: safe
    undo: none
verify:
  - id: well
    that: file("/").exists
"#;

/// Takes its time, and nobody can tell afterwards.
const ONCE: &str = r#"fettle: 1
runbook: test/once
title: Once and never again
owner: tests
inputs: { dir: { type: path } }
remediate:
  - id: act
    risk: low
    run: |
      echo begun >> "$DIR/begun"
      exec sleep 300
    env: { DIR: "${{ inputs.dir }}" }
    repeat: never
    undo: none
verify:
  - id: well
    that: file("/").exists
"#;

#[track_caller]
fn exits(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", told(output));
}

struct Scene {
    cluster: Cluster,
    dir: String,
}

impl Scene {
    fn new(runbooks: &[&str], hosts: &[&str]) -> Scene {
        let builder = runbooks.iter().fold(Cluster::builder(), |builder, yaml| builder.runbook(yaml));
        let cluster = hosts.iter().fold(builder, |builder, host| builder.agent(host)).start();
        let dir = cluster.path("").display().to_string();
        Scene { cluster, dir: dir.trim_end_matches('/').to_owned() }
    }

    /// `fettle start …` as ana, with the directory as input.
    fn start(&self, arguments: &[&str]) -> Output {
        let dir = format!("dir={}", self.dir);
        let mut all = vec!["start"];
        all.extend(arguments);
        all.extend(["-i", &dir]);
        self.cluster.fettle("ana", &all)
    }

    #[track_caller]
    fn detached(&self, person: &str, runbook: &str) -> String {
        let dir = format!("dir={}", self.dir);
        let started =
            self.cluster.json(person, &["start", runbook, "--host", "web-1", "-i", &dir, "--detach"]);
        started["run"].as_str().expect("a run").to_owned()
    }
}

#[test]
fn a_start_ends_with_the_code_of_the_runs_ending() {
    let scene = Scene::new(&[ANY_END, LOOK, UNDONE, SELDOM], &["web-1", "web-2"]);
    let on = ["test/any-end", "--host", "web-1"];
    let with = |more: &[&str]| scene.start(&[&on[..], more].concat());

    exits(&with(&[]), 0);
    exits(&scene.cluster.fettle("ana", &["start", "test/look", "--host", "web-1"]), 0);
    exits(&with(&["-i", "code=3"]), 1);
    exits(&with(&["-i", "file=/does/not/exist"]), 10);
    exits(&scene.start(&["test/undone", "--host", "web-1"]), 7);
    assert!(!scene.cluster.path("made").exists(), "what was made is gone");

    let cluster = &scene.cluster;
    exits(&cluster.fettle("ana", &["start", "test/seldom", "--host", "web-1"]), 0);
    let held = cluster.fettle("ana", &["start", "test/seldom", "--host", "web-1"]);
    exits(&held, 13);
    assert!(told(&held).contains("cooldown"), "the guard is named: {}", told(&held));
    // web-2 has not been touched by it yet, so the hosts end differently.
    exits(&cluster.fettle("ana", &["start", "test/seldom", "-H", "web-1", "-H", "web-2"]), 11);
}

#[test]
fn a_run_that_waits_for_a_person_ends_by_their_answer_or_by_their_silence() {
    let patient = ASKS.replace("WITHIN", "10m");
    let hasty = ASKS.replace("WITHIN", "3s").replace("test/asks", "test/asks-hastily");
    let scene = Scene::new(&[&patient, &hasty], &["web-1"]);
    let cluster = &scene.cluster;

    let run = scene.detached("ana", "test/asks");
    let gate = cluster.gate(&run);
    // Nobody who asks, and nobody without the scope, approves.
    exits(&cluster.fettle("ana", &["approve", &gate, "--yes"]), 5);
    exits(&cluster.fettle("wil", &["approve", &gate, "--yes"]), 5);
    // Without a terminal nothing is signed unless it is said.
    exits(&cluster.fettle("ben", &["approve", &gate]), 2);
    exits(&cluster.fettle("ben", &["reject", &gate, "--reason", "not now"]), 0);
    exits(&cluster.fettle("ana", &["watch", &run]), 9);
    exits(&cluster.fettle("ben", &["approve", &gate, "--yes"]), 9);
    exits(&scene.start(&["test/asks-hastily", "--host", "web-1"]), 9);
    assert!(!cluster.path("asked").exists(), "nothing was done");
    let shown = cluster.json("ana", &["run", "list"]);
    let endings: Vec<&Value> =
        shown.as_array().into_iter().flatten().map(|run| &run["hosts"][0]["ending"]).collect();
    assert_eq!(endings, ["expired", "rejected"], "{shown:#}");
}

#[test]
fn a_step_that_nobody_can_tell_of_waits_for_a_person_and_runs_no_second_time() {
    let mut scene = Scene::new(&[ONCE], &["web-1"]);
    let run = scene.detached("ana", "test/once");
    let begun = scene.cluster.path("begun");
    eventually("the step has begun", LIMIT, || std::fs::read_to_string(&begun).map(drop));
    // The host goes down: agent, shim and step at once.
    scene.cluster.agent("web-1").kill();
    eventually("nothing of it is left", LIMIT, || {
        let directory = scene.cluster.path("web-1");
        remains::kill(&directory);
        remains::kill(&begun);
        let left = remains::of(&directory);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    scene.cluster.start_agent("web-1");
    scene
        .cluster
        .until(&run, "waits for a person to look", |run| run["hosts"][0]["waiting_for"] == "resolve");
    let plan = scene.cluster.fettle("ana", &["run", "show", &run]);
    assert!(told(&plan).contains("unknown"), "{}", told(&plan));
    assert_eq!(std::fs::read_to_string(&begun).expect("it began"), "begun\n", "it began once");
}

#[test]
fn what_is_asked_for_wrongly_is_told_apart() {
    let patient = ASKS.replace("WITHIN", "10m");
    let scene = Scene::new(&[&patient, LOOK], &["web-1"]);
    let cluster = &scene.cluster;
    let ana = |arguments: &[&str]| cluster.fettle("ana", arguments);
    let says = |output: Output, code: i32, words: &str| {
        exits(&output, code);
        assert!(told(&output).contains(words), "`{words}` is missing: {}", told(&output));
        assert!(output.stdout.is_empty(), "errors are talk: {}", told(&output));
    };

    // 2: the command line, a file or a value.
    says(ana(&["start", "test/look"]), 2, "--host");
    says(ana(&["start", "test/look", "--host", "web 1"]), 2, "host");
    says(ana(&["start", "test/look", "--host", "web-1", "-i", "x=1"]), 2, "takes none");
    says(ana(&["start", "test/asks", "--host", "web-1", "-i", "dri=/"]), 2, "dir");
    says(ana(&["start", "test/asks", "--host", "web-1", "-i", "dir=not-absolute"]), 2, "dir");
    says(ana(&["start", "--file", "/does/not/exist.yaml", "--host", "web-1"]), 2, "/does/not/exist.yaml");
    says(ana(&["strat"]), 2, "start");
    says(ana(&["--config", "/does/not/exist", "status"]), 2, "/does/not/exist");
    says(ana(&["run", "show", "run_1"]), 2, "run_1");
    // 3: no such thing, and what may have been meant.
    says(ana(&["start", "test/lok", "--host", "web-1"]), 3, "did you mean `test/look`?");
    says(ana(&["runbook", "show", "look"]), 3, "did you mean `test/look`?");
    says(ana(&["start", "test/look", "--host", "web-11"]), 3, "web-11");
    for (noun, id) in [("run", "run"), ("incident", "inc")] {
        says(ana(&[noun, "show", &format!("{id}_01930000000070008000000000000009")]), 3, id);
    }
    says(ana(&["signal", "explain", "sig_01930000000070008000000000000009"]), 3, "sig_");
    says(ana(&["approve", "gate_01930000000070008000000000000009", "--yes"]), 3, "fettle status");
    says(ana(&["watch", "run_01930000000070008000000000000009"]), 3, "run_");
    says(ana(&["logs", "run_01930000000070008000000000000009"]), 3, "run_");
    says(ana(&["agent", "show", "web-11"]), 3, "web-11");
    says(ana(&["agent", "revoke", "web-11", "--reason", "x"]), 3, "web-11");
    // 4: who is that?
    let session = cluster.path("no-session.json");
    let session = session.display().to_string();
    let without = |words: &[&str]| cluster.fettle_with("ana", &[("FETTLE_SESSION", &session)], words);
    says(without(&["status"]), 4, "fettle login");
    says(without(&["start", "test/look", "--host", "web-1"]), 4, "fettle login");
    let stolen = serde_json::json!({
        "controller": format!("https://localhost:{}", cluster.grpc), "person": "ana", "token": "fts_0123",
        "expires_at": 4_000_000_000_000_i64,
    });
    std::fs::write(&session, stolen.to_string()).expect("a file can be written");
    says(without(&["status"]), 4, "fettle login");
    // Another's key is not ana's.
    let key = cluster.path("people/ben/key").display().to_string();
    let login = cluster.fettle_with("ana", &[("FETTLE_SESSION", &session)], &["login", "--key", &key]);
    assert!(matches!(login.status.code(), Some(4 | 5)), "{}", told(&login));
    says(
        cluster.fettle_with("ana", &[("FETTLE_SESSION", &session)], &["login", "--person", "nobody"]),
        4,
        "",
    );
    // 5: not with these scopes.
    says(cluster.fettle("wil", &["agent", "token", "create", "web-2"]), 5, "operate");
    says(cluster.fettle("ben", &["agent", "revoke", "web-1", "--reason", "x"]), 5, "operate");
    says(cluster.fettle("rosa", &["start", "test/look", "--host", "web-1"]), 5, "start");
    // 14: nobody there.
    says(ana(&["--controller", "https://localhost:1", "login"]), 14, "https://localhost:1");
    let other = fettle_tests::Cluster::builder().start();
    let trust = other.path("controller/trust.json").display().to_string();
    says(ana(&["--trust", &trust, "login"]), 14, "certificate");
}
