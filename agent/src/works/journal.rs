//! What this host must not forget, on its disk.
//!
//! One file per generation, preallocated, with one [`Writer`]: in an agent a thread. Records that are waiting when the disk becomes free go
//! out together as one *batch*, and one fsync makes them all durable: that is what keeps the cost per record low.
//! A batch carries its generation, its number, the checksum of the batch before it and its own, and is fsynced before
//! the next is written. So damage has two meanings, and they are told apart when the journal is opened: in the last
//! batch it is a torn write, whose records nobody was told were durable, and it is cut off; before a batch that is
//! whole it is corruption, and then the file is put aside under another name (never deleted, never skipped) and the
//! host says so.

mod frame; // batches as bytes
mod writer; // what owns the file

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use crate::works::disk::{Disk, HostDisk};
use crate::works::record::Record;
use crate::works::world::{HostWorld, World};

pub use writer::Writer;

/// Before something is intended, there must be space for saying how it went, should it fill the disk: head and tail of both
/// outputs, in the result and in the report, of two steps at a time.
const TO_SAY_HOW_IT_WENT: u64 = 1 << 20;

/// The journal, as a handle for appending.
#[derive(Clone, Debug)]
pub struct Journal {
    name: Arc<str>,
    writer: writer::Handle,
}

/// A journal that was opened, and what was in it.
#[derive(Debug)]
pub struct Opened {
    /// To write on.
    pub journal: Journal,
    /// Its records, in order.
    pub records: Vec<Record>,
    /// Set when the files found were damaged, and therefore put aside just now. `records` is empty then, and the
    /// journal a new one with a new name.
    pub damage: Option<Damage>,
    /// All files that were ever put aside and that nobody has looked after yet.
    pub quarantined: Vec<PathBuf>,
}

/// What was found damaged.
#[derive(Debug)]
pub struct Damage {
    /// The file, under its new name.
    pub file: PathBuf,
    /// What is wrong with it, for people.
    pub reason: String,
    /// The records before the damage. They are true, but not all that is true: good for closing runs, not for going
    /// on with them.
    pub before: Vec<Record>,
}

/// A journal that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another agent has it.
    #[error("failed to lock {0}: another agent is using this state directory")]
    InUse(PathBuf),
    /// The file is whole, but this version cannot read it.
    #[error("failed to read {path}: {what}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is strange.
        what: String,
    },
    /// The disk.
    #[error("failed to open the journal at {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Records that are not durable.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk is full. Nothing of this append is in the journal, and nothing of any later one, so that none overtakes
    /// it: say [`Journal::again`], then append all of them again, in their order.
    #[error("failed to write the journal because the disk is full")]
    Full,
    /// One append larger than a journal may hold at once.
    #[error("failed to write {bytes} bytes to the journal at once: at most {limit} fit")]
    TooLarge {
        /// What was asked.
        bytes: usize,
        /// What fits.
        limit: usize,
    },
    /// The disk failed. Whether this append is durable cannot be known, and the journal takes nothing any more: only
    /// opening it again, in a new process, tells what is there.
    #[error("failed to make the journal durable; this agent must stop")]
    Broken {
        /// Why.
        source: Arc<io::Error>,
    },
}

/// A promise of durability, to wait for.
#[derive(Debug)]
#[must_use = "records are durable only when the ticket says so"]
pub struct Ticket(mpsc::Receiver<Result<(), AppendError>>);

impl Ticket {
    /// Waits until the records are durable.
    ///
    /// # Errors
    /// When they are not.
    pub fn wait(self) -> Result<(), AppendError> {
        self.0.recv().unwrap_or_else(|_| Err(writer::gone()))
    }
}

impl Journal {
    /// Opens the journal in `dir`, or creates it.
    ///
    /// # Errors
    /// When it is in use, of another version, or the disk fails. Damage is no error: see [`Opened::damage`].
    pub fn open(dir: &Path) -> Result<Opened, OpenError> {
        let disk: Arc<dyn Disk> = Arc::new(HostDisk);
        let (opened, writer) = Journal::open_on(&disk, &HostWorld::new(), dir)?;
        let io = |source| OpenError::Io { path: dir.to_owned(), source };
        opened.journal.written_by_thread(writer).map_err(io)?;
        Ok(opened)
    }

    /// The same on any disk. Nothing is written but by the writer that is given back.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_on(
        disk: &Arc<dyn Disk>,
        world: &dyn World,
        dir: &Path,
    ) -> Result<(Opened, Writer), OpenError> {
        open::open(disk, world, dir)
    }

    /// Puts the journal in `dir` aside, that is whole but of an earlier state of the disk; the next that is opened is a new one.
    /// Its writer must have nothing to write. Gives back the file's new name.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn put_aside(disk: &dyn Disk, dir: &Path) -> io::Result<PathBuf> {
        open::put_earlier_aside(disk, dir)
    }

    /// Whether a file that was [put aside](Opened::quarantined) is whole, but of an earlier state of the disk.
    pub(super) fn is_earlier(file: &Path) -> bool {
        file.to_string_lossy().contains(&format!(".{}-", open::EARLIER))
    }

    /// Has its writer work on a thread of its own.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn written_by_thread(&self, writer: Writer) -> io::Result<()> {
        self.writer.written_by_thread(writer)
    }

    /// Its name: random, made when it was created. Another name means that what this journal knew is gone.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Appends records, all or none of them. Returns at once.
    pub fn append(&self, records: &[Record]) -> Ticket {
        let (done, ticket) = mpsc::sync_channel(1);
        self.append_then(records, move |result| {
            let _ = done.send(result);
        });
        Ticket(ticket)
    }

    /// Appends records, all or none of them, and calls `then` on the journal's thread: be quick there.
    pub fn append_then(
        &self,
        records: &[Record],
        then: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) {
        let intends = records.iter().any(|record| matches!(record, Record::Intent { .. }));
        let ahead = if intends { TO_SAY_HOW_IT_WENT } else { 0 };
        self.writer.append(records.iter().map(Record::encode).collect(), ahead, Box::new(then));
    }

    /// After [`AppendError::Full`]: takes appends again.
    pub fn again(&self) {
        self.writer.again();
    }

    /// Replaces everything appended so far with `live`, in a new file. Appends made after this call follow it.
    pub fn compact(&self, live: &[Record]) -> Ticket {
        let (done, ticket) = mpsc::sync_channel(1);
        self.compact_then(live, move |result| {
            let _ = done.send(result);
        });
        Ticket(ticket)
    }

    /// The same, and calls `then` on the journal's thread: be quick there.
    pub fn compact_then(&self, live: &[Record], then: impl FnOnce(Result<(), AppendError>) + Send + 'static) {
        self.writer.compact(live.iter().map(Record::encode).collect(), Box::new(then));
    }

    /// Bytes written in this generation: compaction is worth it when they are many more than the live ones.
    pub fn written(&self) -> u64 {
        self.writer.written()
    }
}

mod open; // finding, reading, putting aside
#[cfg(test)]
mod tests;
