//! What the first version left on a host's disk, as it wrote it. No update of golden files rewrites these.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fettle_agent::works::attempt::{Attempts, Ended, Outcome};
use fettle_agent::works::journal::Journal;
use fettle_agent::works::output::{Kept, Stream};
use fettle_agent::works::record::{AttemptKey, Record};
use fettle_agent::works::recovery::{Dead, Found};
use fettle_runbooks::id::Digest;
use tempfile::TempDir;

use crate::bench::Bench;
use crate::carry::runbook;

fn frozen(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frozen").join(name)
}

fn text(text: &[u8]) -> Kept {
    let mut kept = Kept::default();
    kept.push(text);
    kept
}

/// What its journal holds: it knew no pauses and no controllers that forget.
fn records() -> Vec<Record> {
    let run = "run_0192f0c1d2e37a4b8c9d0e1f2a3b4c5d".parse().unwrap();
    let key = AttemptKey { run, path: "remediate/restart".into(), attempt: 2 };
    let result = Ended {
        outcome: Outcome::Exited,
        exit_code: Some(0),
        signal: None,
        stdout: text(b"done\n"),
        stderr: Kept::default(),
        took: Duration::from_millis(1500),
        hint: String::new(),
    };
    let refused = Ended {
        outcome: Outcome::NotStarted { code: "expired".into(), message: "too late".into() },
        exit_code: None,
        ..result.clone()
    };
    vec![
        Record::Accepted {
            run,
            segment: 1,
            digest: Digest::of("order", 1, b"content"),
            content: b"content".to_vec(),
            nonce_consumed: Some("00ff".into()),
            boot: "b6a4".into(),
        },
        Record::Planned { run, nonce: "00ff".into(), boot: "b6a4".into(), plan: b"{}".to_vec() },
        Record::Event { run, segment: 1, event: b"begin".to_vec() },
        Record::Intent { key: key.clone(), segment: 1 },
        Record::Exited { key: key.clone(), result },
        Record::Exited { key, result: refused },
        Record::Tombstone { run, until_ms: 1_790_000_000_000 },
        Record::Report { seq: 9, bytes: vec![0, 1, 255] },
        Record::Acked { upto: 9 },
        Record::Ended { run, segment: 1 },
        // Of before a tombstone had a time.
        Record::Tombstone { run, until_ms: 0 },
    ]
}

fn put_journal(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    fs::copy(frozen("first.journal"), dir.join("00000001.journal")).unwrap();
}

#[test]
fn a_journal_of_the_first_version_is_understood_and_written_on() {
    let dir = tempfile::tempdir().unwrap();
    put_journal(dir.path());
    let opened = Journal::open(dir.path()).unwrap();
    assert!(opened.damage.is_none(), "{:?}", opened.damage);
    assert_eq!(opened.records, records());
    let next = Record::Acked { upto: 10 };
    opened.journal.append(std::slice::from_ref(&next)).wait().unwrap();
    drop(opened);
    let all = [records(), vec![next]].concat();
    assert_eq!(Journal::open(dir.path()).unwrap().records, all);
}

#[test]
fn a_host_with_a_journal_of_the_first_version_goes_on() {
    let mut bench = Bench::new();
    bench.stop();
    let dir = bench.file("state/journal");
    fs::remove_dir_all(&dir).unwrap();
    put_journal(&dir);
    bench.start();
    bench.connect(9);
    let text = runbook(&bench);
    bench.plan(&text);
    assert_eq!(bench.heard[0].seq, 10, "its numbers go on: {}", bench.transcript());
}

/// A host with the folder of one attempt, and the folder.
fn host() -> (TempDir, PathBuf, AttemptKey) {
    let state = tempfile::tempdir().unwrap();
    let run = "run_0193a1b2c3d4e5f60718293a4b5c6d7e";
    let dir = state.path().join(format!("attempts/{run}.remediate~restart.1"));
    fs::create_dir_all(&dir).unwrap();
    fs::copy(frozen("attempt/stdout"), dir.join("stdout")).unwrap();
    for name in ["order", "started", "exit"] {
        let text = fs::read_to_string(frozen("attempt").join(name)).unwrap();
        // The line's end is this repository's.
        fs::write(dir.join(name), text.trim_end()).unwrap();
    }
    let key = AttemptKey { run: run.parse().unwrap(), path: "remediate/restart".into(), attempt: 1 };
    (state, dir, key)
}

#[test]
fn what_an_attempt_of_the_first_version_left_is_followed() {
    let (state, dir, key) = host();
    let attempts = Attempts::open(state.path()).unwrap();
    let ended = Ended {
        outcome: Outcome::Exited,
        exit_code: Some(3),
        signal: None,
        stdout: text(b"done\n"),
        stderr: Kept::default(),
        took: Duration::from_millis(1500),
        hint: String::new(),
    };
    assert_eq!(attempts.look(&key).unwrap(), Found::Exit(Box::new(ended)));
    assert_eq!(attempts.output(&key, Stream::Stdout, 0, 99).unwrap(), b"done\n");

    // Where its supervisor left no result, the boot in which it was started tells that nothing of it runs.
    fs::remove_file(dir.join("exit")).unwrap();
    let Found::Unknown(unknown) = attempts.look(&key).unwrap() else { panic!("it was started") };
    assert_eq!(unknown.dead, Dead::Certainly, "{}", unknown.reason);
    assert!(unknown.reason.contains("rebooted"), "{}", unknown.reason);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "it is the agent that starts the supervisor here")]
fn what_the_first_version_ordered_is_run_by_the_supervisor_of_this_one() {
    let (state, dir, key) = host();
    for name in ["started", "exit", "stdout"] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    // The agent was replaced between the two: its supervisor finds the order, and the lock as its first descriptor.
    let born = Command::new("/bin/sh")
        .args(["-c", r#"exec 3> "$1/lock"; exec "$0" __shim watch "$1""#, env!("CARGO_BIN_EXE_fettle-agent")])
        .arg(&dir)
        .status()
        .unwrap();
    assert!(born.success(), "{born}");
    let found = Attempts::open(state.path()).unwrap().look(&key).unwrap();
    let Found::Exit(ended) = found else { panic!("{found:?}") };
    assert_eq!((&ended.outcome, ended.exit_code), (&Outcome::Exited, Some(3)));
    assert_eq!((&ended.stdout, &ended.stderr), (&text(b"done\n"), &text(b"none\n")));
}
