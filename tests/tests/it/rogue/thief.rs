//! The thief's controller: real TLS with the stolen authority, real gRPC, and no manners.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use fettle_controller::accept::{self, Connections, Limits, Peer, Port, Security};
use fettle_controller::ca::{Ca, Revocations};
use fettle_controller::tasks::{TaskKind, Tasks};
use fettle_controller::tls::{ServerTls, grpc_config};
use fettle_controller::world::{System, World as _};
use fettle_proto::signed::Signed;
use fettle_proto::v1;
use fettle_tests::cluster::LIMIT;
use fettle_tests::{Cluster, eventually};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// The agents of a cluster, and a thief where their controller was.
pub(super) struct Thief {
    pub(super) cluster: Cluster,
    heard: Arc<Mutex<Heard>>,
    /// Dropping it ends the thief's server.
    _stop: oneshot::Sender<()>,
}

/// By the name in the agent's certificate.
type Heard = BTreeMap<String, Session>;

struct Session {
    hello: v1::Hello,
    say: mpsc::Sender<Result<v1::ToAgent, Status>>,
    reports: Vec<v1::Report>,
}

impl Thief {
    /// Kills the real controller, and listens where it did with what was in its data directory. Returns when all `hosts`
    /// are fooled into a session.
    #[track_caller]
    pub(super) fn replaces(mut cluster: Cluster, hosts: &[&str]) -> Thief {
        cluster.controller().kill();
        let now = System.now();
        let ca = Ca::open(&cluster.path("controller"), now).expect("the authority is in the data directory");
        let leaf = ca.server_leaf(&["localhost".to_owned()], now).expect("it signs for whoever has it");
        let tls = grpc_config(&ca, &leaf, Revocations::default()).expect("a configuration");
        let heard = Arc::new(Mutex::new(Heard::new()));
        let (stop, stopped) = oneshot::channel();
        let (port, service) = (cluster.grpc, Service { heard: Arc::clone(&heard) });
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(serve(port, ServerTls::new(tls), service, stopped));
        });
        let thief = Thief { cluster, heard, _stop: stop };
        hosts.iter().for_each(|host| drop(thief.hello(host)));
        thief
    }

    /// Waits for a host's session; what it said first.
    #[track_caller]
    pub(super) fn hello(&self, host: &str) -> v1::Hello {
        eventually(&format!("{host} believes the thief"), LIMIT, || {
            let heard = self.heard.lock().expect("not poisoned");
            heard.get(host).map(|session| session.hello.clone()).ok_or_else(|| self.cluster.said())
        })
    }

    /// Waits until a host has no session any more.
    #[track_caller]
    pub(super) fn gone(&self, host: &str) {
        eventually(&format!("{host} is gone"), LIMIT, || {
            if self.hosts().iter().any(|here| here == host) { Err(self.cluster.said()) } else { Ok(()) }
        });
    }

    /// Who has a session.
    pub(super) fn hosts(&self) -> Vec<String> {
        self.heard.lock().expect("not poisoned").keys().cloned().collect()
    }

    /// Says anything to a host.
    pub(super) fn say(&self, host: &str, what: v1::to_agent::What) {
        let say = self.heard.lock().expect("not poisoned").get(host).map(|session| session.say.clone());
        let say = say.expect("the host has a session");
        say.try_send(Ok(v1::ToAgent { what: Some(what) })).expect("the agent reads");
    }

    /// Hands a host a roster; hosts answer nothing to that.
    pub(super) fn give_roster(&self, host: &str, roster: Signed) {
        self.say(host, v1::to_agent::What::Roster(v1::RosterUpdate { roster: Some(roster.into()) }));
    }

    /// Waits until a host's log has a text.
    #[track_caller]
    pub(super) fn log_has(&self, host: &str, text: &str) {
        eventually(&format!("the log of {host} has `{text}`"), LIMIT, || {
            let log = std::fs::read_to_string(self.cluster.path(&format!("{host}.log"))).unwrap_or_default();
            if log.contains(text) { Ok(()) } else { Err(log) }
        });
    }

    /// What a host reported of a segment.
    pub(super) fn reports(&self, host: &str, run: &str, segment: u32) -> Vec<v1::report::What> {
        let heard = self.heard.lock().expect("not poisoned");
        let reports = heard.get(host).into_iter().flat_map(|session| &session.reports);
        let of_it = reports.filter(|report| report.run == run && report.segment == segment);
        of_it.filter_map(|report| report.what.clone()).collect()
    }
}

async fn serve(port: u16, tls: ServerTls, service: Service, stopped: oneshot::Receiver<()>) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free again");
    let port = Port {
        listener,
        security: Security::Tls(tls),
        limits: Limits::default(),
        connections: Connections::default(),
        world: Arc::new(System),
        kind: TaskKind::GrpcAccept,
    };
    let tasks = Tasks::new();
    let incoming = accept::start(port, &tasks).expect("it accepts");
    let service = v1::agents_server::AgentsServer::new(service);
    let served = tonic::transport::Server::builder().serve_with_incoming(service, incoming);
    tokio::select! {
        served = served => served.expect("served"),
        _ = stopped => {}
    }
}

struct Service {
    heard: Arc<Mutex<Heard>>,
}

type Answers<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl v1::agents_server::Agents for Service {
    type EnrolStream = Answers<v1::EnrolReply>;
    type SessionStream = Answers<v1::ToAgent>;
    type OutputStream = Answers<v1::OutputReply>;

    async fn enrol(
        &self,
        _: Request<Streaming<v1::EnrolRequest>>,
    ) -> Result<Response<Self::EnrolStream>, Status> {
        Err(Status::unimplemented("the thief takes no new hosts"))
    }

    async fn renew(&self, _: Request<v1::RenewRequest>) -> Result<Response<v1::RenewReply>, Status> {
        Err(Status::unimplemented("the thief renews nothing"))
    }

    async fn session(
        &self,
        request: Request<Streaming<v1::FromAgent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = request.extensions().get::<Peer>().and_then(|peer| peer.identity.clone());
        let host = peer.ok_or_else(|| Status::unauthenticated("no certificate"))?.host.to_string();
        let mut messages = request.into_inner();
        let (say, answers) = mpsc::channel(256);
        let heard = Arc::clone(&self.heard);
        tokio::spawn(async move {
            while let Ok(Some(v1::FromAgent { what: Some(what) })) = messages.message().await {
                hear(&heard, &host, &say, what);
            }
            // A session that was replaced is not ours to forget.
            let mut heard = heard.lock().expect("not poisoned");
            if heard.get(&host).is_some_and(|session| session.say.same_channel(&say)) {
                heard.remove(&host);
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn output(
        &self,
        _: Request<Streaming<v1::OutputChunk>>,
    ) -> Result<Response<Self::OutputStream>, Status> {
        Err(Status::unimplemented("the thief does not watch"))
    }
}

fn hear(
    heard: &Mutex<Heard>,
    host: &str,
    say: &mpsc::Sender<Result<v1::ToAgent, Status>>,
    what: v1::from_agent::What,
) {
    let mut heard = heard.lock().expect("not poisoned");
    let answer = match what {
        v1::from_agent::What::Hello(hello) => {
            let welcome = v1::Welcome {
                epoch: hello.epoch_seen + 1,
                heartbeat_ms: 300_000,
                credits: 1_000_000,
                acked: 0,
            };
            let reports = heard.remove(host).map_or_else(Vec::new, |before| before.reports);
            heard.insert(host.to_owned(), Session { hello, say: say.clone(), reports });
            v1::to_agent::What::Welcome(welcome)
        }
        v1::from_agent::What::Reports(v1::Reports { reports }) => {
            let upto = reports.last().map_or(0, |report| report.seq);
            if let Some(session) = heard.get_mut(host) {
                session.reports.extend(reports);
            }
            v1::to_agent::What::Ack(v1::Ack { upto })
        }
        v1::from_agent::What::Heartbeat(_) | v1::from_agent::What::Goodbye(_) => return,
    };
    let _ = say.try_send(Ok(v1::ToAgent { what: Some(answer) }));
}
