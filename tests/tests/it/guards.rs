//! Trouble that does not go away: how often it is tried, and what people are told.

use std::fs;

use fettle_tests::alerts::{one, resolved};
use fettle_tests::cluster::LIMIT;
use fettle_tests::receiver::Receiver;
use fettle_tests::{Cluster, eventually};
use serde_json::{Value, json};

/// Writes a line, and says that the symptom is gone when a file is there.
const RESTARTS: &str = r#"fettle: 1
runbook: test/restarts
title: Restarts
owner: tests
inputs:
  dir: { type: path }
on:
  - alert: Crashed
    host: labels.instance
    inputs: { dir: "${{ annotations.dir }}" }
diagnose:
  - id: look
    run: |
      echo 'panic: out of memory'
      echo 'DB_PASSWORD=hunter2'
remediate:
  - id: restart
    risk: low
    run: |
      echo restarted >> "$DIR/restarts"
    env: { DIR: "${{ inputs.dir }}" }
    repeat: safe
    undo: none
verify:
  - id: up
    that: file(inputs.dir + "/up").exists && file(inputs.dir).is_dir
"#;

struct Host {
    cluster: Cluster,
    receiver: Receiver,
    second: i64,
}

impl Host {
    fn new(guard: Value) -> Host {
        let receiver = Receiver::start(200);
        let url = format!("http://127.0.0.1:{}/hook", receiver.port);
        let policy = json!({ "notify": { "url": url, "secret": "s" }, "guards": [guard] });
        let cluster = Cluster::builder().runbook(RESTARTS).policy(policy).agent("web-1").start();
        Host { cluster, receiver, second: 0 }
    }

    /// The alert with a start that is later each time.
    fn alert(&mut self) -> Value {
        self.second += 1;
        let dir = self.cluster.path("").display().to_string();
        let mut body =
            one("firing", "Crashed", &[("instance", "web-1")], &[("dir", dir.trim_end_matches('/'))]);
        body["alerts"][0]["startsAt"] = json!(format!("2030-01-01T00:{:02}:00Z", self.second));
        body
    }

    /// Posts a body, and answers with the signal and the run's ending.
    #[track_caller]
    fn fire(&self, body: &Value) -> (String, String) {
        let answer = self.cluster.post(body);
        assert_eq!(answer.status, 200, "{answer:?}");
        let said: Value = serde_json::from_str(&answer.body).expect("JSON");
        let (signal, run) = (&said["signals"][0]["signal"], &said["signals"][0]["run"]);
        let run = run.as_str().unwrap_or_else(|| panic!("nothing was started: {said:#}"));
        (signal.as_str().expect("an id").to_owned(), self.cluster.ending(run))
    }

    fn restarts(&self) -> usize {
        fs::read_to_string(self.cluster.path("restarts")).unwrap_or_default().lines().count()
    }

    /// What people were told of runs that ended, once there is so much.
    #[track_caller]
    fn told(&self, count: usize) -> Vec<Value> {
        eventually(&format!("people are told of {count} runs"), LIMIT, || {
            let all = self.receiver.received();
            let all = all.iter().filter(|one| one.answered == 200);
            let all: Vec<Value> = all.filter_map(|one| serde_json::from_slice(&one.body).ok()).collect();
            let ended: Vec<Value> = all.into_iter().filter(|one| one["kind"] == "run-ended").collect();
            if ended.len() == count { Ok(ended) } else { Err(format!("{ended:#?}")) }
        })
    }
}

#[test]
fn a_service_that_crashes_every_minute_is_restarted_as_often_as_allowed_and_then_people_are_told_once() {
    let mut host = Host::new(json!({ "runbook": "*", "max_runs": "2 per 1h" }));
    fs::write(host.cluster.path("up"), "").expect("it can be written");
    let mut endings = Vec::new();
    for _ in 0..5 {
        let body = host.alert();
        endings.push(host.fire(&body).1);
        // Alertmanager sends what it has said again, and then its end.
        assert_eq!(host.cluster.post(&body).status, 200);
        assert_eq!(host.cluster.post(&resolved(&body)).status, 200);
    }
    assert_eq!(endings, ["verified", "verified", "refused", "refused", "refused"]);
    assert_eq!(host.restarts(), 2);
    let told = host.told(3);
    assert_eq!(told[2]["ending"], "refused", "{told:#?}");
    assert!(told[2]["text"].to_string().contains("guard max_runs: 2 in the last"), "{told:#?}");

    // Nobody was told of the last one; whoever asks is.
    let body = host.alert();
    let (signal, ending) = host.fire(&body);
    assert_eq!(ending, "refused");
    let shown = host.cluster.json("ana", &["signal", "explain", &signal]);
    let trail = shown["trail"].to_string();
    assert!(trail.contains("guard max_runs") && trail.contains("people were told at"), "{shown:#}");
    host.told(3);
}

#[test]
fn what_does_not_help_is_tried_twice_and_people_get_the_evidence() {
    let mut host = Host::new(json!({ "runbook": "*" }));
    let mut signal = String::new();
    let mut endings = Vec::new();
    for _ in 0..4 {
        let body = host.alert();
        let (of, ending) = host.fire(&body);
        signal = of;
        endings.push(ending);
    }
    assert_eq!(endings, ["unverified", "unverified", "refused", "refused"]);
    assert_eq!(host.restarts(), 2);
    let told = host.told(3);
    let evidence = &told[0]["evidence"];
    let reading = evidence["readings"][0].as_str().unwrap_or_default();
    assert!(
        reading.contains("`file(inputs.dir + \"/up\").exists && file(inputs.dir).is_dir` is false"),
        "{told:#?}"
    );
    assert!(reading.contains("/up\").exists = false"), "{told:#?}");
    assert_eq!(evidence["seen"][0]["lines"], json!(["panic: out of memory", "DB_PASSWORD=***"]));
    let tried = evidence["tried"].to_string();
    assert!(tried.contains("remediate/restart"), "{tried}");
    assert!(
        told[2]["text"].to_string().contains("guard breaker: 2 remediations in a row did not help"),
        "{told:#?}"
    );

    // The incident shows the same, to read and to process.
    let incident = told[0]["incident"].as_str().expect("an incident").to_owned();
    let shown = host.cluster.json("ana", &["incident", "show", &incident]);
    assert_eq!(shown["evidence"][0]["readings"], evidence["readings"], "{shown:#}");
    let output = host.cluster.fettle("ana", &["incident", "show", &incident]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for words in
        ["Look at web-1: test/restarts unverified", "panic: out of memory", "fettle start test/restarts"]
    {
        assert!(text.contains(words), "`{words}` is missing:\n{text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
    let trail = host.cluster.json("ana", &["signal", "explain", &signal])["trail"].to_string();
    assert!(trail.contains("guard breaker") && trail.contains("people were told at"), "{trail}");

    // A person starts it by hand, and it helps: alerts may again.
    fs::write(host.cluster.path("up"), "").expect("it can be written");
    let dir = format!("dir={}", host.cluster.path("").display());
    let by_hand = host
        .cluster
        .fettle("ana", &["start", "test/restarts", "--host", "web-1", "-i", dir.trim_end_matches('/')]);
    assert_eq!(by_hand.status.code(), Some(0), "{by_hand:?}");
    let body = host.alert();
    assert_eq!(host.fire(&body).1, "verified");
}
