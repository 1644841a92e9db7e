//! Puts a store back from a backup, while no controller runs.
//!
//! ```text
//! backup ─▶ restoring/ (checked, folded, marked as restored) ─▶ controller.db
//!           controller.db as it was ─▶ controller.db.before-TIME
//! ```
//!
//! A crash leaves either the old database or the new one in place, whole. What the backup has not seen is told again by the
//! hosts; what must not come back with it is taken care of here: tokens that may have been spent, notifications that may
//! have been sent, revocations, and numbers that people and receivers have seen.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use fettle_runbooks::id::Host;
use rusqlite::{Connection, OpenFlags};

use super::backup::{Contents, DATABASE, look, sync_folder_of};
use super::{Record, Sqlite, Store as _, check_fold, schema};
use crate::crash::crash_point;
use crate::model::row::{AgentRow, NotificationRow};
use crate::model::{Change, Model};
use crate::world::At;

/// Numbers that are left out above those of the backup and of the database in place: so many events or notifications nobody has
/// had since, so that none means two things, however often the same backup is restored.
pub(crate) const GAP: u64 = 1_000_000_000;
/// Where it is not known what numbers there were, new ones begin at the time, in so many a millisecond: more than any controller
/// ever gave, and more than at an earlier restore.
const NUMBERS_PER_MS: u64 = 1000;

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What was in the backup.
    pub contents: Contents,
    /// Where the database is that was there before; absent: there was none.
    pub before: Option<PathBuf>,
    /// What was in it; or why it cannot be told.
    pub replaced: Option<Result<Contents, String>>,
    /// Enrolment tokens that are good no more: they may have been spent.
    pub tokens: usize,
    /// Notifications that are not sent again.
    pub notifications: usize,
    /// Hosts that were revoked since the backup, and stay so.
    pub revoked: Vec<Host>,
}

/// Why nothing was restored. The database is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A controller runs.
    #[error("lock {}: a controller uses it; stop it first", path.display())]
    Taken {
        /// The store's directory.
        path: PathBuf,
    },
    /// It is no backup, or damaged, or of a later version.
    #[error("use the backup: {why}")]
    Backup {
        /// What is wrong.
        why: String,
    },
    /// The disk.
    #[error("{what}")]
    Io {
        /// Finishes "failed to …".
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The disk, when the restored database has its name already.
    #[error("make it durable that {} is in place", path.display())]
    NotDurable {
        /// The database.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database.
    #[error("{what}")]
    Database {
        /// Finishes "failed to …".
        what: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
}

/// Makes the body of the notification that tells of a restore, from its number and what was restored.
pub type Body<'a> = &'a dyn Fn(u64, &Contents) -> String;

/// Puts `from` in the place of the database in `directory`. `tell` makes what people are told, if anybody is to be told.
pub fn restore(
    directory: &Path,
    from: &Path,
    now: At,
    tell: Option<Body<'_>>,
) -> Result<Restored, RestoreError> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |source| RestoreError::Io { what, source }
    };
    let contents = look(from).map_err(|why| RestoreError::Backup { why })?;
    fs::create_dir_all(directory).map_err(io("make the store's directory"))?;
    let lock = File::create(directory.join("lock")).map_err(io("lock the store's directory"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| RestoreError::Taken { path: directory.to_owned() })?;

    let staging = directory.join("restoring");
    match fs::remove_dir_all(&staging) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io("clear what an earlier restore left")(error));
        }
        Ok(()) | Err(_) => {}
    }
    fs::create_dir(&staging).map_err(io("make a directory for the restored store"))?;
    let fresh = staging.join(DATABASE);
    fs::copy(from, &fresh).map_err(io("copy the backup"))?;
    private(&fresh).map_err(io("keep the copy from others' eyes"))?;
    let old = directory.join(DATABASE);
    let model = checked(&staging)?;
    let replaced = old.is_file().then(|| settle(&old).and_then(|()| look(&old)));
    let mut restored =
        Restored { contents, before: None, replaced, tokens: 0, notifications: 0, revoked: Vec::new() };
    mark(&fresh, &model, &old, now, tell, &mut restored)?;
    restored.before = swap(&fresh, &old, now)?;
    // The next restore clears up what cannot be cleared up now.
    let _ = fs::remove_dir_all(&staging);
    Ok(restored)
}

/// The model of a store whose history gives its tables.
fn checked(staging: &Path) -> Result<Model, RestoreError> {
    let backup = |why: String| RestoreError::Backup { why };
    let store = Sqlite::open(staging).map_err(|error| backup(error.to_string()))?;
    let differences = check_fold(&store).map_err(|error| backup(format!("failed to {error}")))?;
    if let Some(first) = differences.first() {
        return Err(backup(format!(
            "its history does not give its tables: {} rows differ, {:?} for one",
            differences.len(),
            first.key
        )));
    }
    store.load(At(i64::MIN)).map_err(|error| backup(format!("failed to {error}")))
}

/// Writes into the new database that it is one, and takes care of what must not come back with it.
fn mark(
    fresh: &Path,
    model: &Model,
    old: &Path,
    now: At,
    tell: Option<Body<'_>>,
    restored: &mut Restored,
) -> Result<(), RestoreError> {
    let mut changes = Vec::new();
    let (event, at) = restored.contents.last.unwrap_or_default();
    void_since(old, model, &mut changes);
    restored.revoked = revoked_since(old, model, &mut changes);
    changes.push(Change::Restored { event, at });
    for row in model.tokens.values().filter(|row| row.spent_at.is_none() && row.expires_at > now) {
        restored.tokens += 1;
        changes.push(Change::TokenSpent { hash: row.hash.clone() });
    }
    for row in model.notifications.values().filter(|row| row.next_at.is_some()) {
        restored.notifications += 1;
        let note = format!("not sent again: the store was restored at {now}");
        changes.push(Change::NotificationTried { id: row.id, next_at: None, note });
    }
    let before = Numbers::of(old).unwrap_or_else(|| Numbers::at(now));
    let id = before.notification.max(model.next_notification()).saturating_add(GAP);
    changes.push(Change::NotificationQueued(Box::new(notification(id, &restored.contents, now, tell))));
    let number = before.event.max(model.last_event).saturating_add(GAP);
    write(fresh, model.clone(), number, now, changes)
        .map_err(|source| RestoreError::Database { what: "write to the restored store", source })
}

/// The highest numbers that anybody may have seen.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    event: u64,
    notification: u64,
}

impl Numbers {
    /// Those of the database in place; none, if it cannot be read or is gone.
    fn of(old: &Path) -> Option<Numbers> {
        let read = || -> rusqlite::Result<Numbers> {
            let connection = Connection::open_with_flags(old, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            let highest = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
            let event = highest("SELECT max(number) FROM events")?;
            let notification = highest("SELECT max(id) FROM notifications")?;
            let number = |highest: Option<i64>| highest.unwrap_or(0).unsigned_abs();
            Ok(Numbers { event: number(event), notification: number(notification) })
        };
        read().ok()
    }

    fn at(now: At) -> Numbers {
        let number = u64::try_from(now.0).unwrap_or(0).saturating_mul(NUMBERS_PER_MS);
        Numbers { event: number, notification: number }
    }
}

/// `number`: the last that is left out.
fn write(
    fresh: &Path,
    mut model: Model,
    mut number: u64,
    now: At,
    changes: Vec<Change>,
) -> rusqlite::Result<()> {
    let connection = Connection::open(fresh)?;
    schema::tune(&connection)?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    for change in changes {
        number += 1;
        let touched = model.apply(number, now, &change);
        schema::write_record(&connection, &Record { number, at: now, run: None, incident: None, change })?;
        for row in touched.iter().filter_map(|key| model.row(key)) {
            schema::write_row(&connection, &row)?;
        }
    }
    connection.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE;")
}

/// One notification that tells of it all. Its number leaves out those that receivers may have had.
fn notification(id: u64, contents: &Contents, now: At, tell: Option<Body<'_>>) -> NotificationRow {
    NotificationRow {
        id,
        body: tell.map_or_else(|| "{}".to_owned(), |body| body(id, contents)),
        created_at: now,
        tries: 0,
        next_at: tell.map(|_| now),
        note: if tell.is_some() { "" } else { "nobody is told: the policy names no receiver" }.to_owned(),
    }
}

/// Certificates that the database in place calls void stay so, also of hosts that have enrolled again since.
fn void_since(old: &Path, model: &Model, changes: &mut Vec<Change>) {
    let Ok(rows) = agents(old) else { return };
    for row in rows {
        let known = model.agents.get(&row.host);
        if row.void_until <= known.map_or(At(0), |known| known.void_until) {
            continue;
        }
        let void_until = row.void_until;
        let row = known.cloned().unwrap_or(row);
        changes.push(Change::AgentConnected(Box::new(AgentRow { void_until, connected: false, ..row })));
    }
}

/// Hosts that the database in place calls revoked and the backup does not: they stay so.
fn revoked_since(old: &Path, model: &Model, changes: &mut Vec<Change>) -> Vec<Host> {
    let Ok(rows) = agents(old) else { return Vec::new() };
    let mut hosts = Vec::new();
    for row in rows {
        let Some((_, reason)) = row.revoked.clone() else { continue };
        if model.agents.get(&row.host).is_some_and(|known| known.revoked.is_some()) {
            continue;
        }
        if !model.agents.contains_key(&row.host) && row.void_until <= At(0) {
            let AgentRow { host, serial, not_after, .. } = row.clone();
            changes.push(Change::AgentCertified { host, labels: None, serial, not_after });
        }
        let by = "the database before the restore".to_owned();
        changes.push(Change::AgentRevoked { host: row.host.clone(), by, reason });
        hosts.push(row.host);
    }
    hosts
}

fn agents(database: &Path) -> rusqlite::Result<Vec<AgentRow>> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = connection.prepare("SELECT body FROM agents")?;
    let bodies: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    // One that cannot be read must not hide the others.
    Ok(bodies.iter().filter_map(|body| serde_json::from_str(body).ok()).collect())
}

/// Takes the old database's journal into it, so that it is one file.
fn settle(old: &Path) -> Result<(), String> {
    let settle = || -> rusqlite::Result<()> {
        let connection = Connection::open_with_flags(old, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE;")
    };
    settle().map_err(|error| format!("{} cannot be read: {error}", old.display()))
}

/// The new database takes the old one's name, which gets another first.
fn swap(fresh: &Path, old: &Path, now: At) -> Result<Option<PathBuf>, RestoreError> {
    let io = |what: String| move |source| RestoreError::Io { what, source };
    crash_point("restore.unsynced");
    File::open(fresh).and_then(|file| file.sync_all()).map_err(io("write the restored store".to_owned()))?;
    crash_point("restore.unnamed");
    let time: String = now.to_string().chars().filter(|sign| !matches!(sign, ':' | '-')).collect();
    let beside = |suffix: &str| old.with_file_name(format!("{DATABASE}.before-{time}{suffix}"));
    let before = old.exists().then(|| beside(""));
    // A journal that could not be taken in must not be taken for the new database's.
    for suffix in ["-wal", "-shm"] {
        let own = old.with_file_name(format!("{DATABASE}{suffix}"));
        match fs::rename(&own, beside(suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io(format!("put {} aside", own.display()))(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    if let Some(before) = &before {
        fs::hard_link(old, before)
            .map_err(io(format!("put the old database aside as {}", before.display())))?;
    }
    crash_point("restore.before-kept");
    let place = || io(format!("put {} in place", old.display()));
    fs::rename(fresh, old).map_err(place())?;
    crash_point("restore.undurable");
    sync_folder_of(old).map_err(|source| RestoreError::NotDurable { path: old.to_owned(), source })?;
    crash_point("restore.durable");
    Ok(before)
}

fn private(file: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))
}
