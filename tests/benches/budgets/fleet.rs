//! A runbook of one step to many hosts: every agent a process of its own, every result durable.

use std::time::Duration;

use fettle_tests::cluster::LIMIT;
use fettle_tests::{Cluster, eventually};
use jiff::Timestamp;

use crate::many::{LOOK, RUNBOOK, start};
use crate::table::{self, Samples};
use crate::{limit, marker};

const HOSTS: usize = 50;
const RUNS: usize = 7;

/// From the decision to start a run on these hosts until it has ended so on all of them.
fn everywhere(cluster: &Cluster, hosts: &[String], runbook: &str, well: &str) -> Samples {
    let mut took = Samples::default();
    for time in 0..=RUNS {
        let run = start(cluster, runbook, hosts);
        let seen = eventually("it has ended everywhere", LIMIT, || {
            let seen = cluster.json("ana", &["run", "show", &run]);
            let ended = seen["ended_at"].is_string();
            if ended { Ok(seen) } else { Err(format!("{seen:#}")) }
        });
        let endings = seen["hosts"].as_array().into_iter().flatten().map(|host| host["ending"].as_str());
        assert_eq!(endings.filter(|ending| *ending == Some(well)).count(), HOSTS, "{seen:#}");
        // The first one warms up.
        if time > 0 {
            took.add(between(&seen["created_at"], &seen["ended_at"]));
        }
    }
    took
}

pub(crate) fn measure() {
    let hosts: Vec<String> = (1..=HOSTS).map(|number| format!("web-{number}")).collect();
    let bare = Cluster::builder().runbook(RUNBOOK).runbook(LOOK);
    let cluster = hosts.iter().fold(bare, |it, host| it.agent(host)).start();
    let looked = everywhere(&cluster, &hosts, "bench/look", "succeeded");
    let acted = everywhere(&cluster, &hosts, "bench/everywhere", "verified");
    let program = marker::build(&cluster.path(""));
    let directory = cluster.path("");
    let (_, spawned) = limit::spawn(&program, &directory, 100);
    table::line(&format!("{HOSTS} agent processes, one diagnose step: created → all durable"), &looked);
    table::line(&format!("{HOSTS} agent processes, one remediate step, verified"), &acted);
    table::line("limit: bare spawn + wait, one after the other", &spawned);
    let disk = limit::disk(&directory);
    let least = HOSTS as f64 * spawned.median();
    table::line(&format!("{HOSTS} bare spawns + waits"), format!("{least:.1} ms"));
    table::line("ratio of the diagnose step to those", format!("{:.1} ×", looked.median() / least));
    table::line("ratio of the remediate step to those", format!("{:.1} ×", acted.median() / least));
    let _ = disk;
    table::at_most("one diagnose step to 50 agents, all durable, median", looked.median(), 60.0, "ms");
    table::at_most("one remediate step to 50 agents, all durable, median", acted.median(), 60.0, "ms");
}

fn between(from: &serde_json::Value, to: &serde_json::Value) -> Duration {
    let at = |value: &serde_json::Value| {
        let text = value.as_str().expect("a time is text");
        text.parse::<Timestamp>().expect("a time is RFC 3339")
    };
    at(to).duration_since(at(from)).unsigned_abs()
}
