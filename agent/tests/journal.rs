//! The journal of a process that is killed at each of its points: nothing that was told durable is missing, and
//! nothing is there twice or out of order.

#![expect(clippy::disallowed_methods, reason = "a test starts what it wants to kill")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fettle_agent::crash::POINTS;
use fettle_agent::works::journal::Journal;
use fettle_agent::works::record::Record;

/// Appends numbers and compacts now and then, and writes down what it was told. It is also what other tests kill, in a process of
/// its own.
#[test]
fn whoever_lives_finds_the_last_number_it_was_told_to_be_durable() {
    let others = std::env::var_os("FETTLE_TEST_STATE").map(PathBuf::from);
    let own = tempfile::tempdir().unwrap();
    let dir = others.clone().unwrap_or_else(|| own.path().to_owned());
    let mut told = std::fs::File::create(dir.join("told")).unwrap();
    let opened = Journal::open(&dir.join("journal")).unwrap();
    for upto in 1..=40 {
        opened.journal.append(&[Record::Acked { upto }]).wait().unwrap();
        writeln!(told, "{upto}").unwrap();
        if upto % 10 == 0 {
            opened.journal.compact(&[Record::Acked { upto }]).wait().unwrap();
        }
    }
    if others.is_none() {
        drop(opened);
        let last = Journal::open(&dir.join("journal")).unwrap().records.pop();
        assert_eq!(last, Some(Record::Acked { upto: 40 }));
    }
}

/// Runs the writer until it dies at a point, and gives back the last number it was told to be durable.
fn die(dir: &Path, point: &str) -> u64 {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "whoever_lives_finds_the_last_number_it_was_told_to_be_durable"])
        .env("FETTLE_TEST_STATE", dir)
        .env("FETTLE_CRASH_AT", point)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success(), "it dies at {point}");
    let told = std::fs::read_to_string(dir.join("told")).unwrap();
    told.lines().last().map_or(0, |number| number.parse().unwrap())
}

#[test]
fn what_was_told_durable_is_there_after_a_crash_at_any_point() {
    // What is done to a damaged file is tried in `tests/tests/it/crash`.
    let not_here = |point: &str| ["journal.cut.", "journal.aside."].iter().any(|no| point.starts_with(no));
    for point in POINTS.iter().filter(|point| point.starts_with("journal.") && !not_here(point)) {
        let times: &[u32] = if point.starts_with("journal.create.") { &[1] } else { &[1, 3, 4] };
        for time in times {
            let dir = tempfile::tempdir().unwrap();
            let point = format!("{point}#{time}");
            let told = die(dir.path(), &point);
            let opened = Journal::open(&dir.path().join("journal")).unwrap();
            assert!(opened.damage.is_none(), "{point}: {:?}", opened.damage);
            let last = opened.records.last().cloned();
            let Some(Record::Acked { upto: last }) = last else {
                assert_eq!((told, last), (0, None), "{point}");
                continue;
            };
            // One more may be durable than anybody was told.
            assert!((told..=told + 1).contains(&last), "{point}: told {told}, found {last}");
            for pair in opened.records.windows(2) {
                let [Record::Acked { upto: one }, Record::Acked { upto: next }] = pair else {
                    panic!("{point}")
                };
                assert_eq!(*next, one + 1, "{point}");
            }
        }
    }
}
