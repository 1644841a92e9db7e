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
inputs:
  mark: {{ type: path }}
on:
  - alert: Bench
    host: labels.instance
    inputs: {{ mark: \"${{{{ labels.mark }}}}\" }}
diagnose:
  - id: look
    run: [{program}, \"${{{{ inputs.mark }}}}\"]
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
        let mark = directory.join(time.to_string());
        let name = mark.display().to_string();
        let labels = [("instance", "web-1"), ("mark", name.as_str())];
        let body = firing("Bench", &labels).to_string();
        let before = marker::now();
        source.post(&body);
        let answer = marker::now();
        let mark = eventually("the first process has marked", Duration::from_secs(30), || {
            let seen = marker::read(&mark).first().copied();
            // Asking costs a process, which nothing that is measured should have beside it.
            seen.ok_or_else(|| {
                if marker::now() - answer > SLOW { what_came_of_it(&cluster) } else { String::new() }
            })
        });
        // One run at a time is the guard of the same runbook on the same host.
        eventually("the run is over", Duration::from_secs(30), || match open_runs(&store) {
            0 => Ok(()),
            open => Err(format!("{open} are open\n{}", cluster.said())),
        });
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

fn open_runs(store: &Connection) -> i64 {
    store.query_row("SELECT count(*) FROM runs WHERE open = 1", [], |row| row.get(0)).expect("it can be read")
}

fn what_came_of_it(cluster: &Cluster) -> String {
    format!("{:#}\n{}", cluster.json("ana", &["signal", "list", "-n", "1"]), cluster.said())
}
