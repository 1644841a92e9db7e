//! One agent's control stream.
//!
//! ```text
//! agent ──▶ reader ──(bounded by credits)──▶ worker ──▶ fleet (durable) ──▶ ack
//! agent ◀── Downstream ◀── welcome, then: heartbeats and acks ◀ reader, worker
//!                                         orders ◀ fleet
//! ```
//!
//! The reader never waits for the fleet once the agent is welcome: a stream whose reader stalls gets its HTTP/2
//! connection killed, not back-pressure. Credits bound how many reports can be queued between reader and worker. What they
//! weigh is bounded too: beyond that nothing more is read for a while, which few large messages put up with, and more small
//! ones than that cannot be under way.
//!
//! The end of the stream is not a goodbye; only `Goodbye` is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use fettle_proto::v1;
use fettle_runbooks::id::Host;
use futures_util::Stream;
use prost::Message as _;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

use super::{Caller, Fleet, PROTOCOL, Settings, Shared, certificate, refusal};
use crate::coordinator::Gone;
use crate::dispatch::Message;
use crate::tasks::TaskKind;

/// Orders on their way to one agent. A host has few at a time; one that does not take them counts as gone.
const ORDERS: usize = 1024;
/// Heartbeats and acks on their way.
const CONTROL: usize = 8;
/// Heartbeats that may be missed.
const MISSED: u32 = 3;
/// How long what an agent sent before its goodbye may take to become durable.
const FAREWELL: Duration = Duration::from_secs(5);

/// How a session ended, and what the agent is told.
enum End {
    /// The agent left on purpose.
    Goodbye(String),
    /// The stream is over; nobody is there to be told anything.
    Broken,
    /// We end it.
    Refused(Status),
}

/// What wakes the reader.
enum Event {
    Message(v1::from_agent::What),
    Nothing,
    Tick,
    Over(End),
}

pub(super) fn start<F: Fleet>(
    shared: Arc<Shared<F>>,
    caller: Caller,
    stream: Streaming<v1::FromAgent>,
) -> Downstream {
    let (welcome, first) = oneshot::channel();
    let (ending, last) = oneshot::channel();
    let (control, acks) = mpsc::channel(CONTROL);
    let (orders, work) = mpsc::channel(ORDERS);
    let left = CancellationToken::new();
    let down = Downstream {
        welcome: First::Awaited(first),
        ending: Some(last),
        control: acks,
        orders: work,
        _left: left.clone().drop_guard(),
    };
    let tasks = shared.parts.tasks.clone();
    // Boxed: a future has room for what it is given for each time that it is handed on.
    let reader = Box::new(Reader { shared, caller, stream, control, left });
    tasks.spawn(TaskKind::AgentReader, async move {
        let told = match reader.live(welcome, orders).await {
            End::Goodbye(_) | End::Broken => Ok(()),
            End::Refused(status) => Err(status),
        };
        // The stream may be gone already.
        let _ = ending.send(told);
    });
    down
}

struct Reader<F> {
    shared: Arc<Shared<F>>,
    caller: Caller,
    stream: Streaming<v1::FromAgent>,
    control: mpsc::Sender<Box<v1::ToAgent>>,
    /// Cancelled when the stream to the agent is no longer read.
    left: CancellationToken,
}

impl<F: Fleet> Reader<F> {
    async fn live(
        mut self: Box<Self>,
        welcome: oneshot::Sender<v1::ToAgent>,
        orders: mpsc::Sender<Message>,
    ) -> End {
        let host = self.caller.identity.host.clone();
        let hello = match self.hello().await {
            Ok(hello) => hello,
            Err(end) => return end,
        };
        let settings = self.shared.parts.settings;
        let fleet = self.shared.parts.fleet.clone();
        let version = hello.version.clone();
        let proof = certificate(&self.caller.identity);
        let greeting = match fleet.connected(host.clone(), hello, proof, orders).await {
            Ok(greeting) => v1::Welcome {
                heartbeat_ms: u32::try_from(settings.heartbeat.as_millis()).unwrap_or(u32::MAX),
                credits: settings.credits,
                ..greeting
            },
            Err(problem) => return End::Refused(refusal::status(&problem)),
        };
        let epoch = greeting.epoch;
        tracing::info!(%host, epoch, version, address = %self.caller.peer.address, "Agent connected.");
        let _ = welcome.send(to_agent(v1::to_agent::What::Welcome(greeting)));

        // One batch holds at least one report, so the queue can never be full while credits are kept.
        let (inbox, batches) = mpsc::channel(settings.credits as usize + 1);
        let queued = Arc::new(Queued::default());
        let (failed, failure) = oneshot::channel();
        let worker = Worker {
            host: host.clone(),
            epoch,
            fleet: fleet.clone(),
            batches,
            control: self.control.clone(),
            queued: Arc::clone(&queued),
        };
        let worker = self.shared.parts.tasks.spawn(TaskKind::AgentSession, async move {
            if let Err(status) = worker.work().await {
                let _ = failed.send(status);
            }
        });

        let end = self.read(&inbox, &queued, failure).await;
        drop(inbox);
        // What was received is worth keeping; a store that is stuck does not hold the session for ever.
        let _ = tokio::time::timeout(FAREWELL, worker).await;
        let how = match &end {
            End::Goodbye(reason) => Gone::Goodbye(reason.clone()),
            End::Broken | End::Refused(_) => Gone::Lost,
        };
        tracing::info!(%host, epoch, how = end.word(), "Agent gone.");
        fleet.gone(host, epoch, how).await;
        end
    }

    async fn hello(&mut self) -> Result<v1::Hello, End> {
        let limit = self.shared.parts.settings.hello;
        let first = tokio::select! {
            first = tokio::time::timeout(limit, self.stream.message()) => first,
            () = self.left.cancelled() => return Err(End::Broken),
        };
        match first {
            Err(_) => Err(End::Refused(refusal::too_slow("`hello`"))),
            Ok(Err(_)) | Ok(Ok(None)) => Err(End::Broken),
            Ok(Ok(Some(message))) => match message.what {
                Some(v1::from_agent::What::Hello(hello)) if hello.protocol == PROTOCOL => Ok(hello),
                Some(v1::from_agent::What::Hello(hello)) => {
                    Err(End::Refused(refusal::protocol(hello.protocol)))
                }
                Some(_) | None => Err(End::Refused(refusal::out_of_order("`hello`"))),
            },
        }
    }

    /// Waits here and only here; [`Reader::handle`] decides.
    async fn read(
        &mut self,
        inbox: &mpsc::Sender<Box<Batch>>,
        queued: &Queued,
        mut failure: oneshot::Receiver<Status>,
    ) -> End {
        let Settings { heartbeat, queue_bytes, .. } = self.shared.parts.settings;
        let stopping = self.shared.parts.tasks.stopping();
        let mut ticks = tokio::time::interval_at(Instant::now() + heartbeat, heartbeat);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let full = queued.bytes.load(Ordering::Acquire) > queue_bytes;
            let event = tokio::select! {
                message = self.stream.message(), if !full => match message {
                    Ok(Some(message)) => message.what.map_or(Event::Nothing, Event::Message),
                    Ok(None) | Err(_) => Event::Over(End::Broken),
                },
                () = queued.freed.notified(), if full => Event::Nothing,
                Ok(status) = &mut failure => Event::Over(End::Refused(status)),
                () = self.caller.peer.ending.cancelled() => Event::Over(End::Refused(refusal::certificate_ended())),
                () = self.left.cancelled() => Event::Over(End::Broken),
                () = stopping.cancelled() => {
                    let drain = v1::Drain { reconnect_after_ms: 1000 };
                    let _ = self.control.try_send(Box::new(to_agent(v1::to_agent::What::Drain(drain))));
                    Event::Over(End::Refused(refusal::stopping()))
                }
                _ = ticks.tick() => Event::Tick,
            };
            // Whom nobody listens to is not silent.
            if full || !matches!(event, Event::Tick) {
                heard = Instant::now();
            }
            if let Some(end) = self.handle(event, inbox, queued, heard.elapsed() > heartbeat * MISSED) {
                return end;
            }
        }
    }

    fn handle(
        &mut self,
        event: Event,
        inbox: &mpsc::Sender<Box<Batch>>,
        queued: &Queued,
        silent: bool,
    ) -> Option<End> {
        use v1::from_agent::What;
        match event {
            Event::Over(end) => Some(end),
            Event::Tick if silent => Some(End::Refused(refusal::silent())),
            Event::Tick => {
                // A full queue means that the agent does not read; it then misses this heartbeat too.
                let _ = self
                    .control
                    .try_send(Box::new(to_agent(v1::to_agent::What::Heartbeat(v1::Heartbeat {}))));
                None
            }
            Event::Nothing | Event::Message(What::Heartbeat(_)) => None,
            Event::Message(What::Goodbye(goodbye)) => Some(End::Goodbye(goodbye.reason)),
            Event::Message(What::Hello(_)) => Some(End::Refused(refusal::out_of_order("one `hello`"))),
            Event::Message(What::Reports(v1::Reports { reports })) if reports.is_empty() => None,
            Event::Message(What::Reports(reports)) => {
                let bytes = reports.encoded_len() as u64;
                let v1::Reports { reports } = reports;
                let count = reports.len() as u64;
                let waiting = queued.reports.fetch_add(count, Ordering::AcqRel) + count;
                queued.bytes.fetch_add(bytes, Ordering::AcqRel);
                let within = waiting <= u64::from(self.shared.parts.settings.credits);
                let batch = Box::new(Batch { reports, bytes });
                (!within || inbox.try_send(batch).is_err()).then(|| End::Refused(refusal::over_credit()))
            }
        }
    }
}

impl End {
    fn word(&self) -> &str {
        match self {
            End::Goodbye(_) => "goodbye",
            End::Broken => "broken",
            End::Refused(status) => status.message(),
        }
    }
}

/// One message of reports.
struct Batch {
    reports: Vec<v1::Report>,
    bytes: u64,
}

/// What was received of one agent and is not durable yet.
#[derive(Default)]
struct Queued {
    reports: AtomicU64,
    bytes: AtomicU64,
    freed: Notify,
}

/// Makes reports durable, several messages at a time, and acknowledges them.
struct Worker<F> {
    host: Host,
    epoch: u64,
    fleet: F,
    batches: mpsc::Receiver<Box<Batch>>,
    control: mpsc::Sender<Box<v1::ToAgent>>,
    queued: Arc<Queued>,
}

impl<F: Fleet> Worker<F> {
    /// A failure ends the session: the agent connects anew and sends again what was not acknowledged.
    async fn work(mut self) -> Result<(), Status> {
        let mut waiting: Vec<Box<Batch>> = Vec::new();
        while self.batches.recv_many(&mut waiting, usize::MAX).await > 0 {
            let bytes: u64 = waiting.iter().map(|batch| batch.bytes).sum();
            let reports: Vec<_> = waiting.drain(..).flat_map(|batch| batch.reports).collect();
            let count = reports.len() as u64;
            let upto = self
                .fleet
                .reports(self.host.clone(), self.epoch, reports)
                .await
                .map_err(|problem| refusal::status(&problem))?;
            self.queued.reports.fetch_sub(count, Ordering::AcqRel);
            self.queued.bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.queued.freed.notify_one();
            if self.control.send(Box::new(to_agent(v1::to_agent::What::Ack(v1::Ack { upto })))).await.is_err()
            {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn to_agent(what: v1::to_agent::What) -> v1::ToAgent {
    v1::ToAgent { what: Some(what) }
}

/// The welcome.
enum First {
    Awaited(oneshot::Receiver<v1::ToAgent>),
    Given,
    /// There is only an end.
    Never,
}

/// What flows to the agent: the welcome first, whatever else was ready before it.
pub struct Downstream {
    welcome: First,
    /// Absent once the end was told.
    ending: Option<oneshot::Receiver<Result<(), Status>>>,
    // Boxed: a channel has room for 32 at once, and most hosts hear nothing.
    control: mpsc::Receiver<Box<v1::ToAgent>>,
    orders: mpsc::Receiver<Message>,
    _left: DropGuard,
}

impl Stream for Downstream {
    type Item = Result<v1::ToAgent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(ending) = &mut this.ending else {
            return Poll::Ready(None);
        };
        if let First::Awaited(welcome) = &mut this.welcome {
            match Pin::new(welcome).poll(cx) {
                Poll::Ready(Ok(message)) => {
                    this.welcome = First::Given;
                    return Poll::Ready(Some(Ok(message)));
                }
                Poll::Ready(Err(_)) => this.welcome = First::Never,
                Poll::Pending => {}
            }
        }
        let welcome = matches!(this.welcome, First::Given);
        if welcome && let Poll::Ready(Some(message)) = this.control.poll_recv(cx) {
            return Poll::Ready(Some(Ok(*message)));
        }
        if let Poll::Ready(end) = Pin::new(ending).poll(cx) {
            this.ending = None;
            // A reader that died without a word is a fault of ours.
            let end = end.unwrap_or_else(|_| Err(Status::internal("the session's task died")));
            return Poll::Ready(end.err().map(Err));
        }
        if !welcome {
            return Poll::Pending;
        }
        match this.orders.poll_recv(cx) {
            Poll::Ready(Some(order)) => Poll::Ready(Some(Ok(order.whole()))),
            Poll::Ready(None) => {
                this.ending = None;
                Poll::Ready(Some(Err(refusal::superseded())))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
