//! The controller's disk: the real store, with an fsync that takes its virtual time, fails, stalls, or is cut off.
//!
//! A transaction that was handed in is under way until its time has come; then it is committed to SQLite and its ticket
//! answers. A crash keeps a beginning of what is under way and loses the rest, as a log does. What is durable is also told
//! to whoever watches, in order: that is the history the invariants are about.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use fettle_controller::model::row::{AgentRow, GateRow, IncidentRow, SignalRow};
use fettle_controller::model::{Change, Model, Row};
use fettle_controller::store::{
    Of, Record, RunFilter, RunParts, Sqlite, Store, Ticket, Transaction, Unavailable, backup, check_fold,
    restore,
};
use fettle_controller::world::At;
use fettle_runbooks::id::{GateId, Host, IncidentId, RunId, SignalId};
use tempfile::TempDir;
use tokio::sync::{Notify, oneshot};

use crate::chance::Chance;
use crate::check::Broken;
use crate::trace::{Trace, count};

/// Longer than anybody lives.
const FOR_EVER: Duration = Duration::from_secs(24 * 60 * 60);

/// Transactions that one commit may carry, as in the product.
const BATCH: usize = 512;

/// How the disk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Health {
    /// It does what it should.
    #[default]
    Good,
    /// Every commit fails for want of space; nothing of it is kept.
    Full,
    /// The next commit fails, and it is open whether it took effect: this says whether it did.
    FailsOnce(bool),
    /// The next commit takes so long.
    StallsOnce(Duration),
}

/// The disk, which outlives every controller that uses it. Clones share it.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<Inner>>);

struct Inner {
    directory: TempDir,
    sqlite: Option<Arc<Sqlite>>,
    under_way: VecDeque<Queued>,
    work: Arc<Notify>,
    health: Health,
    chance: Chance,
    trace: Trace,
    /// Everything durable since the last look.
    news: Vec<Transaction>,
    /// After so many commits from now the controller dies within one.
    dies_in: Option<u32>,
    /// It does so now.
    dies: bool,
    /// The number of the last durable record.
    last: u64,
    /// A copy taken earlier, and the number of its last record.
    backup: Option<(PathBuf, u64)>,
}

struct Queued {
    transaction: Transaction,
    done: oneshot::Sender<Result<(), Unavailable>>,
}

fn unavailable(doing: &'static str) -> Unavailable {
    Unavailable { doing, source: None }
}

impl Disk {
    /// An empty one. In memory, where the machine has such a folder.
    pub(crate) fn new(seed: u64, trace: Trace) -> Disk {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let directory = tempfile::Builder::new().prefix("fettle-sim-").tempdir_in(parent).expect("a folder");
        Disk(Arc::new(Mutex::new(Inner {
            directory,
            sqlite: None,
            under_way: VecDeque::new(),
            work: Arc::default(),
            health: Health::default(),
            chance: Chance::new(seed, "controller's disk"),
            trace,
            news: Vec::new(),
            dies_in: None,
            dies: false,
            last: 0,
            backup: None,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder for what else a controller keeps.
    pub(crate) fn folder(&self) -> PathBuf {
        self.inner().directory.path().to_owned()
    }

    /// Opens the store for a controller's life; after a crash what had been under way is decided.
    pub(crate) fn open(&self) -> SimStore {
        let mut inner = self.inner();
        let sqlite = Arc::new(Sqlite::open(&inner.directory.path().join("store")).expect("the store opens"));
        let store = SimStore { disk: self.clone(), sqlite: Arc::downgrade(&sqlite) };
        inner.sqlite = Some(sqlite);
        store
    }

    /// Commits what is handed in, for as long as a controller lives.
    pub(crate) async fn work(self) {
        let work = Arc::clone(&self.inner().work);
        loop {
            while let Some(wait) = self.next() {
                tokio::time::sleep(wait).await;
                self.inner().commit();
            }
            work.notified().await;
        }
    }

    /// How long the next commit takes, if there is something to commit.
    fn next(&self) -> Option<Duration> {
        let mut inner = self.inner();
        if inner.under_way.is_empty() {
            return None;
        }
        match inner.dies_in {
            Some(0) => {
                inner.dies = true;
                return Some(FOR_EVER);
            }
            left => inner.dies_in = left.map(|left| left - 1),
        }
        if let Health::StallsOnce(stall) = inner.health {
            inner.health = Health::Good;
            count("a commit stalls");
            return Some(stall);
        }
        Some(inner.chance.ms(0..8))
    }

    /// How it is from now on.
    pub(crate) fn be(&self, health: Health) {
        self.inner().health = health;
    }

    /// The controller is to die within a commit, after so many.
    pub(crate) fn die_in(&self, commits: u32) {
        self.inner().dies_in = Some(commits);
    }

    /// It is not to die any more.
    pub(crate) fn live(&self) {
        self.inner().dies_in = None;
    }

    /// Whether that commit is under way.
    pub(crate) fn dies(&self) -> bool {
        self.inner().dies
    }

    /// The controller is gone: a beginning of what was under way is kept.
    pub(crate) fn crash(&self) {
        let mut inner = self.inner();
        (inner.dies_in, inner.dies) = (None, false);
        let waiting = inner.under_way.len();
        let kept = inner.chance.among(0..waiting as u64 + 1) as usize;
        let lost = waiting - kept;
        if lost > 0 {
            count("a commit that is under way is lost with the controller");
        }
        inner.under_way.truncate(kept);
        if inner.health != Health::Full {
            if kept > 0 {
                count("a commit that is under way survives the controller");
            }
            inner.apply();
        }
        inner.under_way.clear();
        // A full disk is still full.
        if inner.health != Health::Full {
            inner.health = Health::Good;
        }
        inner
            .trace
            .say(format_args!("the controller's disk keeps {kept} of what was under way and loses {lost}"));
        inner.sqlite = None;
    }

    /// Holds the tables against the history.
    pub(crate) fn check(&self) -> Result<(), Broken> {
        count("rule fold");
        let inner = self.inner();
        let broken = |how: String| Broken { rule: "fold", how };
        let sqlite = match &inner.sqlite {
            Some(sqlite) => Arc::clone(sqlite),
            None => {
                let opened = Sqlite::open(&inner.directory.path().join("store"));
                Arc::new(opened.map_err(|error| broken(error.to_string()))?)
            }
        };
        let differences = check_fold(&*sqlite).map_err(|error| broken(error.to_string()))?;
        match differences.first() {
            None => Ok(()),
            Some(first) => {
                let how = format!("{} rows differ from the history, the first: {first:?}", differences.len());
                Err(broken(how))
            }
        }
    }

    /// Takes a copy of what is durable now.
    pub(crate) fn back_up(&self) {
        let mut inner = self.inner();
        let (from, to) = (inner.directory.path().join("store"), inner.directory.path().join("backup"));
        let _ = fs::remove_file(&to);
        backup::backup(&from, &to).expect("a store can be backed up at any time");
        inner.backup = Some((to, inner.last));
    }

    /// Puts the copy back, while no controller lives, as people do it. Gives back the number of its last record, which those follow
    /// that say that it was put back; nothing if no copy was taken.
    pub(crate) fn restore(&self, now: At) -> Option<u64> {
        let mut inner = self.inner();
        let (from, last) = inner.backup.clone()?;
        let to = inner.directory.path().join("store");
        let restored = restore::restore(&to, &from, now, None).expect("a backup can be put back");
        if let Some(before) = restored.before {
            fs::remove_file(before).expect("the store before can be removed");
        }
        let marks = Sqlite::open(&to).expect("the store opens").history(Of::Everything, last, 1000);
        let marks = marks.expect("its history can be read");
        inner.last = marks.last().map_or(last, |mark| mark.number);
        let rows = Sqlite::open(&to).expect("the store opens").rows().expect("its rows can be read");
        inner.news.push(Transaction { records: marks, rows });
        Some(last)
    }

    /// Everything that became durable since the last call.
    pub(crate) fn news(&self) -> Vec<Transaction> {
        std::mem::take(&mut self.inner().news)
    }
}

impl Inner {
    /// One commit, with whatever is queued.
    fn commit(&mut self) {
        match self.health {
            Health::Good | Health::StallsOnce(_) => self.apply(),
            Health::Full => {
                count("a commit finds no space");
                self.fail("write: no space is left");
            }
            Health::FailsOnce(kept) => {
                self.health = Health::Good;
                self.trace.say(format_args!("a commit fails, and is {}", if kept { "kept" } else { "lost" }));
                if kept {
                    count("a commit fails, and is kept");
                    let unheard: Vec<_> = self
                        .under_way
                        .iter_mut()
                        .map(|queued| std::mem::replace(&mut queued.done, oneshot::channel().0))
                        .take(BATCH)
                        .collect();
                    self.apply();
                    for done in unheard {
                        let _ = done.send(Err(unavailable("sync")));
                    }
                } else {
                    count("a commit fails, and is lost");
                    self.fail("sync");
                }
            }
        }
    }

    fn fail(&mut self, doing: &'static str) {
        for queued in self.under_way.drain(..) {
            let _ = queued.done.send(Err(unavailable(doing)));
        }
    }

    fn apply(&mut self) {
        let Some(sqlite) = self.sqlite.clone() else { return };
        let batch: Vec<Queued> = self.under_way.drain(..BATCH.min(self.under_way.len())).collect();
        let handed_in: Vec<(Queued, Ticket)> = batch
            .into_iter()
            .map(|queued| {
                let ticket = sqlite.commit(queued.transaction.clone());
                (queued, ticket)
            })
            .collect();
        for (Queued { transaction, done }, ticket) in handed_in {
            let outcome = wait(ticket).unwrap_or_else(|_| Err(unavailable("reach the writer")));
            if outcome.is_ok() {
                self.last = transaction.records.last().map_or(self.last, |record| record.number);
                self.news.push(transaction);
            }
            let _ = done.send(outcome);
        }
    }
}

/// Waits for SQLite's thread, which no simulated time passes for.
fn wait<T>(ticket: oneshot::Receiver<T>) -> Result<T, oneshot::error::RecvError> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut ticket = pin!(ticket);
    loop {
        match ticket.as_mut().poll(&mut context) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}

/// The store as one controller sees it; whoever holds on to it after that controller's death finds it closed.
pub(crate) struct SimStore {
    disk: Disk,
    sqlite: Weak<Sqlite>,
}

impl SimStore {
    fn sqlite(&self) -> Result<Arc<Sqlite>, Unavailable> {
        self.sqlite.upgrade().ok_or_else(|| unavailable("reach a dead controller's store"))
    }
}

impl Store for SimStore {
    fn commit(&self, transaction: Transaction) -> Ticket {
        let (done, ticket) = oneshot::channel();
        let mut inner = self.disk.inner();
        inner.under_way.push_back(Queued { transaction, done });
        inner.work.notify_one();
        ticket
    }
    fn commits(&self) -> Result<(), Unavailable> {
        match self.disk.inner().health {
            Health::Full => Err(unavailable("write: no space is left")),
            Health::Good | Health::FailsOnce(_) | Health::StallsOnce(_) => Ok(()),
        }
    }
    fn load(&self, since: At) -> Result<Model, Unavailable> {
        self.sqlite()?.load(since)
    }
    fn runs(&self, filter: &RunFilter) -> Result<Vec<RunParts>, Unavailable> {
        self.sqlite()?.runs(filter)
    }
    fn run(&self, run: RunId) -> Result<Option<RunParts>, Unavailable> {
        self.sqlite()?.run(run)
    }
    fn follow_ups(&self, run: RunId) -> Result<Vec<RunParts>, Unavailable> {
        self.sqlite()?.follow_ups(run)
    }
    fn gates(&self, open: bool, limit: usize) -> Result<Vec<GateRow>, Unavailable> {
        self.sqlite()?.gates(open, limit)
    }
    fn gate(&self, gate: GateId) -> Result<Option<GateRow>, Unavailable> {
        self.sqlite()?.gate(gate)
    }
    fn signals(&self, limit: usize) -> Result<Vec<SignalRow>, Unavailable> {
        self.sqlite()?.signals(limit)
    }
    fn signal(&self, signal: SignalId) -> Result<Option<SignalRow>, Unavailable> {
        self.sqlite()?.signal(signal)
    }
    fn incidents(&self, open: bool, limit: usize) -> Result<Vec<IncidentRow>, Unavailable> {
        self.sqlite()?.incidents(open, limit)
    }
    fn incident(&self, incident: IncidentId) -> Result<Option<IncidentRow>, Unavailable> {
        self.sqlite()?.incident(incident)
    }
    fn agents(&self) -> Result<Vec<AgentRow>, Unavailable> {
        self.sqlite()?.agents()
    }
    fn agent(&self, host: &Host) -> Result<Option<AgentRow>, Unavailable> {
        self.sqlite()?.agent(host)
    }
    fn history(&self, of: Of, after: u64, limit: usize) -> Result<Vec<Record>, Unavailable> {
        self.sqlite()?.history(of, after, limit)
    }
    fn rows(&self) -> Result<Vec<Row>, Unavailable> {
        self.sqlite()?.rows()
    }
}

/// Its name, the rule that it breaks, and what it commits.
pub(crate) type Test = (&'static str, Option<&'static str>, fn() -> Result<(), Broken>);

/// A history that breaks the rule of the fold, and one that does not.
pub(crate) const TESTS: &[Test] = &[
    ("a_table_without_the_row_that_its_events_make_is_seen", Some("fold"), || committed(false)),
    ("a_table_that_is_what_its_events_make_breaks_no_rule", None, || committed(true)),
];

/// A host gets a certificate; whether its row is written with that.
fn committed(with_its_row: bool) -> Result<(), Broken> {
    let disk = Disk::new(0, Trace::new(false));
    let store = disk.open();
    let host: Host = "web-1".parse().expect("a name");
    let (serial, not_after) = ("01".to_owned(), At(2));
    let change = Change::AgentCertified { host, labels: None, serial, not_after };
    let mut model = Model::default();
    model.apply(1, At(1), &change);
    let rows = if with_its_row { model.rows().into_values().collect() } else { Vec::new() };
    let records = vec![Record { number: 1, at: At(1), run: None, incident: None, change }];
    drop(store.commit(Transaction { records, rows }));
    disk.inner().commit();
    disk.check()
}
