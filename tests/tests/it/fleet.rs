//! Many hosts at once: what a controller does when all of them come back, when its disk stands still, and when one of them
//! floods it. The hosts are [`fettle_tests::Fleet`]'s: real protocol, real TLS, works that do nothing.

mod flood; // one sends without end
mod stall; // the disk stands still
mod storm; // all come back

use std::time::Duration;

/// How long each part of a story may take on a machine that does other things too, in debug builds.
const LIMIT: Duration = Duration::from_secs(90);

/// One step everywhere, and a look whether it helped.
const EVERYWHERE: &str = r#"fettle: 1
runbook: test/everywhere
title: The same everywhere
owner: tests
on:
  - alert: Everywhere
    host: labels.instance
remediate:
  - id: act
    risk: low
    run: ["true"]
    repeat: never
    undo: none
verify:
  - id: alive
    that: load.one >= 0.0
"#;
