//! The one task that knows all stages: it decides, has the decision made durable, then acts.
//!
//! ```text
//! commands ─┐            ┌─ changes, rows ─▶ store ─▶ ticket ─┐
//! timers ───┼─▶ decide ──┤                                    ├─▶ answers, orders, acknowledgements
//! answers ──┘  (pure)    └─ effects, held until then ─────────┘
//! ```
//!
//! Decisions go on while earlier ones are being made durable; effects are released in order. When the store does not
//! answer, what was decided since is forgotten, everybody who waits is told that it is not known, and the model is read from
//! the store again. Timers are the due moments of rows, so that a restart cannot lose one.
//!
//! [`Handle`] is how everybody else talks to it. Missing on purpose: [`new`] gives the future to run; whoever runs the
//! process owns the task.

mod agents;
mod desk;
mod follow;
mod gates;
mod halts;
mod handle;
mod lately;
mod moves;
mod notices;
mod part;
mod people;
mod policy_watch;
mod rules_watch;
mod query;
mod signals;
mod told_again;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fettle_proto::v1;
use fettle_runbooks::id::{Host, RunId};
use fettle_runbooks::run::State;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::crash::crash_point;
use crate::dispatch::{Digests, Message};
use crate::metrics::Metrics;
use crate::model::{Change, MEMORY, Model, RowKey};
use crate::notify::Deliver;
use crate::problem::Problem;
use crate::store::{Record, Store, Ticket, Unavailable};
use crate::world::{At, World, aside};
use desk::{Decided, Desk, Effect};
use handle::{Command, InForce, Live, Taken};
use lately::Lately;
use people::Challenges;
use timers::Timers;

pub use halts::Halt;
pub use handle::{
    AgentCertificate, Enrolment, Found, Gone, Handle, Looked, Receipt, RosterInForce, RunEvents, Session,
};
pub use policy_watch::watch_policy;
pub(crate) use rules_watch::RulesWatch;

/// Commands queued before callers wait. A caller that waits is told about the overload by waiting.
const COMMAND_QUEUE: usize = 1024;

/// Decisions that may wait for the store. More would only make everybody wait longer for the first.
const IN_FLIGHT: usize = 2048;

/// Events a watcher may be behind before it has to read from the store again.
const LIVE_QUEUE: usize = 4096;

/// Notifications on their way at a time; a storm of them must not take the descriptors that agents need.
const DELIVERIES: usize = 16;

/// Between two tries to read the store again.
const AGAIN: Duration = Duration::from_millis(250);

/// What a coordinator needs of the outside.
pub struct Setup {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// Time and randomness.
    pub world: Arc<dyn World>,
    /// What carries notifications.
    pub deliver: Arc<dyn Deliver>,
    /// The root fingerprint of its trust bundle; login challenges name it.
    pub root: String,
    /// The software's version, for `Status`.
    pub version: String,
    /// Counts what history does not tell.
    pub metrics: Metrics,
}

/// Makes a coordinator: the handle, and the future that is its life. The future ends after `stop`, once everything decided
/// is durable, or with an error when the store cannot be read at the start.
pub fn new(
    setup: Setup,
    stop: CancellationToken,
) -> (Handle, impl Future<Output = Result<(), Unavailable>> + Send) {
    let (commands, inbox) = mpsc::channel(COMMAND_QUEUE);
    let (in_force_sender, in_force) = watch::channel(InForce::default());
    let (live, _) = broadcast::channel(LIVE_QUEUE);
    let connected = Arc::default();
    let durable = Arc::default();
    let handle = Handle {
        commands,
        in_force: Arc::new(in_force_sender),
        store: Arc::clone(&setup.store),
        world: Arc::clone(&setup.world),
        live: live.clone(),
        connected: Arc::clone(&connected),
        durable: Arc::clone(&durable),
        version: setup.version.clone().into(),
    };
    let coordinator = Coordinator {
        setup,
        inbox,
        in_force,
        model: Model::default(),
        timers: Timers::default(),
        in_flight: VecDeque::new(),
        streams: BTreeMap::new(),
        connected,
        durable,
        lately: Lately::default(),
        digests: Digests::default(),
        live,
        challenges: Challenges::default(),
        deliveries: FuturesUnordered::new(),
        sending: HashSet::new(),
        turns: Arc::new(Semaphore::new(DELIVERIES)),
        unsettled: HashSet::new(),
    };
    (handle, coordinator.run(stop))
}

/// A decision that the store has not answered for yet.
struct InFlight {
    /// Absent when nothing changed: then only the ones before it must be durable.
    ticket: Option<Ticket>,
    records: Vec<Record>,
    effects: Vec<Effect>,
}

/// A host's open stream.
struct Stream {
    epoch: u64,
    sender: mpsc::Sender<Message>,
}

type Delivered = Pin<Box<dyn Future<Output = (u64, Result<(), String>)> + Send>>;

struct Coordinator {
    setup: Setup,
    inbox: mpsc::Receiver<Command>,
    in_force: watch::Receiver<InForce>,
    model: Model,
    timers: Timers,
    in_flight: VecDeque<InFlight>,
    streams: BTreeMap<Host, Stream>,
    connected: handle::Connected,
    /// The number of the last event that is known to be durable.
    durable: Arc<AtomicU64>,
    lately: Lately,
    digests: Digests,
    live: broadcast::Sender<Arc<Live>>,
    challenges: Challenges,
    deliveries: FuturesUnordered<Delivered>,
    /// Notifications that are on their way now.
    sending: HashSet<u64>,
    /// Who may deliver now.
    turns: Arc<Semaphore>,
    /// Notifications that are not durable yet: nobody is told what may be forgotten again.
    unsettled: HashSet<u64>,
}

/// What woke the coordinator.
enum Woken {
    Stop,
    Durable(Result<(), Unavailable>),
    Command(Command),
    Roster,
    Delivered(u64, Result<(), String>),
    Timer,
}

/// Resolves when the oldest decision in flight is durable, or not known to be.
async fn oldest(in_flight: &mut VecDeque<InFlight>) -> Result<(), Unavailable> {
    match in_flight.front_mut().and_then(|front| front.ticket.as_mut()) {
        None => Ok(()),
        Some(ticket) => ticket
            .await
            .unwrap_or_else(|_| Err(Unavailable { doing: "reach the store's writer", source: None })),
    }
}

impl Coordinator {
    async fn run(mut self, stop: CancellationToken) -> Result<(), Unavailable> {
        self.model = self.load().await?;
        self.resume(Since::Start);
        let mut roster = self.roster_version();
        loop {
            // Waiting happens here and only here.
            let woken = tokio::select! {
                biased;
                outcome = oldest(&mut self.in_flight), if !self.in_flight.is_empty() => Woken::Durable(outcome),
                () = stop.cancelled() => Woken::Stop,
                Ok(()) = self.in_force.changed() => Woken::Roster,
                Some((id, result)) = self.deliveries.next(), if !self.deliveries.is_empty() => Woken::Delivered(id, result),
                // Before the commands: whoever keeps asking must not keep a gate from expiring.
                () = until(&*self.setup.world, self.timers.next()) => Woken::Timer,
                Some(command) = self.inbox.recv(), if self.in_flight.len() < IN_FLIGHT => Woken::Command(command),
            };
            match woken {
                Woken::Durable(Ok(())) => self.release(),
                Woken::Durable(Err(error)) => self.rebuild(error).await,
                Woken::Stop => break,
                Woken::Roster => {
                    let now = self.roster_version();
                    if now != roster {
                        roster = now;
                        self.tell_roster();
                    }
                }
                Woken::Delivered(id, result) => {
                    self.sending.remove(&id);
                    self.decide(|desk| desk.delivered(id, result));
                    self.model.forget_notification(id);
                }
                Woken::Command(command) => self.handle(command),
                Woken::Timer => self.due(),
            }
        }
        while !self.in_flight.is_empty() {
            match oldest(&mut self.in_flight).await {
                Ok(()) => self.release(),
                Err(error) => self.forget_in_flight(&Problem::unknown(&error)),
            }
        }
        Ok(())
    }

    fn load(&self) -> impl Future<Output = Result<Model, Unavailable>> + Send + use<> {
        let (store, since) = (Arc::clone(&self.setup.store), self.setup.world.now().minus(MEMORY));
        let loading = aside(&*self.setup.world, move || store.load(since));
        async move {
            let lost = || Err(Unavailable { doing: "load what is unfinished", source: None });
            loading.await.unwrap_or_else(lost)
        }
    }

    /// Makes one decision and puts it on its way.
    fn decide<T>(&mut self, decide: impl FnOnce(&mut Desk<'_>) -> T) -> T {
        self.decide_with(|desk, _| decide(desk))
    }

    fn decide_with<T>(&mut self, decide: impl FnOnce(&mut Desk<'_>, &mut Challenges) -> T) -> T {
        let in_force = self.in_force.borrow().clone();
        let mut desk =
            Desk::new(&mut self.model, &in_force, &*self.setup.world, &self.setup.root, &mut self.digests);
        let answer = decide(&mut desk, &mut self.challenges);
        let Decided { transaction, touched, effects } = desk.done();
        for key in touched {
            self.timers.arm(&self.model, &key);
        }
        if transaction.records.is_empty() && effects.is_empty() {
            return answer;
        }
        let (ticket, records) = if transaction.records.is_empty() {
            (None, Vec::new())
        } else {
            let records = transaction.records.clone();
            self.unsettled.extend(queued(&records));
            for record in &records {
                if let Change::RunEnded { run } = record.change {
                    self.lately.put(record.number, run);
                }
            }
            (Some(self.setup.store.commit(transaction)), records)
        };
        self.in_flight.push_back(InFlight { ticket, records, effects });
        answer
    }

    /// The oldest decision is durable: now it is acted on.
    fn release(&mut self) {
        let Some(InFlight { records, effects, .. }) = self.in_flight.pop_front() else { return };
        if let Some(last) = records.last() {
            self.durable.store(last.number, Ordering::Release);
            crash_point("coordinator.before-effects");
        }
        for id in queued(&records) {
            self.unsettled.remove(&id);
            self.timers.arm(&self.model, &RowKey::Notification(id));
        }
        for effect in effects {
            match effect {
                Effect::Reply(answer) => answer(Ok(())),
                Effect::Tell(host, message) => self.tell(&host, message),
                Effect::Attach { host, epoch, sender, first } => {
                    self.streams.insert(host.clone(), Stream { epoch, sender });
                    self.set_connected(&host, true);
                    for message in first {
                        self.tell(&host, message);
                    }
                }
                Effect::Missed => self.setup.metrics.run_missed(),
                Effect::Detach(host) => {
                    self.streams.remove(&host);
                    self.set_connected(&host, false);
                }
            }
        }
        if !records.is_empty() {
            crash_point("coordinator.after-effects");
        }
        if !records.is_empty() && self.live.receiver_count() > 0 {
            // Nobody may be watching any more.
            let _ = self.live.send(Arc::new(Live::Happened(records)));
        }
    }

    fn set_connected(&self, host: &Host, is: bool) {
        let mut connected = self.connected.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if is {
            connected.insert(host.clone());
        } else {
            connected.remove(host);
        }
    }

    /// Says something to a host. One that does not take it is cut off: it hears everything again when it comes back.
    fn tell(&mut self, host: &Host, message: Message) {
        let Some(stream) = self.streams.get(host) else { return };
        if stream.sender.try_send(message).is_ok() {
            return;
        }
        let epoch = stream.epoch;
        tracing::warn!(%host, epoch, "The host's stream takes nothing more; it is cut off.");
        self.streams.remove(host);
        self.decide(|desk| desk.gone(host, epoch, Gone::Lost));
    }

    fn tell_roster(&mut self) {
        let Some(roster) = self.in_force.borrow().roster.clone() else { return };
        let hosts: Vec<Host> = self.streams.keys().cloned().collect();
        for host in hosts {
            self.tell(&host, agents::roster_update(&roster));
        }
    }

    fn roster_version(&self) -> Option<u64> {
        self.in_force.borrow().roster.as_ref().map(|roster| roster.roster.version)
    }

    /// Whoever waits for a decision in flight is told that it is not known, and why.
    fn forget_in_flight(&mut self, why: &Problem) {
        for InFlight { effects, .. } in self.in_flight.drain(..) {
            for effect in effects {
                match effect {
                    Effect::Reply(answer) => answer(Err(why.clone())),
                    Effect::Tell(..) | Effect::Attach { .. } | Effect::Detach(_) | Effect::Missed => {}
                }
            }
        }
    }

    /// The store did not answer. What it has is what is true: read it again, however long that takes.
    async fn rebuild(&mut self, error: Unavailable) {
        tracing::error!(%error, in_flight = self.in_flight.len(), "The store did not answer; reading it again.");
        // The writer answers for each; then nothing of the forgotten decisions is under way any more. The first has
        // answered already.
        if let Some(front) = self.in_flight.front_mut() {
            front.ticket = None;
        }
        for waiting in &mut self.in_flight {
            if let Some(ticket) = waiting.ticket.take() {
                let _ = ticket.await;
            }
        }
        self.forget_in_flight(&Problem::unknown(&error));
        loop {
            match self.load().await {
                Ok(model) => {
                    self.model = model;
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, "The store cannot be read; trying again.");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        self.resume(Since::Rebuild);
    }

    /// Takes everything unfinished up again, from what is, not from what was about to be done.
    fn resume(&mut self, since: Since) {
        self.timers = Timers::of(&self.model);
        self.lately = Lately::after(self.model.last_event);
        self.durable.store(self.model.last_event, Ordering::Release);
        self.sending.clear();
        self.unsettled.clear();
        match since {
            Since::Start => {
                let were: Vec<(Host, u64)> = self
                    .model
                    .agents
                    .values()
                    .filter(|row| row.connected)
                    .map(|row| (row.host.clone(), row.epoch))
                    .collect();
                self.decide(|desk| {
                    for (host, epoch) in were {
                        let reason = "the controller was restarted".to_owned();
                        desk.change(Change::AgentGone { host, epoch, reason });
                    }
                    desk.part_with_all_revoked();
                });
            }
            Since::Rebuild => {
                // A stream whose epoch is not in the store was never welcomed durably.
                let model = &self.model;
                self.streams.retain(|host, stream| {
                    model.agents.get(host).is_some_and(|row| row.epoch == stream.epoch && row.connected)
                });
                let hosts: Vec<Host> = self.streams.keys().cloned().collect();
                *self.connected.write().unwrap_or_else(std::sync::PoisonError::into_inner) =
                    hosts.iter().cloned().collect();
                for host in hosts {
                    let owed = self.decide(|desk| desk.owed(&host));
                    for message in owed {
                        self.tell(&host, message);
                    }
                }
            }
        }
        let waiting: std::collections::BTreeSet<Host> = self
            .model
            .host_runs
            .values()
            .filter(|row| matches!(row.machine.state, State::Waiting(_)))
            .map(|row| row.host.clone())
            .collect();
        self.decide(|desk| {
            for host in &waiting {
                desk.reconsider(host);
            }
        });
    }

    /// Rows whose moment has come are looked at again.
    fn due(&mut self) {
        let now = self.setup.world.now();
        while let Some(key) = self.timers.due(now) {
            match key {
                RowKey::Gate(id) => {
                    self.decide(|desk| desk.gate_due(id));
                    self.timers.put_off(&self.model, &RowKey::Gate(id), now);
                }
                RowKey::Order(run, host, segment) => {
                    self.decide(|desk| desk.order_due(run, &host, segment));
                    self.timers.put_off(&self.model, &RowKey::Order(run, host, segment), now);
                }
                RowKey::Notification(id) => self.send(id),
                RowKey::Incident(id) => self.decide(|desk| desk.incident_due(id)),
                RowKey::Signal(id) => self.decide(|desk| desk.late_due(id)),
                RowKey::Run(_)
                | RowKey::HostRun(..)
                | RowKey::Step(..)
                | RowKey::Agent(_)
                | RowKey::Token(_)
                | RowKey::Session(_) => {}
            }
        }
    }

    fn send(&mut self, id: u64) {
        let Some(row) = self.model.notifications.get(&id) else { return };
        // One that is not durable is armed again when it is.
        if self.unsettled.contains(&id) || !self.sending.insert(id) {
            return;
        }
        let body = row.body.clone();
        match self.in_force.borrow().policy.notify.clone() {
            Some(to) => {
                let delivery = self.setup.deliver.deliver(&to, body);
                let turns = Arc::clone(&self.turns);
                self.deliveries.push(Box::pin(async move {
                    // Never closed; and if it were, delivering is still right.
                    let _turn = turns.acquire().await;
                    (id, delivery.await)
                }));
            }
            None => self
                .deliveries
                .push(Box::pin(async move { (id, Err("the policy names no receiver".to_owned())) })),
        }
    }

    /// Whether a run may have ended since the store was asked about it, after this event.
    fn is_outdated(&self, run: RunId, upto: u64) -> bool {
        !self.model.runs.contains_key(&run) && self.lately.may_have_ended(run, upto)
    }

    /// Whether a host tells of such a run.
    fn tells_outdated(&self, report: &v1::Report, upto: u64) -> bool {
        let Some(v1::report::What::ToldAgain(_)) = report.what else { return false };
        report.run.parse().is_ok_and(|run| self.is_outdated(run, upto))
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Signals { signals, reply } => self.decide(|desk| {
                let receipts = signals.into_iter().map(|signal| desk.signal(signal)).collect();
                desk.reply(reply, Ok(receipts));
            }),
            Command::TestSignals { signals, reply } => self.decide(|desk| {
                let tested = signals.into_iter().map(|signal| desk.test_signal(signal)).collect();
                desk.reply(reply, Ok(tested));
            }),
            Command::Start { session, request, earlier, asked, reply } => {
                let outdated = asked.is_some_and(|(run, upto)| self.is_outdated(run, upto));
                self.decide(|desk| {
                    let answer = match outdated {
                        true => Ok(None),
                        false => desk.start(&session, request, earlier.as_deref()).map(Some),
                    };
                    desk.reply(reply, answer);
                });
            }
            Command::Decide { session, request, reply } => self.decide(|desk| {
                let answer = desk.decide(&session, request);
                desk.reply(reply, answer);
            }),
            Command::Cancel { session, run, reason, reply } => self.decide(|desk| {
                let answer = desk.cancel(&session, run, &reason);
                desk.reply(reply, answer);
            }),
            Command::Halt { session, halt, reply } => self.decide(|desk| {
                let answer = desk.halt(&session, halt);
                desk.reply(reply, answer);
            }),
            Command::Resolve { session, run, host, looked, reply } => self.decide(|desk| {
                let answer = desk.resolve(&session, run, &host, looked);
                desk.reply(reply, answer);
            }),
            Command::Challenge { person, reply } => self.decide_with(|desk, challenges| {
                let answer = desk.challenge(challenges, person);
                desk.reply(reply, answer);
            }),
            Command::ForgetChallenge { challenge } => self.challenges.forget(&challenge),
            Command::Answer { challenge, signed, reply } => self.decide_with(|desk, challenges| {
                let answer = desk.answer(challenges, &challenge, signed);
                desk.reply(reply, answer);
            }),
            Command::Session { token, reply } => self.decide(|desk| {
                let answer = desk.session(&token);
                desk.reply(reply, answer);
            }),
            Command::CreateToken { session, request, reply } => self.decide(|desk| {
                let answer = desk.create_token(session.as_ref(), request);
                desk.reply(reply, answer);
            }),
            Command::SpendToken { token, reply } => self.decide(|desk| {
                let answer = desk.spend_token(&token);
                desk.reply(reply, answer);
            }),
            Command::Certified { host, certificate, reply } => self.decide(|desk| {
                let answer = desk.certified(host, certificate);
                desk.reply(reply, answer);
            }),
            Command::Connected { host, hello, certificate, sender, reply } => self.decide(|desk| {
                let answer = desk.connected(&host, *hello, certificate);
                let epoch = answer.as_ref().map(|welcome| welcome.epoch).ok();
                desk.reply(reply, answer);
                if let Some(epoch) = epoch {
                    desk.attach(host, epoch, sender);
                }
            }),
            Command::Gone { host, epoch, how } => self.decide(|desk| desk.gone(&host, epoch, how)),
            Command::Reports { host, epoch, reports, asked, reply } => {
                let outdated = reports.iter().any(|report| self.tells_outdated(report, asked.upto));
                self.decide(|desk| {
                    let answer = match outdated {
                        // Told once everything up to here is durable, and so in the store.
                        true => Ok(Taken::AskAgain(reports)),
                        false => desk.reports(&host, epoch, reports, &asked.over).map(Taken::Upto),
                    };
                    desk.reply(reply, answer);
                });
            }
            Command::Revoke { session, host, reason, reply } => self.decide(|desk| {
                let answer = desk.revoke(&session, host, reason);
                desk.reply(reply, answer);
            }),
        }
    }
}

/// The notifications that these records queue.
fn queued(records: &[Record]) -> impl Iterator<Item = u64> + '_ {
    records.iter().filter_map(|record| {
        let Change::NotificationQueued(row) = &record.change else { return None };
        Some(row.id)
    })
}

/// Why everything unfinished is taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// The process began: no stream is open.
    Start,
    /// The store did not answer for a while: streams are open.
    Rebuild,
}

async fn until(world: &dyn World, at: Option<At>) {
    match at {
        Some(at) => world.sleep_until(at).await,
        None => std::future::pending().await,
    }
}
