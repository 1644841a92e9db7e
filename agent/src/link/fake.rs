//! A controller for tests: real TLS and gRPC on a port of its own, which does as it is told and remembers what it heard.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fettle_proto::signed::{PrivateKey, Trust};
use fettle_proto::v1;
use fettle_runbooks::id::Digest;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::connect::{self, Controller};

/// How long a test waits for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Certificates are checked by the machine's clock, so tests use it.
pub(crate) fn now() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "rustls checks certificates by the machine's clock")]
    SystemTime::now()
}

/// What the controller has heard, and what it shall do.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) tokens: Vec<String>,
    pub(crate) messages: Vec<v1::from_agent::What>,
    pub(crate) renewals: usize,
    pub(crate) chunks: Vec<v1::OutputChunk>,
    pub(crate) sessions: u64,
    /// To the agent of the newest session; dropping it ends the session.
    pub(crate) say: Option<mpsc::Sender<Result<v1::ToAgent, Status>>>,
    /// Certificates issued last so long.
    pub(crate) validity: Option<Duration>,
    /// Certificates are renewed by another authority.
    pub(crate) renew_elsewhere: bool,
    /// Every token is refused with this.
    pub(crate) refuse: Option<Status>,
    pub(crate) heartbeat_ms: u32,
}

/// An authority of its own.
pub(crate) struct Authority {
    pub(crate) certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).expect("a root").der().clone();
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    fn server(&self, root: &Authority) -> ServerConfig {
        let key = KeyPair::generate().expect("a key");
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer).expect("a leaf").der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(root.certificate.clone()).expect("a root");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), connect::provider())
            .allow_unauthenticated()
            .build()
            .expect("a verifier");
        let mut config = ServerConfig::builder_with_provider(connect::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![leaf], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .expect("a configuration");
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    fn agent(&self, csr: &[u8], validity: Duration) -> CertificateDer<'static> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr));
        let mut params = CertificateParams::default();
        let now = now();
        params.not_before = now.into();
        params.not_after = (now + validity).into();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names =
            vec![SanType::URI("spiffe://fettle/host/web-1".try_into().expect("a name"))];
        let key = request.expect("a request").public_key;
        params.signed_by(&key, &self.issuer).expect("a certificate").der().clone()
    }
}

/// A running controller.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Arc<Authority>,
    pub(crate) trust: Vec<u8>,
    pub(crate) heard: Arc<Mutex<Heard>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    pub(crate) async fn start() -> Fake {
        let authority = Arc::new(Authority::new());
        Fake::with(Arc::clone(&authority), &authority).await
    }

    /// One that shows `authority` in its trust bundle, and has a certificate of `presenting`.
    pub(crate) async fn with(authority: Arc<Authority>, presenting: &Authority) -> Fake {
        let root = PrivateKey::from_seed([7; 32], "root").public();
        let trust = Trust { ca_der: authority.certificate.to_vec(), roots: vec![root] }.encode();
        let heard = Arc::new(Mutex::new(Heard { heartbeat_ms: 10_000, ..Heard::default() }));
        let acceptor = TlsAcceptor::from(Arc::new(presenting.server(&authority)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let service = v1::agents_server::AgentsServer::new(Service {
            authority: Arc::clone(&authority),
            trust: trust.clone(),
            heard: Arc::clone(&heard),
        });
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener)
            .then(move |stream| {
                let acceptor = acceptor.clone();
                async move { acceptor.accept(stream?).await }
            })
            .filter(Result::is_ok);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let server = tonic::transport::Server::builder();
            server.serve_with_incoming(service, Box::pin(incoming)).await.expect("served");
        });
        Fake { address, authority, trust, heard, _tasks: tasks }
    }

    pub(crate) fn controller(&self) -> Controller {
        format!("https://{}", self.address).parse().expect("an address")
    }

    pub(crate) fn root(&self) -> Digest {
        Trust::fingerprint(&self.trust)
    }

    pub(crate) fn with_heard<T>(&self, look: impl FnOnce(&mut Heard) -> T) -> T {
        look(&mut self.heard.lock().expect("not poisoned"))
    }

    /// Waits until what was heard is as hoped.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl FnMut(&mut Heard) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            if let Some(seen) = self.with_heard(&mut look) {
                return seen;
            }
            let last = self.with_heard(|heard| format!("{:?}", heard.messages));
            assert!(tokio::time::Instant::now() < deadline, "not seen in time: {what}; heard {last}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn say(&self, what: v1::to_agent::What) {
        let say = self.with_heard(|heard| heard.say.clone()).expect("a session");
        say.send(Ok(v1::ToAgent { what: Some(what) })).await.expect("the agent is there");
    }
}

struct Service {
    authority: Arc<Authority>,
    trust: Vec<u8>,
    heard: Arc<Mutex<Heard>>,
}

impl Service {
    fn issue(&self, csr: &[u8]) -> bytes::Bytes {
        let validity = self.heard.lock().expect("not poisoned").validity.unwrap_or(Duration::from_secs(3600));
        self.authority.agent(csr, validity).to_vec().into()
    }
}

type Answers<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl v1::agents_server::Agents for Service {
    type EnrolStream = Answers<v1::EnrolReply>;
    type SessionStream = Answers<v1::ToAgent>;
    type OutputStream = Answers<v1::OutputReply>;

    async fn enrol(
        &self,
        request: Request<Streaming<v1::EnrolRequest>>,
    ) -> Result<Response<Self::EnrolStream>, Status> {
        use v1::enrol_reply::What::{Done, Trust};
        let mut requests = request.into_inner();
        let (say, answers) = mpsc::channel(4);
        requests.message().await?;
        let bundle = v1::TrustBundle { bytes: self.trust.clone().into() };
        say.send(Ok(v1::EnrolReply { what: Some(Trust(bundle)) })).await.expect("room");
        let (heard, authority) = (Arc::clone(&self.heard), Arc::clone(&self.authority));
        let issuer = Service { authority, trust: Vec::new(), heard: Arc::clone(&heard) };
        #[expect(clippy::disallowed_methods, reason = "a test's controller ends with its runtime")]
        tokio::spawn(async move {
            let Ok(Some(v1::EnrolRequest { what: Some(v1::enrol_request::What::Spend(spend)) })) =
                requests.message().await
            else {
                return;
            };
            let refuse = {
                let mut heard = heard.lock().expect("not poisoned");
                heard.tokens.push(spend.token);
                heard.refuse.clone()
            };
            let done = v1::EnrolDone {
                host: "web-1".into(),
                labels: [("role".to_owned(), "web".to_owned())].into(),
                certificate_der: issuer.issue(&spend.csr_der),
            };
            let answer = refuse.map_or_else(|| Ok(v1::EnrolReply { what: Some(Done(done)) }), Err);
            let _ = say.send(answer).await;
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewReply>, Status> {
        let elsewhere = {
            let mut heard = self.heard.lock().expect("not poisoned");
            heard.renewals += 1;
            heard.validity = None;
            heard.renew_elsewhere
        };
        if elsewhere {
            let useless = Authority::new().agent(&request.into_inner().csr_der, Duration::from_secs(3600));
            return Ok(Response::new(v1::RenewReply { certificate_der: useless.to_vec().into() }));
        }
        Ok(Response::new(v1::RenewReply { certificate_der: self.issue(&request.into_inner().csr_der) }))
    }

    async fn session(
        &self,
        request: Request<Streaming<v1::FromAgent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut messages = request.into_inner();
        let (say, answers) = mpsc::channel(64);
        let welcome = {
            let mut heard = self.heard.lock().expect("not poisoned");
            heard.sessions += 1;
            let (epoch, heartbeat_ms) = (heard.sessions, heard.heartbeat_ms);
            heard.say = Some(say.clone());
            v1::Welcome { epoch, heartbeat_ms, credits: 32, acked: 0 }
        };
        let welcome = v1::ToAgent { what: Some(v1::to_agent::What::Welcome(welcome)) };
        say.try_send(Ok(welcome)).expect("room");
        let heard = Arc::clone(&self.heard);
        #[expect(clippy::disallowed_methods, reason = "a test's controller ends with its runtime")]
        tokio::spawn(async move {
            // The clone in `heard.say` alone keeps the session open, except that a goodbye ends it.
            drop(say);
            while let Ok(Some(message)) = messages.message().await {
                let what = message.what.expect("a message says something");
                let mut heard = heard.lock().expect("not poisoned");
                if matches!(what, v1::from_agent::What::Goodbye(_)) {
                    heard.say = None;
                }
                heard.messages.push(what);
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn output(
        &self,
        request: Request<Streaming<v1::OutputChunk>>,
    ) -> Result<Response<Self::OutputStream>, Status> {
        let mut chunks = request.into_inner();
        let (say, answers) = mpsc::channel(4);
        say.try_send(Ok(v1::OutputReply { credit_bytes: 8 })).expect("room");
        let heard = Arc::clone(&self.heard);
        #[expect(clippy::disallowed_methods, reason = "a test's controller ends with its runtime")]
        tokio::spawn(async move {
            while let Ok(Some(chunk)) = chunks.message().await {
                heard.lock().expect("not poisoned").chunks.push(chunk);
            }
            drop(say);
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}
