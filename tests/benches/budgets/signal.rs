//! From a signal to the first process of its diagnosis: a real controller, a real agent, mTLS over loopback.

use std::time::Duration;

use fettle_tests::alerts::firing;
use fettle_tests::{Cluster, eventually};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use crate::table::{self, Samples};
use crate::webhook::Webhook;
use crate::{limit, marker};

const TIMES: usize = 300;

/// Something went wrong when the process has not begun by then.
const SLOW: Duration = Duration::from_secs(20);

/// A runbook whose diagnosis begins with this program.
fn runbook(program: &str) -> String {
    format!(
        "fettle: 1
runbook: bench/look
title: Look at something
owner: benches
on:
  - alert: Bench
    host: labels.instance
diagnose:
  - id: look
    run: [{program}]
"
    )
}

pub(crate) fn measure() {
    let folder = tempfile::tempdir().expect("a directory");
    let program = marker::build(folder.path());
    let runbook = runbook(&program.display().to_string());
    let policy = json!({ "modes": [{ "runbook": "*", "mode": "diagnose" }] });
    let cluster = Cluster::builder().runbook(&runbook).agent("web-1").policy(policy).start();
    let directory = cluster.path("marks");
    std::fs::create_dir(&directory).expect("a folder can be made");
    let mut source = Webhook::open(&cluster);
    // Looking into its file disturbs the controller less than asking it would.
    let store = Connection::open_with_flags(
        cluster.path("controller/store/controller.db"),
        OpenFlags::SQLITE_OPEN_READ_ONLY,
    );
    let store = store.expect("the controller's store");

    let (mut posted, mut answered) = (Samples::default(), Samples::default());
    let (mut began, mut over) = (Samples::default(), Samples::default());
    for time in 0..TIMES + 10 {
        let number = time.to_string();
        let labels = [("instance", "web-1"), ("number", number.as_str())];
        let body = firing("Bench", &labels).to_string();
        let before = marker::now();
        source.post(&body);
        let answer = marker::now();
        // One run at a time is the guard of the same runbook on the same host.
        eventually("the run is over", Duration::from_secs(30), || match runs(&store) {
            (all, 0) if all == time as i64 + 1 => Ok(()),
            // Asking costs a process, which nothing that is measured should have beside it.
            seen if marker::now() - answer > SLOW => {
                Err(format!("(all, open) {seen:?}\n{}", what_came_of_it(&cluster)))
            }
            seen => Err(format!("(all, open) {seen:?}")),
        });
        let mark = began_at(&cluster);
        // The limit, while the machine is as busy as it was.
        let (one, other) = limit::spawn(&program, &directory, 1);
        if time >= 10 {
            posted.add(mark.saturating_sub(before));
            answered.add(mark.saturating_sub(answer));
            began.extend(&one);
            over.extend(&other);
        }
    }
    table::line("posted → first process began", &posted);
    table::line("answered (durable) → first process began", &answered);
    table::line("limit: spawn → the same process began", &began);
    table::line("limit: spawn + wait of the same process", &over);
    limit::disk(&directory);
    table::ratio("posted → began, to bare spawn + wait", &posted, &over);
    table::at_most("signal accepted → first process, p99", answered.quantile(0.99), 6.0, "ms");
    table::at_most("the same from posting on, p99", posted.quantile(0.99), 6.0, "ms");
}

/// All runs, and those of them that are open.
fn runs(store: &Connection) -> (i64, i64) {
    let count = "SELECT count(*), count(*) FILTER (WHERE open = 1) FROM runs";
    store.query_row(count, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("it can be read")
}

/// When the process of the newest run began. It printed that: in its sandbox it can leave no mark.
fn began_at(cluster: &Cluster) -> Duration {
    let signals = cluster.json("ana", &["signal", "list", "-n", "1"]);
    let run = signals[0]["run"].as_str().expect("it started a run");
    let logs = cluster.fettle("ana", &["logs", run]);
    let text = String::from_utf8_lossy(&logs.stdout);
    let mark = text.lines().find_map(|line| line.trim().parse().ok());
    Duration::from_nanos(mark.unwrap_or_else(|| panic!("no mark in {text}")))
}

fn what_came_of_it(cluster: &Cluster) -> String {
    format!("{:#}\n{}", cluster.json("ana", &["signal", "list", "-n", "1"]), cluster.said())
}
