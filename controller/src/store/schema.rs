//! The tables, and which column of a row goes where.

use rusqlite::{Connection, params};

use super::{OpenError, Record};
use crate::crash::crash_point;
use crate::model::Row;

/// The version this code writes, kept in `user_version`. 2: history knows `still-firing` and `refusal-told`, and incidents and agents
/// have members that version 1 does without. 3: history knows `signal-taken`, signals and host runs have more members. 4: runs know
/// what they go on from, in a table more. 5: history knows `restored` and `adopted`, and agents have one more member. 6: history
/// knows `marked`, `pause-asked`, `pause-confirmed` and `again-asked`, and host runs can be paused. 7: history knows
/// `missed`, and of host runs that were taken in whether their host has told of them. 8: what the orders of a run share is kept once,
/// with the run.
pub(super) const VERSION: u32 = 8;

/// Every table keeps its row whole in `body` (JSON); the other columns are what is searched by.
const TABLES: &str = "
CREATE TABLE events (number INTEGER PRIMARY KEY, at INTEGER NOT NULL, run TEXT, incident TEXT, body TEXT NOT NULL) STRICT;
CREATE INDEX events_run ON events (run, number) WHERE run IS NOT NULL;
CREATE INDEX events_incident ON events (incident, number) WHERE incident IS NOT NULL;
CREATE TABLE signals (id TEXT PRIMARY KEY, received_at INTEGER NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE incidents (id TEXT PRIMARY KEY, open INTEGER NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX incidents_open ON incidents (id) WHERE open = 1;
CREATE TABLE runs (id TEXT PRIMARY KEY, open INTEGER NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX runs_open ON runs (id) WHERE open = 1;
CREATE TABLE host_runs (run TEXT NOT NULL, host TEXT NOT NULL, remediated_at INTEGER, body TEXT NOT NULL,
  PRIMARY KEY (run, host)) STRICT, WITHOUT ROWID;
CREATE INDEX host_runs_host ON host_runs (host, run);
CREATE INDEX host_runs_remediated ON host_runs (remediated_at) WHERE remediated_at IS NOT NULL;
CREATE TABLE steps (run TEXT NOT NULL, host TEXT NOT NULL, path TEXT NOT NULL, attempt INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (run, host, path, attempt)) STRICT, WITHOUT ROWID;
CREATE TABLE orders (run TEXT NOT NULL, host TEXT NOT NULL, segment INTEGER NOT NULL, open INTEGER NOT NULL,
  body TEXT NOT NULL, PRIMARY KEY (run, host, segment)) STRICT, WITHOUT ROWID;
CREATE TABLE gates (id TEXT PRIMARY KEY, run TEXT NOT NULL, open INTEGER NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX gates_open ON gates (id) WHERE open = 1;
CREATE INDEX gates_run ON gates (run);
CREATE TABLE agents (host TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE tokens (hash TEXT PRIMARY KEY, expires_at INTEGER NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE sessions (hash TEXT PRIMARY KEY, expires_at INTEGER NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE notifications (id INTEGER PRIMARY KEY, open INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
";

/// Which runs go on from which; made when it is missing.
const FOLLOW_UPS: &str = "
CREATE TABLE IF NOT EXISTS follow_ups (earlier TEXT NOT NULL, run TEXT NOT NULL, PRIMARY KEY (earlier, run)) STRICT, WITHOUT ROWID;
";

/// Settings of a connection; `synchronous = FULL` makes a commit survive a power cut.
pub(super) fn tune(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;",
    )
}

/// Commits something that changes nothing.
pub(super) fn write_something(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "user_version", VERSION)
}

/// Makes the tables in an empty database; refuses one written by a newer version.
pub(super) fn migrate(connection: &Connection) -> Result<(), OpenError> {
    let database = |source| OpenError::Database { source };
    let found: u32 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(database)?;
    match found {
        0 => connection
            .execute_batch(&format!(
                "BEGIN IMMEDIATE; {TABLES} {FOLLOW_UPS} PRAGMA user_version = {VERSION}; COMMIT;"
            ))
            .map_err(database),
        // From here on what wrote an earlier version cannot read all of it, and must not try.
        1..VERSION => {
            let changes = format!("BEGIN IMMEDIATE; {FOLLOW_UPS} PRAGMA user_version = {VERSION};");
            connection.execute_batch(&changes).map_err(database)?;
            crash_point("store.migrate-uncommitted");
            connection.execute_batch("COMMIT;").map_err(database)?;
            crash_point("store.migrated");
            Ok(())
        }
        VERSION => Ok(()),
        newer => Err(OpenError::Newer { found: newer, known: VERSION }),
    }
}

/// A body, as kept.
pub(super) fn encode<T: serde::Serialize>(body: &T) -> rusqlite::Result<String> {
    serde_json::to_string(body).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

pub(super) fn write_record(connection: &Connection, record: &Record) -> rusqlite::Result<()> {
    let mut statement = connection
        .prepare_cached("INSERT INTO events (number, at, run, incident, body) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    statement.execute(params![
        record.number as i64,
        record.at.0,
        record.run.map(|id| id.to_string()),
        record.incident.map(|id| id.to_string()),
        encode(&record.change)?
    ])?;
    Ok(())
}

/// Writes a row, or what is new in the one with its key: indexes of columns that stay as they are need not be touched.
pub(super) fn write_row(connection: &Connection, row: &Row) -> rusqlite::Result<()> {
    let put = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        connection.prepare_cached(sql)?.execute(values).map(|_| ())
    };
    match row {
        Row::Signal(row) => put(
            "INSERT INTO signals (id, received_at, body) VALUES (?1, ?2, ?3) \
             ON CONFLICT DO UPDATE SET received_at = excluded.received_at, body = excluded.body",
            params![row.id.to_string(), row.signal.received_at.0, encode(row)?],
        ),
        Row::Incident(row) => put(
            "INSERT INTO incidents (id, open, body) VALUES (?1, ?2, ?3) \
             ON CONFLICT DO UPDATE SET open = excluded.open, body = excluded.body",
            params![row.id.to_string(), row.closed.is_none(), encode(row)?],
        ),
        Row::Run(row) => {
            if let Some(of) = &row.of {
                let sql = "INSERT OR IGNORE INTO follow_ups (earlier, run) VALUES (?1, ?2)";
                put(sql, params![of.run.to_string(), row.id.to_string()])?;
            }
            put(
                "INSERT INTO runs (id, open, body) VALUES (?1, ?2, ?3) \
                 ON CONFLICT DO UPDATE SET open = excluded.open, body = excluded.body",
                params![row.id.to_string(), row.ended_at.is_none(), encode(row)?],
            )
        }
        Row::HostRun(row) => put(
            "INSERT INTO host_runs (run, host, remediated_at, body) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT DO UPDATE SET remediated_at = excluded.remediated_at, body = excluded.body",
            params![row.run.to_string(), row.host.as_str(), row.remediated_at.map(|at| at.0), encode(row)?],
        ),
        Row::Step(row) => put(
            "INSERT INTO steps (run, host, path, attempt, body) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT DO UPDATE SET body = excluded.body",
            params![row.run.to_string(), row.host.as_str(), row.path, row.attempt, encode(row)?],
        ),
        Row::Order(row) => put(
            "INSERT INTO orders (run, host, segment, open, body) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT DO UPDATE SET open = excluded.open, body = excluded.body",
            params![
                row.run.to_string(),
                row.host.as_str(),
                row.segment,
                row.closed_at.is_none(),
                encode(row)?
            ],
        ),
        Row::Gate(row) => put(
            "INSERT INTO gates (id, run, open, body) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT DO UPDATE SET run = excluded.run, open = excluded.open, body = excluded.body",
            params![
                row.id.to_string(),
                row.run.to_string(),
                row.state == crate::model::row::GateState::Open,
                encode(row)?
            ],
        ),
        Row::Agent(row) => put(
            "INSERT INTO agents (host, body) VALUES (?1, ?2) \
             ON CONFLICT DO UPDATE SET body = excluded.body",
            params![row.host.as_str(), encode(row)?],
        ),
        Row::Token(row) => put(
            "INSERT INTO tokens (hash, expires_at, body) VALUES (?1, ?2, ?3) \
             ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at, body = excluded.body",
            params![row.hash, row.expires_at.0, encode(row)?],
        ),
        Row::Session(row) => put(
            "INSERT INTO sessions (hash, expires_at, body) VALUES (?1, ?2, ?3) \
             ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at, body = excluded.body",
            params![row.hash, row.expires_at.0, encode(row)?],
        ),
        Row::Notification(row) => put(
            "INSERT INTO notifications (id, open, body) VALUES (?1, ?2, ?3) \
             ON CONFLICT DO UPDATE SET open = excluded.open, body = excluded.body",
            params![row.id as i64, row.next_at.is_some(), encode(row)?],
        ),
    }
}
