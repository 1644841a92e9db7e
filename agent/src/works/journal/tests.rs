//! The journal against torn writes, rotten bits, full disks, failing disks and a second agent.

use std::sync::Mutex;

use fettle_runbooks::id::{Digest, RunId};
use proptest::prelude::*;
use tempfile::TempDir;

use super::frame::Header;
use super::writer::Medium;
use super::*;
use crate::works::attempt::{Ended, Outcome};
use crate::works::output::Kept;
use crate::works::record::AttemptKey;

fn run() -> RunId {
    "run_0192f0c1d2e37a4b8c9d0e1f2a3b4c5d".parse().unwrap()
}

fn acked(upto: u64) -> Record {
    Record::Acked { upto }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("00000001.journal")
}

/// A journal of `count` batches of one record each, closed again.
fn written(count: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let opened = Journal::open(dir.path()).unwrap();
    for upto in 0..count {
        opened.journal.append(&[acked(upto)]).wait().unwrap();
    }
    dir
}

/// Where the file's batches begin, and its end.
fn places(bytes: &[u8]) -> Vec<usize> {
    let mut starts: Vec<usize> =
        (0..bytes.len()).step_by(8).filter(|at| bytes[*at..].starts_with(b"FBAT")).collect();
    starts.push(frame::parse(bytes).unwrap().next.at as usize);
    starts
}

#[test]
fn what_was_durable_is_there_after_opening_again_under_the_same_name() {
    let dir = tempfile::tempdir().unwrap();
    let first = Journal::open(dir.path()).unwrap();
    let name = first.journal.name().to_owned();
    assert!(first.records.is_empty());
    first.journal.append(&[acked(1), acked(2)]).wait().unwrap();
    first.journal.append(&[acked(3)]).wait().unwrap();
    drop(first);

    let second = Journal::open(dir.path()).unwrap();
    assert_eq!(second.records, [acked(1), acked(2), acked(3)]);
    assert_eq!(second.journal.name(), name);
    assert!(second.damage.is_none() && second.quarantined.is_empty());
}

#[test]
fn appends_that_wait_share_an_fsync_and_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Journal::open(dir.path()).unwrap();
    let tickets: Vec<Ticket> = (0..1000).map(|upto| opened.journal.append(&[acked(upto)])).collect();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    drop(opened);
    let batches = places(&std::fs::read(file(dir.path())).unwrap()).len() - 1;
    assert!(batches < 1000, "{batches} batches for 1000 appends");
    let again = Journal::open(dir.path()).unwrap();
    assert_eq!(again.records, (0..1000).map(acked).collect::<Vec<_>>());
}

#[test]
fn a_second_agent_does_not_get_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Journal::open(dir.path()).unwrap();
    assert!(matches!(Journal::open(dir.path()), Err(OpenError::InUse(_))));
}

#[test]
fn compaction_keeps_what_lives_and_what_follows() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Journal::open(dir.path()).unwrap();
    let name = opened.journal.name().to_owned();
    for upto in 0..100 {
        let _ = opened.journal.append(&[acked(upto)]);
    }
    let compacted = opened.journal.compact(&[acked(99)]);
    let after = opened.journal.append(&[acked(100)]);
    compacted.wait().unwrap();
    after.wait().unwrap();
    assert!(opened.journal.written() < 400);
    drop(opened);

    assert!(!file(dir.path()).exists());
    let again = Journal::open(dir.path()).unwrap();
    assert_eq!(again.records, [acked(99), acked(100)]);
    assert_eq!(again.journal.name(), name);
}

#[test]
fn damage_in_what_a_compaction_sealed_is_never_taken_for_a_torn_write() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Journal::open(dir.path()).unwrap();
    opened.journal.compact(&[acked(1)]).wait().unwrap();
    drop(opened);
    let path = dir.path().join("00000002.journal");
    let mut bytes = std::fs::read(&path).unwrap();
    // Behind it is what was reserved.
    let last = places(&bytes).last().unwrap() - 10;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let again = Journal::open(dir.path()).unwrap();
    assert!(again.damage.unwrap().reason.contains("sealed"));
}

#[test]
fn a_compaction_that_lost_its_race_with_a_crash_leaves_the_newer_file_in_force() {
    let dir = written(3);
    let old = std::fs::read(file(dir.path())).unwrap();
    let opened = Journal::open(dir.path()).unwrap();
    opened.journal.compact(&[acked(7)]).wait().unwrap();
    drop(opened);
    std::fs::write(file(dir.path()), old).unwrap(); // the removal was not durable

    let again = Journal::open(dir.path()).unwrap();
    assert_eq!(again.records, [acked(7)]);
    assert!(!file(dir.path()).exists());
}

#[test]
fn a_journal_of_a_newer_agent_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Journal::open(dir.path()).unwrap();
    let (sent, result) = std::sync::mpsc::channel();
    let then = Box::new(move |done: Result<(), AppendError>| sent.send(done.is_ok()).unwrap());
    opened.journal.writer.append(vec![br#"{"teleported":{}}"#.to_vec()], 0, then);
    assert!(result.recv().unwrap());
    drop(opened);
    assert!(matches!(Journal::open(dir.path()), Err(OpenError::Foreign { .. })));
    assert!(file(dir.path()).exists());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_damage_in_the_last_batch_yields_all_batches_before_it(
        count in 1u64..6, at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<bool>(),
    ) {
        let dir = written(count);
        let mut bytes = std::fs::read(file(dir.path())).unwrap();
        let places = places(&bytes);
        let (start, end) = (places[places.len() - 2], places[places.len() - 1]);
        // Its padding belongs to nobody.
        let at = start + at.index(end - start - 7);
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
        std::fs::write(file(dir.path()), &bytes).unwrap();

        let opened = Journal::open(dir.path()).unwrap();
        prop_assert!(opened.damage.is_none());
        prop_assert_eq!(&opened.records, &(0..count - 1).map(acked).collect::<Vec<_>>());
        // … and it goes on from there.
        opened.journal.append(&[acked(77)]).wait().unwrap();
        drop(opened);
        let again = Journal::open(dir.path()).unwrap();
        prop_assert!(again.damage.is_none());
        prop_assert_eq!(again.records.last(), Some(&acked(77)));
    }

    #[test]
    fn damage_before_a_good_batch_puts_the_file_aside_and_says_so(
        count in 2u64..6, at in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        let dir = written(count);
        let mut bytes = std::fs::read(file(dir.path())).unwrap();
        let places = places(&bytes);
        let batch = at.index(places.len() - 2);
        let (start, end) = (places[batch], places[batch + 1]);
        bytes[start + at.index(end - start - 7)] ^= 1 << bit;
        std::fs::write(file(dir.path()), &bytes).unwrap();

        let opened = Journal::open(dir.path()).unwrap();
        let damage = opened.damage.expect("it is damaged");
        prop_assert!(opened.records.is_empty());
        prop_assert_eq!(damage.before, (0..batch as u64).map(acked).collect::<Vec<_>>());
        prop_assert_eq!(std::fs::read(&damage.file).unwrap(), bytes);
        prop_assert_eq!(&opened.quarantined, std::slice::from_ref(&damage.file));
        let name = opened.journal.name().to_owned();
        drop(opened.journal);
        // The next start has a good journal, and still a file to look after.
        let again = Journal::open(dir.path()).unwrap();
        prop_assert!(again.damage.is_none());
        prop_assert_eq!(again.journal.name(), name);
        prop_assert_eq!(again.quarantined, [damage.file]);
    }

    #[test]
    fn no_bytes_at_all_make_the_reader_fall_over(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = frame::parse(&bytes);
        let header = Header { generation: 1, sealed: 0, name: "0".repeat(32) };
        let _ = frame::parse(&[header.encode().as_slice(), &bytes].concat());
    }
}

/// A disk that fails when told to, and counts what it is asked.
struct Faulty(Arc<Mutex<Faults>>);

#[derive(Default)]
struct Faults {
    full: bool,
    /// Bytes that the file may have.
    room: Option<u64>,
    sync_fails: bool,
    syncs: u32,
}

impl Medium for Faulty {
    fn reserve(&mut self, end: u64) -> io::Result<()> {
        let faults = self.0.lock().unwrap();
        if faults.full || faults.room.is_some_and(|room| end > room) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }
    fn write_at(&mut self, _bytes: &[u8], _at: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        let mut faults = self.0.lock().unwrap();
        faults.syncs += 1;
        if faults.sync_fails { Err(io::Error::other("input/output error")) } else { Ok(()) }
    }
    fn replace(&mut self, _generation: u64, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

fn faulty() -> (Journal, Arc<Mutex<Faults>>) {
    let faults = Arc::new(Mutex::new(Faults::default()));
    let (header, _, next) = writer::snapshot(1, &"0".repeat(32), &[]);
    let (handle, writer) = writer::new(header, next, Box::new(Faulty(Arc::clone(&faults))));
    handle.written_by_thread(writer).unwrap();
    (Journal { name: "faulty".into(), writer: handle }, faults)
}

#[test]
fn a_full_disk_is_told_to_the_caller_and_passes() {
    let (journal, faults) = faulty();
    faults.lock().unwrap().full = true;
    assert!(matches!(journal.append(&[acked(1)]).wait(), Err(AppendError::Full)));
    faults.lock().unwrap().full = false;
    journal.again();
    journal.append(&[acked(1)]).wait().unwrap();
}

#[test]
fn nothing_is_intended_without_the_space_to_say_how_it_went() {
    let (journal, faults) = faulty();
    let all = one_of_each();
    let (intent, mut exited) = (all[3].clone(), all[4].clone());
    assert!(matches!(intent, Record::Intent { .. }));
    let Record::Exited { result, .. } = &mut exited else { panic!("{exited:?}") };
    for kept in [&mut result.stdout, &mut result.stderr] {
        kept.push(&vec![0xff; 1 << 20]);
        kept.finish();
    }
    let report = Record::Report { seq: 1, bytes: vec![0xff; 2 * 64 * 1024] };
    faults.lock().unwrap().room = Some(journal.written() + TO_SAY_HOW_IT_WENT);
    journal.append(&[acked(1)]).wait().unwrap();
    assert!(matches!(journal.append(std::slice::from_ref(&intent)).wait(), Err(AppendError::Full)));
    journal.again();
    faults.lock().unwrap().room = Some(journal.written() + 1024 + TO_SAY_HOW_IT_WENT);
    journal.append(&[intent]).wait().unwrap();
    // Two steps fill the disk and print as much as is kept.
    journal.append(&[exited.clone(), report.clone()]).wait().unwrap();
    journal.append(&[exited, report]).wait().unwrap();
}

#[test]
fn nothing_overtakes_an_append_that_found_the_disk_full() {
    let (journal, faults) = faulty();
    faults.lock().unwrap().full = true;
    assert!(matches!(journal.append(&[acked(1)]).wait(), Err(AppendError::Full)));
    faults.lock().unwrap().full = false;
    assert!(matches!(journal.append(&[acked(2)]).wait(), Err(AppendError::Full)));
    journal.again();
    journal.append(&[acked(1)]).wait().unwrap();
    journal.append(&[acked(2)]).wait().unwrap();
    assert_eq!(faults.lock().unwrap().syncs, 2);
}

#[test]
fn an_fsync_that_failed_is_not_tried_again() {
    let (journal, faults) = faulty();
    faults.lock().unwrap().sync_fails = true;
    assert!(matches!(journal.append(&[acked(1)]).wait(), Err(AppendError::Broken { .. })));
    faults.lock().unwrap().sync_fails = false;
    assert!(matches!(journal.append(&[acked(2)]).wait(), Err(AppendError::Broken { .. })));
    assert!(matches!(journal.compact(&[]).wait(), Err(AppendError::Broken { .. })));
    assert_eq!(faults.lock().unwrap().syncs, 1);
}

#[test]
fn an_append_too_large_for_a_batch_is_refused_alone() {
    let (journal, _faults) = faulty();
    let giant = Record::Report { seq: 1, bytes: vec![0; frame::LARGEST] };
    assert!(matches!(journal.append(&[giant]).wait(), Err(AppendError::TooLarge { .. })));
    journal.append(&[acked(1)]).wait().unwrap();
}

/// One of each kind, with every field set.
fn one_of_each() -> Vec<Record> {
    let key = AttemptKey { run: run(), path: "remediate/restart".into(), attempt: 2 };
    let mut stdout = Kept::default();
    stdout.push(b"done\n");
    let result = Ended {
        outcome: Outcome::Exited,
        exit_code: Some(0),
        signal: None,
        stdout,
        stderr: Kept::default(),
        took: std::time::Duration::from_millis(1500),
        hint: String::new(),
    };
    let refused = Ended {
        outcome: Outcome::NotStarted { code: "expired".into(), message: "too late".into() },
        exit_code: None,
        ..result.clone()
    };
    vec![
        Record::Accepted {
            run: run(),
            segment: 1,
            digest: Digest::of("order", 1, b"content"),
            content: b"content".to_vec(),
            nonce_consumed: Some("00ff".into()),
            boot: "b6a4".into(),
        },
        Record::Planned { run: run(), nonce: "00ff".into(), boot: "b6a4".into(), plan: b"{}".to_vec() },
        Record::Event { run: run(), segment: 1, event: b"begin".to_vec() },
        Record::Intent { key: key.clone(), segment: 1 },
        Record::Exited { key: key.clone(), result },
        Record::Exited { key, result: refused },
        Record::Tombstone { run: run(), until_ms: 1_790_000_000_000 },
        Record::Paused { run: run(), on: true, count: 3, at_ms: 1_790_000_000_000 },
        Record::Report { seq: 9, bytes: vec![0, 1, 255] },
        acked(9),
        Record::Ended { run: run(), segment: 1 },
        Record::Forgotten { after: 9, runs: vec![run()], unheard: Vec::new() },
        Record::Forgotten { after: 9, runs: vec![run()], unheard: vec![run()] },
    ]
}

#[test]
fn the_encoding_of_each_record_is_the_one_on_disks_already() {
    let text: String =
        one_of_each().iter().map(|record| String::from_utf8(record.encode()).unwrap() + "\n").collect();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/works/journal/records.golden.jsonl");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap();
    assert_eq!(text, expected, "a changed encoding makes journals on disks unreadable");
    for (line, record) in expected.lines().zip(one_of_each()) {
        assert_eq!(Record::decode(line.as_bytes()).unwrap(), record);
    }
}
