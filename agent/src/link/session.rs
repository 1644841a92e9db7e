//! The control stream, as the agent sees it.
//!
//! Everything that wakes it is one [`Event`]. It batches reports by itself: while the stream cannot take more, they
//! wait, and then go as one message.

use std::time::Duration;

use fettle_proto::hello::{MOST_PAUSED, MOST_TEXTS};
use fettle_proto::v1;
use fettle_runbooks::id::Digest;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::{Ended, PROTOCOL, refused_by};
use crate::message::{FromWorks, Greeting, ToWorks};

/// From opening the stream to `Welcome`, and for the works to greet.
const WELCOME: Duration = Duration::from_secs(30);
/// Messages on their way into the stream.
const QUEUE: usize = 4;
/// Reports of one message, and roughly their bytes: well below what the controller takes.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 1024 * 1024;
/// Heartbeats that may be missed.
const MISSED: u32 = 3;
/// However long the controller asks us to stay away, we come back after this.
const AWAY: Duration = Duration::from_secs(600);
/// How long a goodbye may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// The metadata key of the stable word of a refusal.
const CODE: &str = "fettle-code";

/// What wakes the session.
#[expect(clippy::large_enum_variant, reason = "one exists at a time, and it does not travel")]
enum Event {
    Heard(v1::to_agent::What),
    HeardNothing,
    Works(FromWorks),
    MaySend(mpsc::OwnedPermit<v1::FromAgent>),
    Tick,
    Stop,
    Over(Ended),
}

pub(super) async fn run(
    channel: Channel,
    to_works: &(dyn Fn(ToWorks) + Send + Sync),
    from_works: &mut mpsc::UnboundedReceiver<FromWorks>,
    stop: &CancellationToken,
    worked: &mut bool,
) -> Ended {
    let opening = tokio::time::timeout(WELCOME, open(channel, to_works, from_works));
    let opened = tokio::select! {
        biased;
        () = stop.cancelled() => return Ended::Stopped,
        opened = opening => opened,
    };
    let (stream, messages, welcome) = match opened {
        Ok(Ok(open)) => open,
        Ok(Err(ended)) => return ended,
        Err(_) => return Ended::Lost("the controller did not welcome us in time".into()),
    };
    *worked = true;
    tracing::info!(epoch = welcome.epoch, "Connected.");
    to_works(ToWorks::Connected { epoch: welcome.epoch, credits: welcome.credits, acked: welcome.acked });
    let heartbeat = Duration::from_millis(u64::from(welcome.heartbeat_ms).clamp(50, 300_000));
    let session = Session { to_works, messages, pending: Vec::new(), pending_bytes: 0, drain: None };
    session.live(stream, from_works, stop, heartbeat).await
}

type Opened = (Streaming<v1::ToAgent>, mpsc::Sender<v1::FromAgent>, v1::Welcome);

async fn open(
    channel: Channel,
    to_works: &(dyn Fn(ToWorks) + Send + Sync),
    from_works: &mut mpsc::UnboundedReceiver<FromWorks>,
) -> Result<Opened, Ended> {
    to_works(ToWorks::Greet);
    let greeting = loop {
        match from_works.recv().await {
            Some(FromWorks::Greeting(greeting)) => break greeting,
            // Of the last connection; the works send it again.
            Some(FromWorks::Report(_)) => {}
            None => return Err(Ended::WorksGone),
        }
    };
    let (messages, outgoing) = mpsc::channel(QUEUE);
    let hello = from_agent(v1::from_agent::What::Hello(hello(greeting)));
    // The queue is empty and its reader is ours.
    let _ = messages.send(hello).await;
    let mut client = v1::agents_client::AgentsClient::new(channel);
    let mut stream =
        client.session(ReceiverStream::new(outgoing)).await.map_err(|status| ended_by(&status))?.into_inner();
    match stream.message().await {
        Ok(Some(v1::ToAgent { what: Some(v1::to_agent::What::Welcome(welcome)) })) => {
            Ok((stream, messages, welcome))
        }
        Ok(_) => Err(Ended::Lost("the controller did not begin with a welcome".into())),
        Err(status) => Err(ended_by(&status)),
    }
}

/// A hello that says more than a controller takes would be refused for ever, and a stolen controller could have made it so: what is
/// too much is left out, of paused runs the oldest.
fn hello(mut greeting: Greeting) -> v1::Hello {
    let oldest = greeting.paused.len().saturating_sub(MOST_PAUSED);
    greeting.paused.drain(..oldest);
    greeting.missing.truncate(MOST_TEXTS);
    v1::Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch_seen: greeting.epoch_seen,
        boot_id: greeting.boot_id,
        journal: greeting.journal,
        roster_version: greeting.roster_version,
        missing: greeting.missing,
        paused: greeting.paused,
        labels: greeting.labels.into_iter().collect(),
    }
}

struct Session<'a> {
    to_works: &'a (dyn Fn(ToWorks) + Send + Sync),
    messages: mpsc::Sender<v1::FromAgent>,
    /// Reports that wait for room in the stream.
    pending: Vec<v1::Report>,
    pending_bytes: usize,
    /// When the controller asked us to come back.
    drain: Option<Duration>,
}

impl Session<'_> {
    async fn live(
        mut self,
        mut stream: Streaming<v1::ToAgent>,
        from_works: &mut mpsc::UnboundedReceiver<FromWorks>,
        stop: &CancellationToken,
        heartbeat: Duration,
    ) -> Ended {
        let mut ticks = tokio::time::interval_at(Instant::now() + heartbeat, heartbeat);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let room = self.pending.len() < BATCH && self.pending_bytes < BATCH_BYTES;
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => Event::Stop,
                // Reports that are ready join the batch before it goes. There are never more than the credits.
                report = from_works.recv(), if room => report.map_or(Event::Over(Ended::WorksGone), Event::Works),
                permit = self.messages.clone().reserve_owned(), if !self.pending.is_empty() => match permit {
                    Ok(permit) => Event::MaySend(permit),
                    Err(_) => Event::Over(Ended::Lost("the stream takes nothing more".into())),
                },
                message = stream.message() => {
                    heard = Instant::now();
                    match message {
                        Ok(Some(message)) => message.what.map_or(Event::HeardNothing, Event::Heard),
                        Ok(None) => Event::Over(Ended::Lost("the controller ended the stream".into())),
                        Err(status) => Event::Over(ended_by(&status)),
                    }
                }
                // What has arrived is heard before anybody says that nothing was.
                _ = ticks.tick() => Event::Tick,
            };
            let ended = match event {
                Event::Tick if heard.elapsed() > heartbeat * MISSED => {
                    Some(Ended::Lost("three heartbeats of the controller were missed".into()))
                }
                Event::Stop => {
                    self.farewell(stream).await;
                    return Ended::Stopped;
                }
                Event::Over(ended) => Some(match (self.drain, ended) {
                    // The end that a drain announced.
                    (Some(wait), Ended::Lost(_)) => Ended::Drained(wait),
                    (_, ended) => ended,
                }),
                event @ (Event::Heard(_)
                | Event::HeardNothing
                | Event::Works(_)
                | Event::MaySend(_)
                | Event::Tick) => self.handle(event),
            };
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    /// Decides; waits for nothing.
    fn handle(&mut self, event: Event) -> Option<Ended> {
        match event {
            Event::Heard(what) => self.heard(what),
            Event::Works(FromWorks::Report(report)) => {
                self.pending_bytes += weight(&report);
                self.pending.push(report);
                None
            }
            Event::MaySend(permit) => {
                let reports = std::mem::take(&mut self.pending);
                self.pending_bytes = 0;
                permit.send(from_agent(v1::from_agent::What::Reports(v1::Reports { reports })));
                None
            }
            Event::Tick => {
                // A full queue means that the stream does not move; the controller then misses this one too.
                let _ = self.messages.try_send(from_agent(v1::from_agent::What::Heartbeat(v1::Heartbeat {})));
                None
            }
            // A greeting nobody waits for any more.
            Event::Works(FromWorks::Greeting(_)) | Event::HeardNothing => None,
            Event::Stop => Some(Ended::Stopped),
            Event::Over(ended) => Some(ended),
        }
    }

    fn heard(&mut self, what: v1::to_agent::What) -> Option<Ended> {
        use v1::to_agent::What;
        let told = match what {
            What::Order(v1::Order { content, digest }) => match Digest::from_bytes(&digest) {
                Ok(digest) => ToWorks::Order { content: content.to_vec(), digest },
                Err(error) => return Some(Ended::Lost(format!("an order without a digest: {error}"))),
            },
            What::Ack(v1::Ack { upto }) => ToWorks::Acked { upto },
            What::Cancel(v1::Cancel { run, reason }) => match run.parse() {
                Ok(run) => ToWorks::Cancel { run, reason },
                Err(error) => {
                    tracing::warn!(%error, "Told to cancel something that is no run.");
                    return None;
                }
            },
            What::Pause(v1::Pause { run, on, count }) => match run.parse() {
                Ok(run) => ToWorks::Pause { run, on, count },
                Err(error) => {
                    tracing::warn!(%error, "Told to pause something that is no run.");
                    return None;
                }
            },
            What::Roster(v1::RosterUpdate { roster: Some(roster) }) => ToWorks::Roster(roster),
            What::Drain(v1::Drain { reconnect_after_ms }) => {
                self.drain = Some(Duration::from_millis(u64::from(reconnect_after_ms)).min(AWAY));
                return None;
            }
            What::Heartbeat(_) | What::Roster(v1::RosterUpdate { roster: None }) => return None,
            What::Welcome(_) => return Some(Ended::Lost("the controller welcomed us twice".into())),
        };
        (self.to_works)(told);
        None
    }

    /// Leaves on purpose: hands over what is ready, says so, and waits a little for the other side to have read it.
    async fn farewell(self, mut stream: Streaming<v1::ToAgent>) {
        let goodbye = async {
            if !self.pending.is_empty() {
                let reports = v1::Reports { reports: self.pending };
                let _ = self.messages.send(from_agent(v1::from_agent::What::Reports(reports))).await;
            }
            let goodbye = v1::Goodbye { reason: "the agent is stopping".to_owned() };
            let _ = self.messages.send(from_agent(v1::from_agent::What::Goodbye(goodbye))).await;
            drop(self.messages);
            // What was acknowledged need not be sent again after a restart.
            while let Ok(Some(message)) = stream.message().await {
                if let Some(v1::to_agent::What::Ack(v1::Ack { upto })) = message.what {
                    (self.to_works)(ToWorks::Acked { upto });
                }
            }
        };
        let _ = tokio::time::timeout(FAREWELL, goodbye).await;
    }
}

/// Roughly what a report weighs on the wire: only these members can be large.
fn weight(report: &v1::Report) -> usize {
    let kept = |kept: &Option<v1::Kept>| kept.as_ref().map_or(0, |kept| kept.head.len() + kept.tail.len());
    match &report.what {
        Some(v1::report::What::Planned(planned)) => planned.plan.len(),
        Some(v1::report::What::StepEnded(ended)) => {
            kept(&ended.stdout)
                + kept(&ended.stderr)
                + ended.outputs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        }
        Some(v1::report::What::ToldAgain(told)) => prost::Message::encoded_len(told),
        Some(_) | None => 64,
    }
}

/// What a status means for the next try.
fn ended_by(status: &Status) -> Ended {
    let word = status.metadata().get(CODE).and_then(|word| word.to_str().ok()).unwrap_or_default();
    let text =
        if word.is_empty() { status.message().to_owned() } else { format!("{word}: {}", status.message()) };
    let lasting =
        matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition);
    if lasting || word == "superseded" {
        return Ended::Refused(text);
    }
    // TLS 1.3: a refused client certificate shows itself at the first read, inside whatever came of it.
    refused_by(status).map_or(Ended::Lost(text), Ended::Refused)
}

fn from_agent(what: v1::from_agent::What) -> v1::FromAgent {
    v1::FromAgent { what: Some(what) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn a_hello_is_one_that_a_controller_takes_whatever_is_paused_here() {
        let paused = |number: u32| v1::PausedRun { run: number.to_string(), count: 1 };
        let greeting = Greeting {
            epoch_seen: 1,
            boot_id: "boot".to_owned(),
            journal: "journal".to_owned(),
            roster_version: 1,
            paused: (0..20_000).map(paused).collect(),
            missing: vec!["something".to_owned(); 1000],
            labels: Default::default(),
        };
        let bytes = hello(greeting).encode_to_vec();
        let heard = v1::Hello::decode(bytes.as_slice()).expect("a controller takes it");
        assert_eq!(heard.paused.last().map(|last| last.run.as_str()), Some("19999"));
    }
}
