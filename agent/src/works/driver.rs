//! The works' one thread: everything that happens on this host comes in here, one thing at a time.
//!
//! ```text
//! link ──ToWorks──▶ ┐                      ┌──▶ attempts (shims, children)
//! attempts ───────▶ ├─ inbox ▶ Driver ─────┼──▶ journal ──durable──▶ inbox
//! facts, journal ─▶ ┘     (orders, carry)  └──FromWorks──▶ link
//! ```
//!
//! What an event leads to is collected as records and as deeds. The records are appended together, and the deeds are done
//! when they are durable: that is how *Accepted* precedes the acknowledgement, *Intent* the process, *Exited* the report.
//! Steps that only read are the exception: they start at once, for they may simply run again.
//!
//! Deliberately missing: sockets, threads, and any wait. The [engine](super::engine) turns it whenever something happened
//! or a timer is due.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use fettle_proto::signed::{Roster, Signed};
use fettle_proto::{Code, Refusal, v1};
use fettle_runbooks::expr::Facts;
use fettle_runbooks::id::{Digest, RunId};
use fettle_runbooks::segment::{Event, Kind};
use tokio::sync::mpsc;

use super::again::Telling;
use super::attempt::{self, Running};
use super::carry::Active;
use super::disk::{self, Disk};
use super::earlier;
use super::engine::Parts;
use super::handle::Config;
use super::hands::Hands;
use super::here::{RunHere, SegmentHere};
use super::journal::{AppendError, Journal, OpenError, Writer};
use super::orders::{self, Order, Own};
use super::record::{AttemptKey, Record};
use super::spool::Spool;
use super::world::World;
use crate::crash;
use crate::message::{FromWorks, Greeting, ToWorks};

/// A journal this large is rewritten with what is still needed.
const COMPACT_AT: u64 = 8 * 1024 * 1024;
/// What is kept of old runs is removed this often.
const SWEEP: Duration = Duration::from_secs(3600);
/// No controller has counted further, epochs or reports: to keep what one made up would keep this host from every other.
const HIGHEST: u64 = 1 << 62;
/// With more reports unacknowledged, no order is looked at.
pub(super) const MOST_OWED: usize = 10_000;
/// A full disk is tried again after this.
pub(super) const RETRY_APPEND: Duration = Duration::from_secs(1);

/// Said of a host for which the controller has reports that it never made.
const TWO_OF_IT: &str =
    "its disk was put back to an earlier state, or there are two of it: what ran since may run again";

/// Works that could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal.
    #[error("failed to open the journal")]
    Journal(#[source] OpenError),
    /// The disk, or the system.
    #[error("failed to {what}")]
    Io {
        /// What was to be done.
        what: String,
        /// Why it was not.
        source: std::io::Error,
    },
}

/// Everything that can wake the works.
#[derive(Debug)]
pub(super) enum Wake {
    Told(ToWorks),
    /// An attempt is over, or nobody will ever know.
    Ended(AttemptKey, Box<attempt::Ended>),
    Unknown(AttemptKey, String),
    /// No process of it was ever born.
    NeverBorn(AttemptKey),
    Facts {
        run: RunId,
        segment: u32,
        ask: u32,
        facts: Facts,
    },
    Appended {
        batch: u64,
        result: Result<(), AppendError>,
    },
    Compacted(Result<(), AppendError>),
    /// To ourselves: something to be told to a segment.
    Event {
        run: RunId,
        segment: u32,
        event: Box<Event>,
    },
}

/// What is done when its records are durable.
pub(super) enum Deed {
    /// Start a process that acts.
    Start(Box<Launch>),
    /// Reports up to this one may be sent.
    Send(u64),
}

/// A process about to start.
#[derive(Clone)]
pub(super) struct Launch {
    pub(super) segment: u32,
    pub(super) spec: attempt::Spec,
    pub(super) kind: Kind,
    pub(super) start_by: attempt::StartBy,
}

/// Records on their way to the disk, and what waits for them.
struct Batch {
    number: u64,
    records: Vec<Record>,
    deeds: Vec<Deed>,
    /// The disk was full.
    refused: bool,
}

/// The owner of everything the works know.
pub(super) struct Driver {
    pub(super) config: Config,
    pub(super) world: Arc<dyn World>,
    pub(super) hands: Box<dyn Hands>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) journal: Journal,
    pub(super) journal_name: String,
    pub(super) spool: Spool,
    pub(super) runs: BTreeMap<RunId, RunHere>,
    pub(super) roster: Option<Roster>,
    pub(super) boot: String,
    /// All that it knows is of an earlier boot, and no controller has said yet whether it is all that there was.
    pub(super) unconfirmed: bool,
    pub(super) running: BTreeMap<AttemptKey, (u32, Running)>,
    /// How those that act were started, should their supervisors die before they start anything.
    pub(super) launched: BTreeMap<AttemptKey, Launch>,
    /// Attempts whose supervisors died before they started anything, of runs that are paused.
    pub(super) unborn: Vec<Launch>,
    /// By the monotonic clock.
    pub(super) timers: BTreeMap<(Duration, u64), (RunId, u32, u32)>,
    pub(super) timer_number: u64,
    pub(super) inbox: std_mpsc::Sender<Wake>,
    pub(super) output: mpsc::Sender<v1::OutputChunk>,
    /// What this host cannot do, for people.
    pub(super) missing: Vec<String>,
    /// Attempts whose end was reported before a restart.
    pub(super) reported: BTreeSet<(RunId, String, u32)>,
    /// What a controller that has forgotten is still to be told.
    pub(super) telling: Option<Telling>,
    link: mpsc::UnboundedSender<FromWorks>,
    epoch: u64,
    anchor: (i64, Duration),
    batches: VecDeque<Batch>,
    batch_number: u64,
    pub(super) retry_at: Option<Duration>,
    /// Runs to cancel, and why, as soon as the disk takes their tombstones and nothing of them runs.
    pub(super) cancels_owed: BTreeMap<RunId, String>,
    /// The last said on this connection of runs whose pause was not looked at because too much is owed.
    pub(super) pauses_owed: BTreeMap<RunId, (bool, u32)>,
    /// Acknowledged, and not in the journal yet.
    ack_to_keep: Option<u64>,
    compact_at: u64,
    compacting: bool,
    swept_at: Option<Duration>,
    pub(super) stop: bool,
}

impl Driver {
    pub(super) fn open(
        parts: Parts,
        inbox: std_mpsc::Sender<Wake>,
        link: mpsc::UnboundedSender<FromWorks>,
        output: mpsc::Sender<v1::OutputChunk>,
    ) -> Result<(Driver, Writer), StartError> {
        let Parts { config, world, hands, disk } = parts;
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| StartError::Io { what, source }
        };
        let (opened, writer) =
            Journal::open_on(&disk, &*world, &config.state.join("journal")).map_err(StartError::Journal)?;
        let boot = world.boot_id().map_err(io("read the kernel's boot id"))?;
        let epoch = read_epoch(&*disk, &config.state.join("epoch")).map_err(io("read the epoch"))?;
        let mut missing = Vec::new();
        if let Some(damage) = &opened.damage {
            tracing::error!(file = %damage.file.display(), reason = %damage.reason, "The journal was damaged and is put aside; a person must look.");
        }
        missing.extend(opened.quarantined.iter().map(|file| earlier::aside(file)));
        missing.extend(hands.missing());
        let mut driver = Driver {
            journal_name: opened.journal.name().to_owned(),
            journal: opened.journal,
            hands,
            spool: Spool::default(),
            runs: BTreeMap::new(),
            roster: None,
            boot,
            unconfirmed: false,
            running: BTreeMap::new(),
            launched: BTreeMap::new(),
            unborn: Vec::new(),
            timers: BTreeMap::new(),
            timer_number: 0,
            inbox,
            output,
            missing,
            reported: BTreeSet::new(),
            telling: None,
            link,
            epoch,
            anchor: (world.wall_ms(), world.since_boot()),
            batches: VecDeque::new(),
            batch_number: 0,
            retry_at: None,
            cancels_owed: BTreeMap::new(),
            pauses_owed: BTreeMap::new(),
            ack_to_keep: None,
            compact_at: crash::compact_at().unwrap_or(COMPACT_AT),
            compacting: false,
            swept_at: None,
            stop: false,
            config,
            world,
            disk,
        };
        driver.roster = driver.read_roster();
        driver.replay(opened.records);
        driver.unconfirmed = driver.knows_only_earlier();
        // Before any order: an agent that is started anew each hour would never come to it.
        driver.forget_if_due();
        Ok((driver, writer))
    }

    /// When the next timer is due, by the monotonic clock.
    pub(super) fn due(&self) -> Option<Duration> {
        self.timers.keys().next().map(|(at, _)| *at).into_iter().chain(self.retry_at).min()
    }

    /// One thing that happened. Never waits, but for the disk when a run is cancelled.
    pub(super) fn handle(&mut self, wake: Wake) {
        match wake {
            Wake::Told(message) => self.told(message),
            Wake::Ended(key, ended) => self.attempt_ended(key, *ended),
            Wake::Unknown(key, reason) => self.attempt_unknown(key, reason),
            Wake::NeverBorn(key) => self.never_born(key),
            Wake::Facts { run, segment, ask, facts } => {
                self.drive(run, segment, Event::Facts { ask, facts }, Vec::new())
            }
            Wake::Appended { batch, result } => self.appended(batch, result),
            Wake::Compacted(result) => self.compacted(result),
            Wake::Event { run, segment, event } => self.drive(run, segment, *event, Vec::new()),
        }
    }

    fn told(&mut self, message: ToWorks) {
        match message {
            ToWorks::Greet => {
                let greeting = self.greeting();
                let _ = self.link.send(FromWorks::Greeting(greeting));
            }
            ToWorks::Connected { epoch, acked, .. } if epoch.max(acked) > HIGHEST => {
                tracing::error!(
                    epoch,
                    acked,
                    "The controller names numbers that nobody has counted to; it is told nothing."
                );
            }
            ToWorks::Connected { epoch, credits, acked } => {
                let epochs_known = epoch <= self.epoch.saturating_add(1);
                self.keep_epoch(epoch);
                self.pauses_owed.clear();
                let confirms = std::mem::take(&mut self.unconfirmed);
                if confirms {
                    if acked > self.spool.last() {
                        return self.begin_anew(acked);
                    }
                    self.resume();
                }
                let forgotten = self.has_forgotten(acked);
                self.acked_at_connect(acked, epochs_known);
                self.spool.connected(credits);
                if forgotten {
                    self.tell_again();
                }
                self.tell_next();
                if confirms {
                    self.forget_if_due();
                }
                self.pump();
            }
            ToWorks::Disconnected => self.spool.disconnected(),
            ToWorks::Order { .. } | ToWorks::Cancel { .. } | ToWorks::Pause { .. } if self.unconfirmed => {
                tracing::error!(
                    "The controller asks for something before it has said what it knows; ignored."
                );
            }
            ToWorks::Order { content, digest } => self.order(&content, digest),
            ToWorks::Acked { upto } => {
                self.acked(upto);
                self.look_at_pauses();
                self.tell_next();
                self.pump();
            }
            ToWorks::Cancel { run, reason } => self.cancel(run, reason),
            ToWorks::Pause { run, on, count } => self.pause(run, on, count),
            ToWorks::Roster(roster) => self.take_roster(&roster),
            ToWorks::Stop => self.stop = true,
        }
    }

    /// Everything that is due.
    pub(super) fn tick(&mut self) {
        let now = self.world.monotonic();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.append_again();
            for (run, reason) in self.cancels_owed.clone() {
                self.cancel(run, reason);
            }
        }
        while let Some((key, (run, segment, timer))) = self.timers.first_key_value().map(|(k, v)| (*k, *v)) {
            if key.0 > now {
                break;
            }
            self.timers.remove(&key);
            self.drive(run, segment, Event::TimerFired { timer }, Vec::new());
        }
    }

    // --- orders ---

    fn order(&mut self, content: &[u8], claimed: Digest) {
        // Every order is answered, and every answer kept until it is acknowledged: a controller that only asks fills no disk.
        if self.spool.owed() > MOST_OWED {
            tracing::warn!(
                owed = self.spool.owed(),
                "An order is not looked at: the controller acknowledges nothing."
            );
            return;
        }
        let order = match orders::read(content, claimed) {
            Ok(order) => order,
            Err((Some((run, segment)), refusal)) => return self.refuse(run, segment, refusal),
            Err((None, refusal)) => {
                tracing::warn!(code = %refusal.code, message = %refusal.message, "An order that names no run was refused.");
                return;
            }
        };
        let (run, segment) = (order.run, order.content.segment);
        let known =
            self.runs.get(&run).and_then(|here| here.segments.get(&segment)).map(|known| known.digest);
        match known {
            Some(digest) if digest == order.digest => self.repeat(run, segment),
            Some(digest) => {
                let what = format!("segment {segment} came before as {digest}");
                self.refuse(run, segment, Refusal::new(Code::SegmentConflict, what));
            }
            None => match self.accept(&order, content) {
                Ok(()) => {}
                Err(refusal) => self.refuse(run, segment, refusal),
            },
        }
    }

    fn accept(&mut self, order: &Order, content: &[u8]) -> Result<(), Refusal> {
        let (run, segment) = (order.run, order.content.segment);
        let here = self.runs.get(&run);
        if here.is_some_and(|here| here.tombstone) {
            return Err(Refusal::new(Code::RunCancelled, "the run was cancelled on this host"));
        }
        if let Some(active) = here.and_then(|here| here.active.as_ref()) {
            let what = format!("segment {} of the run is still going on", active.segment);
            return Err(Refusal::new(Code::SegmentConflict, what));
        }
        let policy = self.hands.policy();
        let own = self.own(run, &policy);
        orders::for_us(order, &own)?;
        let judged = orders::judge(order, &own)?;
        self.nothing_unknown(run, &judged.work)?;
        let (mut followed, mut closed) = (None, Vec::new());
        match &judged.work {
            orders::Work::Diagnose => followed = self.follow(run, &judged)?,
            orders::Work::Remediate { plan, .. } => self.still_done(run, plan)?,
            orders::Work::Verify { .. } => {}
        }
        let program = judged.program(self.past(run), followed.as_mut().and_then(|it| it.known.take()))?;
        let now_ms = own.now_ms;
        let permit = match &judged.work {
            orders::Work::Remediate { permit, .. } => permit.as_deref(),
            orders::Work::Diagnose | orders::Work::Verify { .. } => None,
        };
        let begin_by = orders::begin_by(order);
        let of = followed.map(|it| it.of);
        let nonce_consumed = permit.map(|permit| permit.nonce().to_owned());
        let accepted = Record::Accepted {
            run,
            segment,
            digest: order.digest,
            content: content.to_vec(),
            nonce_consumed: nonce_consumed.clone(),
            boot: self.boot.clone(),
        };
        let active =
            Active::new(segment, program, judged.runbook, judged.inputs, self.boot.clone(), begin_by)
                .granted(nonce_consumed.is_some())
                .certified(judged.certified)
                .follows(of.clone());
        if let Some(of) = &of {
            closed = self.close(run, of.run)?;
        }
        let here = self.runs.entry(run).or_default();
        here.not_after_ms = here.not_after_ms.max(order.content.not_after_ms);
        here.started.get_or_insert(judged.started);
        if let (Some(nonce), Some(plan)) = (&nonce_consumed, &mut here.plan) {
            plan.consumed.insert(nonce.clone());
        }
        here.segments.insert(segment, SegmentHere::of(order.digest, &order.content));
        here.active = Some(active);
        let taken_on = here.accepted(segment);
        tracing::info!(%run, segment, granted = nonce_consumed.is_some(), "Order accepted.");
        let report = self.report(run, segment, now_ms, v1::report::What::Accepted(taken_on));
        self.begin(run, segment, closed.into_iter().chain([accepted, report]).collect());
        Ok(())
    }

    /// An attempt whose end nobody knows is neither followed nor started again by another segment, but where people signed for
    /// that; and then only when nothing of it runs any more, for certain.
    fn nothing_unknown(&self, run: RunId, work: &orders::Work) -> Result<(), Refusal> {
        let orders::Work::Remediate { plan, from, again, .. } = work else { return Ok(()) };
        let Some(here) = self.runs.get(&run) else { return Ok(()) };
        let refused = |what: String| Err(Refusal::new(Code::OutcomeUnknown, what));
        for step in plan.steps.iter().skip_while(|step| step.path != *from) {
            let path = &step.path;
            let Some(attempt) = here.unknown_attempt(path) else { continue };
            if path != from || *again != Some(attempt) {
                let what = "took effect; a person must look";
                return refused(format!("it cannot be told whether {path} attempt {attempt} {what}"));
            }
            match self.hands.bury(&AttemptKey { run, path: path.clone(), attempt }) {
                Ok(true) => {}
                Ok(false) => {
                    return refused(format!(
                        "something of {path} attempt {attempt} may still run on this host"
                    ));
                }
                Err(error) => {
                    return refused(format!(
                        "it cannot be told whether something of {path} attempt {attempt} still runs: {error}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The same order again: the controller has not seen what came of it, or has lost it.
    fn repeat(&mut self, run: RunId, segment: u32) {
        let Some(here) = self.runs.get(&run) else { return };
        if self.spool.owes(run, segment) {
            return self.pump(); // It will hear.
        }
        let mut whats = vec![v1::report::What::Accepted(here.accepted(segment))];
        if segment == 1
            && let Some(plan) = &here.plan
        {
            let plan = plan.bytes.clone().into();
            whats.push(v1::report::What::Planned(v1::Planned { plan, impossible: Default::default() }));
        }
        if let Some(ended) = here.segments.get(&segment).and_then(|here| here.ended.as_deref())
            && let Ok(v1::Report { what: Some(what), .. }) = prost::Message::decode(ended)
        {
            whats.push(what);
        }
        let now_ms = self.now_ms();
        let records = whats.into_iter().map(|what| self.report(run, segment, now_ms, what)).collect();
        self.commit(records, Vec::new());
    }

    fn refuse(&mut self, run: RunId, segment: u32, refusal: Refusal) {
        tracing::warn!(%run, segment, code = %refusal.code, message = %refusal.message, "Order refused.");
        let now_ms = self.now_ms();
        let report = self.report(run, segment, now_ms, v1::report::What::Refused(refusal.into()));
        self.commit(vec![report], Vec::new());
    }

    pub(super) fn own<'a>(&'a self, run: RunId, policy: &'a super::policy::HostPolicy) -> Own<'a> {
        let here = self.runs.get(&run);
        Own {
            host: &self.config.host,
            labels: &self.config.labels,
            roster: self.roster.as_ref(),
            policy,
            boot: &self.boot,
            now_ms: self.now_ms(),
            plan: here.and_then(|here| here.plan.as_ref()),
            unknown: here.and_then(|here| here.unknown_attempt(&here.stopped_at()?)),
            stopped_at: here.and_then(RunHere::stopped_at),
            remediated: here.is_some_and(RunHere::is_remediated),
            started: here.and_then(|here| here.started.as_ref()),
        }
    }

    // --- the roster and the epoch ---

    fn read_roster(&self) -> Option<Roster> {
        let bytes = self.disk.read(&self.roster_path()).ok()?;
        let read = fettle_proto::signed::certificate::decode_signed_file(bytes.trim_ascii_end())
            .map_err(Refusal::from)
            .and_then(|signed| Roster::trusted(&signed, &self.config.trust));
        match read {
            Ok(roster) => Some(roster),
            Err(refusal) => {
                tracing::warn!(code = %refusal.code, message = %refusal.message, "The roster on this host is not trusted.");
                None
            }
        }
    }

    fn roster_path(&self) -> PathBuf {
        self.config.state.join("roster.json")
    }

    fn take_roster(&mut self, message: &v1::Signed) {
        let taken = Signed::try_from(message.clone()).map_err(Refusal::from).and_then(|signed| {
            let roster = Roster::trusted(&signed, &self.config.trust)?;
            roster.may_follow(self.roster.as_ref().map_or(0, |roster| roster.version))?;
            Ok((signed, roster))
        });
        match taken {
            Ok((signed, roster)) => {
                let file = fettle_proto::signed::certificate::encode_signed_file(&signed);
                if let Some(file) = file
                    && let Err(error) = disk::replace(&*self.disk, &self.roster_path(), &file, &crash::ROSTER)
                {
                    tracing::error!(%error, "The new roster could not be kept; the old one stays in force.");
                    return;
                }
                tracing::info!(version = roster.version, "Roster taken.");
                self.roster = Some(roster);
            }
            Err(refusal) => {
                tracing::warn!(code = %refusal.code, message = %refusal.message, "A roster was refused.");
            }
        }
    }

    fn keep_epoch(&mut self, epoch: u64) {
        if epoch > self.epoch {
            self.epoch = epoch;
            let file = self.config.state.join("epoch");
            if let Err(error) = disk::replace(&*self.disk, &file, epoch.to_string().as_bytes(), &crash::EPOCH)
            {
                tracing::error!(%error, epoch, "The epoch could not be kept.");
            }
        }
    }

    fn greeting(&self) -> Greeting {
        Greeting {
            epoch_seen: self.epoch,
            boot_id: self.boot.clone(),
            journal: self.journal_name.clone(),
            roster_version: self.roster.as_ref().map_or(0, |roster| roster.version),
            paused: self.runs.iter().filter_map(paused).collect(),
            missing: self.missing.clone(),
            labels: self.config.labels.clone(),
        }
    }

    // --- time ---

    /// The wall clock, but never behind what it must be by the boot clock: setting it back revives nothing.
    pub(super) fn now_ms(&self) -> i64 {
        let (wall, boot) = self.anchor;
        let passed = self.world.since_boot().saturating_sub(boot);
        self.world.wall_ms().max(wall.saturating_add(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX)))
    }

    // --- reports and the journal ---

    pub(super) fn report(&mut self, run: RunId, segment: u32, at_ms: i64, what: v1::report::What) -> Record {
        // A controller that has forgotten a run hears of what was before it hears of what is new.
        if self.telling.as_ref().is_some_and(|telling| telling.owes(run)) {
            self.tell_of(run);
        }
        self.spool.add(v1::Report { seq: 0, run: run.to_string(), segment, at_ms, what: Some(what) })
    }

    /// Appends records of a run and keeps those that a new journal file must have.
    pub(super) fn commit_of(&mut self, run: RunId, records: Vec<Record>, deeds: Vec<Deed>) {
        let here = self.runs.entry(run).or_default();
        here.records.extend(records.iter().filter(|record| kept(record)).cloned());
        self.commit(records, deeds);
    }

    /// Appends records; does the deeds, and sends the reports among the records, when they are durable.
    pub(super) fn commit(&mut self, mut records: Vec<Record>, mut deeds: Vec<Deed>) {
        if records.is_empty() {
            deeds.into_iter().for_each(|deed| self.deed(deed));
            return;
        }
        // An acknowledgement is worth no write of its own: without it, reports are sent again.
        records.extend(self.ack_to_keep.take().map(|upto| Record::Acked { upto }));
        deeds.push(Deed::Send(self.spool.last()));
        self.batch_number += 1;
        let number = self.batch_number;
        append(&self.journal, &self.inbox, number, &records);
        self.batches.push_back(Batch { number, records, deeds, refused: false });
    }

    fn appended(&mut self, batch: u64, result: Result<(), AppendError>) {
        match result {
            Ok(()) => {
                // Batches become durable in order, also those that found the disk full.
                let Some(place) = self.batches.iter().position(|waiting| waiting.number == batch) else {
                    return;
                };
                let Some(done) = self.batches.remove(place) else { return };
                done.deeds.into_iter().for_each(|deed| self.deed(deed));
                self.pump();
                if self.batches.is_empty() {
                    self.forget_if_due();
                    self.compact_if_due();
                }
            }
            Err(error @ AppendError::Full) => {
                if self.retry_at.is_none() {
                    tracing::error!(%error, "The journal cannot grow; trying again.");
                }
                self.batches
                    .iter_mut()
                    .filter(|waiting| waiting.number == batch)
                    .for_each(|full| full.refused = true);
                self.retry_at.get_or_insert(self.world.monotonic() + RETRY_APPEND);
            }
            Err(error @ (AppendError::TooLarge { .. } | AppendError::Broken { .. })) => {
                tracing::error!(error = %error, "The journal takes nothing any more; the agent ends.");
                self.stop = true;
            }
        }
    }

    /// In their order: an intent must not be durable, and its process start, before the acceptance it belongs to.
    fn append_again(&mut self) {
        // What is still under way will come back refused as well.
        if self.batches.iter().any(|batch| !batch.refused) {
            self.retry_at = Some(self.world.monotonic() + RETRY_APPEND);
            return;
        }
        self.journal.again();
        for batch in &mut self.batches {
            batch.refused = false;
            append(&self.journal, &self.inbox, batch.number, &batch.records);
        }
    }

    fn deed(&mut self, deed: Deed) {
        match deed {
            Deed::Start(launch) => self.launch(*launch),
            Deed::Send(upto) => self.spool.durable(upto),
        }
    }

    /// A report that this host has not made was another's. So may be those of an epoch that it has not seen; or only the
    /// welcome was lost, and then something is told twice, which changes nothing.
    fn acked_at_connect(&mut self, upto: u64, epochs_known: bool) {
        let all_ours = upto <= self.spool.last();
        if all_ours && epochs_known {
            return self.acked(upto);
        }
        if !all_ours && !self.missing.iter().any(|known| known == TWO_OF_IT) {
            tracing::error!(upto, ours = self.spool.last(), "{TWO_OF_IT}.");
            self.missing.push(TWO_OF_IT.to_owned());
        }
        let anew = self.spool.renumber(upto);
        self.commit(anew, Vec::new());
    }

    fn acked(&mut self, upto: u64) {
        if self.spool.acked(upto) {
            self.ack_to_keep = Some(upto);
        }
    }

    pub(super) fn pump(&mut self) {
        while let Some(report) = self.spool.next() {
            if self.link.send(FromWorks::Report(report)).is_err() {
                self.spool.disconnected();
            }
        }
    }

    /// Removes what is kept of runs for which no order can come any more: whole outputs may be large.
    fn forget_if_due(&mut self) {
        // Of what waits to be gone on with nobody has looked how it went.
        if self.unconfirmed {
            return;
        }
        let now = self.world.monotonic();
        if self.swept_at.is_some_and(|at| now.saturating_sub(at) < SWEEP) {
            return;
        }
        self.swept_at = Some(now);
        let now_ms = self.now_ms().saturating_add(crash::later_ms());
        let old: BTreeSet<RunId> = self
            .runs
            .iter()
            .filter(|(_, here)| here.active.is_none() && here.remembered_until_ms(&self.boot) < now_ms)
            .map(|(run, _)| *run)
            .collect();
        for run in self.forgettable(old) {
            match self.hands.forget(run) {
                Ok(()) => drop(self.runs.remove(&run)),
                Err(error) => {
                    tracing::warn!(%run, %error, "What is kept of an old run could not be removed.")
                }
            }
        }
    }

    /// Rewrites the journal with what is still needed, once it is much more than that.
    fn compact_if_due(&mut self) {
        if self.compacting || self.journal.written() < self.compact_at {
            return;
        }
        // First what is to be told: the reports that follow say what of it was.
        let mut live: Vec<Record> = self.telling.iter().map(Telling::record).collect();
        live.extend(self.spool.live());
        live.extend(self.runs.values().flat_map(|here| here.records.iter().cloned()));
        self.compacting = true;
        let inbox = self.inbox.clone();
        self.journal.compact_then(&live, move |result| drop(inbox.send(Wake::Compacted(result))));
    }

    fn compacted(&mut self, result: Result<(), AppendError>) {
        self.compacting = false;
        if let Err(error) = result {
            tracing::error!(%error, "The journal could not be rewritten.");
        }
        // Twice what is needed, so that it is not rewritten again and again.
        let twice = self.journal.written().saturating_mul(2).max(COMPACT_AT);
        self.compact_at = crash::compact_at().unwrap_or(twice);
    }
}

fn append(journal: &Journal, inbox: &std_mpsc::Sender<Wake>, batch: u64, records: &[Record]) {
    let inbox = inbox.clone();
    journal.append_then(records, move |result| {
        let _ = inbox.send(Wake::Appended { batch, result });
    });
}

fn paused((run, here): (&RunId, &RunHere)) -> Option<v1::PausedRun> {
    let pause = here.pause.filter(|pause| pause.on)?;
    Some(v1::PausedRun { run: run.to_string(), count: pause.count })
}

/// What a new journal file must have of a run. Reports are the spool's.
pub(super) fn kept(record: &Record) -> bool {
    match record {
        Record::Accepted { .. }
        | Record::Planned { .. }
        | Record::Event { .. }
        | Record::Intent { .. }
        | Record::Exited { .. }
        | Record::Tombstone { .. }
        | Record::Paused { .. }
        | Record::Ended { .. } => true,
        Record::Report { .. } | Record::Acked { .. } | Record::Forgotten { .. } => false,
    }
}

fn read_epoch(disk: &dyn Disk, path: &std::path::Path) -> std::io::Result<u64> {
    match disk.read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().parse().map_err(std::io::Error::other),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}
