//! The store in one SQLite file: one writer thread that commits whatever is queued, and connections that only read.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use super::backup::DATABASE;
use super::{OpenError, Record, Ticket, Transaction, Unavailable, schema};
use crate::crash::crash_point;

/// Transactions that one commit may carry: enough to share an fsync among all that wait, few enough that nobody waits long.
const BATCH: usize = 512;

/// While commits fail, how often to look whether they work again.
const LOOK: Duration = Duration::from_secs(1);

/// Why the last commit failed; nothing while they work.
type Failing = Arc<Mutex<Option<Arc<rusqlite::Error>>>>;

/// The store in one directory.
pub struct Sqlite {
    path: PathBuf,
    queue: Option<mpsc::Sender<Queued>>,
    writer: Option<thread::JoinHandle<()>>,
    /// Connections that nobody reads through now.
    idle: Mutex<Vec<Connection>>,
    failing: Failing,
    /// Held for as long as the store is open, so that two controllers cannot share a directory.
    lock: File,
}

struct Queued {
    transaction: Transaction,
    done: oneshot::Sender<Result<(), Unavailable>>,
}

impl Sqlite {
    /// Opens the store in `directory`, making both if they are not there.
    pub fn open(directory: &Path) -> Result<Sqlite, OpenError> {
        let in_directory = |source| OpenError::Directory { path: directory.to_owned(), source };
        let database = |source| OpenError::Database { source };
        fs::create_dir_all(directory).map_err(in_directory)?;
        let lock = File::create(directory.join("lock")).map_err(in_directory)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| OpenError::Taken { path: directory.to_owned() })?;
        let path = directory.join(DATABASE);
        let connection = Connection::open(&path).map_err(database)?;
        schema::tune(&connection).map_err(database)?;
        crash_point("store.before-create");
        schema::migrate(&connection)?;
        crash_point("store.created");
        let last = last_number(&connection).map_err(database)?;
        let (queue, queued) = mpsc::channel();
        let failing = Failing::default();
        let tell = Arc::clone(&failing);
        let writer = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write(connection, last, &queued, &tell))
            .map_err(in_directory)?;
        Ok(Sqlite {
            path,
            queue: Some(queue),
            writer: Some(writer),
            idle: Mutex::new(Vec::new()),
            failing,
            lock,
        })
    }

    pub(super) fn submit(&self, transaction: Transaction) -> Ticket {
        let (done, ticket) = oneshot::channel();
        if let Some(queue) = &self.queue {
            // Without a writer the ticket is dropped, which its holder takes for unavailable.
            let _ = queue.send(Queued { transaction, done });
        }
        ticket
    }

    pub(super) fn commits(&self) -> Result<(), Unavailable> {
        match &*self.failing.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(error) => Err(Unavailable { doing: "commit", source: Some(Box::new(Arc::clone(error))) }),
        }
    }

    /// Reads through a connection of its own; a snapshot, which no writer waits for.
    pub(super) fn reading<T>(
        &self,
        doing: &'static str,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Unavailable> {
        let failed = |source: rusqlite::Error| Unavailable { doing, source: Some(Box::new(source)) };
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = Connection::open_with_flags(&self.path, flags).map_err(failed)?;
                connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(failed)?;
                connection
            }
        };
        let result = connection
            .execute_batch("BEGIN")
            .and_then(|()| read(&connection))
            .and_then(|value| connection.execute_batch("COMMIT").map(|()| value));
        match result {
            Ok(value) => {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                Ok(value)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // What was queued is committed first; a writer that panicked has nothing more to say.
            let _ = writer.join();
        }
        self.idle.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        // A process that is just being started has what we have open until it is a program of its own; the lock is not for it.
        let _ = rustix::fs::flock(&self.lock, rustix::fs::FlockOperation::Unlock);
    }
}

fn last_number(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .query_row("SELECT coalesce(max(number), 0) FROM events", [], |row| row.get::<_, i64>(0))
        .map(|number| number.unsigned_abs())
}

/// The writer thread. `last` is the number of the last event that is durable.
fn write(connection: Connection, mut last: u64, queued: &mpsc::Receiver<Queued>, failing: &Failing) {
    while let Some(first) = next_of(queued, &connection, failing) {
        let mut batch = vec![first];
        while batch.len() < BATCH {
            match queued.try_recv() {
                Ok(next) => batch.push(next),
                Err(_) => break,
            }
        }
        // A transaction that does not follow the last was decided on something that is not there: it is left out, and
        // so is everything after it.
        let mut next = last + 1;
        let follows = batch
            .iter()
            .take_while(|queued| {
                let ok = follows_on(&queued.transaction.records, next);
                next += queued.transaction.records.len() as u64;
                ok
            })
            .count();
        let refused = batch.split_off(follows);
        let outcome = if batch.is_empty() { Ok(()) } else { commit(&connection, &batch) };
        match outcome {
            Ok(()) => {
                if !batch.is_empty() {
                    tell(failing, None);
                }
                last += batch.iter().map(|queued| queued.transaction.records.len() as u64).sum::<u64>();
                for queued in batch {
                    let _ = queued.done.send(Ok(()));
                }
            }
            Err(error) => {
                let error: Arc<rusqlite::Error> = Arc::new(error);
                tracing::error!(%error, transactions = batch.len(), "The store did not commit.");
                tell(failing, Some(Arc::clone(&error)));
                let _ = connection.execute_batch("ROLLBACK");
                // An error of COMMIT itself leaves open whether it took effect: look.
                last = last_number(&connection).unwrap_or(last);
                for queued in batch {
                    let source: Box<dyn std::error::Error + Send + Sync> = Box::new(Arc::clone(&error));
                    let _ = queued.done.send(Err(Unavailable { doing: "commit", source: Some(source) }));
                }
            }
        }
        for queued in refused {
            let doing = "commit what does not follow on the last transaction";
            let _ = queued.done.send(Err(Unavailable { doing, source: None }));
        }
    }
}

/// What comes next. While commits fail, looks now and then whether they work again, should nothing come.
fn next_of(queued: &mpsc::Receiver<Queued>, connection: &Connection, failing: &Failing) -> Option<Queued> {
    while failing.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
        match queued.recv_timeout(LOOK) {
            Ok(next) => return Some(next),
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if schema::write_something(connection).is_ok() {
                    tracing::info!("The store commits again.");
                    tell(failing, None);
                }
            }
        }
    }
    queued.recv().ok()
}

fn tell(failing: &Failing, why: Option<Arc<rusqlite::Error>>) {
    *failing.lock().unwrap_or_else(PoisonError::into_inner) = why;
}

fn follows_on(records: &[Record], next: u64) -> bool {
    records.iter().zip(next..).all(|(record, expected)| record.number == expected)
}

fn commit(connection: &Connection, batch: &[Queued]) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    for Queued { transaction, .. } in batch {
        for record in &transaction.records {
            schema::write_record(connection, record)?;
        }
        for row in &transaction.rows {
            schema::write_row(connection, row)?;
        }
    }
    crash_point("store.before-commit");
    connection.execute_batch("COMMIT")?;
    crash_point("store.after-commit");
    Ok(())
}
