//! People at their command lines, with real keys, and a source that posts alerts.
//!
//! They do what people do: ask until they get an answer, sign what they are shown, try again when it was not heard. What
//! they were told is done is kept in [`Acks`]: it must stay done.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fettle_controller::signal::{Signal, Status};
use fettle_controller::world::At;
use fettle_proto::signed::start::Of;
use fettle_proto::signed::words::from_ms;
use fettle_proto::signed::{self, Approval, Decision, Namespace, Request, Start, Tag, Until};
use fettle_proto::v1;
use fettle_proto::v1::operators_client::OperatorsClient;
use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::{Digest, GateId, Host, RunId};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status as Answer};
use turmoil::net::TcpStream;
use v1::login_reply::What as Reply;
use v1::login_request::What as Ask;

use crate::cast::{Cast, TOO_FULL};
use crate::chance::Chance;
use crate::controller::{self, Machine};
use crate::host::{Ledger, SimHost, What};
use crate::trace::Trace;
use crate::world::Wall;

/// How long anybody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something somebody was told is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    /// A run is started.
    Started(RunId),
    /// A person's decision on a gate is taken.
    Decided(GateId, String, Decision),
    /// A run is asked to stop.
    Cancelled(RunId),
    /// A run is to go on no further, or goes on.
    Paused(RunId, bool),
    /// What a person says about a step is taken.
    Resolved(RunId, Host, String),
    /// People are asked whether a step runs again.
    AskedAgain(RunId, Host, String),
    /// A signal is taken.
    Signalled(fettle_runbooks::id::SignalId),
}

impl Ack {
    /// Which kind.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Ack::Started(_) => "started",
            Ack::Decided(_, _, Decision::Approve) => "approved",
            Ack::Decided(_, _, Decision::Deny) => "denied",
            Ack::Cancelled(_) => "cancelled",
            Ack::Paused(_, true) => "paused",
            Ack::Paused(_, false) => "resumed",
            Ack::Resolved(..) => "resolved",
            Ack::AskedAgain(..) => "asked whether it runs again",
            Ack::Signalled(_) => "signalled",
        }
    }
}

/// What people were told is done. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Acks(Arc<Mutex<Vec<Ack>>>);

impl Acks {
    fn keep(&self, ack: Ack, trace: &Trace) {
        trace.say(format_args!("acknowledged: {ack:?}"));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(ack);
    }

    /// Everything since the last call.
    pub(crate) fn news(&self) -> Vec<Ack> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What everybody of the desk has in common. One of them: they sit in one room.
pub(crate) struct Desk {
    /// Who has which key.
    pub(crate) cast: Arc<Cast>,
    /// The hosts, by machine.
    pub(crate) hosts: Vec<SimHost>,
    /// Their names.
    pub(crate) names: Vec<Host>,
    /// What really happened, as somebody sees who looks.
    pub(crate) ledger: Ledger,
    /// What is acknowledged.
    pub(crate) acks: Acks,
    /// The lines.
    pub(crate) trace: Trace,
    /// Everybody starts and cancels runs until then.
    pub(crate) busy_until: Duration,
    /// The seed's number.
    pub(crate) seed: u64,
}

/// One person.
struct Person {
    name: &'static str,
    desk: Rc<Desk>,
    chance: Chance,
    wall: Wall,
    session: Option<(Channel, MetadataValue<tonic::metadata::Ascii>)>,
}

/// A person's day.
pub(crate) async fn person(name: &'static str, desk: Rc<Desk>) -> turmoil::Result {
    let chance = Chance::new(desk.seed, name);
    let mut person = Person { name, desk, chance, wall: Wall::default(), session: None };
    loop {
        let pause = person.chance.ms(1_500..6_000);
        tokio::time::sleep(pause).await;
        if let Err(answer) = person.turn().await {
            person.desk.trace.say(format_args!("{name} is told {:?}: {}", answer.code(), answer.message()));
            let lost = matches!(
                answer.code(),
                Code::Unavailable
                    | Code::Unknown
                    | Code::Cancelled
                    | Code::Unauthenticated
                    | Code::DeadlineExceeded
            );
            if lost {
                person.session = None;
            }
        }
    }
}

/// An answer within a person's patience.
async fn answer<T>(call: impl Future<Output = Result<T, Answer>>) -> Result<T, Answer> {
    timeout(PATIENCE, call).await.unwrap_or_else(|_| Err(Answer::deadline_exceeded("nobody answers")))
}

impl Person {
    async fn turn(&mut self) -> Result<(), Answer> {
        if self.session.is_none() {
            self.session = Some(answer(self.login()).await?);
        }
        if self.desk_is_busy() && self.name == "ana" && self.chance.happens(0.06) {
            let several = if self.chance.happens(0.3) { 3 } else { 1 };
            let hosts = (0..several).map(|_| self.chance.one(&self.desk.names).clone()).collect();
            let entry = &self.desk.cast.library.entries
                [*self.chance.one(&["sim/tend", "sim/walk", "sim/tend", "sim/walk", "sim/look"])];
            let (runbook, digest) =
                (entry.runbook.name().to_owned(), signed::digest(Tag::Runbook, &entry.bytes));
            let until = if self.chance.happens(0.1) { Until::Plan } else { Until::End };
            self.start(runbook, digest, hosts, until, None).await?;
        }
        self.decide().await?;
        if self.name == "ana" {
            self.look_after().await?;
        } else if self.desk_is_busy() && self.chance.happens(0.2) {
            self.go_on().await?;
        }
        Ok(())
    }

    fn desk_is_busy(&self) -> bool {
        crate::trace::now() < self.desk.busy_until
    }

    async fn login(&self) -> Result<(Channel, MetadataValue<tonic::metadata::Ascii>), Answer> {
        let channel = connect().await.map_err(|error| Answer::unavailable(error.to_string()))?;
        let mut client = OperatorsClient::new(channel.clone());
        let (send, requests) = tokio::sync::mpsc::channel(2);
        let say = |what| v1::LoginRequest { what: Some(what) };
        let _ = send.send(say(Ask::Open(v1::LoginOpen { person: self.name.to_owned() }))).await;
        let mut replies =
            client.login(tokio_stream::wrappers::ReceiverStream::new(requests)).await?.into_inner();
        let heard = replies.message().await?.and_then(|reply| reply.what);
        let Some(Reply::Challenge(challenge)) = heard else { return Err(Answer::unknown("no challenge")) };
        let _ = send.send(say(Ask::Answer(self.sign(Namespace::Login, &challenge)))).await;
        let heard = replies.message().await?.and_then(|reply| reply.what);
        let Some(Reply::Session(session)) = heard else { return Err(Answer::unknown("no session")) };
        let bearer = format!("Bearer {}", session.token).parse().map_err(|_| Answer::unknown("no token"))?;
        Ok((channel, bearer))
    }

    fn sign(&self, namespace: Namespace, bytes: &[u8]) -> v1::Signed {
        signed::sign(self.desk.cast.key(self.name), namespace, bytes).expect("a key signs").into()
    }

    fn client(&self) -> Result<OperatorsClient<Channel>, Answer> {
        let (channel, _) = self.session.as_ref().ok_or_else(|| Answer::unauthenticated("not signed in"))?;
        Ok(OperatorsClient::new(channel.clone()))
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some((_, bearer)) = &self.session {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        request
    }

    /// Starts a run by hand, the same start again until it is answered.
    async fn start(
        &mut self,
        runbook: String,
        runbook_digest: Digest,
        hosts: BTreeSet<Host>,
        until: Until,
        of: Option<Of>,
    ) -> Result<(), Answer> {
        let random = [self.chance.word(), self.chance.word()].map(u64::to_be_bytes).concat();
        let ms = u64::try_from(self.wall.ms()).unwrap_or(0);
        let random: [u8; 10] = random[..10].try_into().expect("ten bytes");
        let run = RunId::new(uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid());
        let start = Start {
            run,
            runbook,
            runbook_digest,
            inputs: Default::default(),
            hosts,
            person: self.name.to_owned(),
            at: from_ms(self.wall.ms()),
            until,
            of,
        };
        let signed = self.sign(Namespace::Start, &start.encode());
        let how = start.of.as_ref().map(|of| format!(", the {} of {}", of.how, of.run)).unwrap_or_default();
        self.desk.trace.say(format_args!("{} starts {run} on {:?}{how}", self.name, start.hosts));
        let message = v1::StartRunRequest { start: Some(signed), runbook: Default::default() };
        for _ in 0..5 {
            let mut client = self.client()?;
            match answer(client.start_run(self.request(message.clone()))).await {
                Ok(_) => {
                    self.desk.acks.keep(Ack::Started(run), &self.desk.trace);
                    return Ok(());
                }
                Err(told)
                    if matches!(told.code(), Code::Unavailable | Code::Unknown | Code::DeadlineExceeded) =>
                {
                    tokio::time::sleep(Duration::from_secs(3)).await;
                    self.session = answer(self.login()).await.ok();
                    if self.session.is_none() {
                        return Err(told);
                    }
                }
                Err(told) => return Err(told),
            }
        }
        Ok(())
    }

    /// Goes on from a run that is over: has its rest done, or what it did taken back.
    async fn go_on(&mut self) -> Result<(), Answer> {
        let mut client = self.client()?;
        let asked = self.request(v1::ListRunsRequest { limit: 20, ..Default::default() });
        let runs = answer(client.list_runs(asked)).await?.into_inner().runs;
        let over: Vec<&v1::Run> = runs.iter().filter(|run| run.ended_at != 0).collect();
        if over.is_empty() {
            return Ok(());
        }
        let mut run = self.chance.one(&over).id.clone();
        let how = if self.chance.happens(0.6) { FollowUp::Retry } else { FollowUp::Undo };
        let mut earlier =
            answer(client.get_run(self.request(v1::GetRunRequest { run: run.clone() }))).await?;
        // What is undone is the run itself, not another undo of it.
        if let Some(of) = earlier.get_ref().of.as_ref().filter(|of| of.how == "undo") {
            run = of.run.clone();
            earlier = answer(client.get_run(self.request(v1::GetRunRequest { run: run.clone() }))).await?;
        }
        let earlier = earlier.into_inner();
        let mut all = vec![earlier.clone()];
        for later in &earlier.follow_ups {
            let asked = self.request(v1::GetRunRequest { run: later.run.clone() });
            all.push(answer(client.get_run(asked)).await?.into_inner());
        }
        // What people found out about its steps, as the command line takes it into what is signed.
        let mut found = BTreeMap::new();
        for host in all.iter().flat_map(|run| &run.hosts) {
            let Ok(name) = host.host.parse::<Host>() else { continue };
            found.extend(host.found.iter().map(|(path, word)| ((name.clone(), path.clone()), word == "ran")));
        }
        let hosts = earlier.hosts.iter().filter_map(|host| host.host.parse().ok()).collect();
        let (Ok(run), Ok(digest)) = (run.parse(), Digest::from_bytes(&earlier.runbook_digest)) else {
            return Ok(());
        };
        let of = Of { run, how, reason: "simulated".to_owned(), found };
        self.start(earlier.runbook, digest, hosts, Until::End, Some(of)).await
    }

    /// Decides what waits for this person, mostly yes.
    async fn decide(&mut self) -> Result<(), Answer> {
        let mut client = self.client()?;
        let asked = self.request(v1::ListGatesRequest { open: true });
        let gates = answer(client.list_gates(asked)).await?.into_inner().gates;
        for gate in gates {
            let Ok(id) = gate.id.parse::<GateId>() else { continue };
            // Some gates nobody of them decides: they expire. Chosen by the gate, so that asking again changes nothing.
            let mind = Chance::new(self.desk.seed, &gate.id).among(0..100);
            let mine = gate.decisions.iter().any(|decision| decision.person == self.name);
            let own =
                String::from_utf8_lossy(&gate.request).contains(&format!("\"requester\":\"{}\"", self.name));
            if mind < 8 || mine || own {
                continue;
            }
            let decision = if mind < 18 { Decision::Deny } else { Decision::Approve };
            let approval = Approval {
                request: Request::digest(&gate.request),
                decision,
                person: self.name.to_owned(),
                reason: "simulated".to_owned(),
                at: from_ms(self.wall.ms()),
            };
            let approval = self.sign(Namespace::Approval, &approval.encode());
            let request = v1::DecideRequest { gate: gate.id.clone(), approval: Some(approval) };
            self.desk.trace.say(format_args!("{} decides {}: {decision}", self.name, gate.id));
            for _ in 0..4 {
                match answer(client.decide(self.request(request.clone()))).await {
                    Ok(_) => {
                        let name = self.name.to_owned();
                        self.desk.acks.keep(Ack::Decided(id, name, decision), &self.desk.trace);
                        break;
                    }
                    Err(told) if told.code() == Code::Unavailable => {
                        tokio::time::sleep(Duration::from_secs(2)).await
                    }
                    Err(told) => return Err(told),
                }
            }
        }
        Ok(())
    }

    /// Looks at what waits for somebody to look, and sometimes stops a run.
    async fn look_after(&mut self) -> Result<(), Answer> {
        let mut client = self.client()?;
        let asked = self.request(v1::ListRunsRequest { open: true, ..Default::default() });
        let runs = answer(client.list_runs(asked)).await?.into_inner().runs;
        for run in runs {
            let Ok(id) = run.id.parse::<RunId>() else { continue };
            if self.desk_is_busy() && self.chance.happens(0.02) {
                self.desk.trace.say(format_args!("{} cancels {id}", self.name));
                let cancel = v1::CancelRunRequest { run: run.id.clone(), reason: "simulated".to_owned() };
                answer(client.cancel_run(self.request(cancel))).await?;
                self.desk.acks.keep(Ack::Cancelled(id), &self.desk.trace);
                continue;
            }
            let is_paused = |host: &v1::HostRun| {
                host.ending.is_empty() && host.pause.as_ref().is_some_and(|pause| pause.on)
            };
            let paused = run.hosts.iter().any(is_paused);
            let turns = if paused { 0.25 } else { 0.06 };
            if (paused && !self.desk_is_busy()) || (self.desk_is_busy() && self.chance.happens(turns)) {
                self.desk.trace.say(format_args!(
                    "{} lets {id} {}",
                    self.name,
                    if paused { "go on" } else { "wait" }
                ));
                let (run, host) = (run.id.clone(), String::new());
                match paused {
                    true => {
                        answer(client.resume_run(self.request(v1::ResumeRunRequest { run, host }))).await?
                    }
                    false => {
                        let reason = "simulated".to_owned();
                        answer(client.pause_run(self.request(v1::PauseRunRequest { run, host, reason })))
                            .await?
                    }
                };
                self.desk.acks.keep(Ack::Paused(id, !paused), &self.desk.trace);
                continue;
            }
            // Where people are asked already whether it runs again, nobody is asked what it did.
            for host in run.hosts.iter().filter(|host| host.waiting_for == "resolve" && !host.again) {
                let Ok(name) = host.host.parse::<Host>() else { continue };
                let again = self.chance.happens(0.5);
                let found = match self.ran(id, &name, &host.resolve) {
                    _ if again => v1::Found::RunAgain,
                    true => v1::Found::Ran,
                    false => v1::Found::DidNotRun,
                };
                self.desk
                    .trace
                    .say(format_args!("{} says of {} of {id}: {found:?}", self.name, host.resolve));
                let resolve = v1::ResolveStepRequest {
                    run: run.id.clone(),
                    host: host.host.clone(),
                    path: host.resolve.clone(),
                    found: found.into(),
                    reason: "I looked".to_owned(),
                };
                answer(client.resolve_step(self.request(resolve))).await?;
                let resolved = match found {
                    v1::Found::RunAgain => Ack::AskedAgain(id, name, host.resolve.clone()),
                    v1::Found::Ran | v1::Found::DidNotRun | v1::Found::Unspecified => {
                        Ack::Resolved(id, name, host.resolve.clone())
                    }
                };
                self.desk.acks.keep(resolved, &self.desk.trace);
            }
        }
        Ok(())
    }

    /// What somebody sees who looks at the host: whether the step took effect.
    fn ran(&self, run: RunId, host: &Host, path: &str) -> bool {
        let begun = |what: &What| matches!(what, What::Begun);
        let entries = self.desk.ledger.after(0);
        entries.iter().any(|it| it.run == run && it.host == *host && it.path == path && begun(&it.what))
    }
}

async fn connect() -> Result<Channel, tonic::transport::Error> {
    let to = format!("http://{}:{}", controller::NAME, controller::PORT);
    Endpoint::from_shared(to)?
        .connect_timeout(PATIENCE)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(PATIENCE)
        .connect_with_connector(tower::service_fn(|_: http::Uri| async {
            TcpStream::connect((controller::NAME, controller::PORT)).await.map(TokioIo::new)
        }))
        .await
}

/// Posts alerts of one host as Alertmanager does: while the symptom is there, again and again; then that it is gone, until
/// somebody has taken it.
pub(crate) async fn source(number: usize, desk: Rc<Desk>, controller: Machine) -> turmoil::Result {
    let mut chance = Chance::new(desk.seed, &format!("source {number}"));
    let mut firing: Option<(At, Duration)> = None;
    loop {
        let pause = chance.ms(2_000..6_000);
        tokio::time::sleep(pause).await;
        let full = desk.hosts[number].used_percent("/var") >= TOO_FULL;
        let now = At(Wall::default().ms());
        let due = match (full, &firing) {
            (true, None) => Some((Status::Firing, now)),
            (true, Some((since, again))) => {
                (crate::trace::now() >= *again).then_some((Status::Firing, *since))
            }
            (false, Some((since, _))) => Some((Status::Resolved, *since)),
            (false, None) => None,
        };
        let Some((status, since)) = due else { continue };
        let Some(handle) = controller.handle() else { continue };
        let signal = alert(&desk.names[number], status, since, now);
        if let Ok(Ok(receipts)) = timeout(PATIENCE, handle.signal(vec![signal])).await {
            firing = match status {
                Status::Firing => Some((since, crate::trace::now() + Duration::from_secs(60))),
                Status::Resolved => None,
            };
            for receipt in receipts {
                desk.trace.say(format_args!("{} says {}: {receipt:?}", desk.names[number], status.word()));
                desk.acks.keep(Ack::Signalled(receipt.signal), &desk.trace);
            }
        } else {
            firing = firing.or(Some((since, Duration::ZERO)).filter(|_| status == Status::Firing));
        }
    }
}

fn alert(host: &Host, status: Status, since: At, now: At) -> Signal {
    let labels = [("alertname", "DiskFull"), ("instance", host.as_str())];
    Signal {
        source: "alertmanager".to_owned(),
        fingerprint: format!("disk-full-{host}"),
        status,
        name: "DiskFull".to_owned(),
        labels: labels.map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
        annotations: Default::default(),
        starts_at: Some(since),
        ends_at: (status == Status::Resolved).then_some(now),
        received_at: now,
        remarks: Vec::new(),
    }
}
