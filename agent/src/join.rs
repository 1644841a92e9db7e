//! Joining: how a host and a controller come to believe each other.
//!
//! A token is worth a host's identity, so nobody but the right controller may see it. The connection is made without
//! believing anything, and what the other side shows is recorded. It then shows its trust bundle; the bundle's digest
//! must be the fingerprint a person brought here by another way, and the connection's certificate must follow from the
//! bundle. Only then is the token sent.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fettle_proto::signed::{Malformed, Trust};
use fettle_proto::v1;
use fettle_runbooks::id::{Digest, Host, NotAHost};
use rcgen::KeyPair;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::identity::{self, IdentityError, Joined, Pending};
use crate::link::PROTOCOL;
use crate::link::connect::{self, ConnectError, Controller};

/// For the whole conversation.
const CONVERSATION: Duration = Duration::from_secs(30);

/// What joining takes.
#[derive(Clone)]
pub struct Join {
    /// Where the controller is.
    pub controller: Controller,
    /// The root fingerprint, brought here by another way than the controller.
    pub root: Digest,
    /// The single-use token.
    pub token: Token,
    /// The state folder.
    pub state: PathBuf,
}

/// An enrolment token, which nothing prints.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// As it was copied, with the white space of copying around it.
    pub fn new(text: &str) -> Token {
        Token(text.trim().to_owned())
    }
}

/// Why the host has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It has an identity.
    #[error(
        "join: this host has joined already (its identity is in {}); start the agent, or move that folder away to join anew",
        path.display()
    )]
    AlreadyJoined {
        /// Where.
        path: PathBuf,
    },
    /// There is no key to ask a certificate for.
    #[error("make a key for this host")]
    Key {
        /// Why.
        source: rcgen::Error,
    },
    /// Something cannot be kept.
    #[error("keep this host's identity")]
    Keep {
        /// Why.
        source: IdentityError,
    },
    /// The controller cannot be reached.
    #[error("reach the controller")]
    Connect {
        /// Why.
        source: ConnectError,
    },
    /// The controller's trust bundle is another one.
    #[error(
        "trust the controller: its root fingerprint is {shown}, not {expected}; the token was not sent. Compare the fingerprint with whoever runs the controller"
    )]
    OtherRoot {
        /// What the person brought.
        expected: Digest,
        /// What the controller showed.
        shown: Digest,
    },
    /// The trust bundle has the right digest and cannot be understood.
    #[error("understand the controller's trust bundle; the token was not sent")]
    Trust {
        /// Why.
        source: Malformed,
    },
    /// Somebody shows the right bundle, and has another certificate.
    #[error("trust the controller: its certificate does not follow from its root; the token was not sent")]
    Impostor {
        /// Why.
        source: Error,
    },
    /// The controller said no.
    #[error("join: the controller refuses: {message} ({code})")]
    Refused {
        /// A stable word, such as `token-expired`.
        code: String,
        /// For people.
        message: String,
    },
    /// The controller did not say what it should.
    #[error("join: {0}")]
    Nonsense(&'static str),
    /// The controller named the host in a way that no host is named.
    #[error("join: the controller gave this host a name that cannot be")]
    Name {
        /// Why.
        source: NotAHost,
    },
    /// It took too long.
    #[error("join within {} s", CONVERSATION.as_secs())]
    TooSlow,
}

/// Joins, and says under which name.
pub async fn join(join: Join) -> Result<Host, JoinError> {
    let existing = identity::folder(&join.state);
    if existing.exists() {
        return Err(JoinError::AlreadyJoined { path: existing });
    }
    let (pending, key) = key(&join.state)?;
    let conversation = converse(&join, &key);
    let (trust, done) =
        tokio::time::timeout(CONVERSATION, conversation).await.map_err(|_| JoinError::TooSlow)??;
    let certificate = CertificateDer::from(done.certificate_der.to_vec());
    if !crate::link::is_for_key(&certificate, &key) {
        return Err(JoinError::Nonsense("the controller's certificate is not for this host's key"));
    }
    let host: Host = done.host.parse().map_err(|source| JoinError::Name { source })?;
    if !crate::identity::names(&certificate, &host) {
        return Err(JoinError::Nonsense("the controller's certificate is not for the host it names"));
    }
    let joined = Joined {
        host: &host,
        controller: &join.controller,
        labels: done.labels.into_iter().collect(),
        trust: &trust,
        certificate: &certificate,
    };
    pending.complete(&join.state, &joined).map_err(|source| JoinError::Keep { source })?;
    Ok(host)
}

fn key(state: &Path) -> Result<(Pending, KeyPair), JoinError> {
    let fresh = KeyPair::generate().map_err(|source| JoinError::Key { source })?;
    let pending =
        Pending::open(state, || fresh.serialize_pem()).map_err(|source| JoinError::Keep { source })?;
    let key = KeyPair::from_pem(&pending.key_pem).map_err(|source| JoinError::Key { source })?;
    Ok((pending, key))
}

async fn converse(join: &Join, key: &KeyPair) -> Result<(Vec<u8>, v1::EnrolDone), JoinError> {
    use v1::enrol_reply::What::{Done, Trust as Bundle};
    use v1::enrol_request::What::{Open, Spend};

    let recorder = Arc::new(Recorder::default());
    let connect = |source| JoinError::Connect { source };
    let stream = connect::dial(&join.controller, believing_nothing(&recorder).map_err(connect)?)
        .await
        .map_err(connect)?;
    let (channel, _) = connect::channel(&join.controller, stream).await.map_err(connect)?;

    let (say, requests) = mpsc::channel(2);
    let mut client = v1::agents_client::AgentsClient::new(channel);
    tell(&say, Open(v1::EnrolOpen { protocol: PROTOCOL })).await?;
    let mut replies =
        client.enrol(ReceiverStream::new(requests)).await.map_err(|s| refused(&s))?.into_inner();
    let Bundle(bundle) = hear(&mut replies).await? else {
        return Err(JoinError::Nonsense("the controller did not begin with its trust bundle"));
    };
    let trusted = believe(join, &bundle.bytes, &recorder)?;

    let csr_der = crate::link::request(key).map_err(|source| JoinError::Key { source })?.into();
    tell(&say, Spend(v1::EnrolSpend { token: trusted.token.0.clone(), csr_der })).await?;
    let Done(done) = hear(&mut replies).await? else {
        return Err(JoinError::Nonsense("the controller did not answer with a certificate"));
    };
    Ok((bundle.bytes.to_vec(), done))
}

/// Checks the bundle against the fingerprint, and the connection against the bundle. The token is reached only through
/// what this returns.
fn believe<'a>(join: &'a Join, bundle: &[u8], recorder: &Recorder) -> Result<&'a Join, JoinError> {
    let shown = Trust::fingerprint(bundle);
    if shown != join.root {
        return Err(JoinError::OtherRoot { expected: join.root, shown });
    }
    let trust = Trust::decode(bundle).map_err(|source| JoinError::Trust { source })?;
    let impostor = |source| JoinError::Impostor { source };
    let roots = connect::pinned(&trust.ca_der).map_err(impostor)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), connect::provider())
        .build()
        .map_err(|error| impostor(Error::General(error.to_string())))?;
    let seen = recorder.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let (leaf, others) = seen.split_first().ok_or_else(|| impostor(Error::NoCertificatesPresented))?;
    verifier
        .verify_server_cert(leaf, others, join.controller.server_name(), &[], UnixTime::now())
        .map_err(impostor)?;
    Ok(join)
}

async fn tell(say: &mpsc::Sender<v1::EnrolRequest>, what: v1::enrol_request::What) -> Result<(), JoinError> {
    let request = v1::EnrolRequest { what: Some(what) };
    say.send(request).await.map_err(|_| JoinError::Nonsense("the controller ended the conversation"))
}

async fn hear(replies: &mut Streaming<v1::EnrolReply>) -> Result<v1::enrol_reply::What, JoinError> {
    replies
        .message()
        .await
        .map_err(|status| refused(&status))?
        .and_then(|reply| reply.what)
        .ok_or(JoinError::Nonsense("the controller ended the conversation"))
}

fn refused(status: &Status) -> JoinError {
    let word = status.metadata().get("fettle-code").and_then(|word| word.to_str().ok());
    let code = word.map_or_else(|| status.code().description().to_owned(), str::to_owned);
    JoinError::Refused { code, message: status.message().to_owned() }
}

fn believing_nothing(recorder: &Arc<Recorder>) -> Result<ClientConfig, ConnectError> {
    let config = ClientConfig::builder_with_provider(connect::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| ConnectError::Identity { source })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Recorder>::clone(recorder))
        .with_no_client_auth();
    Ok(connect::settle(config))
}

/// Accepts any certificate and remembers it; [`believe`] decides later. That the other side holds the certificate's key
/// is checked here as ever.
#[derive(Debug)]
struct Recorder {
    provider: Arc<CryptoProvider>,
    seen: Mutex<Vec<CertificateDer<'static>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Recorder { provider: connect::provider(), seen: Mutex::default() }
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = chain.map(|certificate| certificate.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
