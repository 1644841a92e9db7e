//! Questions: answered from the store, on other threads than the coordinator's.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fettle_proto::signed::words::from_ms;
use fettle_proto::v1;
use fettle_runbooks::id::{GateId, Host, IncidentId, RunId, SignalId};
use futures_util::stream;
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::follow::Earlier;
use super::gates::parse;
use super::handle::{Handle, Live, RunEvents};
use super::people::no_run;
use crate::model::Change;
use crate::problem::Problem;
use crate::report;
use crate::store::{Of, Record, RunFilter, RunParts, Store, Unavailable};
use crate::world::{At, aside};

/// History read at a time.
const PAGE: usize = if cfg!(test) { 3 } else { 10_000 };

/// The most lines of an incident's timeline.
const TIMELINE: usize = 10_000;

/// Output that came before its attempt is known to have begun is held back for so long: it does not go through the store, and
/// so overtakes what does.
const HOLD: Duration = Duration::from_secs(1);

/// Runs of an incident of which the evidence is told.
const RUNS: usize = 20;

/// The most of a list.
const MOST: usize = 1000;

/// What a host says of itself when somebody else speaks to us in its name.
const TWO_OF_IT: &str = "there are two of it";

/// A roster that expires so soon is worth a word, milliseconds.
const SOON: i64 = 14 * 24 * 60 * 60 * 1000;

fn limited(limit: u32) -> usize {
    match limit {
        0 => 50,
        some => (some as usize).min(MOST),
    }
}

impl Handle {
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, Unavailable> + Send + 'static,
    ) -> Result<T, Problem> {
        let store = Arc::clone(&self.store);
        let result = aside(&*self.world, move || read(&*store)).await;
        match result {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => {
                tracing::error!(%error, "A question to the store failed.");
                Err(Problem::Unavailable { message: error.sentence() })
            }
            None => Err(Problem::unavailable()),
        }
    }

    fn is_connected(&self, host: &Host) -> bool {
        self.connected.read().unwrap_or_else(PoisonError::into_inner).contains(host)
    }

    /// Whether the store reads and commits; if not, why.
    pub async fn ready(&self) -> Result<(), Problem> {
        self.read(|store| store.signals(1)).await?;
        self.store.commits().map_err(|error| Problem::Unavailable { message: error.sentence() })
    }

    /// What waits, what runs, which hosts are away.
    pub async fn status(&self) -> Result<v1::Status, Problem> {
        let (gates, runs, agents, incidents) = self
            .read(|store| {
                let open = RunFilter { open: true, limit: MOST, ..RunFilter::default() };
                let incidents = store.incidents(true, 100_000)?.len();
                Ok((store.gates(true, MOST)?, store.runs(&open)?, store.agents()?, incidents))
            })
            .await?;
        let in_force = self.in_force.borrow().clone();
        let roster = in_force.roster.as_ref().map(|roster| &roster.roster);
        let (here, away): (Vec<_>, Vec<_>) =
            agents.iter().filter(|row| row.revoked.is_none()).partition(|row| self.is_connected(&row.host));
        let stuck = self.store.commits().err();
        let mut warnings: Vec<String> =
            stuck.map(|error| format!("nothing can be recorded: {}", error.sentence())).into_iter().collect();
        warnings.extend(in_force.warnings.iter().cloned());
        warnings.extend(in_force.rule_warnings.iter().cloned());
        let now = self.world.now();
        match roster {
            None => warnings.push("no roster is in force: nobody can sign in or approve".to_owned()),
            Some(roster) if roster.in_force(from_ms(now.0)).is_err() => {
                warnings.push(format!("the roster expired at {}: nobody can approve", roster.expires));
            }
            Some(roster) if roster.expires.as_millisecond() - now.0 < SOON => {
                warnings.push(format!("the roster expires at {}", roster.expires));
            }
            Some(_) => {}
        }
        warnings.extend(here.iter().filter_map(|row| {
            let says = row.missing.iter().find(|missing| missing.contains(TWO_OF_IT));
            let then = "if there are two, stop one and type: fettle agent revoke";
            says.map(|says| format!("{} says: {says}; {then} {0} --reason '…'", row.host))
        }));
        warnings
            .extend(in_force.library.refused.keys().map(|file| format!("runbook file not in force: {file}")));
        Ok(v1::Status {
            version: self.version.to_string(),
            gates: gates.iter().map(|row| report::gate(row, None, roster)).collect(),
            runs: self.views(&runs, false),
            agents_connected: u32::try_from(here.len()).unwrap_or(u32::MAX),
            agents_away: away.iter().map(|row| row.host.to_string()).collect(),
            incidents_open: u32::try_from(incidents).unwrap_or(u32::MAX),
            warnings,
        })
    }

    fn views(&self, runs: &[RunParts], whole: bool) -> Vec<v1::Run> {
        runs.iter().map(|parts| report::run(parts, &|host| self.is_connected(host), whole)).collect()
    }

    /// Runs, newest first.
    pub async fn runs(&self, request: v1::ListRunsRequest) -> Result<Vec<v1::Run>, Problem> {
        let host = if request.host.is_empty() { None } else { Some(parse::<Host, _>(&request.host)?) };
        let before = if request.before.is_empty() { None } else { Some(parse(&request.before)?) };
        let filter = RunFilter { host, open: request.open, limit: limited(request.limit), before };
        let runs = self.read(move |store| store.runs(&filter)).await?;
        Ok(self.views(&runs, false))
    }

    pub(super) async fn parts(&self, run: RunId) -> Result<Option<RunParts>, Problem> {
        self.read(move |store| store.run(run)).await
    }

    /// A run that is to be gone on from, with what goes on from it already.
    pub(super) async fn earlier(&self, run: RunId) -> Result<Earlier, Problem> {
        let known = self
            .read(move |store| {
                let Some(parts) = store.run(run)? else { return Ok(None) };
                let mut root = run;
                let mut of = parts.run.of.as_ref().map(|of| of.run);
                while let Some(before) = of {
                    root = before;
                    of = store.run(before)?.and_then(|parts| parts.run.of).map(|of| of.run);
                }
                Ok(Some(Earlier { follow_ups: store.follow_ups(run)?, parts, root }))
            })
            .await?;
        known.ok_or_else(|| no_run(run))
    }

    /// One run, with plans and steps.
    pub async fn run(&self, run: RunId) -> Result<v1::Run, Problem> {
        let (parts, later) = self
            .read(move |store| {
                let Some(parts) = store.run(run)? else { return Ok(None) };
                Ok(Some((parts, store.follow_ups(run)?)))
            })
            .await?
            .ok_or_else(|| no_run(run))?;
        let follow_ups = later.iter().map(|later| report::follow_up(&later.run)).collect();
        Ok(v1::Run { follow_ups, ..report::run(&parts, &|host| self.is_connected(host), true) })
    }

    /// What has happened to a run after event `after`, then what happens next.
    pub async fn watch(&self, run: RunId, after: u64) -> Result<RunEvents, Problem> {
        // Subscribed first, read second: whatever happens between the two is seen twice and shown once.
        let live = self.live.subscribe();
        let mut watching = Watching {
            handle: self.clone(),
            run,
            seen: after,
            backlog: VecDeque::new(),
            begun: HashSet::new(),
            held: VecDeque::new(),
            shown: HashMap::new(),
            live,
            hosts: BTreeSet::new(),
            over: false,
        };
        watching.show_run().await?;
        watching.catch_up().await?;
        if watching.over {
            let run = watching.handle.run(run).await?;
            watching.backlog.extend(run.follow_ups.iter().map(|later| followed(later, watching.seen)));
        }
        Ok(Box::pin(stream::unfold(watching, |mut watching| async move {
            let next = watching.next().await?;
            Some((next, watching))
        })))
    }

    /// Kept output of a run's steps; `host` and `path` narrow it when not empty.
    pub async fn logs(&self, run: RunId, host: String, path: String) -> Result<Vec<v1::StepLog>, Problem> {
        let parts = self.parts(run).await?.ok_or_else(|| no_run(run))?;
        Ok(report::logs(&parts, &host, &path))
    }

    /// Gates, newest first.
    pub async fn gates(&self, open: bool) -> Result<Vec<v1::Gate>, Problem> {
        let rows = self.read(move |store| store.gates(open, MOST)).await?;
        let roster = self.roster();
        let roster = roster.as_ref().map(|roster| &roster.roster);
        Ok(rows.iter().map(|row| report::gate(row, None, roster)).collect())
    }

    /// A gate with everything its approver needs.
    pub async fn gate(&self, gate: GateId) -> Result<v1::Gate, Problem> {
        let (row, run) = self
            .read(move |store| {
                let Some(row) = store.gate(gate)? else { return Ok(None) };
                let run = store.run(row.run)?;
                Ok(Some((row, run)))
            })
            .await?
            .ok_or_else(|| Problem::not_found(format!("gate `{gate}`")))?;
        let roster = self.roster();
        Ok(report::gate(&row, run.as_ref(), roster.as_ref().map(|roster| &roster.roster)))
    }

    /// Signals, newest first, without their trails.
    pub async fn signals(&self, limit: u32) -> Result<Vec<v1::Signal>, Problem> {
        let rows = self.read(move |store| store.signals(limited(limit))).await?;
        Ok(rows.iter().map(|row| report::signal(row, false)).collect())
    }

    /// One signal with its whole decision trail.
    pub async fn explain(&self, signal: SignalId) -> Result<v1::Signal, Problem> {
        let row = self.read(move |store| store.signal(signal)).await?;
        let row = row.ok_or_else(|| Problem::not_found(format!("signal `{signal}`")))?;
        Ok(report::signal(&row, true))
    }

    /// Incidents, newest first, without their timelines.
    pub async fn incidents(&self, open: bool, limit: u32) -> Result<Vec<v1::Incident>, Problem> {
        let rows = self.read(move |store| store.incidents(open, limited(limit))).await?;
        let now = self.world.now();
        Ok(rows.iter().map(|row| report::incident(row, Vec::new(), &[], now)).collect())
    }

    /// One incident: timeline, decisions, clocks.
    pub async fn incident(&self, incident: IncidentId) -> Result<v1::Incident, Problem> {
        let (row, timeline, runs) = self
            .read(move |store| {
                let Some(row) = store.incident(incident)? else { return Ok(None) };
                // Of an incident that goes on and on, the latest runs.
                let latest = row.runs.iter().rev().take(RUNS).rev();
                let runs =
                    latest.filter_map(|run| store.run(*run).transpose()).collect::<Result<Vec<_>, _>>()?;
                Ok(Some((row, timeline(store, incident)?, runs)))
            })
            .await?
            .ok_or_else(|| Problem::not_found(format!("incident `{incident}`")))?;
        Ok(report::incident(&row, timeline, &runs, self.world.now()))
    }

    /// The fleet.
    pub async fn agents(&self) -> Result<Vec<v1::Agent>, Problem> {
        let rows = self.read(|store| store.agents()).await?;
        Ok(rows.iter().map(report::agent).collect())
    }

    /// Per host, until when its certificates count no more.
    pub async fn voided(&self) -> Result<Vec<(Host, At)>, Problem> {
        let rows = self.read(|store| store.agents()).await?;
        let voided = rows.into_iter().filter(|row| row.void_until > At(0));
        Ok(voided.map(|row| (row.host, row.void_until)).collect())
    }

    /// One host's agent.
    pub async fn agent(&self, host: Host) -> Result<v1::Agent, Problem> {
        let name = host.to_string();
        let row = self.read(move |store| store.agent(&host)).await?;
        let row = row.ok_or_else(|| Problem::not_found(format!("host `{name}`")))?;
        Ok(report::agent(&row))
    }
}

/// What happened in an incident, page by page: most of what its history holds tells people nothing.
fn timeline(store: &dyn Store, incident: IncidentId) -> Result<Vec<v1::TimelineEntry>, Unavailable> {
    let (mut entries, mut after) = (Vec::new(), 0);
    loop {
        let records = store.history(Of::Incident(incident), after, PAGE)?;
        entries.extend(report::timeline(&records));
        let last = records.last().map(|record| (record.number, record.at));
        let Some((number, at)) = last.filter(|_| records.len() == PAGE) else { return Ok(entries) };
        if entries.len() >= TIMELINE {
            let text = format!("more happened than the {TIMELINE} lines that are shown");
            entries.push(v1::TimelineEntry { at: at.0, who: "controller".to_owned(), text });
            return Ok(entries);
        }
        after = number;
    }
}

/// One attempt of one step of the run that is watched: host, path, number.
type Attempt = (String, String, u32);

/// Somebody watches a run.
struct Watching {
    handle: Handle,
    run: RunId,
    /// The number of the last event shown.
    seen: u64,
    backlog: VecDeque<v1::RunEvent>,
    /// Attempts whose beginning was shown, or waited for long enough.
    begun: HashSet<Attempt>,
    /// Output of others, oldest first, and until when it is held back.
    held: VecDeque<(Instant, Attempt, v1::RunEvent)>,
    /// How far the output of attempts was shown, by kind: an agent that follows a step anew tells its output from the beginning.
    shown: HashMap<(Attempt, i32), u64>,
    live: broadcast::Receiver<Arc<Live>>,
    /// The run's hosts.
    hosts: BTreeSet<String>,
    /// The run has ended, and all of it is in the backlog.
    over: bool,
}

impl Watching {
    async fn next(&mut self) -> Option<Result<v1::RunEvent, Problem>> {
        loop {
            if let Some(event) = self.backlog.pop_front() {
                return Some(Ok(event));
            }
            if self.over {
                return None;
            }
            let heard = match self.held.front().map(|(until, ..)| *until) {
                None => self.live.recv().await,
                Some(until) => match tokio::time::timeout_at(until, self.live.recv()).await {
                    Ok(heard) => heard,
                    Err(_) => {
                        self.waited();
                        continue;
                    }
                },
            };
            let step = match heard {
                Ok(live) => self.hear(&live).await,
                Err(broadcast::error::RecvError::Lagged(_)) => self.catch_up().await,
                Err(broadcast::error::RecvError::Closed) => Err(Problem::unavailable()),
            };
            if let Err(problem) = step {
                self.over = true;
                return Some(Err(problem));
            }
        }
    }

    async fn hear(&mut self, live: &Live) -> Result<(), Problem> {
        match live {
            Live::Output { host, chunk } => {
                // A host speaks only of runs that it has a part in.
                if chunk.run.parse() == Ok(self.run) && self.hosts.contains(host.as_str()) {
                    let attempt = (host.to_string(), chunk.path.clone(), chunk.attempt);
                    let Some(chunk) = self.not_shown(&attempt, chunk) else { return Ok(()) };
                    let what = Some(v1::run_event::What::Output(chunk));
                    let at = self.handle.world.now().0;
                    let event = v1::RunEvent { number: 0, at, host: host.to_string(), what };
                    if self.begun.contains(&attempt) {
                        self.backlog.push_back(event);
                    } else {
                        self.held.push_back((Instant::now() + HOLD, attempt, event));
                    }
                }
                Ok(())
            }
            Live::Happened(records) => self.show(records).await,
        }
    }

    /// What of a chunk was not shown before.
    fn not_shown(&mut self, attempt: &Attempt, chunk: &v1::OutputChunk) -> Option<v1::OutputChunk> {
        let end = chunk.offset.saturating_add(chunk.data.len() as u64);
        let shown = self.shown.entry((attempt.clone(), chunk.kind)).or_insert(chunk.offset);
        let before = usize::try_from(shown.saturating_sub(chunk.offset)).unwrap_or(usize::MAX);
        if before >= chunk.data.len() {
            return None;
        }
        *shown = end;
        let data = chunk.data.slice(before..);
        Some(v1::OutputChunk { offset: chunk.offset + before as u64, data, ..chunk.clone() })
    }

    /// An attempt began: what it has printed so far may be shown.
    fn begins(&mut self, attempt: Attempt) {
        let (mine, others) =
            std::mem::take(&mut self.held).into_iter().partition(|(_, of, _)| *of == attempt);
        let mine: VecDeque<_> = mine;
        self.held = others;
        self.backlog.extend(mine.into_iter().map(|(_, _, event)| event));
        self.begun.insert(attempt);
    }

    /// The oldest output that is held back has waited long enough.
    fn waited(&mut self) {
        if let Some((_, attempt, _)) = self.held.front() {
            self.begins(attempt.clone());
        }
    }

    async fn catch_up(&mut self) -> Result<(), Problem> {
        loop {
            let (run, after) = (self.run, self.seen);
            let records = self.handle.read(move |store| store.history(Of::Run(run), after, PAGE)).await?;
            self.show(&records).await?;
            if records.len() < PAGE {
                return Ok(());
            }
        }
    }

    async fn show(&mut self, records: &[Record]) -> Result<(), Problem> {
        let mut moved = false;
        for record in records {
            if record.run != Some(self.run) || record.number <= self.seen {
                continue;
            }
            self.seen = record.number;
            moved |= matches!(
                record.change,
                Change::Moved { .. }
                    | Change::Planned { .. }
                    | Change::GateOpened(_)
                    | Change::GateClosed { .. }
                    | Change::RunEnded { .. }
            );
            if let Change::StepEnded(end) = &record.change {
                self.begins((end.host.to_string(), end.path.clone(), end.attempt));
            }
            if let Some(line) = report::line(&record.change) {
                let happened = v1::Happened { kind: line.kind.to_owned(), text: line.text, who: line.who };
                let what = Some(v1::run_event::What::Happened(happened));
                let (number, at) = (record.number, record.at.0);
                self.backlog.push_back(v1::RunEvent { number, at, host: line.host, what });
            }
            if let Change::StepStarted { host, path, attempt, .. } = &record.change {
                self.begins((host.to_string(), path.clone(), *attempt));
            }
        }
        if moved { self.show_run().await } else { Ok(()) }
    }

    async fn show_run(&mut self) -> Result<(), Problem> {
        let run = self.handle.run(self.run).await?;
        self.over |= run.ended_at != 0;
        self.hosts = run.hosts.iter().map(|host| host.host.clone()).collect();
        while self.over && !self.held.is_empty() {
            self.waited();
        }
        let at = self.handle.world.now().0;
        let what = Some(v1::run_event::What::Run(run));
        self.backlog.push_back(v1::RunEvent { number: self.seen, at, host: String::new(), what });
        Ok(())
    }
}

/// People have gone on from a run that is over: that is in the history of the other run, and told with this one's.
fn followed(later: &v1::FollowUp, number: u64) -> v1::RunEvent {
    let why = if later.reason.is_empty() { String::new() } else { format!(": {}", later.reason) };
    let hosts = later.hosts.join(", ");
    let text = format!("{} goes on from it: {} on {hosts}{why}", later.run, later.how);
    let happened = v1::Happened { kind: "followed".to_owned(), text, who: later.origin.clone() };
    let what = Some(v1::run_event::What::Happened(happened));
    v1::RunEvent { number, at: later.created_at, host: String::new(), what }
}
