//! The controller restarts, and everybody comes back.

use std::collections::BTreeMap;
use std::thread;
use std::time::Instant;

use fettle_tests::alerts::firing;
use fettle_tests::fleet::{Pace, few_descriptors, raise_descriptors};
use fettle_tests::{Cluster, Fleet};

use super::{EVERYWHERE, LIMIT};

/// Hosts that come back.
const HOSTS: usize = 2000;
/// Descriptors that a process needs beside one for each host.
const OTHERS: u64 = 256;

#[test]
fn two_thousand_hosts_come_back_to_a_restarted_controller_and_no_run_is_lost() {
    few_descriptors();
    let mut cluster = Cluster::builder().runbook(EVERYWHERE).start();
    assert!(raise_descriptors() >= HOSTS as u64 + OTHERS, "this test needs {HOSTS} descriptors");
    let began = Instant::now();
    let fleet = Fleet::start(&cluster, "web", HOSTS, Pace::AtOnce);
    println!("{HOSTS} hosts are connected after {:?}", began.elapsed());

    // A run on every tenth host is under way when the controller dies.
    let hosts: Vec<String> = fleet.hosts().into_iter().step_by(10).collect();
    let mut words = vec!["start", "test/everywhere", "--detach"];
    hosts.iter().for_each(|host| words.extend(["--host", host.as_str()]));
    let run = cluster.json("ana", &words)["run"].as_str().expect("a run has an id").to_owned();
    let died = Instant::now();
    cluster.controller().kill();
    // Signs everybody in, while everybody else comes back.
    cluster.start_controller();
    let answers = died.elapsed();
    let meanwhile = thread::scope(|scope| {
        let signal = scope.spawn(|| {
            let asked = Instant::now();
            let answer = cluster.post(&firing("Everywhere", &[("instance", "web-2")]));
            (answer.status, asked.elapsed())
        });
        let asked = Instant::now();
        let agents = cluster.json("ana", &["agent", "list"]);
        let person = (agents.as_array().map_or(0, Vec::len), asked.elapsed());
        (signal.join().expect("it is posted"), person)
    });
    let connected = fleet.connected();
    fleet.until_connected(LIMIT);
    let arrivals = fleet.arrivals(died);
    println!(
        "signed in after {answers:?}; with {connected} of {HOSTS} back: signal {:?}, list of hosts {:?}; all back after {:?}",
        meanwhile.0,
        meanwhile.1,
        arrivals.last()
    );
    assert!((200..300).contains(&meanwhile.0.0), "{meanwhile:?}");
    assert_eq!(meanwhile.1.0, HOSTS, "a host is known whether it is connected or not");

    // Full jitter over the first second: all of them lose their connection at once, and no tenth of a second brings a quarter of
    // them back to the door.
    let dials = fleet.dials(died);
    let mut crowds: BTreeMap<u128, usize> = BTreeMap::new();
    dials.iter().for_each(|at| *crowds.entry(at.as_millis() / 100).or_default() += 1);
    println!("first dials, by tenths of a second: {crowds:?}");
    assert_eq!((dials.len(), arrivals.len()), (HOSTS, HOSTS));
    assert!(crowds.values().all(|crowd| *crowd <= HOSTS / 4), "by tenths of a second: {crowds:?}");

    let seen = cluster.until(&run, "has ended", |run| run["ended_at"].is_string());
    let endings: Vec<&str> =
        seen["hosts"].as_array().into_iter().flatten().filter_map(|host| host["ending"].as_str()).collect();
    assert_eq!(endings, vec!["verified"; hosts.len()], "{seen:#}");
    fleet.until_settled(LIMIT);
    for works in fleet.works().iter().step_by(10) {
        let acts: Vec<u32> =
            works.acts().into_iter().filter(|((of, _), _)| *of == run).map(|(_, times)| times).collect();
        assert_eq!(acts, [1], "{}: nothing is carried out twice", works.host());
    }
}
