//! Alerts as they really come: groups, repeats, ends; and how far each mode lets them go.

use std::fs;

use fettle_tests::alerts::{firing, one, resolved};
use fettle_tests::cluster::LIMIT;
use fettle_tests::{Cluster, eventually};
use serde_json::{Value, json};

/// Brings a marker back: harmless on `Low`, risky on `High`.
const MEND: &str = r#"fettle: 1
runbook: test/NAME
title: Mend
owner: tests
inputs:
  dir: { type: path }
on:
  - alert: ALERT
    host: labels.instance
    inputs: { dir: "${{ annotations.dir }}" }
diagnose:
  - id: look
    run: [ls, "${{ inputs.dir }}"]
    sandbox: { read: all }
remediate:
  - id: mend
    risk: RISK
    run: |
      touch "$DIR/NAME-$HOST"
    env: { DIR: "${{ inputs.dir }}", HOST: "${{ host.name }}" }
    repeat: safe
    undo: none
verify:
  - id: mended
    that: file(inputs.dir + "/NAME-" + host.name).exists
"#;

fn mend(name: &str, alert: &str, risk: &str) -> String {
    MEND.replace("NAME", name).replace("ALERT", alert).replace("RISK", risk)
}

fn alert(cluster: &Cluster, name: &str, host: &str) -> Value {
    let dir = cluster.path("").display().to_string();
    one("firing", name, &[("instance", host)], &[("dir", dir.trim_end_matches('/'))])
}

/// A body that holds the alerts of all of them.
fn group(bodies: &[&Value]) -> Value {
    let mut group = bodies[0].clone();
    let alerts = bodies.iter().flat_map(|body| body["alerts"].as_array().cloned().unwrap_or_default());
    group["alerts"] = alerts.collect();
    group
}

/// Posts, and answers with what became of each alert.
#[track_caller]
fn post(cluster: &Cluster, body: &Value) -> Vec<Value> {
    let answer = cluster.post(body);
    assert_eq!(answer.status, 200, "{answer:?}");
    let said: Value = serde_json::from_str(&answer.body).expect("JSON");
    said["signals"].as_array().expect("one for each alert").clone()
}

#[track_caller]
fn run_of(receipt: &Value) -> String {
    receipt["run"].as_str().unwrap_or_else(|| panic!("it started nothing: {receipt:#}")).to_owned()
}

/// The trail of a signal, each verdict as `asked: answer: reason`.
#[track_caller]
fn trail(cluster: &Cluster, receipt: &Value) -> String {
    let signal = receipt["signal"].as_str().expect("an id");
    let shown = cluster.json("ana", &["signal", "explain", signal]);
    let verdicts = shown["trail"].as_array().cloned().unwrap_or_default();
    let line = |verdict: &Value| {
        let word = |name: &str| verdict[name].as_str().unwrap_or_default().to_owned();
        format!("{}: {}: {}", word("asked"), word("answer"), word("reason"))
    };
    verdicts.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn runs(cluster: &Cluster) -> usize {
    cluster.json("ana", &["run", "list"]).as_array().map_or(0, Vec::len)
}

#[track_caller]
fn closed(cluster: &Cluster, incident: &str) {
    eventually("the incident is closed", LIMIT, || {
        let incident = cluster.json("ana", &["incident", "show", incident]);
        if incident["state"] == "closed" { Ok(()) } else { Err(format!("{incident:#}")) }
    });
}

#[test]
fn each_mode_goes_as_far_as_it_says() {
    let modes = ["observe", "diagnose", "approve", "auto"];
    let rules: Vec<Value> = modes
        .iter()
        .filter(|mode| **mode != "observe") // It is what holds where no rule does.
        .map(|mode| json!({ "runbook": format!("test/{mode}"), "mode": mode }))
        .collect();
    let builder = modes.iter().fold(Cluster::builder(), |builder, mode| {
        builder.runbook(&mend(mode, &format!("Broken-{mode}"), "low"))
    });
    let cluster = builder.policy(json!({ "modes": rules })).agent("web-1").start();
    let marker = |mode: &str| cluster.path(&format!("{mode}-web-1")).exists();
    let mut receipts = modes.iter().map(|mode| {
        let body = alert(&cluster, &format!("Broken-{mode}"), "web-1");
        post(&cluster, &body).remove(0)
    });
    let mut next = || receipts.next().expect("one for each mode");

    let observed = next();
    assert_eq!(observed["run"], Value::Null, "it starts nothing");
    let why = trail(&cluster, &observed);
    assert!(why.contains("trigger test/observe: yes") && why.contains("mode: no: observe"), "{why}");

    let run = run_of(&next());
    assert_eq!(cluster.ending(&run), "succeeded");
    let shown = cluster.json("ana", &["run", "show", &run]);
    assert_eq!(shown["hosts"][0]["plan"]["steps"][0]["path"], "remediate/mend", "{shown:#}");
    assert_eq!(shown["mode"], "diagnose");

    let run = run_of(&next());
    let gate = cluster.gate(&run);
    assert!(!marker("approve"), "even what is harmless waits");
    let output = cluster.fettle("ben", &["approve", &gate, "--yes"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(cluster.ending(&run), "verified");

    let run = run_of(&next());
    assert_eq!(cluster.ending(&run), "verified");
    assert_eq!(modes.map(marker), [false, false, true, true]);
}

#[test]
fn a_group_of_alerts_is_taken_one_by_one_and_each_only_once() {
    let mut cluster =
        Cluster::builder().runbook(&mend("low", "Low", "low")).agent("web-1").agent("web-2").start();
    let (first, second) = (alert(&cluster, "Low", "web-1"), alert(&cluster, "Low", "web-2"));
    let unknown = alert(&cluster, "Nobody-knows", "web-1");
    let gone = resolved(&firing("Earlier", &[("instance", "web-1")]));
    // Within one body: two fire, one of them twice; one nobody knows; one is over already.
    let body = group(&[&first, &second, &first, &unknown, &gone]);
    let receipts = post(&cluster, &body);
    let new: Vec<bool> = receipts.iter().map(|receipt| receipt["new"] == true).collect();
    assert_eq!(new, [true, true, false, true, true], "{receipts:#?}");
    assert_eq!(receipts[0]["signal"], receipts[2]["signal"]);
    assert_eq!(cluster.ending(&run_of(&receipts[0])), "verified");
    assert_eq!(cluster.ending(&run_of(&receipts[1])), "verified");
    let why = trail(&cluster, &receipts[3]);
    assert!(why.contains("no runbook has a trigger for `Nobody-knows`"), "{why}");
    let why = trail(&cluster, &receipts[4]);
    assert!(why.contains("nothing known fires"), "{why}");

    // Across bodies, and across a crash of the controller.
    let again = post(&cluster, &body);
    assert!(again.iter().all(|receipt| receipt["new"] == false), "{again:#?}");
    cluster.restart_controller();
    let again = post(&cluster, &body);
    assert!(again.iter().all(|receipt| receipt["new"] == false), "{again:#?}");
    assert_eq!(again[0]["run"], receipts[0]["run"], "it is told what it had started");
    assert_eq!(runs(&cluster), 2);

    // A mixed group: one is over, the other still fires. Only the first one's incident closes.
    let incident = |receipt: &Value| {
        let signal = receipt["signal"].as_str().expect("an id");
        let shown = cluster.json("ana", &["signal", "explain", signal]);
        shown["incident"].as_str().expect("an incident").to_owned()
    };
    let mixed = group(&[&second, &resolved(&first)]);
    assert_eq!(mixed["status"], "firing");
    post(&cluster, &mixed);
    closed(&cluster, &incident(&receipts[0]));
    let other = cluster.json("ana", &["incident", "show", &incident(&receipts[1])]);
    assert_eq!(other["state"], "open", "{other:#}");

    // The same labels with a later start are another alert.
    let mut later = first.clone();
    later["alerts"][0]["startsAt"] = json!("2030-01-01T00:00:00Z");
    let receipt = post(&cluster, &later).remove(0);
    assert_eq!(receipt["new"], true);
    assert_eq!(cluster.ending(&run_of(&receipt)), "verified");
}

#[test]
fn monitors_that_disagree_on_the_start_of_an_alert_start_one_run_and_end_one_incident() {
    let cluster = Cluster::builder().runbook(&mend("low", "Low", "low")).agent("web-1").start();
    let at = |body: &Value, starts: &str| {
        let mut body = body.clone();
        body["alerts"][0]["startsAt"] = json!(starts);
        body
    };
    let one = alert(&cluster, "Low", "web-1");
    let receipt = post(&cluster, &one).remove(0);
    assert_eq!(cluster.ending(&run_of(&receipt)), "verified");
    // The second of a pair has watched it for longer, and says so; so does one that knows no start.
    for other in ["2020-01-01T00:00:00Z", "0001-01-01T00:00:00Z"] {
        let again = post(&cluster, &at(&one, other)).remove(0);
        assert_eq!((&again["new"], &again["signal"]), (&json!(false), &receipt["signal"]), "{again:#}");
    }
    assert_eq!(runs(&cluster), 1);
    let why = trail(&cluster, &receipt);
    assert!(why.contains("the same trouble"), "{why}");
    post(&cluster, &at(&resolved(&one), "2020-01-01T00:00:00Z"));
    let signal = receipt["signal"].as_str().expect("an id");
    let incident = cluster.json("ana", &["signal", "explain", signal])["incident"].clone();
    closed(&cluster, incident.as_str().expect("an incident"));
    let why = trail(&cluster, &receipt);
    assert!(why.contains("the same alert, so it is over"), "{why}");
}

#[test]
fn an_alert_that_ends_while_a_gate_waits_is_verified_and_the_gate_closes() {
    let cluster = Cluster::builder().runbook(&mend("high", "High", "high")).agent("web-1").start();
    // It came right by itself.
    let body = alert(&cluster, "High", "web-1");
    let receipt = post(&cluster, &body).remove(0);
    let run = run_of(&receipt);
    let gate = cluster.gate(&run);
    fs::write(cluster.path("high-web-1"), "").expect("it can be written");
    post(&cluster, &resolved(&body));
    assert_eq!(cluster.ending(&run), "verified");
    let late = cluster.fettle("ben", &["approve", &gate, "--yes"]);
    assert_eq!(late.status.code(), Some(9), "{late:?}");
    let shown = cluster.json("ana", &["run", "show", &run]);
    let steps = shown["hosts"][0]["steps"].to_string();
    assert!(!steps.contains("remediate/mend\",\"risk\":\"high\",\"started_at\":\"2"), "{steps}");
    closed(&cluster, shown["incident"].as_str().expect("an incident"));

    // Somebody says it is over, and it is not: the gate stays.
    fs::remove_file(cluster.path("high-web-1")).expect("it can be removed");
    let mut again = body.clone();
    again["alerts"][0]["startsAt"] = json!("2030-01-01T00:00:00Z");
    let run = run_of(&post(&cluster, &again).remove(0));
    let gate = cluster.gate(&run);
    post(&cluster, &resolved(&again));
    cluster.until(&run, "was verified in vain and waits again", |run| {
        let steps = run["hosts"][0]["steps"].as_array().cloned().unwrap_or_default();
        run["hosts"][0]["waiting_for"] == "gate"
            && steps.iter().any(|step| step["path"] == "verify/mended" && step["state"] == "failed")
    });
    let output = cluster.fettle("ben", &["approve", &gate, "--yes"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(cluster.ending(&run), "verified");
}

#[test]
fn guards_hold_alerts_back_and_the_trail_says_which() {
    let policy = json!({ "guards": [{ "runbook": "test/low", "cooldown": "1h" }] });
    let cluster = Cluster::builder()
        .runbook(&mend("low", "Low", "low"))
        .runbook(&mend("high", "High", "high"))
        .runbook(&mend("other", "Other", "low"))
        .policy(policy)
        .agent("web-1")
        .start();
    let at = |body: &Value, starts: &str| {
        let mut body = body.clone();
        body["alerts"][0]["startsAt"] = json!(starts);
        body
    };
    // Cool-down: the second remediation within the hour is refused; the host is still looked at.
    let low = alert(&cluster, "Low", "web-1");
    assert_eq!(cluster.ending(&run_of(&post(&cluster, &low).remove(0))), "verified");
    fs::remove_file(cluster.path("low-web-1")).expect("it was made");
    let second = run_of(&post(&cluster, &at(&low, "2030-01-01T00:00:00Z")).remove(0));
    assert_eq!(cluster.ending(&second), "refused");
    let shown = cluster.json("ana", &["run", "show", &second]);
    assert!(shown["hosts"][0]["reason"].to_string().contains("cooldown"), "{shown:#}");
    assert!(!cluster.path("low-web-1").exists(), "nothing was changed");

    // A second alert of the same kind on the same host while the first one's run is open.
    let high = alert(&cluster, "High", "web-1");
    let waiting = run_of(&post(&cluster, &high).remove(0));
    let gate = cluster.gate(&waiting);
    let more = post(&cluster, &at(&high, "2030-01-01T00:00:00Z")).remove(0);
    assert_eq!(more["run"], Value::Null, "one run of a runbook on a host is enough");
    let why = trail(&cluster, &more);
    assert!(why.contains("guard one run: no") && why.contains(&waiting), "{why}");
    // Another runbook on that host goes ahead: a gate holds nothing.
    let other = run_of(&post(&cluster, &alert(&cluster, "Other", "web-1")).remove(0));
    assert_eq!(cluster.ending(&other), "verified");
    let output = cluster.fettle("ben", &["approve", &gate, "--yes"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(cluster.ending(&waiting), "verified");
}

#[test]
fn an_alert_that_starts_nothing_says_why() {
    let cluster = Cluster::builder()
        .runbook(&mend("low", "Low", "low"))
        .runbook(
            &mend("strict", "Strict", "low")
                .replace("    host:", "    match: labels.team == \"us\"\n    host:"),
        )
        .agent("web-1")
        .start();
    let told = |name: &str, labels: &[(&str, &str)], dir: &str| {
        let receipt = post(&cluster, &one("firing", name, labels, &[("dir", dir)])).remove(0);
        assert_eq!(receipt["run"], Value::Null, "{receipt:#}");
        trail(&cluster, &receipt)
    };
    for (why, words) in [
        (told("Low", &[("instance", "web-99")], "/tmp"), "no enrolled host is called `web-99`"),
        (told("Low", &[], "/tmp"), "names no host"),
        (told("Low", &[("instance", "$(reboot)\u{1b}[2J")], "/tmp"), "no enrolled host is called `$(reboot)"),
        (told("Low", &[("instance", "web-1")], "not/absolute"), "dir"),
        (told("Low", &[("instance", "web-1")], ""), "dir"),
        (told("Lo", &[("instance", "web-1")], "/tmp"), "no runbook has a trigger for `Lo`"),
        (told("", &[("instance", "web-1")], "/tmp"), "no runbook has a trigger"),
        (told("Strict", &[("instance", "web-1"), ("team", "them")], "/tmp"), "match"),
        (told("Strict", &[("instance", "web-1")], "/tmp"), "match"),
    ] {
        assert!(why.contains(words), "`{words}` is missing:\n{why}");
        assert!(!why.contains('\u{1b}'), "{why:?}");
    }
    assert_eq!(runs(&cluster), 0);
    // What would happen is told without its happening.
    let body = cluster.path("body.json");
    fs::write(&body, alert(&cluster, "Low", "web-1").to_string()).expect("it can be written");
    let before = cluster.json("ana", &["signal", "list"]);
    let test = cluster.json("ana", &["signal", "test", &body.display().to_string()]);
    assert!(test[0]["trail"].to_string().contains("trigger test/low"), "{test:#}");
    assert_eq!(cluster.json("ana", &["signal", "list"]), before, "a test changes nothing");
    assert_eq!(runs(&cluster), 0);
}
