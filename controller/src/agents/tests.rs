//! The service as hosts meet it: real TLS on a port of its own, with a fleet that remembers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fettle_proto::v1;
use fettle_proto::v1::agents_client::AgentsClient;
use fettle_runbooks::id::Host;
use hyper_util::rt::TokioIo;
use rcgen::KeyPair;
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::*;
use crate::accept::{self, Connections, Limits, Port, Security};
use crate::dispatch::Message;
use crate::tls::Ports;
use crate::world::System;

const LIMIT: Duration = Duration::from_secs(20);

/// A fleet that answers from a script and remembers what it was told.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Remembered>>);

#[derive(Default)]
struct Remembered {
    spent: Vec<String>,
    certified: Vec<(Host, AgentCertificate)>,
    epochs: HashMap<Host, u64>,
    orders: HashMap<Host, mpsc::Sender<Message>>,
    reports: Vec<(u64, u64)>,
    gone: Vec<(u64, Gone)>,
    output: Vec<v1::OutputChunk>,
    /// Put into the channel before the welcome is returned.
    eager: Option<v1::ToAgent>,
    /// Reports wait for ever: the store is stuck.
    stuck: bool,
}

impl Memory {
    fn with<T>(&self, look: impl FnOnce(&mut Remembered) -> T) -> T {
        look(&mut self.0.lock().expect("not poisoned"))
    }

    async fn until<T>(&self, what: &str, mut look: impl FnMut(&mut Remembered) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            if let Some(seen) = self.with(&mut look) {
                return seen;
            }
            assert!(tokio::time::Instant::now() < deadline, "not seen in time: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Fleet for Memory {
    async fn spend_token(&self, token: String) -> Result<Enrolment, Problem> {
        self.with(|memory| match token.as_str() {
            _ if memory.spent.contains(&token) => Err(Problem::conflict("token-spent", "spent already")),
            "good" => {
                memory.spent.push(token);
                Ok(Enrolment { host: host("web-1"), labels: [("role".into(), "web".into())].into() })
            }
            "old" => Err(Problem::not_allowed("token-expired", "it has expired")),
            _ => Err(Problem::not_found("such a token")),
        })
    }

    async fn certificate_issued(&self, host: Host, certificate: AgentCertificate) -> Result<(), Problem> {
        self.with(|memory| memory.certified.push((host, certificate)));
        Ok(())
    }

    async fn connected(
        &self,
        host: Host,
        hello: v1::Hello,
        _certificate: AgentCertificate,
        orders: mpsc::Sender<Message>,
    ) -> Result<v1::Welcome, Problem> {
        self.with(|memory| {
            if let Some(eager) = memory.eager.clone() {
                orders.try_send(eager.into()).expect("there is room");
            }
            let epoch = memory.epochs.entry(host.clone()).or_default();
            *epoch = hello.epoch_seen.max(*epoch) + 1;
            memory.orders.insert(host, orders);
            Ok(v1::Welcome { epoch: *epoch, acked: 0, ..v1::Welcome::default() })
        })
    }

    async fn reports(&self, host: Host, epoch: u64, reports: Vec<v1::Report>) -> Result<u64, Problem> {
        if self.with(|memory| memory.stuck) {
            return std::future::pending().await;
        }
        self.with(|memory| {
            if memory.epochs[&host] != epoch {
                return Err(Problem::conflict("superseded", "an older epoch"));
            }
            memory.reports.extend(reports.iter().map(|report| (epoch, report.seq)));
            Ok(reports.last().map_or(0, |report| report.seq))
        })
    }

    async fn gone(&self, _host: Host, epoch: u64, how: Gone) {
        self.with(|memory| memory.gone.push((epoch, how)));
    }

    fn output(&self, _host: Host, chunk: v1::OutputChunk) {
        self.with(|memory| memory.output.push(chunk));
    }
}

fn host(name: &str) -> Host {
    name.parse().expect("a host's name")
}

/// A controller's gRPC port.
struct Site {
    _dir: tempfile::TempDir,
    ca: Arc<Ca>,
    tasks: Tasks,
    connections: Connections,
    address: SocketAddr,
    fleet: Memory,
}

impl Site {
    async fn start() -> Site {
        Site::with(Settings::default(), Limits::default(), crate::ca::AGENT_VALIDITY).await
    }

    async fn with(settings: Settings, limits: Limits, validity: Duration) -> Site {
        let dir = tempfile::tempdir().expect("a directory");
        let world: Arc<dyn World> = Arc::new(System);
        let ca = Arc::new(Ca::open(dir.path(), world.now()).expect("a root").with_agent_validity(validity));
        let (tasks, connections, fleet) = (Tasks::new(), Connections::default(), Memory::default());
        let ports = Ports::start(ca.clone(), vec![], connections.revocations(), world.clone(), &tasks)
            .expect("TLS can be set up");
        let port = Port {
            listener: TcpListener::bind("127.0.0.1:0").await.expect("a port"),
            security: Security::Tls(ports.grpc),
            limits,
            connections: connections.clone(),
            world: world.clone(),
            kind: TaskKind::GrpcAccept,
        };
        let incoming = accept::start(port, &tasks).expect("an address");
        let address = incoming.address();
        let service = service(Parts {
            fleet: fleet.clone(),
            ca: ca.clone(),
            trust: Bytes::from_static(b"the bundle"),
            world,
            tasks: tasks.clone(),
            settings,
        });
        crate::grpc::serve(crate::grpc::Services::default().and(service), incoming, &tasks);
        Site { _dir: dir, ca, tasks, connections, address, fleet }
    }

    fn tls(&self, key: Option<&Credential>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.certificate().clone()).expect("a root");
        let builder = ClientConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match key {
            None => builder.with_no_client_auth(),
            Some(Credential { certificate, key }) => builder
                .with_client_auth_cert(
                    vec![certificate.clone()],
                    PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
                )
                .expect("a certificate and its key"),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    async fn connect(&self, key: Option<&Credential>) -> std::io::Result<AgentsClient<Channel>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(Arc::new(self.tls(key))).connect(name, stream).await?;
        let once = Mutex::new(Some(stream));
        let channel = Endpoint::from_static("https://localhost")
            .connect_with_connector(tower::service_fn(move |_| {
                let stream = once.lock().expect("not poisoned").take();
                std::future::ready(stream.map(TokioIo::new).ok_or_else(|| std::io::Error::other("over")))
            }))
            .await
            .map_err(std::io::Error::other)?;
        Ok(AgentsClient::new(channel))
    }

    /// A certificate as `Enrol` would give it.
    fn credential(&self, name: &str) -> Credential {
        Credential::of(&self.ca, name)
    }

    async fn session(&self, key: &Credential) -> Agent {
        Agent::open(self.connect(Some(key)).await.expect("connected")).await
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

struct Credential {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Credential {
    fn of(ca: &Ca, name: &str) -> Credential {
        let (key, csr) = request();
        let issued = ca.issue(&host(name), &csr, System.now()).expect("issued");
        Credential { certificate: CertificateDer::from(issued.der), key }
    }
}

fn request() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().expect("a key");
    let csr = rcgen::CertificateParams::default().serialize_request(&key).expect("a request");
    (key, csr.der().to_vec())
}

/// The agent's end of a control stream.
struct Agent {
    say: mpsc::Sender<v1::FromAgent>,
    hear: Streaming<v1::ToAgent>,
    _client: AgentsClient<Channel>,
}

impl Agent {
    async fn open(mut client: AgentsClient<Channel>) -> Agent {
        let (say, messages) = mpsc::channel(256);
        let hello = v1::Hello { protocol: PROTOCOL, ..v1::Hello::default() };
        say.send(from(v1::from_agent::What::Hello(hello))).await.expect("room");
        let hear = client.session(ReceiverStream::new(messages)).await.expect("a stream").into_inner();
        Agent { say, hear, _client: client }
    }

    async fn next(&mut self) -> Result<Option<v1::to_agent::What>, Status> {
        let next =
            tokio::time::timeout(LIMIT, self.hear.message()).await.expect("something is heard in time");
        Ok(next?.and_then(|message| message.what))
    }

    async fn welcome(&mut self) -> v1::Welcome {
        match self.next().await {
            Ok(Some(v1::to_agent::What::Welcome(welcome))) => welcome,
            other => panic!("no welcome but {other:?}"),
        }
    }

    /// Hears until the stream ends, and says how.
    async fn end(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }

    async fn report(&self, from_seq: u64, to_seq: u64) {
        let reports = (from_seq..=to_seq).map(|seq| v1::Report { seq, ..v1::Report::default() }).collect();
        self.say
            .send(from(v1::from_agent::What::Reports(v1::Reports { reports })))
            .await
            .expect("the stream takes it");
    }
}

fn from(what: v1::from_agent::What) -> v1::FromAgent {
    v1::FromAgent { what: Some(what) }
}

fn word(status: &Status) -> &str {
    status.metadata().get(CODE).map_or("", |word| word.to_str().expect("text"))
}

/// A whole enrolment with one connection.
async fn enrol(site: &Site, token: &str, csr: Vec<u8>) -> Result<v1::EnrolDone, Status> {
    use v1::enrol_request::What::{Open, Spend};
    let mut client = site.connect(None).await.expect("connected");
    let (say, requests) = mpsc::channel(2);
    let tell = |what| v1::EnrolRequest { what: Some(what) };
    say.send(tell(Open(v1::EnrolOpen { protocol: PROTOCOL }))).await.expect("room");
    let mut replies = client.enrol(ReceiverStream::new(requests)).await?.into_inner();
    match replies.message().await?.and_then(|reply| reply.what) {
        Some(v1::enrol_reply::What::Trust(trust)) => assert_eq!(trust.bytes, "the bundle"),
        other => panic!("no trust bundle but {other:?}"),
    }
    say.send(tell(Spend(v1::EnrolSpend { token: token.into(), csr_der: csr.into() }))).await.expect("room");
    match replies.message().await?.and_then(|reply| reply.what) {
        Some(v1::enrol_reply::What::Done(done)) => Ok(done),
        other => panic!("no certificate but {other:?}"),
    }
}

#[tokio::test]
async fn a_token_joins_one_host_once() {
    let site = Site::start().await;
    let (key, csr) = request();
    let done = enrol(&site, "good", csr).await.expect("joined");
    assert_eq!(done.host, "web-1");
    assert_eq!(done.labels["role"], "web");
    let certificate = CertificateDer::from(done.certificate_der.to_vec());
    let identity = crate::ca::identity(&certificate).expect("names a host");
    site.fleet.with(|memory| assert_eq!(memory.certified, [(host("web-1"), super::certificate(&identity))]));
    let mut agent = site.session(&Credential { certificate, key }).await;
    assert_eq!(agent.welcome().await.epoch, 1);

    let again = enrol(&site, "good", request().1).await.expect_err("refused");
    assert_eq!((again.code(), word(&again)), (Code::Aborted, "token-spent"));
}

#[tokio::test]
async fn expired_and_unknown_tokens_each_have_their_error() {
    let site = Site::start().await;
    let old = enrol(&site, "old", request().1).await.expect_err("refused");
    assert_eq!((old.code(), word(&old)), (Code::PermissionDenied, "token-expired"));
    let unknown = enrol(&site, "guess", request().1).await.expect_err("refused");
    assert_eq!((unknown.code(), word(&unknown)), (Code::NotFound, "not-found"));
}

#[tokio::test]
async fn an_unusable_request_costs_no_token() {
    let site = Site::start().await;
    let refused = enrol(&site, "good", b"no request".to_vec()).await.expect_err("refused");
    assert_eq!((refused.code(), word(&refused)), (Code::InvalidArgument, "bad-request"));
    assert!(site.fleet.with(|memory| memory.spent.is_empty()));
}

/// The list of what answers without a certificate: `Enrol`, and nothing else of this service.
#[tokio::test]
async fn nothing_but_enrol_answers_without_a_certificate() {
    let proto = include_str!("../../../proto/fettle/v1/agents.proto");
    let calls: Vec<_> =
        proto.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next()).collect();
    assert_eq!(calls, ["Enrol", "Renew", "Session", "Output"], "a new call is tried here");

    let site = Site::start().await;
    let mut client = site.connect(None).await.expect("connected");
    let renew = client.renew(v1::RenewRequest { csr_der: request().1.into() }).await.map(drop);
    let session = client.session(tokio_stream::pending()).await.map(drop);
    let output = client.output(tokio_stream::pending()).await.map(drop);
    for refused in [renew, session, output] {
        let status = refused.expect_err("refused");
        assert_eq!((status.code(), word(&status)), (Code::Unauthenticated, "no-certificate"));
    }
    assert!(enrol(&site, "good", request().1).await.is_ok());
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (site, other) = (Site::start().await, Site::start().await);
    let key = other.credential("web-1");
    // TLS 1.3: the client learns of it at its first read.
    let refused = match site.connect(Some(&key)).await {
        Err(error) => error.to_string(),
        Ok(mut client) => {
            client.session(tokio_stream::pending()).await.map(drop).expect_err("refused").to_string()
        }
    };
    assert!(!refused.is_empty());
    assert_eq!(site.connections.count(), 0);
    assert!(site.fleet.with(|memory| memory.epochs.is_empty()));
}

#[tokio::test]
async fn revoking_closes_the_live_stream_and_refuses_the_next() {
    let site = Site::start().await;
    let (key, bystander) = (site.credential("web-1"), site.credential("web-2"));
    let mut agent = site.session(&key).await;
    let mut other = site.session(&bystander).await;
    agent.welcome().await;
    other.welcome().await;
    assert_eq!(site.connections.revoke(&host("web-1"), System.now()), 1);

    let end = agent.end().await;
    assert_eq!((end.code(), word(&end)), (Code::PermissionDenied, "certificate-ended"));
    site.fleet.until("gone", |memory| memory.gone.contains(&(1, Gone::Lost)).then_some(())).await;
    let refused = match site.connect(Some(&key)).await {
        Err(error) => format!("{error:?}"),
        Ok(mut client) => format!("{:?}", client.session(tokio_stream::pending()).await.map(drop)),
    };
    assert!(refused.contains("CertificateRevoked"), "{refused}");

    let deadline = tokio::time::Instant::now() + LIMIT;
    while site.connections.count() != 1 {
        assert!(tokio::time::Instant::now() < deadline, "{} connections left", site.connections.count());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.report(1, 1).await;
    assert!(matches!(other.next().await, Ok(Some(v1::to_agent::What::Ack(v1::Ack { upto: 1 })))));
}

#[tokio::test]
async fn the_end_of_a_certificate_ends_its_stream() {
    let site = Site::with(Settings::default(), Limits::default(), Duration::from_millis(1500)).await;
    let key = site.credential("web-1");
    let Ok(client) = site.connect(Some(&key)).await else {
        panic!("the certificate has not ended yet");
    };
    let mut agent = Agent::open(client).await;
    let end = agent.end().await;
    assert_eq!((end.code(), word(&end)), (Code::PermissionDenied, "certificate-ended"));
}

#[tokio::test]
async fn no_session_is_ever_resumed() {
    let site = Site::start().await;
    // A client that would resume: it keeps tickets and uses them.
    let connector = TlsConnector::from(Arc::new(site.tls(None)));
    for _ in 0..3 {
        let stream = TcpStream::connect(site.address).await.expect("connected");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = connector.connect(name, stream).await.expect("a handshake");
        // Tickets would come with the first bytes from the server: its HTTP/2 settings.
        use tokio::io::AsyncReadExt as _;
        let mut settings = [0; 9];
        stream.read_exact(&mut settings).await.expect("settings");
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn older_tls_is_refused() {
    let site = Site::start().await;
    let mut roots = RootCertStore::empty();
    roots.add(site.ca.certificate().clone()).expect("a root");
    let old = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("TLS 1.2 is known")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(site.address).await.expect("connected");
    let name = ServerName::try_from("localhost").expect("a name");
    assert!(TlsConnector::from(Arc::new(old)).connect(name, stream).await.is_err());
}

#[tokio::test]
async fn a_second_connection_takes_over_and_the_first_commits_nothing_more() {
    let site = Site::start().await;
    let key = site.credential("web-1");
    let mut first = site.session(&key).await;
    assert_eq!(first.welcome().await.epoch, 1);
    first.report(1, 1).await;
    site.fleet.until("the first report", |memory| memory.reports.contains(&(1, 1)).then_some(())).await;

    let mut second = site.session(&key).await;
    assert_eq!(second.welcome().await.epoch, 2);
    // It may be gone already; then nothing is sent, which is as well.
    let late = v1::Reports { reports: vec![v1::Report { seq: 2, ..v1::Report::default() }] };
    let _ = first.say.send(from(v1::from_agent::What::Reports(late))).await;
    let end = first.end().await;
    assert_eq!((end.code(), word(&end)), (Code::Aborted, "superseded"));

    second.report(2, 3).await;
    site.fleet.until("the second's reports", |memory| memory.reports.contains(&(2, 3)).then_some(())).await;
    assert_eq!(site.fleet.with(|memory| memory.reports.clone()), [(1, 1), (2, 2), (2, 3)]);
}

#[tokio::test]
async fn reports_of_a_lower_epoch_end_the_session() {
    let site = Site::start().await;
    let mut agent = site.session(&site.credential("web-1")).await;
    agent.welcome().await;
    // Another controller has welcomed this host meanwhile, and this one has not heard of it yet.
    site.fleet.with(|memory| memory.epochs.insert(host("web-1"), 9));
    agent.report(1, 1).await;
    let end = agent.end().await;
    assert_eq!((end.code(), word(&end)), (Code::Aborted, "superseded"));
    assert!(site.fleet.with(|memory| memory.reports.is_empty()));
}

#[tokio::test]
async fn the_welcome_comes_first_whatever_was_ready() {
    let site = Site::start().await;
    let order = v1::to_agent::What::Order(v1::Order::default());
    site.fleet.with(|memory| memory.eager = Some(v1::ToAgent { what: Some(order.clone()) }));
    let mut agent = site.session(&site.credential("web-1")).await;
    assert_eq!(agent.welcome().await.credits, Settings::default().credits);
    assert_eq!(agent.next().await.expect("alive"), Some(order));
}

#[tokio::test]
async fn more_reports_than_credits_end_the_session_and_a_stuck_store_does_not_stop_the_reader() {
    let settings = Settings { credits: 4, heartbeat: Duration::from_millis(100), ..Settings::default() };
    let site = Site::with(settings, Limits::default(), crate::ca::AGENT_VALIDITY).await;
    site.fleet.with(|memory| memory.stuck = true);
    let mut agent = site.session(&site.credential("web-1")).await;
    agent.welcome().await;
    agent.report(1, 4).await;
    // The reader is alive: it sends heartbeats while the store is stuck.
    assert!(matches!(agent.next().await, Ok(Some(v1::to_agent::What::Heartbeat(_)))));
    agent.report(5, 5).await;
    // The worker is given a while to finish what was received before the agent is told.
    let end = agent.end().await;
    assert_eq!((end.code(), word(&end)), (Code::ResourceExhausted, "over-credit"));
}

#[tokio::test]
async fn a_queue_of_large_reports_is_not_read_on_until_some_are_durable() {
    let heartbeat = Duration::from_millis(50);
    let settings = Settings { credits: 4, queue_bytes: 1000, heartbeat, ..Settings::default() };
    let site = Site::with(settings, Limits::default(), crate::ca::AGENT_VALIDITY).await;
    site.fleet.with(|memory| memory.stuck = true);
    let mut agent = site.session(&site.credential("web-1")).await;
    agent.welcome().await;
    for seq in 1..=100 {
        let refused = v1::Refused { message: "x".repeat(500), ..v1::Refused::default() };
        let report =
            v1::Report { seq, what: Some(v1::report::What::Refused(refused)), ..v1::Report::default() };
        let reports = v1::Reports { reports: vec![report] };
        agent.say.send(from(v1::from_agent::What::Reports(reports))).await.expect("the stream takes it");
    }
    // All of them read would be over credit. Nobody listens to it now, and it is not called silent for that.
    for _ in 0..8 {
        assert!(matches!(agent.next().await, Ok(Some(v1::to_agent::What::Heartbeat(_)))));
    }
}

#[tokio::test]
async fn three_missed_heartbeats_end_the_session() {
    let settings = Settings { heartbeat: Duration::from_millis(50), ..Settings::default() };
    let site = Site::with(settings, Limits::default(), crate::ca::AGENT_VALIDITY).await;
    let mut agent = site.session(&site.credential("web-1")).await;
    agent.welcome().await;
    let end = agent.end().await;
    assert_eq!((end.code(), word(&end)), (Code::DeadlineExceeded, "silent"));
}

#[tokio::test]
async fn only_a_goodbye_is_a_goodbye() {
    let site = Site::start().await;
    let mut polite = site.session(&site.credential("web-1")).await;
    polite.welcome().await;
    polite.report(1, 2).await;
    let goodbye = v1::Goodbye { reason: "stopping".into() };
    polite.say.send(from(v1::from_agent::What::Goodbye(goodbye))).await.expect("room");
    let end = polite.end().await;
    assert_eq!(end.code(), Code::Ok);
    let said = Gone::Goodbye("stopping".into());
    site.fleet.until("a goodbye", |memory| memory.gone.contains(&(1, said.clone())).then_some(())).await;
    assert_eq!(site.fleet.with(|memory| memory.reports.clone()), [(1, 1), (1, 2)]);

    let mut abrupt = site.session(&site.credential("web-1")).await;
    abrupt.welcome().await;
    drop(abrupt);
    site.fleet.until("a loss", |memory| memory.gone.contains(&(2, Gone::Lost)).then_some(())).await;
}

#[tokio::test]
async fn an_agent_of_another_protocol_is_told_which_is_spoken_here() {
    let site = Site::start().await;
    for protocol in [PROTOCOL - 1, PROTOCOL + 1, 99] {
        let mut client = site.connect(Some(&site.credential("web-1"))).await.expect("connected");
        let hello = v1::Hello { protocol, ..v1::Hello::default() };
        let messages = tokio_stream::once(from(v1::from_agent::What::Hello(hello)));
        let mut hear = client.session(messages).await.expect("a stream").into_inner();
        let refused = hear.message().await.expect_err("refused");
        assert_eq!((refused.code(), word(&refused)), (Code::FailedPrecondition, "protocol"));
        let spoken = format!("protocol {protocol} is not spoken here, only {PROTOCOL}");
        assert!(refused.message().contains(&spoken), "{refused:?}");
    }
    assert!(site.fleet.with(|memory| memory.epochs.is_empty()));
}

#[tokio::test]
async fn what_a_newer_agent_says_beyond_what_is_known_breaks_nothing() {
    use prost::Message as _;
    // A member that is not known is passed over, and a message of an unknown kind is one that says nothing.
    let more = |message: v1::FromAgent| {
        let mut bytes = message.encode_to_vec();
        prost::encoding::string::encode(99, &"of a later version".to_owned(), &mut bytes);
        v1::FromAgent::decode(&bytes[..]).expect("it is decoded")
    };
    let beat = from(v1::from_agent::What::Heartbeat(v1::Heartbeat {}));
    assert_eq!(more(beat.clone()), beat);
    assert_eq!(more(v1::FromAgent::default()), v1::FromAgent::default());
    let site = Site::start().await;
    let mut agent = site.session(&site.credential("web-1")).await;
    agent.welcome().await;
    agent.say.send(v1::FromAgent::default()).await.expect("the stream takes it");
    // The reports are of no kind either: taken in as something to note, and acknowledged.
    agent.report(1, 2).await;
    assert!(matches!(agent.next().await, Ok(Some(v1::to_agent::What::Ack(v1::Ack { upto: 2 })))));
}

#[tokio::test]
async fn half_open_handshakes_do_not_block_others() {
    let limits = Limits { waiting: 16, handshakes: 1, handshake: Duration::from_millis(500), anonymous: 4 };
    let site = Site::with(Settings::default(), limits, crate::ca::AGENT_VALIDITY).await;
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(TcpStream::connect(site.address).await.expect("connected"));
    }
    let mut agent = site.session(&site.credential("web-1")).await;
    agent.welcome().await;
    // They lose their places, so that even a full house empties by itself.
    use tokio::io::AsyncReadExt as _;
    for stream in &mut silent {
        let end = tokio::time::timeout(LIMIT, stream.read(&mut [0; 1])).await.expect("closed in time");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
}

#[tokio::test]
async fn anonymous_connections_do_not_take_the_places_of_agents() {
    let limits = Limits { anonymous: 2, ..Limits::default() };
    let site = Site::with(Settings::default(), limits, crate::ca::AGENT_VALIDITY).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut client = site.connect(None).await.expect("connected");
        let answered = client.renew(v1::RenewRequest::default()).await;
        assert_eq!(answered.expect_err("refused").code(), Code::Unauthenticated);
        kept.push(client);
    }
    let turned_away = match site.connect(None).await {
        Err(_) => true,
        Ok(mut client) => {
            client.renew(v1::RenewRequest::default()).await.expect_err("refused").code()
                != Code::Unauthenticated
        }
    };
    assert!(turned_away);
    let mut agent = site.session(&site.credential("web-1")).await;
    agent.welcome().await;
}

#[tokio::test]
async fn renewing_gives_the_same_host_a_later_certificate() {
    let site = Site::start().await;
    let key = site.credential("web-1");
    let mut client = site.connect(Some(&key)).await.expect("connected");
    let (_, csr) = request();
    let reply = client.renew(v1::RenewRequest { csr_der: csr.into() }).await.expect("renewed").into_inner();
    let renewed =
        crate::ca::identity(&CertificateDer::from(reply.certificate_der.to_vec())).expect("an identity");
    assert_eq!(renewed.host, host("web-1"));
    assert!(renewed.issued >= crate::ca::identity(&key.certificate).expect("an identity").issued);
    assert_eq!(site.fleet.with(|memory| memory.certified.len()), 1);
}

#[tokio::test]
async fn live_output_is_handed_on_and_its_credit_comes_back() {
    let site = Site::start().await;
    let mut client = site.connect(Some(&site.credential("web-1"))).await.expect("connected");
    let (say, chunks) = mpsc::channel(4);
    let mut replies = client.output(ReceiverStream::new(chunks)).await.expect("a stream").into_inner();
    let first = replies.message().await.expect("alive").expect("credit").credit_bytes;
    let chunk = v1::OutputChunk { data: vec![b'x'; 64 * 1024].into(), ..v1::OutputChunk::default() };
    say.send(chunk.clone()).await.expect("room");
    let second = replies.message().await.expect("alive").expect("credit").credit_bytes;
    assert_eq!((first, second), (256 * 1024, 64 * 1024));
    assert_eq!(site.fleet.with(|memory| memory.output.clone()), [chunk]);
}

#[tokio::test]
async fn a_stopping_controller_says_when_to_come_back() {
    let site = Site::start().await;
    let mut agent = site.session(&site.credential("web-1")).await;
    agent.welcome().await;
    let tasks = site.tasks.clone();
    let (stopped, heard) = tokio::join!(tasks.stop(LIMIT), agent.next());
    assert!(matches!(heard, Ok(Some(v1::to_agent::What::Drain(_)))), "{heard:?}");
    let end = agent.end().await;
    assert_eq!((end.code(), word(&end)), (Code::Unavailable, "stopping"));
    assert_eq!(stopped, crate::tasks::Stopped::Clean);
}
