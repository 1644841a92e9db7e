//! The real thing: Debian's Prometheus, Alertmanager and node-exporter see a disk fill up, and Fettle mends it.

use std::fs;
use std::path::Path;
use std::process::Command;

use fettle_tests::alerts::firing;
use fettle_tests::cluster::{LIMIT, SOURCE, told};
use fettle_tests::prometheus::{Ports, Prometheus};
use fettle_tests::{Cluster, eventually};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the machines may need beside what the files say.
const MACHINES: SignedDuration = SignedDuration::from_secs(3);

const ALERT: &str = "NodeFilesystemAlmostOutOfSpace";

const RUNBOOK: &str = r#"fettle: 1
runbook: test/disk-full
title: Empty the cache of a filesystem that is filling
owner: tests
inputs:
  mount: { type: path }
on:
  - alert: NodeFilesystemAlmostOutOfSpace
    host: labels.instance
    inputs: { mount: "${{ labels.mountpoint }}" }
diagnose:
  - id: usage
    run: |
      df --output=pcent "$MOUNT" | tail -n 1 | tr -dc 0-9
    env: { MOUNT: "${{ inputs.mount }}" }
    outputs: { used: int(stdout) }
remediate:
  - id: purge
    risk: high
    if: steps.usage.used >= 90
    run: [find, "${{ inputs.mount }}", -xdev, -name, "*.cache", -delete]
    repeat: safe
    undo: none
verify:
  - id: below
    that: disk(inputs.mount).used_percent < 50
    within: 10s
"#;

/// A disk of a few megabytes that everybody may look at, which goes away with its contents.
struct Disk(TempDir);

impl Disk {
    /// None: not allowed.
    fn mount() -> Option<Disk> {
        let place = tempfile::Builder::new().prefix("fettle-test-").tempdir().expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m,mode=0755", "tmpfs"])
            .arg(place.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Disk(place));
        }
        eprintln!("NOT RUN: only root can make a small disk, and this test needs one");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// Files as `docs/operating.md` advises, for everything that is to be fast.
fn furnish(folder: &Path, cluster: &Cluster, ports: Ports, mount: &Path) {
    let Ports { alertmanager, exporter, .. } = ports;
    let (mount, signals) = (mount.display(), cluster.url(&format!("/v1/signals/{}", SOURCE.0)));
    let (ca, token) = (cluster.path("ca.pem"), cluster.path("policy/token"));
    let (ca, token) = (ca.display(), token.display());
    fs::create_dir_all(folder.join("rules")).expect("a folder can be made");
    let write = |name: &str, text: String| fs::write(folder.join(name), text).expect("a file can be written");
    write(
        "rules/node.yml",
        format!(
            r#"groups:
  - name: node
    rules:
      - alert: {ALERT}
        expr: |
          node_filesystem_avail_bytes{{job="node",mountpoint="{mount}"}}
            / node_filesystem_size_bytes{{job="node",mountpoint="{mount}"}} * 100 < 10
          and node_filesystem_readonly{{job="node",mountpoint="{mount}"}} == 0
        for: 2s
        labels: {{ severity: critical }}
      - alert: {ALERT}
        expr: node_filesystem_avail_bytes{{job="node",mountpoint="{mount}"}} < 1
        for: 1h
        labels: {{ severity: warning }}
"#
        ),
    );
    write(
        "alertmanager.yml",
        format!(
            r#"route:
  receiver: nobody
  routes:
    - matchers: [severity="critical"]
      receiver: fettle
      group_by: ['...']
      group_wait: 0s
      group_interval: 1s
      repeat_interval: 1h
receivers:
  - name: nobody
  - name: fettle
    webhook_configs:
      - url: {signals}
        send_resolved: true
        http_config:
          authorization: {{ credentials_file: {token} }}
          tls_config: {{ ca_file: {ca} }}
"#
        ),
    );
    // Last: with it, everything is there to be learnt from.
    write(
        "prometheus.yml",
        format!(
            r#"global:
  scrape_interval: 1s
  scrape_timeout: 1s
  evaluation_interval: 1s
rule_files: ["rules/*.yml"]
alerting:
  alertmanagers: [{{ static_configs: [{{ targets: ["127.0.0.1:{alertmanager}"] }}] }}]
scrape_configs:
  - job_name: node
    static_configs: [{{ targets: ["127.0.0.1:{exporter}"], labels: {{ instance: web-1 }} }}]
"#
        ),
    );
}

/// A source whose onsets are learnt from a file that comes later.
fn learning() -> Value {
    let source = json!({ "token_file": "token", "onset": { "prometheus": "../monitoring/prometheus.yml" } });
    json!({ "sources": { SOURCE.0: source } })
}

#[track_caller]
fn time(value: &Value) -> Timestamp {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn ms(value: &Value) -> SignedDuration {
    SignedDuration::from_millis(value.as_i64().unwrap_or_else(|| panic!("no length of time: {value}")))
}

#[track_caller]
fn warnings_of_rules(cluster: &Cluster, wanted: impl Fn(&[String]) -> bool) {
    eventually("the status says of the rules what it is to say", LIMIT, || {
        let status = cluster.json("ana", &["status"]);
        let all = status["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let rules: Vec<String> =
            all.filter(|it| it.starts_with("rules of source")).map(str::to_owned).collect();
        if wanted(&rules) { Ok(()) } else { Err(status["warnings"].to_string()) }
    });
}

#[test]
fn a_disk_that_fills_is_seen_by_prometheus_and_mended_and_every_clock_is_right() {
    let cluster = Cluster::builder().runbook(RUNBOOK).policy(learning()).agent("web-1").start();
    let Some(disk) = Disk::mount() else { return };
    let (folder, ports) = (cluster.path("monitoring"), Ports::free());
    furnish(&folder, &cluster, ports, disk.path());
    warnings_of_rules(&cluster, <[String]>::is_empty);

    // What the files promise.
    let file = |name: &str| folder.join(name).display().to_string();
    let (prometheus_yml, alertmanager_yml) = (file("prometheus.yml"), file("alertmanager.yml"));
    let lint = ["detect", "lint", "--prometheus", &prometheus_yml, "--alertmanager", &alertmanager_yml];
    let linted = cluster.fettle("ana", &[&lint[..], &["-o", "json"]].concat());
    assert_eq!(linted.status.code(), Some(1), "the other alert is for nobody: {}", told(&linted));
    let linted: Value = serde_json::from_slice(&linted.stdout).expect("JSON");
    assert_eq!(
        (&linted[0]["verdict"], &linted[1]["verdict"]),
        (&json!("in time"), &json!("never")),
        "{linted:#}"
    );

    let prometheus = Prometheus::start(&folder, ports);
    eventually("the disk is watched", LIMIT, || {
        let query = format!("node_filesystem_avail_bytes{{mountpoint=\"{}\"}}", disk.path().display());
        let found = prometheus.query(&query)?;
        if found.is_empty() { Err(prometheus.seen(&"no sample of it")) } else { Ok(()) }
    });
    let filled_at = Timestamp::now();
    fs::write(disk.path().join("big.cache"), vec![1; 7_900_000]).expect("there is space for it");

    let run = eventually("the alert starts a run", LIMIT, || {
        let signals = cluster.json("ana", &["signal", "list", "-n", "1"]);
        signals[0]["run"].as_str().map(str::to_owned).ok_or_else(|| prometheus.seen(&signals))
    });
    let gate = cluster.gate(&run);

    // The gate holds it: Prometheus still has the alert, and says since when.
    let alerts = prometheus.alerts().expect("they are told");
    let alert = alerts.iter().find(|it| it["state"] == "firing").expect("it fires");
    let active_at = time(&alert["activeAt"]);
    let signal = cluster.newest_signal();
    let (starts_at, received_at) = (time(&signal["starts_at"]), time(&signal["received_at"]));
    let held = starts_at.duration_since(active_at);
    assert!(
        (held - SignedDuration::from_secs(2)).abs() <= SignedDuration::from_millis(1),
        "`for` is 2 s: {held}"
    );
    let took = received_at.duration_since(filled_at);
    let (best, worst) = (ms(&linted[0]["best_ms"]), ms(&linted[0]["worst_ms"]));
    assert!(best <= took && took <= worst + MACHINES, "it took {took}, and {best} to {worst} was foretold");

    // The onset is known from the rule, as well as it can be.
    let incident = signal["incident"].as_str().expect("an incident").to_owned();
    let shown = cluster.json("ana", &["incident", "show", &incident]);
    let clocks = &shown["clocks"];
    assert_eq!(
        (&clocks["onset_confidence"], &clocks["onset_learnt_from"]),
        (&json!("learnt"), &json!("node.yml:4"))
    );
    let (onset, uncertainty) = (time(&clocks["onset_at"]), ms(&clocks["onset_uncertainty_ms"]));
    assert!(uncertainty <= SignedDuration::from_millis(1500), "{clocks:#}");
    let off = onset.duration_since(filled_at).abs();
    assert!(off <= uncertainty, "filled at {filled_at}, told {onset} give or take {uncertainty}");
    assert_eq!(clocks["detect"]["verdict"], "in time", "{clocks:#}");
    assert_eq!(ms(&clocks["detect"]["total_ms"]), received_at.duration_since(onset), "{clocks:#}");
    let text = cluster.fettle("ana", &["incident", "show", &incident]);
    assert!(told(&text).contains("give or take 1.5 s (learnt from rules node.yml:4)"), "{}", told(&text));

    let output = cluster.fettle("ben", &["approve", &gate, "--yes"]);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(cluster.ending(&run), "verified");
    let mended_by = Timestamp::now();
    assert!(!disk.path().join("big.cache").exists());

    // It resolves by itself, and so the incident closes.
    let closed = eventually("the incident is closed", LIMIT, || {
        let shown = cluster.json("ana", &["incident", "show", &incident]);
        if shown["state"] == "closed" { Ok(shown) } else { Err(prometheus.seen(&format!("{shown:#}"))) }
    });
    assert_eq!(prometheus.alerts().expect("they are told"), Vec::<Value>::new());
    let clocks = &closed["clocks"];
    for clock in ["detect", "investigate", "remediate"] {
        assert_eq!(clocks[clock]["verdict"], "in time", "{clocks:#}");
    }
    let mended = onset + ms(&clocks["remediate"]["total_ms"]);
    assert!(received_at <= mended && mended <= mended_by, "{received_at} ≤ {mended} ≤ {mended_by}");

    let signal = cluster.json("ana", &["signal", "explain", signal["id"].as_str().expect("an id")]);
    assert_eq!((&signal["status"], &signal["name"]), (&json!("resolved"), &json!(ALERT)));
    assert!(time(&signal["ends_at"]) > starts_at, "{signal:#}");
    let trail = signal["trail"].as_array().expect("a trail");
    let asked: Vec<&str> = trail.iter().filter_map(|it| it["asked"].as_str()).collect();
    for question in ["dedupe", "trigger test/disk-full", "mode"] {
        assert!(asked.contains(&question), "`{question}` is not in the trail: {trail:#?}");
    }
    assert!(trail.iter().all(|it| it["answer"] == "yes"), "{trail:#?}");
}

#[test]
fn rules_that_go_bad_are_told_of_and_what_was_learnt_stays() {
    let cluster = Cluster::builder().policy(learning()).start();
    let folder = cluster.path("monitoring");
    warnings_of_rules(&cluster, |all| all.iter().any(|it| it.contains("prometheus.yml: cannot be read")));

    furnish(&folder, &cluster, Ports::free(), Path::new("/data"));
    warnings_of_rules(&cluster, <[String]>::is_empty);
    let mut count = 0;
    let mut learnt = |severity: &str| {
        count += 1;
        let body =
            firing(ALERT, &[("severity", severity), ("instance", "web-1"), ("count", &count.to_string())]);
        assert_eq!(cluster.post(&body).status, 200);
        let incident = cluster.newest_signal()["incident"].as_str().expect("an incident").to_owned();
        let clocks = cluster.json("ana", &["incident", "show", &incident])["clocks"].clone();
        (
            clocks["onset_confidence"].as_str().unwrap_or_default().to_owned(),
            clocks["onset_learnt_from"].clone(),
        )
    };
    assert_eq!(
        learnt("critical"),
        ("learnt".to_owned(), json!("node.yml:4")),
        "which of two, its labels say"
    );
    assert_eq!(learnt("warning"), ("learnt".to_owned(), json!("node.yml:11")));
    assert_eq!(learnt("info"), ("since-firing".to_owned(), Value::Null), "no rule has these labels");

    let rules = folder.join("rules/node.yml");
    let good = fs::read_to_string(&rules).expect("rules");
    fs::write(&rules, good.replace("for: 2s", "for: soon")).expect("it can be written");
    warnings_of_rules(&cluster, |all| {
        all.iter()
            .any(|it| it.contains("node.yml:9: `for: soon`") && it.contains("what was read before stays"))
    });
    assert_eq!(learnt("critical").0, "learnt");

    // A file more, found by the pattern.
    fs::write(&rules, &good).expect("it can be written");
    fs::write(folder.join("rules/a.yml"), good.replace("critical", "info")).expect("it can be written");
    eventually("the new file is read", LIMIT, || match learnt("info") {
        (confidence, from) if confidence == "learnt" && from == "a.yml:4" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    warnings_of_rules(&cluster, <[String]>::is_empty);
}
