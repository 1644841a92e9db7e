//! Steps that only read: what their sandbox costs, beside a process without one.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use fettle_agent::works::attempt::{Attempts, Happening, Spec, Work};
use fettle_agent::works::record::AttemptKey;
use fettle_agent::works::sandbox::{Allowed, Reading};
use fettle_runbooks::id::RunId;
use fettle_tests::programs::binary;

use crate::marker;
use crate::table::{self, Samples};

const TIMES: usize = 400;
const PROGRAM: &str = "/bin/echo";

pub(crate) fn measure() {
    let folder = tempfile::tempdir().expect("a directory");
    let attempts =
        Attempts::open(folder.path()).expect("a folder for attempts").supervised_by(binary("fettle-agent"));
    let missing = attempts.confinement().missing();
    if !missing.is_empty() {
        table::line("not measured", missing.join("; "));
        return;
    }
    let mut kinds = vec![("sandbox", Allowed::default())];
    if rustix::process::geteuid().is_root() {
        kinds.push(("sandbox that reads all", Allowed { read: Reading::All, ..Allowed::default() }));
    }
    let mut bare = Samples::default();
    let mut measured: Vec<_> =
        kinds.into_iter().map(|kind| (kind, Samples::default(), Samples::default())).collect();
    // In turn, so that the machine is as busy for each.
    for _ in 0..TIMES {
        bare.add(without());
        for ((_, allowed), first, end) in &mut measured {
            let (word, over) = within(&attempts, allowed);
            first.add(word);
            end.add(over);
        }
    }
    for ((name, _), first, end) in &measured {
        table::line(&format!("{name}: start → the step's first word"), first);
        table::line(&format!("{name}: start → its end is known"), end);
    }
    table::line("limit: bare spawn + wait of the same program", &bare);
    for ((name, _), _, end) in &measured {
        table::ratio(&format!("{name}, to bare spawn + wait"), end, &bare);
    }
}

fn without() -> Duration {
    let before = marker::now();
    let status = Command::new(PROGRAM).arg("word").stdin(Stdio::null()).stdout(Stdio::null()).status();
    assert!(status.expect("it starts").success());
    marker::now() - before
}

/// How long until the step said something, and until it was over.
fn within(attempts: &Attempts, allowed: &Allowed) -> (Duration, Duration) {
    let spec = Spec {
        key: AttemptKey { run: RunId::new(uuid::Uuid::now_v7()), path: "diagnose/look".into(), attempt: 1 },
        work: Work::Argv(vec![PROGRAM.into(), "word".into()]),
        env: BTreeMap::new(),
        cwd: None,
        user: None,
        allowed: allowed.clone(),
        timeout: Duration::from_secs(60),
        grace: Duration::from_secs(1),
    };
    let (tell, told) = channel();
    let before = marker::now();
    let observer = Box::new(move |happening: Happening<'_>| match happening {
        Happening::Output { .. } => drop(tell.send(Ok((marker::now(), None)))),
        Happening::Ended(ended) => drop(tell.send(Ok((marker::now(), ended.exit_code)))),
        Happening::NeverBorn => drop(tell.send(Err("never born".to_owned()))),
        Happening::Unknown(reason) => drop(tell.send(Err(reason))),
    });
    attempts.start_read(&spec, observer).expect("it starts");
    let next = || told.recv().expect("it ends").expect("its end is known");
    let ((first, none), (ended, code)) = (next(), next());
    assert_eq!((none, code), (None, Some(0)), "it says one word");
    (first - before, ended - before)
}
