//! From a signal to the first process of its diagnosis: a real controller, a real agent, mTLS over loopback.

use std::time::Duration;

use fettle_tests::alerts::firing;
use fettle_tests::{Cluster, eventually};
use serde_json::json;

use crate::table::{self, Samples};
use crate::webhook::Webhook;
use crate::{limit, marker};

const TIMES: usize = 300;

const RUNBOOK: &str = r#"fettle: 1
runbook: bench/look
title: Look at something
owner: benches
inputs:
  program: { type: path }
  mark: { type: path }
on:
  - alert: Bench
    host: labels.instance
    inputs: { program: "${{ labels.program }}", mark: "${{ labels.mark }}" }
diagnose:
  - id: look
    run: ["${{ inputs.program }}", "${{ inputs.mark }}"]
remediate:
  - id: nothing
    risk: high
    run: ["true"]
    repeat: safe
    undo: none
"#;

pub(crate) fn measure() {
    let policy = json!({ "modes": [{ "runbook": "*", "mode": "diagnose" }] });
    let cluster = Cluster::builder().runbook(RUNBOOK).agent("web-1").policy(policy).start();
    let program = marker::build(&cluster.path(""));
    let directory = cluster.path("marks");
    std::fs::create_dir(&directory).expect("a folder can be made");
    let mut source = Webhook::open(&cluster);

    let (mut posted, mut answered) = (Samples::default(), Samples::default());
    let (mut began, mut over) = (Samples::default(), Samples::default());
    for time in 0..TIMES + 10 {
        let mark = directory.join(time.to_string());
        let (name, program_name) = (mark.display().to_string(), program.display().to_string());
        let labels = [("instance", "web-1"), ("program", program_name.as_str()), ("mark", name.as_str())];
        let body = firing("Bench", &labels).to_string();
        let before = marker::now();
        source.post(&body);
        let answer = marker::now();
        let mark = eventually("the first process has marked", Duration::from_secs(30), || {
            marker::read(&mark).first().copied().ok_or_else(|| cluster.said())
        });
        // What follows the diagnosis is over before the next signal comes, and the limit is measured in between.
        std::thread::sleep(Duration::from_millis(10));
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
