//! What owns the file: in an agent a thread of its own.

use std::any::Any;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use fettle_crash::Replaced;

use super::frame::{self, Header, LARGEST, Place};
use super::{AppendError, TO_SAY_HOW_IT_WENT};
use crate::crash::{self, crash_point};
use crate::works::ballast::{self, is_full};
use crate::works::disk::{Disk, DiskFile};

/// The file grows by so much, so that an fsync seldom has to write a new size.
const GROWTH: u64 = 1 << 20;
/// Waiting appends go out together until they are this large.
const GROUP: usize = 4 << 20;

/// Called once, when the fate of an append is known.
pub(super) type Then = Box<dyn FnOnce(Result<(), AppendError>) + Send>;

enum Job {
    /// Records, and how much space there must be after them.
    Append(Vec<Vec<u8>>, u64, Then),
    Compact(Vec<Vec<u8>>, Then),
    Again,
}

/// A way to the writer. The last one to be dropped waits until a thread has written everything appended.
#[derive(Clone, Debug)]
pub(super) struct Handle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    written: Arc<AtomicU64>,
}

impl Handle {
    pub(super) fn append(&self, records: Vec<Vec<u8>>, ahead: u64, then: Then) {
        self.send(Job::Append(records, ahead, then));
    }

    pub(super) fn compact(&self, records: Vec<Vec<u8>>, then: Then) {
        self.send(Job::Compact(records, then));
    }

    pub(super) fn again(&self) {
        self.send(Job::Again);
    }

    pub(super) fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// Has `writer` work on a thread of its own.
    pub(super) fn written_by_thread(&self, writer: Writer) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("journal".into()).stack_size(256 * 1024);
        let thread = thread.spawn(move || writer.run())?;
        *self.0.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    fn send(&self, job: Job) {
        let jobs = self.0.jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let unsent = match jobs.as_ref().map(|jobs| jobs.send(job)) {
            Some(Ok(())) => return,
            Some(Err(unsent)) => unsent.0,
            None => return,
        };
        match unsent {
            Job::Append(_, _, then) | Job::Compact(_, then) => then(Err(gone())),
            Job::Again => {}
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.jobs.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let thread = self.thread.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

/// The writer is not there any more, which only a panic in it explains.
pub(super) fn gone() -> AppendError {
    AppendError::Broken { source: Arc::new(io::Error::other("the journal's writer has ended")) }
}

/// What a journal is written on: a file, or in tests one that fails.
pub(super) trait Medium: Send {
    /// Makes sure that the file has space up to `end`.
    fn reserve(&mut self, end: u64) -> io::Result<()>;
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
    /// A new file with these bytes, durable and under the right name. The old one is gone afterwards.
    fn replace(&mut self, generation: u64, bytes: &[u8]) -> io::Result<()>;
}

/// Files in the journal's directory.
pub(super) struct Files {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) file: Box<dyn DiskFile>,
    pub(super) generation: u64,
    /// Bytes the file has.
    pub(super) reserved: u64,
    /// Held as long as the journal is open.
    pub(super) _lock: Box<dyn Any + Send>,
}

/// The name of a generation's file.
pub(super) fn path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("{generation:08}.journal"))
}

/// Creates a generation's file with `bytes`: durable before it has its name.
pub(super) fn create(
    disk: &dyn Disk,
    dir: &Path,
    generation: u64,
    bytes: &[u8],
    points: &Replaced,
) -> io::Result<Box<dyn DiskFile>> {
    let tmp = dir.join("next.tmp");
    let _ = disk.remove(&tmp);
    let mut file = disk.create_new(&tmp)?;
    let written = file.write_at(bytes, 0).and_then(|()| {
        crash_point(points.unsynced);
        file.sync()
    });
    if let Err(error) = written {
        let _ = disk.remove(&tmp); // on a full disk it would only keep it full
        return Err(error);
    }
    crash_point(points.unnamed);
    disk.rename(&tmp, &path(dir, generation))?;
    crash_point(points.undurable);
    disk.sync_dir(dir)?;
    crash_point(points.durable);
    Ok(file)
}

impl Files {
    /// Tries again where there was no space and some can be given back.
    fn with_room<T>(&mut self, mut write: impl FnMut(&mut Files) -> io::Result<T>) -> io::Result<T> {
        match write(self) {
            Err(error) if is_full(&error) => match self.dir.parent() {
                Some(state) if ballast::give_back(&*self.disk, state) => write(self),
                Some(_) | None => Err(error),
            },
            written => written,
        }
    }
}

impl Medium for Files {
    fn reserve(&mut self, end: u64) -> io::Result<()> {
        if end <= self.reserved {
            return Ok(());
        }
        let size = end.next_multiple_of(GROWTH);
        let from = self.reserved;
        self.with_room(|files| files.file.reserve(from, size))?;
        self.reserved = size;
        Ok(())
    }

    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.with_room(|files| files.file.write_at(bytes, at))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    fn replace(&mut self, generation: u64, bytes: &[u8]) -> io::Result<()> {
        let points = &crash::COMPACTED;
        self.file = self.with_room(|files| create(&*files.disk, &files.dir, generation, bytes, points))?;
        self.reserved = bytes.len() as u64;
        let old = std::mem::replace(&mut self.generation, generation);
        // Should it survive a crash here, opening takes the higher generation and removes the lower.
        self.disk.remove(&path(&self.dir, old))?;
        self.disk.sync_dir(&self.dir)?;
        crash_point("journal.compact.durable");
        Ok(())
    }
}

/// A way to a journal and what writes it, after `next`.
pub(super) fn new(header: Header, next: Place, medium: Box<dyn Medium>) -> (Handle, Writer) {
    let (jobs, queue) = channel();
    let written = Arc::new(AtomicU64::new(next.at));
    let writer = Writer {
        header,
        next,
        medium,
        full: false,
        broken: None,
        written: Arc::clone(&written),
        queue,
        held: None,
    };
    (Handle(Arc::new(Inner { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(None), written })), writer)
}

/// Writes a journal: what waits, each time it is asked to.
pub struct Writer {
    header: Header,
    next: Place,
    medium: Box<dyn Medium>,
    /// An append found the disk full; a later one must not get in before it.
    full: bool,
    /// Why nothing is written any more.
    broken: Option<Arc<io::Error>>,
    written: Arc<AtomicU64>,
    queue: Receiver<Job>,
    /// It did not go together with those before it.
    held: Option<Job>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("generation", &self.header.generation).finish_non_exhaustive()
    }
}

impl Writer {
    /// Does one thing that waits: the appends that go out together, or a compaction. Blocks for the disk alone. False:
    /// nothing waited.
    pub fn turn(&mut self) -> bool {
        let Some(job) = self.held.take().or_else(|| self.queue.try_recv().ok()) else { return false };
        self.work(job);
        true
    }

    /// Nothing waits.
    pub fn is_idle(&mut self) -> bool {
        if self.held.is_none() {
            self.held = self.queue.try_recv().ok();
        }
        self.held.is_none()
    }

    /// Until every way to it is gone.
    fn run(mut self) {
        while let Some(job) = self.held.take().or_else(|| self.queue.recv().ok()) {
            self.work(job);
        }
    }

    fn work(&mut self, job: Job) {
        match job {
            Job::Compact(records, then) => then(self.compact(&records)),
            Job::Again => self.full = false,
            Job::Append(records, ahead, then) => {
                let size = frame::payload(&records);
                if size > LARGEST {
                    return then(Err(AppendError::TooLarge { bytes: size, limit: LARGEST }));
                }
                self.commit(records, ahead, then);
            }
        }
    }

    /// Writes one append and all that are waiting behind it, but for the job that does not fit.
    fn commit(&mut self, mut records: Vec<Vec<u8>>, mut ahead: u64, then: Then) {
        let mut size = frame::payload(&records);
        let mut thens = vec![then];
        while let Ok(job) = self.queue.try_recv() {
            match job {
                Job::Append(more, further, then) if size + frame::payload(&more) <= GROUP => {
                    size += frame::payload(&more);
                    ahead = ahead.max(further);
                    records.extend(more);
                    thens.push(then);
                }
                Job::Append(..) | Job::Compact(..) | Job::Again => {
                    self.held = Some(job);
                    break;
                }
            }
        }
        let result = self.write(&records, ahead);
        for then in thens {
            then(result.clone());
        }
    }

    fn write(&mut self, records: &[Vec<u8>], ahead: u64) -> Result<(), AppendError> {
        self.still_good()?;
        if self.full {
            return Err(AppendError::Full);
        }
        let (bytes, next) = frame::encode(self.header.generation, &self.next, records);
        self.medium.reserve(next.at + ahead).map_err(|error| self.failed(error))?;
        crash_point("journal.before-write");
        self.medium.write_at(&bytes, self.next.at).map_err(|error| self.failed(error))?;
        crash_point("journal.before-sync");
        // After a failed fsync the kernel may have forgotten that these pages were dirty: a second one that succeeds
        // would prove nothing. So there is no second one.
        self.medium.sync().map_err(|error| self.broken(error))?;
        crash_point("journal.after-sync");
        self.next = next;
        self.written.store(self.next.at, Ordering::Relaxed);
        Ok(())
    }

    fn compact(&mut self, records: &[Vec<u8>]) -> Result<(), AppendError> {
        self.still_good()?;
        let (header, bytes, next) = snapshot(self.header.generation + 1, &self.header.name, records);
        match self.medium.replace(header.generation, &bytes) {
            Ok(()) => {}
            Err(error) if is_full(&error) => return Err(AppendError::Full),
            // The new file may or may not have its name: only opening tells.
            Err(error) => return Err(self.broken(error)),
        }
        (self.header, self.next) = (header, next);
        // For steps that are under way; the old file is gone, so there is room if there was.
        let _ = self.medium.reserve(self.next.at + TO_SAY_HOW_IT_WENT);
        self.written.store(self.next.at, Ordering::Relaxed);
        Ok(())
    }

    fn still_good(&self) -> Result<(), AppendError> {
        match &self.broken {
            None => Ok(()),
            Some(source) => Err(AppendError::Broken { source: Arc::clone(source) }),
        }
    }

    /// A write that failed. A full disk is for the caller; what was half written is overwritten by the next batch.
    fn failed(&mut self, error: io::Error) -> AppendError {
        if is_full(&error) {
            self.full = true;
            return AppendError::Full;
        }
        self.broken(error)
    }

    fn broken(&mut self, error: io::Error) -> AppendError {
        let source = Arc::clone(self.broken.insert(Arc::new(error)));
        AppendError::Broken { source }
    }
}

/// A whole new file: header and all records, in as many batches as they need.
pub(super) fn snapshot(generation: u64, name: &str, records: &[Vec<u8>]) -> (Header, Vec<u8>, Place) {
    let groups = groups(records);
    let header = Header { generation, sealed: groups.len() as u64, name: name.to_owned() };
    let mut next = Place::first(&header);
    let mut bytes = header.encode().to_vec();
    for group in groups {
        let batch;
        (batch, next) = frame::encode(generation, &next, group);
        bytes.extend(batch);
    }
    (header, bytes, next)
}

/// Cuts records into runs of about [`GROUP`] bytes.
fn groups(records: &[Vec<u8>]) -> Vec<&[Vec<u8>]> {
    let mut groups = Vec::new();
    let mut rest = records;
    while !rest.is_empty() {
        let mut size = 0;
        let fits = rest.iter().take_while(|record| {
            size += 4 + record.len();
            size <= GROUP
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        groups.push(now);
        rest = later;
    }
    groups
}
