//! The main story: an alert heals a host, with an approval in between. Told once straight, then with every program killed
//! at every turn.

use fettle_tests::alerts::{firing, resolved};
use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::{Cluster, eventually};
use serde_json::{Value, json};

/// Heals a missing file: a low step that needs nobody, then a high one that needs a person.
const MISSING_FILE: &str = r#"fettle: 1
runbook: test/missing-file
title: Bring a file back
owner: tests
inputs:
  file: { type: path }
  note: { type: string, default: none }
on:
  - alert: FileMissing
    host: labels.instance
    inputs: { file: "${{ labels.file }}", note: "${{ labels.note }}" }
diagnose:
  - id: look
    run: |
      test -e "$FILE" && echo there || echo missing
    env: { FILE: "${{ inputs.file }}" }
    outputs: { state: trim(stdout) }
    sandbox: { read: all }
remediate:
  - id: note
    risk: low
    run: |
      printf '%s\n' "$NOTE" >> "$FILE.note"
    env: { FILE: "${{ inputs.file }}", NOTE: "${{ inputs.note }}" }
    repeat: safe
    undo: none
  - id: create
    risk: high
    if: steps.look.state == "missing"
    run: |
      echo one >> "$FILE"
    env: { FILE: "${{ inputs.file }}" }
    repeat: never
    check: file(inputs.file).exists
    undo: none
verify:
  - id: exists
    that: file(inputs.file).exists
    within: 5s
"#;

struct Scene {
    cluster: Cluster,
    file: String,
}

impl Scene {
    fn new() -> Scene {
        let cluster = Cluster::builder().runbook(MISSING_FILE).agent("web-1").start();
        let file = cluster.path("there").display().to_string();
        Scene { cluster, file }
    }

    #[track_caller]
    fn fire(&self) -> String {
        self.cluster.fire("FileMissing", &[("instance", "web-1"), ("file", &self.file)])
    }

    #[track_caller]
    fn approve(&self, gate: &str) {
        let output = self.cluster.fettle("ana", &["approve", gate, "--yes", "--reason", "seen"]);
        assert!(output.status.success(), "{}", told(&output));
    }

    /// What the risky step wrote: one line for each time it ran.
    fn times(&self) -> usize {
        std::fs::read_to_string(&self.file).unwrap_or_default().lines().count()
    }

    #[track_caller]
    fn healed(&self, run: &str) {
        assert_eq!(self.cluster.ending(run), "verified");
        assert_eq!(self.times(), 1, "the risky step ran once and only once");
    }
}

#[test]
fn an_alert_heals_a_host_with_an_approval_in_between() {
    let scene = Scene::new();
    let body = firing("FileMissing", &[("instance", "web-1"), ("file", &scene.file)]);
    let run = scene.cluster.fire_body(&body);
    let gate = scene.cluster.gate(&run);
    assert_eq!(scene.times(), 0, "nothing risky has run yet");
    assert!(std::fs::exists(format!("{}.note", scene.file)).unwrap_or_default(), "what needs nobody has");
    scene.approve(&gate);
    scene.healed(&run);

    let shown = scene.cluster.json("ana", &["run", "show", &run]);
    let id = shown["incident"].as_str().expect("an alert's run has an incident");
    let incident = scene.cluster.json("ana", &["incident", "show", id]);
    for clock in ["detect", "investigate", "remediate"] {
        assert_eq!(incident["clocks"][clock]["verdict"], "in time", "{incident:#}");
    }
    let timeline = incident["timeline"].to_string();
    assert!(timeline.contains("ana"), "who approved is told: {timeline}");

    assert!((200..300).contains(&scene.cluster.post(&resolved(&body)).status));
    eventually("the incident is closed", LIMIT, || {
        let incident = scene.cluster.json("ana", &["incident", "show", id]);
        if incident["state"] == "closed" { Ok(()) } else { Err(format!("{incident:#}")) }
    });
}

#[test]
fn a_rejected_gate_runs_nothing_risky_and_ends_rejected() {
    let scene = Scene::new();
    let run = scene.fire();
    let gate = scene.cluster.gate(&run);
    let output = scene.cluster.fettle("ana", &["reject", &gate, "--reason", "not now"]);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(scene.cluster.ending(&run), "rejected");
    assert_eq!(scene.times(), 0);
}

#[test]
fn a_controller_killed_while_a_gate_waits_forgets_nothing() {
    let mut scene = Scene::new();
    let run = scene.fire();
    let gate = scene.cluster.gate(&run);
    scene.cluster.restart_controller();
    scene.approve(&gate);
    scene.healed(&run);
}

#[test]
fn a_controller_killed_right_after_it_took_the_alert_forgets_nothing() {
    let mut scene = Scene::new();
    let run = scene.fire();
    scene.cluster.restart_controller();
    let gate = scene.cluster.gate(&run);
    scene.approve(&gate);
    scene.healed(&run);
}

#[test]
fn a_controller_killed_right_after_the_approval_forgets_nothing() {
    let mut scene = Scene::new();
    let run = scene.fire();
    let gate = scene.cluster.gate(&run);
    scene.approve(&gate);
    scene.cluster.restart_controller();
    scene.healed(&run);
}

#[test]
fn an_agent_killed_while_a_gate_waits_forgets_nothing() {
    let mut scene = Scene::new();
    let run = scene.fire();
    let gate = scene.cluster.gate(&run);
    scene.cluster.restart_agent("web-1");
    scene.approve(&gate);
    scene.healed(&run);
}

#[test]
fn an_agent_killed_right_after_the_approval_runs_the_step_once() {
    let mut scene = Scene::new();
    let run = scene.fire();
    let gate = scene.cluster.gate(&run);
    scene.approve(&gate);
    scene.cluster.restart_agent("web-1");
    scene.healed(&run);
}

#[test]
fn an_alert_that_is_posted_again_starts_nothing_again() {
    let scene = Scene::new();
    let body = firing("FileMissing", &[("instance", "web-1"), ("file", &scene.file)]);
    for _ in 0..3 {
        assert!((200..300).contains(&scene.cluster.post(&body).status));
    }
    eventually("there is a run", LIMIT, || {
        let runs = scene.cluster.json("ana", &["run", "list"]);
        match runs.as_array().map(Vec::len) {
            Some(0) | None => Err("none"),
            Some(_) => Ok(()),
        }
    });
    let runs = scene.cluster.json("ana", &["run", "list"]);
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "{runs:#}");
}

#[test]
fn what_an_alert_says_is_text_and_never_code() {
    let scene = Scene::new();
    let mark = scene.cluster.path("mark").display().to_string();
    let hostile = format!("$(touch {mark});--help ${{{{ 1 }}}} `touch {mark}` \"'\\ %s");
    let run = scene
        .cluster
        .fire("FileMissing", &[("instance", "web-1"), ("file", &scene.file), ("note", &hostile)]);
    scene.cluster.gate(&run);
    let note = std::fs::read_to_string(format!("{}.note", scene.file)).expect("the step has run");
    assert_eq!(note, format!("{hostile}\n"), "the text arrives as it is");
    assert!(!std::fs::exists(&mark).unwrap_or_default(), "somebody ran it");
}

#[test]
fn a_person_starts_a_runbook_and_cannot_approve_it_too() {
    let scene = Scene::new();
    let input = format!("file={}", scene.file);
    let start = ["start", "test/missing-file", "--host", "web-1", "-i", &input, "--detach"];
    let started: Value = scene.cluster.json("ana", &start);
    let run = started["run"].as_str().or(started["id"].as_str()).expect("a start names its run").to_owned();
    let gate = scene.cluster.gate(&run);
    let own = scene.cluster.fettle("ana", &["approve", &gate, "--yes"]);
    assert!(!own.status.success(), "ana started it: {}", told(&own));
    let other = scene.cluster.fettle("ben", &["approve", &gate, "--yes"]);
    assert!(other.status.success(), "{}", told(&other));
    scene.healed(&run);
}

#[test]
fn in_the_mode_diagnose_an_alert_stops_at_the_plan() {
    let policy = json!({ "modes": [{ "runbook": "*", "mode": "diagnose" }] });
    let cluster = Cluster::builder().runbook(MISSING_FILE).policy(policy).agent("web-1").start();
    let file = cluster.path("there").display().to_string();
    let run = cluster.fire("FileMissing", &[("instance", "web-1"), ("file", &file)]);
    cluster.ending(&run);
    assert!(!std::fs::exists(format!("{file}.note")).unwrap_or_default(), "nothing was changed");
}
