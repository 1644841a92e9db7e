//! Reading from SQLite.

use fettle_runbooks::id::{GateId, Host, IncidentId, RunId, SignalId};
use rusqlite::{Connection, ToSql, params};
use serde::de::DeserializeOwned;

use super::{Of, Record, RunFilter, RunParts, Sqlite, Store, Ticket, Transaction, Unavailable};
use crate::model::row::{AgentRow, GateRow, HostRunRow, IncidentRow, RunRow, SignalRow, StepRow};
use crate::model::{MEMORY, Model, Row};
use crate::world::At;

fn decode<T: DeserializeOwned>(body: &str) -> rusqlite::Result<T> {
    serde_json::from_str(body).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })
}

/// The bodies of the rows a query finds; its first column is `body`.
fn bodies<T: DeserializeOwned>(
    connection: &Connection,
    sql: &str,
    values: &[&dyn ToSql],
) -> rusqlite::Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(decode(row.get_ref(0)?.as_str()?)?);
    }
    Ok(found)
}

fn one<T: DeserializeOwned>(
    connection: &Connection,
    sql: &str,
    values: &[&dyn ToSql],
) -> rusqlite::Result<Option<T>> {
    bodies(connection, sql, values).map(|found| found.into_iter().next())
}

/// SQLite counts in `i64`.
fn limited(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

const OF_OPEN_RUNS: &str = "WHERE run IN (SELECT id FROM runs WHERE open = 1)";

impl Store for Sqlite {
    fn commit(&self, transaction: Transaction) -> Ticket {
        self.submit(transaction)
    }

    fn commits(&self) -> Result<(), Unavailable> {
        Sqlite::commits(self)
    }

    fn load(&self, since: At) -> Result<Model, Unavailable> {
        self.reading("load what is unfinished", |connection| {
            let mut model = Model::default();
            let mut rows: Vec<Row> = Vec::new();
            let now = since.plus(MEMORY);
            let since: &[&dyn ToSql] = params![since.0];
            rows.extend(
                bodies(connection, "SELECT body FROM signals WHERE received_at >= ?1 ORDER BY id", since)?
                    .into_iter()
                    .map(Row::Signal),
            );
            let incidents = "SELECT body FROM incidents WHERE open = 1";
            rows.extend(bodies(connection, incidents, params![])?.into_iter().map(Row::Incident));
            let runs = "SELECT body FROM runs WHERE open = 1";
            rows.extend(bodies(connection, runs, params![])?.into_iter().map(Row::Run));
            let host_runs =
                format!("SELECT body FROM host_runs {OF_OPEN_RUNS} UNION SELECT body FROM host_runs WHERE remediated_at >= ?1");
            rows.extend(bodies(connection, &host_runs, since)?.into_iter().map(Row::HostRun));
            let steps = format!("SELECT body FROM steps {OF_OPEN_RUNS}");
            rows.extend(bodies(connection, &steps, params![])?.into_iter().map(Row::Step));
            let orders = format!("SELECT body FROM orders {OF_OPEN_RUNS} UNION SELECT body FROM orders WHERE open = 1");
            rows.extend(bodies(connection, &orders, params![])?.into_iter().map(Row::Order));
            let gates = format!("SELECT body FROM gates {OF_OPEN_RUNS} UNION SELECT body FROM gates WHERE open = 1");
            rows.extend(bodies(connection, &gates, params![])?.into_iter().map(Row::Gate));
            let agents = "SELECT body FROM agents";
            rows.extend(bodies(connection, agents, params![])?.into_iter().map(Row::Agent));
            let tokens = "SELECT body FROM tokens WHERE expires_at >= ?1";
            rows.extend(bodies(connection, tokens, since)?.into_iter().map(Row::Token));
            let sessions = "SELECT body FROM sessions WHERE expires_at >= ?1";
            rows.extend(bodies(connection, sessions, since)?.into_iter().map(Row::Session));
            let notifications =
                "SELECT body FROM notifications WHERE open = 1 OR id = (SELECT max(id) FROM notifications)";
            rows.extend(bodies(connection, notifications, params![])?.into_iter().map(Row::Notification));
            for row in rows {
                model.insert(row);
            }
            model.forget_settled(now);
            model.last_event = connection
                .query_row("SELECT coalesce(max(number), 0) FROM events", [], |row| row.get::<_, i64>(0))?
                .unsigned_abs();
            Ok(model)
        })
    }

    fn runs(&self, filter: &RunFilter) -> Result<Vec<RunParts>, Unavailable> {
        self.reading("list runs", |connection| {
            let before = filter.before.map(|id| id.to_string());
            let limit = limited(filter.limit);
            let runs: Vec<RunRow> = match (&filter.host, filter.open) {
                (Some(host), open) => bodies(
                    connection,
                    "SELECT runs.body FROM host_runs JOIN runs ON runs.id = host_runs.run \
                     WHERE host_runs.host = ?1 AND (?2 IS NULL OR host_runs.run < ?2) AND runs.open >= ?3 \
                     ORDER BY host_runs.run DESC LIMIT ?4",
                    params![host.as_str(), before, open, limit],
                )?,
                (None, true) => bodies(
                    connection,
                    "SELECT body FROM runs WHERE open = 1 AND (?1 IS NULL OR id < ?1) ORDER BY id DESC LIMIT ?2",
                    params![before, limit],
                )?,
                (None, false) => bodies(
                    connection,
                    "SELECT body FROM runs WHERE (?1 IS NULL OR id < ?1) ORDER BY id DESC LIMIT ?2",
                    params![before, limit],
                )?,
            };
            runs.into_iter()
                .map(|run| {
                    let hosts = hosts(connection, run.id)?;
                    Ok(RunParts { run, hosts, steps: Vec::new() })
                })
                .collect()
        })
    }

    fn run(&self, run: RunId) -> Result<Option<RunParts>, Unavailable> {
        self.reading("read a run", |connection| {
            let id = run.to_string();
            let Some(row) = one(connection, "SELECT body FROM runs WHERE id = ?1", params![id])? else {
                return Ok(None);
            };
            let mut steps: Vec<StepRow> = bodies(
                connection,
                "SELECT body FROM steps WHERE run = ?1 ORDER BY host, path, attempt",
                params![id],
            )?;
            steps.sort_by_key(|step| step.started_at.or(step.ended_at));
            Ok(Some(RunParts { run: row, hosts: hosts(connection, run)?, steps }))
        })
    }

    fn follow_ups(&self, run: RunId) -> Result<Vec<RunParts>, Unavailable> {
        self.reading("find what goes on from a run", |connection| {
            let sql = "SELECT runs.body FROM follow_ups JOIN runs ON runs.id = follow_ups.run \
                       WHERE follow_ups.earlier = ?1 ORDER BY follow_ups.run";
            let runs: Vec<RunRow> = bodies(connection, sql, params![run.to_string()])?;
            let each = runs.into_iter();
            each.map(|run| Ok(RunParts { hosts: hosts(connection, run.id)?, run, steps: Vec::new() }))
                .collect()
        })
    }

    fn gates(&self, open: bool, limit: usize) -> Result<Vec<GateRow>, Unavailable> {
        self.reading("list gates", |connection| {
            let sql = match open {
                true => "SELECT body FROM gates WHERE open = 1 ORDER BY id DESC LIMIT ?1",
                false => "SELECT body FROM gates ORDER BY id DESC LIMIT ?1",
            };
            bodies(connection, sql, params![limited(limit)])
        })
    }

    fn gate(&self, gate: GateId) -> Result<Option<GateRow>, Unavailable> {
        self.reading("read a gate", |connection| {
            one(connection, "SELECT body FROM gates WHERE id = ?1", params![gate.to_string()])
        })
    }

    fn signals(&self, limit: usize) -> Result<Vec<SignalRow>, Unavailable> {
        self.reading("list signals", |connection| {
            bodies(connection, "SELECT body FROM signals ORDER BY id DESC LIMIT ?1", params![limited(limit)])
        })
    }

    fn signal(&self, signal: SignalId) -> Result<Option<SignalRow>, Unavailable> {
        self.reading("read a signal", |connection| {
            one(connection, "SELECT body FROM signals WHERE id = ?1", params![signal.to_string()])
        })
    }

    fn incidents(&self, open: bool, limit: usize) -> Result<Vec<IncidentRow>, Unavailable> {
        self.reading("list incidents", |connection| {
            let sql = match open {
                true => "SELECT body FROM incidents WHERE open = 1 ORDER BY id DESC LIMIT ?1",
                false => "SELECT body FROM incidents ORDER BY id DESC LIMIT ?1",
            };
            bodies(connection, sql, params![limited(limit)])
        })
    }

    fn incident(&self, incident: IncidentId) -> Result<Option<IncidentRow>, Unavailable> {
        self.reading("read an incident", |connection| {
            one(connection, "SELECT body FROM incidents WHERE id = ?1", params![incident.to_string()])
        })
    }

    fn agents(&self) -> Result<Vec<AgentRow>, Unavailable> {
        self.reading("list agents", |connection| {
            bodies(connection, "SELECT body FROM agents ORDER BY host", params![])
        })
    }

    fn agent(&self, host: &Host) -> Result<Option<AgentRow>, Unavailable> {
        self.reading("read an agent", |connection| {
            one(connection, "SELECT body FROM agents WHERE host = ?1", params![host.as_str()])
        })
    }

    fn history(&self, of: Of, after: u64, limit: usize) -> Result<Vec<Record>, Unavailable> {
        self.reading("read history", |connection| {
            let (clause, id) = match of {
                Of::Everything => ("?1 = '' AND", String::new()),
                Of::Run(run) => ("run = ?1 AND", run.to_string()),
                Of::Incident(incident) => ("incident = ?1 AND", incident.to_string()),
            };
            let mut statement = connection.prepare_cached(&format!(
                "SELECT number, at, run, incident, body FROM events WHERE {clause} number > ?2 ORDER BY number LIMIT ?3"
            ))?;
            let after = i64::try_from(after).unwrap_or(i64::MAX);
            let mut rows = statement.query(params![id, after, limited(limit)])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(Record {
                    number: row.get::<_, i64>(0)?.unsigned_abs(),
                    at: At(row.get(1)?),
                    run: row.get::<_, Option<String>>(2)?.and_then(|id| id.parse().ok()),
                    incident: row.get::<_, Option<String>>(3)?.and_then(|id| id.parse().ok()),
                    change: decode(row.get_ref(4)?.as_str()?)?,
                });
            }
            Ok(found)
        })
    }

    fn rows(&self) -> Result<Vec<Row>, Unavailable> {
        self.reading("read every row", |connection| {
            let mut rows = Vec::new();
            macro_rules! all {
                ($kind:ident, $table:literal) => {
                    let sql = concat!("SELECT body FROM ", $table);
                    rows.extend(bodies(connection, sql, params![])?.into_iter().map(Row::$kind));
                };
            }
            all!(Signal, "signals");
            all!(Incident, "incidents");
            all!(Run, "runs");
            all!(HostRun, "host_runs");
            all!(Step, "steps");
            all!(Order, "orders");
            all!(Gate, "gates");
            all!(Agent, "agents");
            all!(Token, "tokens");
            all!(Session, "sessions");
            all!(Notification, "notifications");
            Ok(rows)
        })
    }
}

fn hosts(connection: &Connection, run: RunId) -> rusqlite::Result<Vec<HostRunRow>> {
    bodies(connection, "SELECT body FROM host_runs WHERE run = ?1 ORDER BY host", params![run.to_string()])
}
