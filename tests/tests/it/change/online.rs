//! Copied again and again while alerts pour in and runs go on: whoever posts does not notice, and each copy is whole.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fettle_controller::model::Row;
use fettle_controller::store::{Sqlite, Store as _, check_fold};
use fettle_tests::alerts::firing;
use fettle_tests::cluster::{LIMIT, SOURCE, told};
use fettle_tests::programs::binary;
use fettle_tests::wire::Wire;
use fettle_tests::{Cluster, eventually};
use serde_json::{Value, json};

use super::controller;

/// Needs nobody to vouch for it: it starts no program.
const POURED: &str = r#"fettle: 1
runbook: change/poured
title: Look, whatever comes
owner: tests
inputs:
  n: { type: int }
on:
  - alert: Poured
    host: labels.instance
    inputs: { n: "${{ labels.n }}" }
diagnose:
  - id: look
    that: inputs.n >= 0
"#;

/// So many thousand alerts are known before.
const FILLED: usize = 3;
/// So many copies, …
const COPIES: usize = 5;
/// … while so many sources post at a time, each as soon as it has been answered and this long after its last post.
const SOURCES: u8 = 4;
const APART: Duration = Duration::from_millis(4);
/// One alert in so many starts a run.
const RUNS: usize = 25;
/// Nobody who posts is to wait longer while a copy is made, unless others waited longer when none was.
const ANSWERED: Duration = Duration::from_secs(1);

/// What was posted and answered with success: signals, and runs that they started.
#[derive(Default)]
struct Acknowledged {
    all: Mutex<BTreeSet<String>>,
    /// How long each waited, and whether a copy was made meanwhile.
    waited: Mutex<Vec<(Duration, bool)>>,
    copying: AtomicBool,
}

impl Acknowledged {
    fn now(&self) -> BTreeSet<String> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Posts until it is told to stop. Every post must be taken.
    fn pour(&self, cluster: &Cluster, from: u8, next: &AtomicUsize, stop: &AtomicBool) {
        let mut wire = Wire::to(cluster, from).expect("a connection");
        while !stop.load(Ordering::Relaxed) {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let alert = if n.is_multiple_of(RUNS) { "Poured" } else { "Nothing" };
            let body = firing(alert, &[("instance", "web-1"), ("n", &n.to_string())]).to_string();
            let (began, copying) = (Instant::now(), self.copying.load(Ordering::Relaxed));
            let (status, said) = wire.post(SOURCE.1, body.as_bytes()).expect("it is answered");
            let waited = (began.elapsed(), copying || self.copying.load(Ordering::Relaxed));
            assert_eq!(status, 200, "{said}");
            let said: Value = serde_json::from_str(&said).expect("JSON");
            let said = &said["signals"][0];
            let ids = ["signal", "run"].iter().filter_map(|name| said[name].as_str().map(str::to_owned));
            self.all.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
            self.waited.lock().unwrap_or_else(PoisonError::into_inner).push(waited);
            std::thread::park_timeout(APART);
        }
    }
}

/// One copy: what was acknowledged before it began, and how much more by the time it was there.
struct Copy {
    file: String,
    before: BTreeSet<String>,
    meanwhile: usize,
}

/// Restores a copy where nothing was, and gives back the signals and runs that are there.
#[track_caller]
fn restored(cluster: &Cluster, copy: &Copy) -> BTreeSet<String> {
    let fresh = format!("{}.restored", copy.file);
    let config = fs::read_to_string(cluster.path("controller.yaml")).expect("a configuration");
    let mut config: Value = serde_yaml::from_str(&config).expect("it is YAML");
    config["state"] = json!(fresh);
    let elsewhere = format!("{}.yaml", copy.file);
    fs::write(&elsewhere, serde_yaml::to_string(&config).expect("JSON is YAML")).expect("it can be written");
    let output = std::process::Command::new(binary("fettle-controller"))
        .args(["restore", "--config", &elsewhere, "--from", &copy.file])
        .output()
        .expect("fettle-controller can be run");
    assert!(output.status.success(), "{}", told(&output));
    let store = Sqlite::open(&Path::new(&fresh).join("store")).expect("a store");
    let differences = check_fold(&store).expect("it can be read");
    assert!(differences.is_empty(), "{}: {differences:#?}", copy.file);
    let mut ids = BTreeSet::new();
    for row in store.rows().expect("it can be read") {
        if let Row::Signal(row) = row {
            ids.insert(row.id.to_string());
        } else if let Row::Run(row) = row {
            ids.insert(row.id.to_string());
        }
    }
    ids
}

/// So that a copy takes its time.
fn fill(cluster: &Cluster) {
    let mut wire = Wire::to(cluster, 1).expect("a connection");
    for group in 0..FILLED {
        let alerts = (0..1000).map(|n| {
            let host = format!("web-{group}-{n}");
            firing("Before", &[("instance", &host)])["alerts"][0].clone()
        });
        let mut body = firing("Before", &[]);
        body["alerts"] = alerts.collect();
        let (status, said) = wire.post(SOURCE.1, body.to_string().as_bytes()).expect("it is answered");
        assert_eq!(status, 200, "{said}");
    }
}

#[test]
fn copies_that_are_made_while_alerts_pour_in_hold_all_that_was_acknowledged_and_hold_up_nobody() {
    let cluster = Cluster::builder().uncertified(POURED).agent("web-1").start();
    let (acknowledged, next, stop) = (Acknowledged::default(), AtomicUsize::new(0), AtomicBool::new(false));
    fill(&cluster);
    let mut took = Vec::new();
    let copies = std::thread::scope(|scope| {
        for source in 1..=SOURCES {
            let (acknowledged, cluster, next, stop) = (&acknowledged, &cluster, &next, &stop);
            scope.spawn(move || acknowledged.pour(cluster, source, next, stop));
        }
        let copies = || {
            let mut copies: Vec<Copy> = Vec::new();
            for number in 0..COPIES {
                let so_far = acknowledged.now().len();
                eventually("more alerts come", LIMIT, || {
                    let now = acknowledged.now().len();
                    if now > so_far + 300 { Ok(()) } else { Err(now) }
                });
                let before = acknowledged.now();
                let file = cluster.path(&format!("copy-{number}.db")).display().to_string();
                let began = Instant::now();
                acknowledged.copying.store(true, Ordering::Relaxed);
                let made = controller(&cluster, &["backup", "--to", &file]);
                acknowledged.copying.store(false, Ordering::Relaxed);
                took.push(began.elapsed());
                assert!(made.status.success(), "{}", told(&made));
                let meanwhile = acknowledged.now().len() - before.len();
                copies.push(Copy { file, before, meanwhile });
            }
            copies
        };
        let copies = std::panic::catch_unwind(std::panic::AssertUnwindSafe(copies));
        stop.store(true, Ordering::Relaxed);
        copies.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let waited = acknowledged.waited.into_inner().unwrap_or_else(PoisonError::into_inner);
    let worst = |copying| waited.iter().filter(|(_, while_it)| *while_it == copying).map(|(it, _)| *it).max();
    let (with, without) = (worst(true).expect("some came"), worst(false).expect("most came"));
    println!(
        "{} posts: the longest wait was {with:.0?} while a copy was made, {without:.0?} otherwise; copies took {took:.0?}",
        waited.len()
    );
    assert!(
        with < ANSWERED.max(without),
        "while a copy was made a post waited {with:?}, else at most {without:?}"
    );

    for copy in &copies {
        assert!(copy.meanwhile > 0, "{}: nothing came in while it was made", copy.file);
        let missing: Vec<String> = copy.before.difference(&restored(&cluster, copy)).cloned().collect();
        assert!(missing.is_empty(), "{}: {} are missing: {missing:?}", copy.file, missing.len());
    }
    eventually("every run has ended well", LIMIT, || {
        let runs = cluster.json("ana", &["run", "list", "-n", "1000"]);
        let all = runs.as_array().cloned().unwrap_or_default();
        let well = all.iter().filter(|run| run["hosts"][0]["ending"] == "succeeded").count();
        if well == all.len() && well > 0 { Ok(()) } else { Err(format!("{well} of {}", all.len())) }
    });
}
