//! The controller's store, beside plain inserts into SQLite that come in as ours do and are committed as ours are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use fettle_controller::model::{Change, Model, StepEnd};
use fettle_controller::store::{Record, Sqlite, Store as _, Transaction};
use fettle_controller::world::At;
use fettle_runbooks::id::{Host, RunId};
use rusqlite::Connection;

use crate::table;
use crate::{limit, marker};

/// Steps of one round; each is two transitions, of one transaction each.
const STEPS: usize = 10_000;
const ROUNDS: usize = 5;
/// Transactions that wait for the disk at a time.
const WAITING: usize = 64;
/// As the store has it.
const BATCH: usize = 512;

pub(crate) fn measure() {
    let directory = tempfile::Builder::new().prefix("fettle-bench-").tempdir().expect("a directory");
    let (mut ours, mut plain, mut events) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let at = |name: &str| directory.path().join(format!("{name}-{round}"));
        let transactions = transitions();
        let rows: usize = transactions.iter().map(|it| it.records.len() + it.rows.len()).sum();
        let bodies: Vec<Vec<String>> = transactions.iter().map(bodies).collect();
        let took = through_the_store(&at("ours"), transactions);
        ours.push((rows as f64 / took.as_secs_f64(), 2.0 * STEPS as f64 / took.as_secs_f64()));
        let took = plainly(&at("plain"), bodies.clone(), WAITING);
        plain.push(rows as f64 / took.as_secs_f64());
        let one_each = bodies.into_iter().map(|mut all| all.drain(..1).collect()).collect();
        let took = plainly(&at("events"), one_each, WAITING);
        events.push(2.0 * STEPS as f64 / took.as_secs_f64());
    }
    let rows: Vec<f64> = ours.iter().map(|it| it.0).collect();
    let transitions: Vec<f64> = ours.iter().map(|it| it.1).collect();
    let part: Vec<f64> = rows.iter().zip(&plain).map(|(ours, plain)| 100.0 * ours / plain).collect();
    table::line("durable step transitions per second", spread(&transitions));
    table::line("rows per second (each transition: its event, its step)", spread(&rows));
    table::line("limit: plain inserts of the same bodies, rows per second", spread(&plain));
    table::line("plain inserts of the events alone, per second", spread(&events));
    let disk = limit::disk(directory.path());
    table::line("fdatasyncs per second, one after the other", format!("{:.0}", 1000.0 / disk.median()));
    table::at_least("the store's rows, of what plain inserts reach", median(&part), 70.0, "%");
}

/// Rows per second that SQLite takes by itself, coming in and committed as ours do.
pub(crate) fn plain_rows(directory: &Path) -> f64 {
    let directory = tempfile::tempdir_in(directory).expect("a directory");
    let bodies: Vec<Vec<String>> = transitions().iter().map(bodies).collect();
    let rows: usize = bodies.iter().map(Vec::len).sum();
    let rounds = (0..ROUNDS).map(|round| {
        let took = plainly(&directory.path().join(format!("plain-{round}")), bodies.clone(), WAITING);
        rows as f64 / took.as_secs_f64()
    });
    median(&rounds.collect::<Vec<_>>())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("median {:.0}, {least:.0} to {most:.0}  ({} rounds)", median(values), values.len())
}

/// What a hundred hosts report: steps that begin and end.
fn transitions() -> Vec<Transaction> {
    let run = RunId::new(uuid::Uuid::now_v7());
    let mut model = Model::default();
    let mut all = Vec::with_capacity(2 * STEPS);
    for step in 0..STEPS {
        let host: Host = format!("web-{}", step % 100).parse().expect("a host's name");
        let path = format!("remediate/step-{}", step / 100);
        let at = At(1_700_000_000_000 + step as i64);
        let started = Change::StepStarted { run, host: host.clone(), path: path.clone(), attempt: 1, at };
        let ended = Change::StepEnded(Box::new(StepEnd {
            run,
            host,
            path,
            attempt: 1,
            outcome: "succeeded".into(),
            message: String::new(),
            exit_code: Some(0),
            outputs: BTreeMap::new(),
            stdout: Default::default(),
            stderr: Default::default(),
            at,
            began_at: at,
        }));
        for change in [started, ended] {
            let number = model.last_event + 1;
            let touched: BTreeSet<_> = model.apply(number, at, &change).into_iter().collect();
            let rows = touched.iter().filter_map(|key| model.row(key)).collect();
            all.push(Transaction {
                records: vec![Record { number, at, run: Some(run), incident: None, change }],
                rows,
            });
        }
    }
    all
}

/// The same texts that the store writes.
fn bodies(transaction: &Transaction) -> Vec<String> {
    use fettle_controller::model::Row;
    let events = transaction.records.iter().map(|record| serde_json::to_string(&record.change));
    let rows = transaction.rows.iter().map(|row| match row {
        Row::Step(row) => serde_json::to_string(row),
        Row::Signal(_)
        | Row::Incident(_)
        | Row::Run(_)
        | Row::HostRun(_)
        | Row::Order(_)
        | Row::Gate(_)
        | Row::Agent(_)
        | Row::Token(_)
        | Row::Session(_)
        | Row::Notification(_) => unreachable!("a transition of a step touches its step alone"),
    });
    events.chain(rows).collect::<Result<_, _>>().expect("rows are JSON")
}

fn through_the_store(directory: &Path, transactions: Vec<Transaction>) -> Duration {
    let store = Sqlite::open(directory).expect("a store");
    let mut waiting = VecDeque::new();
    let before = marker::now();
    for transaction in transactions {
        if waiting.len() == WAITING {
            durable(waiting.pop_front());
        }
        waiting.push_back(store.commit(transaction));
    }
    while !waiting.is_empty() {
        durable(waiting.pop_front());
    }
    marker::now() - before
}

fn durable(ticket: Option<fettle_controller::store::Ticket>) {
    ticket.expect("one waits").blocking_recv().expect("the store lives").expect("it is durable");
}

type Job = (Vec<String>, Sender<()>);

/// One table, one prepared insert, one thread that commits whatever waits: what our store is made of, without our store.
fn plainly(directory: &Path, all: Vec<Vec<String>>, at_a_time: usize) -> Duration {
    std::fs::create_dir(directory).expect("a folder can be made");
    let connection = Connection::open(directory.join("plain.db")).expect("a database");
    let tables = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                  CREATE TABLE plain (number INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;";
    connection.execute_batch(tables).expect("a table");
    let (queue, queued) = channel::<Job>();
    let writer = std::thread::spawn(move || write(&connection, &queued));
    let mut waiting = VecDeque::new();
    let before = marker::now();
    for bodies in all {
        if waiting.len() == at_a_time {
            let first: Option<Receiver<()>> = waiting.pop_front();
            first.expect("one waits").recv().expect("it is durable");
        }
        let (done, ticket) = channel();
        queue.send((bodies, done)).expect("the writer lives");
        waiting.push_back(ticket);
    }
    waiting.into_iter().for_each(|ticket| ticket.recv().expect("it is durable"));
    let took = marker::now() - before;
    drop(queue);
    writer.join().expect("the writer ends");
    took
}

fn write(connection: &Connection, queued: &Receiver<Job>) {
    let mut insert = connection.prepare("INSERT INTO plain (body) VALUES (?1)").expect("an insert");
    while let Ok(first) = queued.recv() {
        let batch: Vec<Job> = std::iter::once(first).chain(queued.try_iter().take(BATCH - 1)).collect();
        connection.execute_batch("BEGIN IMMEDIATE").expect("a transaction begins");
        for body in batch.iter().flat_map(|(bodies, _)| bodies) {
            insert.execute([body]).expect("a row goes in");
        }
        connection.execute_batch("COMMIT").expect("a transaction is durable");
        for (_, done) in batch {
            let _ = done.send(());
        }
    }
}
