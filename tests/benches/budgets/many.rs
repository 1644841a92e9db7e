//! A thousand hosts, each with its own connection: a run everywhere, what they cost while they are idle, and how they come back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fettle_proto::v1;
use fettle_tests::fleet::{Mint, Pace, Works, raise_descriptors, raw};
use fettle_tests::{Cluster, Fleet, eventually, eventually_every};
use jiff::Timestamp;
use tokio::runtime::Runtime;
use v1::from_agent::What;

use crate::bare::Bare;
use crate::table::{self, Samples};

const HOSTS: usize = 1000;
/// As many as there may be.
const MOST: usize = 10_000;
const RUNS: usize = 7;
/// With the most hosts.
const FEWER: usize = 3;
/// An order has so many bytes, and with the most hosts, all of whom were signed for.
const ORDER: usize = 1200;
const LONGEST: usize = 130_000;
const SLOW: Duration = Duration::from_secs(180);
/// jemalloc keeps what was freed for 10 s.
const STILL: Duration = Duration::from_secs(12);

pub(crate) const RUNBOOK: &str = r#"fettle: 1
runbook: bench/everywhere
title: The same everywhere
owner: benches
remediate:
  - id: act
    risk: low
    run: ["true"]
    repeat: safe
    undo: none
verify:
  - id: alive
    that: load.one >= 0.0
"#;

pub(crate) const LOOK: &str = r#"fettle: 1
runbook: bench/look
title: Look everywhere
owner: benches
diagnose:
  - id: look
    run: ["true"]
"#;

fn cluster() -> Cluster {
    raise_descriptors();
    Cluster::builder().runbook(RUNBOOK).runbook(LOOK).start()
}

/// Starts a run on these hosts, and says when the controller had decided it.
pub(crate) fn start(cluster: &Cluster, runbook: &str, hosts: &[String]) -> String {
    let mut words = vec!["start", runbook, "--detach"];
    hosts.iter().for_each(|host| words.extend(["--host", host.as_str()]));
    cluster.json("ana", &words)["run"].as_str().expect("a run has an id").to_owned()
}

fn time(value: &serde_json::Value) -> Timestamp {
    value.as_str().and_then(|text| text.parse().ok()).expect("a time is RFC 3339")
}

/// From the decision until every host knows that all it reported is durable.
fn everywhere(cluster: &Cluster, fleet: &Fleet, runbook: &str, reports: u64, times: usize) -> Samples {
    let (hosts, mut took) = (fleet.hosts(), Samples::default());
    for round in 0..=times {
        let before: u64 = fleet.works().iter().map(Works::reported).sum();
        let run = start(cluster, runbook, &hosts);
        let wanted = before + reports * hosts.len() as u64;
        // When it was is kept; to look at the works takes the cores that are measured.
        let pause = Duration::from_micros(50 * hosts.len() as u64);
        eventually_every(pause, "everything is durable", SLOW, || {
            let reported: u64 = fleet.works().iter().map(Works::reported).sum();
            let owed: usize = fleet.works().iter().map(Works::owed).sum();
            if (reported, owed) == (wanted, 0) {
                Ok(())
            } else {
                Err(format!("{reported} of {wanted}, {owed} owed"))
            }
        });
        let last = fleet.works().iter().filter_map(Works::settled).max().expect("they are settled");
        let seen = cluster.json("ana", &["run", "show", &run]);
        assert!(seen["ended_at"].is_string(), "{runbook} has not ended");
        if round > 0 {
            took.add(last.duration_since(time(&seen["created_at"])).unsigned_abs());
        }
    }
    took
}

pub(crate) fn run() {
    let cluster = cluster();
    let fleet = Fleet::start(&cluster, "web", HOSTS, Pace::AtOnce);
    let looked = everywhere(&cluster, &fleet, "bench/look", 5, RUNS);
    let acted = everywhere(&cluster, &fleet, "bench/everywhere", 9, RUNS);
    drop(fleet);
    let (mut bare, peer) = beside(&cluster, HOSTS);
    let (mut once, mut twice) = (Samples::default(), Samples::default());
    for _ in 0..RUNS {
        once.add(bare.fan_out(1, ORDER));
        twice.add(bare.fan_out(2, ORDER));
    }
    drop(peer);
    table::line(&format!("{HOSTS} hosts, one diagnose step: decided → all durable"), &looked);
    table::line("peer: bare tonic, not durable, one message and one answer", &once);
    table::ratio("ratio to that", &looked, &once);
    table::line(&format!("{HOSTS} hosts, one remediate step, verified"), &acted);
    table::line("peer: bare tonic, two messages and two answers", &twice);
    table::ratio("ratio to that", &acted, &twice);
    let _ = crate::limit::disk(&cluster.path(""));
    table::at_most("one diagnose step to 1,000 hosts, all durable, median", looked.median(), 300.0, "ms");
    table::at_most("one remediate step to 1,000 hosts, all durable, median", acted.median(), 300.0, "ms");
}

pub(crate) fn most() {
    let cluster = cluster();
    let fleet = Fleet::start(&cluster, "web", MOST, Pace::AtOnce);
    let looked = everywhere(&cluster, &fleet, "bench/look", 5, FEWER);
    drop(fleet);
    let (mut bare, peer) = beside(&cluster, MOST);
    let mut once = Samples::default();
    for _ in 0..FEWER {
        once.add(bare.fan_out(1, LONGEST));
    }
    drop(peer);
    table::line(&format!("{MOST} hosts, one diagnose step: decided → all durable"), &looked);
    table::line("peer: bare tonic, not durable, one message and one answer", &once);
    table::ratio("ratio to that", &looked, &once);
    table::at_most(
        "one diagnose step to 10,000 hosts, all durable, median",
        looked.median() / 1000.0,
        3.0,
        "s",
    );
}

/// A bare server and that many clients of it, each with a certificate of its own.
fn beside(cluster: &Cluster, count: usize) -> (Bare, Runtime) {
    let port = free_port();
    let bare = Bare::start(port, &cluster.path("controller"));
    let states = identities(cluster, port, count);
    let runtime = runtime();
    let clients = states.into_iter().map(|state| async move {
        let mut client = raw::connect(&state).await.expect("it takes it");
        let hello = v1::Hello { protocol: 1, ..v1::Hello::default() };
        let (say, mut hear) = raw::session(&mut client, What::Hello(hello)).await.expect("a stream");
        hear.message().await.expect("a welcome");
        tokio::spawn(async move {
            while let Ok(Some(_)) = hear.message().await {
                let report = v1::Report {
                    seq: 1,
                    run: "run_00000000000000000000000000000000".into(),
                    ..v1::Report::default()
                };
                let reports = v1::Reports { reports: vec![report; 6] };
                let _ = say.send(v1::FromAgent { what: Some(What::Reports(reports)) }).await;
            }
            drop(client);
        });
    });
    runtime.block_on(async {
        let mut clients = clients.peekable();
        while clients.peek().is_some() {
            let some: Vec<_> = clients.by_ref().take(48).collect();
            futures_util::future::join_all(some).await;
        }
    });
    (bare, runtime)
}

fn identities(cluster: &Cluster, port: u16, count: usize) -> Vec<PathBuf> {
    let mint = Mint::of(cluster).at(port);
    let one = |number: usize| {
        let state = cluster.path(&format!("bare-{port}/{number}"));
        mint.join(&format!("bare-{number}").parse().expect("a name"), &state);
        state
    };
    (1..=count).map(one).collect()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

pub(crate) fn memory() {
    let mut cluster = cluster();
    let pid = cluster.controller().pid();
    // The buffers of a first few come and go.
    drop(Fleet::start(&cluster, "first", 50, Pace::AtOnce));
    let empty = settled_memory(pid);
    let fleet = Fleet::start(&cluster, "web", HOSTS, Pace::AtOnce);
    let full = settled_memory(pid);
    fleet.vanish();
    eventually("the controller has noticed", SLOW, || {
        let agents = cluster.json("ana", &["agent", "list"]);
        let all = agents.as_array().into_iter().flatten();
        match all.filter(|agent| agent["state"] == "connected").count() {
            0 => Ok(()),
            left => Err(left),
        }
    });
    let after = settled_memory(pid);
    let each = (full - empty) / HOSTS as f64;

    let port = free_port();
    let bare = Bare::start(port, &cluster.path("controller"));
    drop(bare);
    let (bare, peer) = beside(&cluster, 50);
    let bare_empty = settled_memory(bare.pid());
    drop((bare, peer));
    let (bare, peer) = beside(&cluster, HOSTS + 50);
    let bare_full = settled_memory(bare.pid());
    drop((bare, peer));
    let bare_each = (bare_full - bare_empty) / HOSTS as f64;
    table::line(
        "controller: before, with 1,000 hosts, after they vanished",
        format!("{empty:.0}, {full:.0}, {after:.0} KiB"),
    );
    table::line(
        "given back after they vanished",
        format!("{:.0} %", 100.0 * (full - after) / (full - empty)),
    );
    table::line("peer: bare tonic with mTLS, each stream", format!("{bare_each:.1} KiB"));
    table::line("ratio to that", format!("{:.2} ×", each / bare_each));
    table::at_most("controller memory per idle host", each, 45.0, "KiB");
}

/// Resident KiB of a process, once it has neither grown nor shrunk for longer than an allocator keeps what was freed.
fn settled_memory(pid: u32) -> f64 {
    let read = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it lives");
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:")?.strip_suffix(" kB"));
        line.and_then(|number| number.trim().parse::<f64>().ok()).expect("it has memory")
    };
    let mut last = read();
    let began = Instant::now();
    let mut since = began;
    while since.elapsed() < STILL {
        assert!(began.elapsed() < SLOW, "the memory of {pid} does not settle: {last} KiB");
        std::thread::sleep(Duration::from_secs(1));
        let now = read();
        if (now - last).abs() >= 64.0 {
            (last, since) = (now, Instant::now());
        }
    }
    read()
}

pub(crate) fn back() {
    let mut cluster = cluster();
    let fleet = Fleet::start(&cluster, "web", MOST, Pace::AtOnce);
    let mut took = Samples::default();
    for _ in 0..3 {
        let some: Vec<String> = fleet.hosts().into_iter().step_by(10).collect();
        let run = start(&cluster, "bench/everywhere", &some);
        cluster.controller().kill();
        let began = Instant::now();
        cluster.start_controller();
        fleet.until_connected(SLOW);
        took.add(*fleet.arrivals(began).last().expect("they came"));
        let seen = cluster.until(&run, "has ended", |run| run["ended_at"].is_string());
        let endings =
            seen["hosts"].as_array().into_iter().flatten().filter(|host| host["ending"] == "verified");
        assert_eq!(endings.count(), some.len(), "a run was lost");
    }
    drop(fleet);
    let handshakes = handshakes(&cluster);
    let back = MOST as f64 / (took.median() / 1000.0);
    table::line(&format!("{MOST} hosts back after kill -9 and start"), &took);
    table::line("hosts back per second, from the kill on", format!("{back:.0}"));
    table::line("peer: bare mTLS handshakes per second, both sides here", format!("{handshakes:.0}"));
    table::line("ratio to that", format!("{:.2}", back / handshakes));
    table::at_most("10,000 hosts back, median", took.median() / 1000.0, 60.0, "s");
}

/// Handshakes with both certificates, 48 at a time.
fn handshakes(cluster: &Cluster) -> f64 {
    let port = free_port();
    let bare = Bare::start(port, &cluster.path("controller"));
    let states = Arc::new(identities(cluster, port, HOSTS));
    let runtime = runtime();
    let began = Instant::now();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for part in 0..48 {
            let states = Arc::clone(&states);
            tasks.spawn(async move {
                for state in states.iter().skip(part).step_by(48) {
                    drop(raw::shake_hands(state).await.expect("it takes it"));
                }
            });
        }
        tasks.join_all().await;
    });
    let took = began.elapsed();
    drop(bare);
    HOSTS as f64 / took.as_secs_f64()
}
