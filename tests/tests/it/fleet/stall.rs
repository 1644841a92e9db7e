//! The controller's disk stands still for ten seconds, while many hosts go on saying little things.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use fettle_tests::fleet::{Pace, Works};
use fettle_tests::{Cluster, Fleet, eventually};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::LIMIT;

const HOSTS: usize = 200;
/// Attempts of the one step on each host; two reports each.
const ATTEMPTS: u32 = 60;
const EVERY: Duration = Duration::from_millis(400);
/// For so long the disk stands still.
const STILL: Duration = Duration::from_secs(10);
/// So many reports of each host pass meanwhile; at their pace it would be ten more.
const MEANWHILE: u64 = 40;

const TRICKLE: &str = r#"fettle: 1
runbook: test/trickle
title: Say little things
owner: tests
diagnose:
  - id: look
    run: ["true"]
"#;

#[test]
fn a_disk_that_stands_still_costs_no_connection_and_no_report() {
    if !fettle_crash::POSSIBLE {
        return;
    }
    let mut cluster = Cluster::builder().runbook(TRICKLE).start();
    cluster.controller().kill();
    let stall = cluster.path("stall");
    let armed = format!("@{}", stall.display());
    let controller = cluster.launch_controller(&[("FETTLE_CRASH_AT", &armed)]);
    *cluster.controller() = controller;
    let fleet = Fleet::start(&cluster, "web", HOSTS, Pace::Trickle { attempts: ATTEMPTS, every: EVERY });
    let mut words = vec!["start", "test/trickle", "--detach"];
    let hosts = fleet.hosts();
    hosts.iter().for_each(|host| words.extend(["--host", host.as_str()]));
    let run = cluster.json("ana", &words)["run"].as_str().expect("a run has an id").to_owned();
    said_by_all(&fleet, "has begun", 10);

    fs::write(&stall, "store.before-commit stall").expect("a file");
    let (still, went_on) = stands_still(&cluster, &fleet);
    let owed = fleet.works().iter().map(Works::owed).min().unwrap_or_default();
    let most = fleet.works().iter().map(Works::owed).max().unwrap_or_default();
    println!(
        "the disk stood still for {still:?}; each host said {went_on} reports or more, and is owed for {owed} to {most}"
    );
    assert!(still >= STILL && went_on >= MEANWHILE, "{still:?}, {went_on} reports");
    assert!(owed as u64 >= MEANWHILE, "nothing became durable meanwhile: {owed}");
    assert_eq!(fleet.connected(), HOSTS);
    fs::remove_file(&stall).expect("it is there");

    said_by_all(&fleet, "has said everything", u64::from(2 * ATTEMPTS + 3));
    fleet.until_settled(LIMIT);
    for works in fleet.works() {
        assert_eq!(works.welcomed().len(), 1, "{}: its connection was never lost", works.host());
    }
    let seen = cluster.until(&run, "has ended", |run| run["ended_at"].is_string());
    let endings = seen["hosts"].as_array().into_iter().flatten().filter(|host| host["ending"] == "succeeded");
    assert_eq!(endings.count(), HOSTS);
    let all: Vec<u64> = (1..=u64::from(ATTEMPTS)).collect();
    let ended = ended(&cluster, &run);
    assert_eq!(ended.len(), HOSTS);
    for (host, attempts) in ended {
        assert_eq!(attempts, all, "{host}: everything is durable once, in order");
    }
}

#[track_caller]
fn said_by_all(fleet: &Fleet, what: &str, reports: u64) {
    eventually(&format!("every host {what}"), LIMIT, || {
        assert_eq!(fleet.connected(), HOSTS, "a connection was lost");
        match fleet.works().iter().map(Works::reported).min().unwrap_or_default() {
            least if least >= reports => Ok(()),
            least => Err(format!("one said {least} of {reports} reports")),
        }
    });
}

/// Waits until nothing has become durable for long enough, while no connection was lost: for how long, and how many reports the host
/// that said least has said meanwhile.
#[track_caller]
fn stands_still(cluster: &Cluster, fleet: &Fleet) -> (Duration, u64) {
    let store = store(cluster);
    let last = || -> i64 {
        store.query_row("SELECT max(number) FROM events", [], |row| row.get(0)).expect("it has events")
    };
    let said = || fleet.works().iter().map(Works::reported).collect::<Vec<u64>>();
    let (mut durable, mut since, mut before) = (last(), Instant::now(), said());
    eventually("the disk has stood still", LIMIT, || {
        assert_eq!(fleet.connected(), HOSTS, "a connection was lost");
        let (still, now) = (since.elapsed(), last());
        if now != durable {
            // What had passed that point was still committed.
            (durable, since, before) = (now, Instant::now(), said());
        }
        let went_on = said().iter().zip(&before).map(|(now, before)| now - before).min().unwrap_or_default();
        match now == durable && still >= STILL && went_on >= MEANWHILE {
            true => Ok((still, went_on)),
            false => {
                Err(format!("record {now} is the last for {still:?}, and one host said {went_on} reports"))
            }
        }
    })
}

fn store(cluster: &Cluster) -> Connection {
    let path = cluster.path("controller/store/controller.db");
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the store is there")
}

/// Which attempts ended on each host, as history has them.
fn ended(cluster: &Cluster, run: &str) -> BTreeMap<String, Vec<u64>> {
    let store = store(cluster);
    let mut asked =
        store.prepare("SELECT body FROM events WHERE run = ?1 ORDER BY number").expect("it has events");
    let bodies = asked.query_map([run], |row| row.get::<_, String>(0)).expect("they can be read");
    let mut ended: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for body in bodies {
        let event: Value = serde_json::from_str(&body.expect("a row")).expect("JSON");
        let Some(step) = event.get("step-ended") else { continue };
        let host = step["host"].as_str().expect("a host").to_owned();
        ended.entry(host).or_default().push(step["attempt"].as_u64().expect("a number"));
    }
    ended
}
