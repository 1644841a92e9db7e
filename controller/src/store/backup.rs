//! A copy of the store, made while a controller writes to it.
//!
//! SQLite writes the copy from one snapshot (`VACUUM INTO`), which no writer waits for. It gets its name only when it is whole,
//! checked and durable.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::schema::VERSION;
use crate::crash::crash_point;
use crate::world::At;

/// The name of the database in the store's directory.
pub(super) const DATABASE: &str = "controller.db";

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Events in it.
    pub events: u64,
    /// The number and the time of the last of them.
    pub last: Option<(u64, At)>,
    /// The version of its schema.
    pub version: u32,
}

/// Why there is no backup. Nothing is left behind under the name that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// No backup writes over anything.
    #[error("write {}: there is a file of that name; choose another", path.display())]
    Exists {
        /// Its name.
        path: PathBuf,
    },
    /// There is nothing to copy.
    #[error("read {}: no controller has kept anything there", path.display())]
    NoStore {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The disk, or the directory.
    #[error("write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store cannot be read, or the copy not be written.
    #[error("copy the store to {}", path.display())]
    Copy {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The copy is not what it has to be.
    #[error("check the copy: {why}")]
    Check {
        /// What is wrong.
        why: String,
    },
}

/// Copies the store in `directory` to the file `to`, which must not be there: durable when this returns, readable by its owner alone.
pub fn backup(directory: &Path, to: &Path) -> Result<Contents, BackupError> {
    let database = directory.join(DATABASE);
    if !database.is_file() {
        return Err(BackupError::NoStore { path: database });
    }
    if to.symlink_metadata().is_ok() {
        return Err(BackupError::Exists { path: to.to_owned() });
    }
    let unfinished = Unfinished::beside(to)?;
    let contents = unfinished.fill(&database)?;
    unfinished.name(to)?;
    Ok(contents)
}

/// A file that goes again unless it gets its name.
struct Unfinished(PathBuf);

impl Unfinished {
    fn beside(to: &Path) -> Result<Unfinished, BackupError> {
        let mut path = to.to_owned().into_os_string();
        path.push(format!(".{}.unfinished", std::process::id()));
        let path = PathBuf::from(path);
        // Empty, with its mode, before anything is in it; SQLite writes into an empty file.
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(_) => Ok(Unfinished(path)),
            Err(source) => Err(BackupError::Write { path, source }),
        }
    }

    fn fill(&self, database: &Path) -> Result<Contents, BackupError> {
        let copy = |source| BackupError::Copy { path: self.0.clone(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let source = Connection::open_with_flags(database, flags).map_err(copy)?;
        source.busy_timeout(std::time::Duration::from_secs(5)).map_err(copy)?;
        source.execute("VACUUM INTO ?1", [self.0.to_string_lossy()]).map_err(copy)?;
        drop(source);
        look(&self.0).map_err(|why| BackupError::Check { why })
    }

    /// Never over a file that came meanwhile.
    fn name(self, to: &Path) -> Result<(), BackupError> {
        let write = |source| BackupError::Write { path: to.to_owned(), source };
        crash_point("backup.unsynced");
        File::open(&self.0).and_then(|file| file.sync_all()).map_err(write)?;
        crash_point("backup.unnamed");
        fs::hard_link(&self.0, to).map_err(|source| {
            let exists = source.kind() == io::ErrorKind::AlreadyExists;
            if exists { BackupError::Exists { path: to.to_owned() } } else { write(source) }
        })?;
        crash_point("backup.undurable");
        fs::remove_file(&self.0).and_then(|()| sync_folder_of(to)).map_err(write)?;
        crash_point("backup.durable");
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What is in a database file that nobody writes to; or what is wrong with it.
pub fn look(file: &Path) -> Result<Contents, String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let read = || -> rusqlite::Result<(String, Contents)> {
        let connection = Connection::open_with_flags(file, flags)?;
        let sound = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let events: i64 = connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
        let last = connection
            .query_row("SELECT number, at FROM events ORDER BY number DESC LIMIT 1", [], |row| {
                Ok((row.get::<_, i64>(0)?.unsigned_abs(), At(row.get(1)?)))
            })
            .optional()?;
        Ok((sound, Contents { events: events.unsigned_abs(), last, version }))
    };
    match read() {
        Err(error) => Err(format!("{} is no store of a controller: {error}", file.display())),
        Ok((sound, _)) if sound != "ok" => Err(format!("{} is damaged: {sound}", file.display())),
        Ok((_, contents)) if contents.version == 0 || contents.version > VERSION => Err(format!(
            "{} is of version {}, and this controller knows versions 1 to {VERSION}: use the one that wrote it, or a newer",
            file.display(),
            contents.version
        )),
        Ok((_, contents)) => Ok(contents),
    }
}

/// Makes names in a folder durable.
pub(super) fn sync_folder_of(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
