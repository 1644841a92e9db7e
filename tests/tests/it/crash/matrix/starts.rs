//! Starts of a controller: the first, which finds nothing, and the first after an upgrade, which finds what an older one wrote.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use fettle_controller::store::Sqlite;
use fettle_tests::cluster::LIMIT;
use fettle_tests::{Cluster, eventually_every, power};
use rusqlite::Connection;

use super::hosts::Host;
use super::plays::{LOOK, stage};
use super::{Row, Way};
use crate::sources;

/// Versions of the store of which one is kept.
const OLDER: [u32; 2] = [7, 3];

/// Plays the first start of a controller, which has nothing yet. Gives back how many deaths there were.
pub(super) fn on_a_first_controller(share: &[(Row, Way)], times: u64) -> u64 {
    every_start(share, times, |host, case, _| {
        dies_and_starts(host, case);
        assert!(!host.state().join("ca.new").exists(), "{case}: no key is left that nobody uses");
    })
}

/// Plays the start of a controller that takes over what an older one wrote. Gives back how many deaths there were.
pub(super) fn on_an_older_store(share: &[(Row, Way)], times: u64) -> u64 {
    let fresh = tempfile::tempdir().expect("a directory");
    drop(Sqlite::open(fresh.path()).expect("a store of this version"));
    let ours = tables(&fresh.path().join("controller.db"));
    every_start(share, times, |host, case, time| {
        let store = host.state().join("store");
        fs::create_dir_all(&store).expect("a folder can be made");
        let database = store.join("controller.db");
        let version = OLDER[time as usize % OLDER.len()];
        let written = format!("controller/src/store/version-{version}.golden.sql");
        let written = fs::read_to_string(sources::top().join(written)).expect("one is kept");
        Connection::open(&database).and_then(|it| it.execute_batch(&written)).expect("it is SQL");
        power::sync(&store).expect("it can be synced");
        let (found, before) = (version_of(&database), history(&database));
        assert_eq!(found, version, "{case}");
        dies_and_starts(host, case);
        assert!(version_of(&database) > version, "{case}: it was taken over");
        assert_eq!(tables(&database), ours, "{case}: it is as one of this version");
        let after = history(&database);
        assert_eq!(after[..before.len()], before, "{case}: all that was there is there");
        super::super::history_gives_the_tables(host.cluster());
    })
}

/// Each row on an empty disk, again and again.
fn every_start(share: &[(Row, Way)], times: u64, play: impl Fn(&mut Host<'_>, &str, u64)) -> u64 {
    let mut cluster = stage().start();
    cluster.controller().kill();
    fs::remove_dir_all(cluster.path("controller")).expect("it can be removed");
    let Some(mut host) = Host::of_controller(&cluster) else { return 0 };
    for (row, way) in share {
        for time in 0..times {
            host.wipe();
            host.arm(row.point, *way);
            play(&mut host, &format!("{} {way:?} {time}", row.point), time);
        }
    }
    host.deaths
}

/// It starts and dies, and starts, and starts once more, as what it was.
fn dies_and_starts(host: &mut Host<'_>, case: &str) {
    host.start();
    let trust = answers(host, case, "a controller that died at its start starts");
    host.halt();
    host.start();
    let again = answers(host, case, "it starts again");
    assert_eq!(trust, again, "{case}: the authority that hosts pin stays the same");
    host.halt();
}

/// Waits until somebody has died and the controller answers; what is pinned of it.
fn answers(host: &mut Host<'_>, case: &str, what: &str) -> Vec<u8> {
    let (cluster, state): (&Cluster, _) = (host.cluster(), host.state());
    eventually_every(LOOK, what, LIMIT, || {
        host.look();
        let is_there = TcpStream::connect((Ipv4Addr::LOCALHOST, cluster.http)).is_ok();
        if host.waits() || !is_there {
            return Err(format!("{case}: nobody listens\n{}", host.said()));
        }
        let url = cluster.url("/v1/signals/nobody");
        let answer = fettle_tests::alerts::post(&url, &state.join("ca.pem"), None, b"{}");
        if answer.status == 0 { Err(format!("{answer:?}\n{}", host.said())) } else { Ok(()) }
    });
    fs::read(state.join("trust.json")).expect("there is a trust bundle")
}

fn version_of(database: &Path) -> u32 {
    let connection = Connection::open(database).expect("a database");
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).expect("it has a version")
}

/// Its tables and their indexes.
fn tables(database: &Path) -> Vec<String> {
    let connection = Connection::open(database).expect("a database");
    let mut names = connection.prepare("SELECT name FROM sqlite_schema ORDER BY name").expect("a schema");
    let names = names.query_map([], |row| row.get(0)).expect("it can be read");
    names.collect::<Result<_, _>>().expect("each can be read")
}

/// Every event, in order.
fn history(database: &Path) -> Vec<(i64, String)> {
    let connection = Connection::open(database).expect("a database");
    let mut events = connection.prepare("SELECT number, body FROM events ORDER BY number").expect("events");
    let events = events.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("they can be read");
    events.collect::<Result<_, _>>().expect("each can be read")
}
