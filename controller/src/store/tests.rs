//! The store keeps its promises: whole or not at all, in order, and still there after a kill.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use fettle_runbooks::id::{Digest, GateId, Host, IncidentId, RunId, SignalId};
use fettle_runbooks::run::{Ending, Final, HostRun, Pause, State, Unclear, Until};
use proptest::prelude::*;
use uuid::Uuid;

use super::schema::VERSION;
use super::{OpenError, Record, Sqlite, Store, Transaction, check_fold};
use crate::incident::{Confidence, Readings};
use crate::model::row::{
    AgentRow, Blob, DecisionRow, GateRow, GateState, HostRunRow, IncidentRow, KeptRow, Leaf, NotificationRow,
    OrderRow, Origin, PlanRow, RunRow, SessionRow, SignalRow, Signature, SignedBlob, TokenRow,
};
use crate::model::{Change, Model, StepEnd};
use crate::policy::Mode;
use crate::signal::{Answer, Signal, Status, Verdict};
use crate::world::At;

/// What the coordinator does with changes, without deciding anything.
#[derive(Default)]
struct Writer {
    model: Model,
}

impl Writer {
    fn transaction(&mut self, changes: Vec<Change>) -> Transaction {
        let mut transaction = Transaction::default();
        let mut touched = std::collections::BTreeSet::new();
        for change in changes {
            let (number, at) = (self.model.last_event + 1, At(1_000 + self.model.last_event as i64));
            touched.extend(self.model.apply(number, at, &change));
            transaction.records.push(Record { number, at, run: change.run(), incident: None, change });
        }
        transaction.rows = touched.iter().filter_map(|key| self.model.row(key)).collect();
        transaction
    }
}

fn token(number: u64) -> Change {
    Change::TokenCreated(Box::new(TokenRow {
        hash: format!("{number:064x}"),
        host: "web-1".parse().unwrap(),
        labels: Default::default(),
        expires_at: At(number as i64),
        by: "ben".into(),
        spent_at: None,
    }))
}

const DIRECTORY: &str = "FETTLE_TEST_STORE";

/// The child of the next test; does nothing on its own.
#[test]
fn a_writer_that_waits_to_be_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let store = Sqlite::open(Path::new(&directory)).unwrap();
    let mut writer = Writer::default();
    let mut tickets = std::collections::VecDeque::new();
    loop {
        let changes = (0..7).map(|_| token(writer.model.last_event)).collect();
        let transaction = writer.transaction(changes);
        let last = transaction.records.last().unwrap().number;
        tickets.push_back((last, store.commit(transaction)));
        if tickets.len() > 20 {
            let (last, ticket) = tickets.pop_front().unwrap();
            ticket.blocking_recv().unwrap().unwrap();
            println!("durable {last}");
        }
    }
}

#[test]
fn what_was_called_durable_survives_a_kill_in_the_middle() {
    for lines in [1, 9, 40] {
        let directory = tempfile::tempdir().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a process to be killed, which the test waits for")]
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::a_writer_that_waits_to_be_killed", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut durable = 0;
        let output = BufReader::new(child.stdout.take().unwrap());
        let said = output.lines().map_while(Result::ok);
        for number in said.filter_map(|line| line.strip_prefix("durable ")?.parse::<u64>().ok()).take(lines) {
            durable = number;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let store = Sqlite::open(directory.path()).unwrap();
        let model = store.load(At(0)).unwrap();
        assert!(durable > 0 && model.last_event >= durable, "{durable} {}", model.last_event);
        assert_eq!(model.last_event % 7, 0, "a transaction is there whole or not at all");
        assert_eq!(check_fold(&store).unwrap(), []);
    }
}

#[test]
fn two_controllers_cannot_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let first = Sqlite::open(directory.path()).unwrap();
    assert!(matches!(Sqlite::open(directory.path()), Err(OpenError::Taken { .. })));
    drop(first);
    assert!(Sqlite::open(directory.path()).is_ok());
}

#[test]
fn what_does_not_follow_on_the_last_transaction_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = Sqlite::open(directory.path()).unwrap();
    let mut writer = Writer::default();
    let first = writer.transaction(vec![token(1)]);
    let _lost = writer.transaction(vec![token(2)]);
    let third = writer.transaction(vec![token(3)]);
    let fourth = writer.transaction(vec![token(4)]);
    let tickets = [first, third, fourth].map(|transaction| store.commit(transaction));
    let kept: Vec<bool> = tickets.into_iter().map(|ticket| ticket.blocking_recv().unwrap().is_ok()).collect();
    assert_eq!(kept, [true, false, false]);
    assert_eq!(store.load(At(0)).unwrap().last_event, 1);
    assert_eq!(check_fold(&store).unwrap(), []);
}

fn id(number: u8) -> Uuid {
    Uuid::from_u128(u128::from(number % 4))
}

fn host(number: u8) -> Host {
    format!("web-{}", number % 2).parse().unwrap()
}

fn signed() -> SignedBlob {
    SignedBlob { bytes: Blob::new("x"), signature: Signature::Missing }
}

/// Kinds of changes that [`change`] makes.
const KINDS: u8 = 48;

/// Some change about a few things, so that changes meet each other.
fn change(kind: u8, a: u8, b: u8) -> Change {
    let (run, gate, incident, signal) =
        (RunId::new(id(a)), GateId::new(id(a)), IncidentId::new(id(a)), SignalId::new(id(b)));
    let host = host(b);
    let (path, attempt, at) = (format!("remediate/{}", b % 3), u32::from(a % 2), At(i64::from(b)));
    let digest = Digest([a; 32]);
    let machine = HostRun { state: State::Remediating, ..HostRun::new(Until::End) };
    match kind % KINDS {
        0 => Change::SignalReceived(Box::new(SignalRow {
            id: signal,
            signal: Signal {
                source: "s".into(),
                fingerprint: b.to_string(),
                status: Status::Firing,
                name: "Down".into(),
                labels: Default::default(),
                annotations: Default::default(),
                starts_at: None,
                ends_at: None,
                received_at: at,
                remarks: Vec::new(),
            },
            repeats: 0,
            seen_at: None,
            late_until: a.is_multiple_of(2).then_some(at),
            incident: None,
            run: None,
            host: None,
            trail: Vec::new(),
        })),
        1 => Change::SignalRepeated { signal },
        2 => Change::SignalTurned { signal, status: Status::Resolved, ends_at: Some(at) },
        3 => Change::Judged { signal, verdicts: vec![Verdict::new(at, "x", Answer::Wait, "y")] },
        4 => Change::IncidentOpened(Box::new(IncidentRow {
            id: incident,
            key: a.to_string(),
            title: "t".into(),
            host: Some(host),
            opened_at: at,
            closed: None,
            signals: vec![signal],
            firing: [signal].into(),
            runs: Vec::new(),
            readings: Readings {
                onset: at,
                uncertainty: std::time::Duration::from_millis(u64::from(a)),
                confidence: Confidence::Learnt,
                learnt_from: Some("node.yml:1".into()),
                detected: at,
                investigated: None,
                remediated: None,
                closed: None,
            },
            acted: false,
            unhelped: Default::default(),
            verified_at: None,
            look_again_at: None,
        })),
        5 => Change::IncidentJoined { incident, signal: Some(signal), run: Some(run) },
        6 => Change::IncidentClosed { incident, reason: "r".into() },
        7 => Change::RunCreated {
            run: Box::new(RunRow {
                id: run,
                runbook: "a/b".into(),
                runbook_digest: digest,
                source: Blob::new(vec![a, b]),
                certificates: vec![signed()],
                certified: true,
                inputs: Default::default(),
                origin: Origin::Alert("Down".into()),
                start: None,
                incident: Some(incident),
                signal: Some(signal),
                mode: Mode::Auto,
                hosts: vec![host.clone()],
                created_at: at,
                ended_at: None,
                of: None,
                shared: Blob::new(vec![b, a]),
            }),
            hosts: vec![HostRunRow {
                run,
                host,
                runbook: "a/b".into(),
                about: String::new(),
                machine: HostRun::new(Until::End),
                reason: String::new(),
                plan: None,
                gate: None,
                remediated_at: None,
                ended_at: None,
                root: None,
                found: Default::default(),
                told: None,
            }],
        },
        8 => Change::Moved { run, host, machine, reason: "r".into() },
        9 => Change::Admitted { run, host },
        10 => Change::StepStarted { run, host, path, attempt, at },
        11 => Change::StepEnded(Box::new(StepEnd {
            run,
            host,
            path,
            attempt,
            outcome: "failed".into(),
            message: "m".into(),
            exit_code: Some(1),
            outputs: Default::default(),
            stdout: KeptRow { head: Blob::new(vec![0, 255]), ..KeptRow::default() },
            stderr: KeptRow::default(),
            at,
            began_at: at,
        })),
        12 => Change::OrderIssued(Box::new(OrderRow {
            run,
            host,
            segment: attempt,
            content: Blob::new(vec![b]),
            after_shared: true,
            digest,
            issued_at: at,
            not_after: at,
            accepted_at: None,
            closed_at: None,
        })),
        13 => Change::OrderAccepted { run, host, segment: attempt },
        14 => Change::OrderClosed { run, host, segment: attempt },
        15 => Change::GateOpened(Box::new(GateRow {
            id: gate,
            run,
            incident: None,
            runbook: "a/b".into(),
            request: Blob::new("request"),
            digest,
            leaves: vec![Leaf { host, plan: digest, nonce: "n".into(), from: path }],
            factors: Vec::new(),
            excluded: Default::default(),
            opened_at: at,
            decide_by: at,
            start_by: at,
            escalate: None,
            escalated_at: None,
            state: GateState::Open,
            reason: String::new(),
            closed_at: None,
            decisions: Vec::new(),
        })),
        16 => Change::Decided {
            gate,
            decision: DecisionRow {
                person: "ana".into(),
                approves: true,
                reason: "r".into(),
                at,
                signed: signed(),
            },
        },
        17 => Change::GateClosed { gate, state: GateState::Approved, reason: "r".into() },
        18 => Change::AgentCertified { host, labels: None, serial: "1".into(), not_after: at },
        19 => Change::ReportsTaken { host, journal: "j".into(), upto: u64::from(a) },
        20 => Change::NotificationQueued(Box::new(NotificationRow {
            id: u64::from(a % 4),
            body: "{}".into(),
            created_at: at,
            tries: 0,
            next_at: Some(at),
            note: String::new(),
        })),
        21 => Change::Remediated { incident, look_again_at: Some(at) },
        22 => Change::StillFiring { incident },
        23 => Change::RefusalTold { run, host, runbook: "a/b".into() },
        24 => {
            let state = State::Ended(Final { ending: Ending::Unverified, reason: "r".into() });
            let machine = HostRun { state, effects: true, ..HostRun::new(Until::End) };
            Change::Moved { run, host, machine, reason: "r".into() }
        }
        25 => Change::SignalTaken {
            signal,
            said: Box::new(Signal {
                source: "s".into(),
                fingerprint: b.to_string(),
                status: Status::Firing,
                name: "Down".into(),
                labels: Default::default(),
                annotations: Default::default(),
                starts_at: None,
                ends_at: None,
                received_at: at,
                remarks: Vec::new(),
            }),
            host: Some(host),
        },
        26 => Change::NotificationTried { id: u64::from(a % 4), next_at: None, note: "n".into() },
        27 => Change::Investigated { incident },
        28 => {
            let impossible = [(path, "r".to_owned())].into();
            let plan = PlanRow { bytes: Blob::new("plan"), digest, nonce: "n".into(), impossible };
            Change::Planned { run, host, plan }
        }
        29 => Change::StepSkipped { run, host, path, reason: "r".into(), at },
        30 => Change::CancelAsked { run, by: "ana".into(), reason: "r".into() },
        31 => Change::Resolved { run, host, path, ran: attempt == 1, by: "ana".into(), reason: "r".into() },
        32 => Change::Noted { run, host, text: "t".into() },
        33 => Change::RunEnded { run },
        34 => Change::Escalated { gate },
        35 => Change::AgentConnected(Box::new(AgentRow {
            host,
            labels: [("role".to_owned(), a.to_string())].into(),
            bound: Default::default(),
            epoch: u64::from(a),
            connected: true,
            version: "1".into(),
            last_seen_at: at,
            serial: "1".into(),
            not_after: at,
            revoked: None,
            void_until: At(0),
            roster_version: 1,
            missing: Vec::new(),
            boot_id: "b".into(),
            journal: "j".into(),
            acked: [("j".to_owned(), u64::from(b))].into(),
            tallies: Default::default(),
            ahead: None,
        })),
        36 => Change::AgentGone { host, epoch: u64::from(a), reason: "r".into() },
        37 => Change::AgentRevoked { host, by: "ben".into(), reason: "r".into() },
        38 => token(u64::from(a % 4)),
        39 => Change::TokenSpent { hash: format!("{:064x}", a % 4) },
        40 => Change::PauseAsked {
            run,
            hosts: vec![host],
            on: attempt == 1,
            by: "ana".into(),
            reason: "r".into(),
        },
        41 => Change::PauseConfirmed { run, host, on: attempt == 1 },
        42 => Change::AgainAsked { run, host, path, attempt, by: "ana".into(), reason: "r".into() },
        43 => {
            let pause = Pause { on: true, reason: "ana: r".into(), asked: 1, confirmed: attempt };
            let again = Some(Unclear { path, attempt });
            Change::Marked { run, host, machine: HostRun { pause, again, ..HostRun::new(Until::End) } }
        }
        44 => Change::SessionOpened(SessionRow {
            hash: a.to_string(),
            person: "ana".into(),
            key: "k".into(),
            expires_at: at,
        }),
        45 => Change::Restored { event: 7, at },
        46 => Change::Adopted { run, host },
        _ => Change::Missed { run, host },
    }
}

#[test]
fn a_store_of_the_version_before_is_taken_over_and_one_of_a_later_version_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(Sqlite::open(directory.path()).unwrap());
    let file = directory.path().join("controller.db");
    let version = |set: Option<u32>| -> u32 {
        let connection = rusqlite::Connection::open(&file).unwrap();
        if let Some(version) = set {
            connection.pragma_update(None, "user_version", version).unwrap();
        }
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    };
    let ours = version(None);
    for before in 1..ours {
        version(Some(before));
        drop(Sqlite::open(directory.path()).unwrap());
        assert_eq!(version(None), ours);
    }
    version(Some(ours + 1));
    assert!(
        matches!(Sqlite::open(directory.path()), Err(OpenError::Newer { found, .. }) if found == ours + 1)
    );
}

/// A whole story as a version wrote it: an alert, a plan, a gate, an approval, a remediation that helped. Made with
/// `sqlite3 controller.db .dump` of a demo's store, and the `user_version`. Whoever counts the version up keeps one of the new one.
const WRITTEN: &[(u32, &str)] = &[
    (3, include_str!("version-3.golden.sql")),
    (7, include_str!("version-7.golden.sql")),
    (8, include_str!("version-8.golden.sql")),
];

#[test]
fn what_an_earlier_version_wrote_opens_and_goes_on() {
    for (version, dump) in WRITTEN {
        assert!(dump.starts_with(&format!("PRAGMA user_version = {version};")), "version {version}");
        opens_and_goes_on(dump);
    }
    for version in [VERSION - 1, VERSION] {
        assert!(
            WRITTEN.iter().any(|(written, _)| *written == version),
            "nothing is kept that {version} wrote"
        );
    }
}

fn opens_and_goes_on(dump: &str) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("controller.db");
    rusqlite::Connection::open(&file).and_then(|it| it.execute_batch(dump)).expect("it is SQL");
    let store = Sqlite::open(directory.path()).expect("it opens");
    assert_eq!(check_fold(&store).unwrap(), [], "its history still gives its tables");
    let model = store.load(At(0)).unwrap();
    let mut writer = Writer { model };
    assert_eq!(store.runs(&super::RunFilter { limit: 9, ..Default::default() }).unwrap().len(), 1);
    let next = writer.transaction(vec![Change::Restored { event: 60, at: At(7) }, token(7)]);
    store.commit(next).blocking_recv().unwrap().unwrap();
    drop(store);
    let store = Sqlite::open(directory.path()).expect("it opens again");
    assert_eq!(check_fold(&store).unwrap(), []);
}

#[test]
fn what_history_says_is_the_golden_one() {
    let all = || (0..KINDS).map(|kind| change(kind, 2, 1));
    let written: String = all().map(|change| serde_json::to_string(&change).expect("JSON") + "\n").collect();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/history.golden.jsonl");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&golden, &written).expect("it can be written");
    }
    let kept = std::fs::read_to_string(golden).expect("it is there");
    assert_eq!(written, kept, "a changed encoding makes stores unreadable: count the store's version up");
    for (line, change) in kept.lines().zip(all()) {
        assert_eq!(serde_json::from_str::<Change>(line).expect("it is read"), change);
    }
    // A change that nobody knows is answered with the names of all that there are.
    let why = serde_json::from_str::<Change>(r#"{"unheard-of":0}"#).expect_err("there is none").to_string();
    let names: Vec<&str> = why.split('`').skip(3).step_by(2).collect();
    assert!(names.contains(&"notification-tried"), "{why}");
    let missing: Vec<&&str> = names.iter().filter(|name| !kept.contains(&format!("{{\"{name}\":"))).collect();
    assert!(missing.is_empty(), "no line of history has {missing:?}");
}

#[test]
fn what_version_1_wrote_is_read() {
    let incident = r#"{"id":"inc_00000000000000000000000000000001","key":"Down@web-1","title":"Down on web-1","host":"web-1",
        "opened_at":1,"closed":null,"signals":[],"firing":[],"runs":[],"readings":{"onset":1,"confidence":"since-firing",
        "detected":1,"investigated":null,"remediated":null,"closed":null}}"#;
    let row: IncidentRow = serde_json::from_str(incident).unwrap();
    assert_eq!((row.acted, row.look_again_at), (false, None));
    let change = r#"{"remediated":{"incident":"inc_00000000000000000000000000000001"}}"#;
    let change: Change = serde_json::from_str(change).unwrap();
    assert!(matches!(change, Change::Remediated { look_again_at: None, .. }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn folding_the_history_gives_the_tables_whatever_happened(
        changes in prop::collection::vec(prop::collection::vec((0..KINDS, any::<u8>(), any::<u8>()), 1..6), 1..40)
    ) {
        let directory = tempfile::tempdir().unwrap();
        let store = Sqlite::open(directory.path()).unwrap();
        let mut writer = Writer::default();
        let tickets: Vec<_> = changes
            .into_iter()
            .map(|changes| changes.into_iter().map(|(kind, a, b)| change(kind, a, b)).collect())
            .map(|changes| store.commit(writer.transaction(changes)))
            .collect();
        for ticket in tickets {
            ticket.blocking_recv().unwrap().unwrap();
        }
        prop_assert_eq!(check_fold(&store).unwrap(), []);
        let stored: std::collections::BTreeMap<_, _> =
            store.rows().unwrap().into_iter().map(|row| (row.key(), row)).collect();
        prop_assert_eq!(&stored, &writer.model.rows());
        // What is found by host is what is there.
        for model in [&writer.model, &store.load(At(i64::MIN)).unwrap()] {
            let all = model.host_runs.values().filter(|row| row.machine.ended().is_none());
            let open: Vec<&HostRunRow> = all.collect();
            for host in [0, 1].map(host) {
                let here: Vec<&HostRunRow> = open.iter().filter(|row| row.host == host).copied().collect();
                prop_assert_eq!(model.open_on(&host).collect::<Vec<_>>(), here);
            }
            for run in model.runs.keys() {
                let hosts = open.iter().filter(|row| row.run == *run).count();
                prop_assert_eq!(model.open_hosts(*run), hosts);
            }
        }
        // What is loaded to go on with is part of that, and nothing else.
        for (key, row) in store.load(At(i64::MIN)).unwrap().rows() {
            prop_assert_eq!(stored.get(&key), Some(&row));
        }
    }
}

#[test]
fn certificates_that_were_void_before_a_restore_are_void_after_it_though_their_host_joined_anew() {
    let directory = tempfile::tempdir().unwrap();
    let store = Sqlite::open(directory.path()).unwrap();
    let mut writer = Writer::default();
    let host: Host = "web-1".parse().unwrap();
    let joined = |serial: &str| Change::AgentCertified {
        host: host.clone(),
        labels: Some(Default::default()),
        serial: serial.into(),
        not_after: At(9_000),
    };
    store.commit(writer.transaction(vec![joined("1")])).blocking_recv().unwrap().unwrap();
    let file = directory.path().join("backup.db");
    super::backup::backup(directory.path(), &file).unwrap();
    let revoked = Change::AgentRevoked { host: host.clone(), by: "ben".into(), reason: "stolen".into() };
    store.commit(writer.transaction(vec![revoked, joined("2")])).blocking_recv().unwrap().unwrap();
    let void_until = writer.model.agents[&host].void_until;
    assert!(void_until > At(0));
    drop(store);
    let restored = super::restore::restore(directory.path(), &file, At(5_000), None).unwrap();
    assert_eq!(restored.revoked, [], "it has joined anew");
    let store = Sqlite::open(directory.path()).unwrap();
    assert_eq!(check_fold(&store).unwrap(), []);
    let row = store.load(At(0)).unwrap().agents.remove(&host).unwrap();
    assert_eq!((row.void_until, row.revoked, row.connected), (void_until, None, false));
    assert!(row.ahead.is_some(), "it may know what was lost");
}

/// The highest numbers of events and of notifications.
fn numbers(directory: &std::path::Path) -> [u64; 2] {
    let connection = rusqlite::Connection::open(directory.join("controller.db")).unwrap();
    ["SELECT max(number) FROM events", "SELECT max(id) FROM notifications"].map(|sql| {
        let highest: Option<i64> = connection.query_row(sql, [], |row| row.get(0)).unwrap();
        highest.unwrap_or(0).unsigned_abs()
    })
}

#[test]
fn no_number_means_two_things_however_often_the_same_backup_is_restored() {
    let directory = tempfile::tempdir().unwrap();
    let store = Sqlite::open(directory.path()).unwrap();
    let mut writer = Writer::default();
    let change = Change::TokenSpent { hash: "0".into() };
    store.commit(writer.transaction(vec![change])).blocking_recv().unwrap().unwrap();
    let file = directory.path().join("backup.db");
    super::backup::backup(directory.path(), &file).unwrap();
    drop(store);
    let database = directory.path().join("controller.db");
    let mut before = numbers(directory.path());
    let gap = 1_000_000_000;
    // Twice with the database in place; then it is damaged; then, a minute later, it is gone: more than a minute's numbers.
    let restores =
        [(5_000, 0, gap), (6_000, 0, gap), (1_790_000_000_000, 1, gap), (1_790_000_060_000, 2, 10_000_000)];
    for (time, spoil, least) in restores {
        match spoil {
            1 => std::fs::write(&database, b"no database").unwrap(),
            2 => std::fs::remove_file(&database).unwrap(),
            _ => {}
        }
        super::restore::restore(directory.path(), &file, At(time), None).unwrap();
        let after = numbers(directory.path());
        assert!((0..2).all(|which| after[which] >= before[which] + least), "{before:?} to {after:?}");
        before = after;
    }
}
