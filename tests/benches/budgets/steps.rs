//! Steps that act: through journal and shim, until their results are durable.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use fettle_agent::works::attempt::{Attempts, Happening, Spec, StartBy, Work};
use fettle_agent::works::clock;
use fettle_agent::works::record::AttemptKey;
use fettle_runbooks::id::RunId;
use fettle_runbooks::runbook::Risk;
use fettle_tests::Cluster;
use fettle_tests::programs::binary;

use crate::table::{self, Samples};
use crate::{limit, marker};

/// Steps of one runbook, and how often it runs.
const STEPS: usize = 40;
const RUNS: usize = 8;

pub(crate) fn measure() {
    let folder = tempfile::tempdir().expect("a directory");
    let program = marker::build(folder.path());
    let cluster = Cluster::builder().runbook(&runbook(&program)).agent("web-1").start();
    let directory = cluster.path("marks");
    std::fs::create_dir(&directory).expect("a folder can be made");

    let (mut cycle, mut five, mut shim, mut spawned) =
        (Samples::default(), Samples::default(), Samples::default(), Samples::default());
    let attempts =
        Attempts::open(&directory).expect("a folder for attempts").supervised_by(binary("fettle-agent"));
    for run in 0..RUNS {
        let mark = directory.join(run.to_string());
        let mark_name = mark.display().to_string();
        let labels = [("instance", "web-1"), ("mark", mark_name.as_str())];
        let id = cluster.fire("Bench", &labels);
        assert_eq!(cluster.ending(&id), "verified");
        let marks = marker::read(&mark);
        assert_eq!(marks.len(), STEPS);
        marks.windows(2).for_each(|pair| cycle.add(pair[1] - pair[0]));
        marks.windows(6).step_by(5).for_each(|six| five.add(six[5] - six[0]));
        // The limits, while the machine is as busy as it was.
        for _ in 0..STEPS {
            shim.add(through_a_shim(&attempts, &program, &directory.join("shim")));
        }
        spawned.extend(&limit::spawn(&program, &directory, STEPS).1);
    }

    table::line("one step to the next: result and next intent durable", &cycle);
    table::line("five in a row", &five);
    table::line("through a shim alone: spawn → durable exit file", &shim);
    table::line("limit: bare spawn + wait of the same process", &spawned);
    limit::disk(&directory);
    table::line("steps per second, one agent", format!("{:.0}", 1000.0 / cycle.median()));
    table::line("bare spawn + wait per second", format!("{:.0}", 1000.0 / spawned.median()));
    table::ratio("one step, to bare spawn + wait", &cycle, &spawned);
    table::at_most("remediate step, spawn to durable result, median", cycle.median(), 3.5, "ms");
    table::at_most(
        "five durable steps in a row, without the steps",
        five.median() - 5.0 * spawned.median(),
        10.0,
        "ms",
    );
}

/// A runbook of many steps that run this program.
fn runbook(program: &Path) -> String {
    let mut text = String::from(
        "fettle: 1
runbook: bench/act
title: Act
owner: benches
inputs:
  mark: { type: path }
on:
  - alert: Bench
    host: labels.instance
    inputs: { mark: \"${{ labels.mark }}\" }
verify:
  - id: alive
    that: load.one >= 0.0
remediate:
",
    );
    for step in 0..STEPS {
        let _ = write!(
            text,
            "  - id: act-{step}
    risk: low
    run: [{}, \"${{{{ inputs.mark }}}}\"]
    repeat: safe
    undo: none
",
            program.display()
        );
    }
    text
}

fn through_a_shim(attempts: &Attempts, program: &Path, mark: &Path) -> Duration {
    let words = vec![program.display().to_string(), mark.display().to_string()];
    let spec = Spec {
        key: AttemptKey { run: RunId::new(uuid::Uuid::now_v7()), path: "remediate/act".into(), attempt: 1 },
        work: Work::Argv(words),
        env: BTreeMap::new(),
        cwd: None,
        user: None,
        allowed: Default::default(),
        timeout: Duration::from_secs(60),
        grace: Duration::from_secs(1),
    };
    let start_by = StartBy {
        not_after_ms: clock::wall_ms() + 60_000,
        boot: None,
        runbook: "bench/act".into(),
        risk: Risk::Low,
    };
    let (tell, told) = channel();
    let before = marker::now();
    let observer = Box::new(move |happening: Happening<'_>| match happening {
        Happening::Output { .. } => {}
        Happening::Ended(ended) => drop(tell.send(Ok((marker::now(), ended.exit_code)))),
        Happening::NeverBorn => drop(tell.send(Err("never born".to_owned()))),
        Happening::Unknown(reason) => drop(tell.send(Err(reason))),
    });
    attempts.start_effect(&spec, &start_by, observer).expect("a shim is born");
    let (ended, code) = told.recv().expect("it ends").expect("its end is known");
    assert_eq!(code, Some(0));
    ended - before
}
