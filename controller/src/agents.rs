//! The service that hosts call: joining, renewing, the control stream, live output.
//!
//! Who calls is read from the certificate of the connection and from nothing else. `Enrol` alone answers without one,
//! and spends a token instead. What is decided about hosts is decided behind [`Fleet`]; this module owns streams.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fettle_proto::v1;
use fettle_runbooks::id::Host;
use futures_util::Stream;
use tokio::sync::{Semaphore, mpsc};
use tonic::{Request, Response, Status, Streaming};

use crate::accept::Peer;
use crate::ca::{Ca, Identity};
use crate::coordinator::{AgentCertificate, Enrolment, Gone, Handle};
use crate::dispatch::Message;
use crate::problem::Problem;
use crate::tasks::{TaskKind, Tasks};
use crate::world::World;

mod enrol;
mod output;
mod refusal;
mod session;
#[cfg(test)]
mod tests;

pub use refusal::CODE;
pub use session::Downstream;

/// The version of the conversation between agent and controller.
pub const PROTOCOL: u32 = 1;

/// The largest message an agent may send. Reports are batched below it.
const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;

/// What the service needs to have decided and remembered; the coordinator does that.
pub trait Fleet: Clone + Send + Sync + 'static {
    /// Spends an enrolment token: the second time it is refused.
    fn spend_token(&self, token: String) -> impl Future<Output = Result<Enrolment, Problem>> + Send;

    /// Records a certificate before it leaves. Refused for a host that may not have one.
    fn certificate_issued(
        &self,
        host: Host,
        certificate: AgentCertificate,
    ) -> impl Future<Output = Result<(), Problem>> + Send;

    /// An agent said hello. The epoch of the answer is durable. Orders go to `orders`, which the fleet drops when this
    /// connection shall end; it never waits for room there.
    fn connected(
        &self,
        host: Host,
        hello: v1::Hello,
        certificate: AgentCertificate,
        orders: mpsc::Sender<Message>,
    ) -> impl Future<Output = Result<v1::Welcome, Problem>> + Send;

    /// Takes reports in and says up to which all are durable. Those of an older epoch commit nothing and are refused.
    fn reports(
        &self,
        host: Host,
        epoch: u64,
        reports: Vec<v1::Report>,
    ) -> impl Future<Output = Result<u64, Problem>> + Send;

    /// A stream ended.
    fn gone(&self, host: Host, epoch: u64, how: Gone) -> impl Future<Output = ()> + Send;

    /// Live output, for whoever watches; dropped when nobody can take it.
    fn output(&self, host: Host, chunk: v1::OutputChunk);
}

impl Fleet for Handle {
    fn spend_token(&self, token: String) -> impl Future<Output = Result<Enrolment, Problem>> + Send {
        Handle::spend_token(self, token)
    }

    fn certificate_issued(
        &self,
        host: Host,
        certificate: AgentCertificate,
    ) -> impl Future<Output = Result<(), Problem>> + Send {
        Handle::certificate_issued(self, host, certificate)
    }

    fn connected(
        &self,
        host: Host,
        hello: v1::Hello,
        certificate: AgentCertificate,
        orders: mpsc::Sender<Message>,
    ) -> impl Future<Output = Result<v1::Welcome, Problem>> + Send {
        Handle::agent_connected(self, host, hello, certificate, orders)
    }

    fn reports(
        &self,
        host: Host,
        epoch: u64,
        reports: Vec<v1::Report>,
    ) -> impl Future<Output = Result<u64, Problem>> + Send {
        Handle::reports(self, host, epoch, reports)
    }

    fn gone(&self, host: Host, epoch: u64, how: Gone) -> impl Future<Output = ()> + Send {
        Handle::agent_gone(self, host, epoch, how)
    }

    fn output(&self, host: Host, chunk: v1::OutputChunk) {
        Handle::output(self, host, chunk);
    }
}

/// How the service treats its callers.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How often either side sends a heartbeat; three missed ones end the connection.
    pub heartbeat: Duration,
    /// Reports an agent may have sent and not seen acknowledged.
    pub credits: u32,
    /// Bytes of such reports beyond which nothing more is read of an agent until some are durable. One message more than
    /// that is the most an agent can have here.
    pub queue_bytes: u64,
    /// From opening a control stream to `Hello`.
    pub hello: Duration,
    /// For a whole enrolment.
    pub enrolment: Duration,
    /// Enrolments at once.
    pub enrolments: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            heartbeat: Duration::from_secs(10),
            credits: 128,
            queue_bytes: 2 * 1024 * 1024,
            hello: Duration::from_secs(10),
            enrolment: Duration::from_secs(30),
            enrolments: 64,
        }
    }
}

/// What the service is made of.
pub struct Parts<F> {
    /// Decides and remembers.
    pub fleet: F,
    /// Issues certificates.
    pub ca: Arc<Ca>,
    /// The exact bytes of the trust bundle (format `trust/1`) that joining hosts compare with their fingerprint.
    pub trust: Bytes,
    /// The time certificates start at.
    pub world: Arc<dyn World>,
    /// Where its tasks go.
    pub tasks: Tasks,
    /// How it treats its callers.
    pub settings: Settings,
}

/// The service.
pub struct Agents<F> {
    shared: Arc<Shared<F>>,
}

struct Shared<F> {
    parts: Parts<F>,
    enrolments: Arc<Semaphore>,
}

/// The service, ready to be added to [`crate::grpc::Services`].
pub fn service<F: Fleet>(parts: Parts<F>) -> v1::agents_server::AgentsServer<Agents<F>> {
    let enrolments = Arc::new(Semaphore::new(parts.settings.enrolments));
    v1::agents_server::AgentsServer::new(Agents { shared: Arc::new(Shared { parts, enrolments }) })
        .max_decoding_message_size(MESSAGE_LIMIT)
}

#[tonic::async_trait]
impl<F: Fleet> v1::agents_server::Agents for Agents<F> {
    type EnrolStream = Answers<v1::EnrolReply>;
    type SessionStream = Downstream;
    type OutputStream = Answers<v1::OutputReply>;

    async fn enrol(
        &self,
        request: Request<Streaming<v1::EnrolRequest>>,
    ) -> Result<Response<Self::EnrolStream>, Status> {
        enrol::start(&self.shared, request.into_inner()).map(Response::new)
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewReply>, Status> {
        let caller = Caller::of(&request)?;
        let parts = &self.shared.parts;
        let issued = parts
            .ca
            .issue(&caller.identity.host, &request.into_inner().csr_der, parts.world.now())
            .map_err(|error| refusal::certificate(&error))?;
        parts
            .fleet
            .certificate_issued(issued.identity.host.clone(), certificate(&issued.identity))
            .await
            .map_err(|problem| refusal::status(&problem))?;
        Ok(Response::new(v1::RenewReply { certificate_der: issued.der.into() }))
    }

    async fn session(
        &self,
        request: Request<Streaming<v1::FromAgent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(session::start(Arc::clone(&self.shared), caller, request.into_inner())))
    }

    async fn output(
        &self,
        request: Request<Streaming<v1::OutputChunk>>,
    ) -> Result<Response<Self::OutputStream>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(output::start(&self.shared, caller, request.into_inner())))
    }
}

/// An agent, proven by its certificate.
struct Caller {
    identity: Arc<Identity>,
    peer: Peer,
}

impl Caller {
    fn of<T>(request: &Request<T>) -> Result<Caller, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let Some((peer, identity)) =
            peer.and_then(|peer| peer.identity.clone().map(|identity| (peer, identity)))
        else {
            return Err(refusal::unauthenticated());
        };
        if peer.ending.is_cancelled() {
            return Err(refusal::certificate_ended());
        }
        Ok(Caller { identity, peer })
    }
}

fn certificate(identity: &Identity) -> AgentCertificate {
    AgentCertificate { serial: identity.serial.clone(), not_after: identity.not_after }
}

/// Answers on their way, and the end. A channel makes room for 32 messages at once, however few it takes, and every host has one
/// for its output: so what they are is beside them.
pub struct Answers<T>(mpsc::Receiver<Answer<T>>);

type Answer<T> = Box<Result<T, Status>>;

impl<T> Stream for Answers<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|next| next.map(|answer| *answer))
    }
}

/// Starts a task that answers through a stream, and returns the stream.
fn answering<T, W>(
    tasks: &Tasks,
    kind: TaskKind,
    work: impl FnOnce(mpsc::Sender<Answer<T>>) -> W + Send + 'static,
) -> Answers<T>
where
    T: Send + 'static,
    W: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (answers, stream) = mpsc::channel(4);
    let stopping = tasks.stopping();
    tasks.spawn(kind, async move {
        let ended = tokio::select! {
            biased;
            () = stopping.cancelled() => Err(refusal::stopping()),
            ended = work(answers.clone()) => ended,
        };
        if let Err(status) = ended {
            // A caller that has left does not need to know why.
            let _ = answers.send(Box::new(Err(status))).await;
        }
    });
    Answers(stream)
}
