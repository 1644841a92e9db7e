//! TLS of both ports.
//!
//! The gRPC port speaks TLS 1.3 and nothing older. A client certificate is optional at the handshake, because people
//! and hosts that are joining have none; a certificate that is shown must be ours, in time and not revoked. Session
//! tickets and resumption are off: every connection proves itself anew. A renewed certificate takes effect by
//! swapping the whole configuration, which drops whatever state rustls kept with the old one.

use std::sync::{Arc, RwLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::ca::{self, Ca, CaError, Revocations, ServerLeaf};
use crate::tasks::{TaskKind, Tasks};
use crate::world::World;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The server's certificate.
    #[error("make the server's certificate")]
    Leaf {
        /// Why.
        source: CaError,
    },
    /// rustls refuses the certificate or its key.
    #[error("use the server's certificate")]
    Config {
        /// Why.
        source: Error,
    },
    /// rustls refuses the root.
    #[error("verify certificates of agents")]
    Verifier {
        /// Why.
        source: VerifierBuilderError,
    },
}

/// The TLS configuration in force; clones share it.
#[derive(Clone)]
pub struct ServerTls(Arc<RwLock<Arc<ServerConfig>>>);

impl ServerTls {
    /// Puts a first configuration in force.
    pub fn new(config: ServerConfig) -> ServerTls {
        ServerTls(Arc::new(RwLock::new(Arc::new(config))))
    }

    /// Puts another configuration in force; connections that exist keep theirs.
    pub fn replace(&self, config: ServerConfig) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(config);
    }

    /// The configuration for the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// TLS of both ports, made from the embedded authority.
#[derive(Clone)]
pub struct Ports {
    /// For the gRPC port.
    pub grpc: ServerTls,
    /// For the HTTP port.
    pub http: ServerTls,
}

impl Ports {
    /// Makes a server certificate for `names` (and `localhost`), puts it in force, and keeps it fresh until the tasks
    /// are stopped.
    pub fn start(
        ca: Arc<Ca>,
        names: Vec<String>,
        revocations: Revocations,
        world: Arc<dyn World>,
        tasks: &Tasks,
    ) -> Result<Ports, TlsError> {
        let make = move || -> Result<_, TlsError> {
            let leaf = ca.server_leaf(&names, world.now()).map_err(|source| TlsError::Leaf { source })?;
            let in_time = leaf.renew_at.since(world.now());
            Ok((grpc_config(&ca, &leaf, revocations.clone())?, http_config(&leaf)?, in_time))
        };
        let (grpc, http, mut renew_in) = make()?;
        let ports = Ports { grpc: ServerTls::new(grpc), http: ServerTls::new(http) };
        let (kept, stopping) = (ports.clone(), tasks.stopping());
        tasks.spawn(TaskKind::CertificateRenewal, async move {
            while stopping.run_until_cancelled(tokio::time::sleep(renew_in)).await.is_some() {
                match make() {
                    Ok((grpc, http, next)) => {
                        kept.grpc.replace(grpc);
                        kept.http.replace(http);
                        renew_in = next;
                        tracing::info!("Server certificate renewed.");
                    }
                    Err(error) => {
                        renew_in = std::time::Duration::from_secs(3600);
                        tracing::error!(%error, "Server certificate not renewed; trying again in an hour.");
                    }
                }
            }
        });
        Ok(ports)
    }
}

/// The one cryptography provider.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// TLS for the gRPC port.
pub fn grpc_config(ca: &Ca, leaf: &ServerLeaf, revocations: Revocations) -> Result<ServerConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone()).map_err(|source| TlsError::Config { source })?;
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|source| TlsError::Verifier { source })?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TlsError::Config { source })?
        .with_client_cert_verifier(Arc::new(AgentVerifier { inner, revocations }))
        .with_single_cert(leaf.chain.clone(), leaf.key.clone_key())
        .map_err(|source| TlsError::Config { source })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    forget_sessions(&mut config);
    Ok(config)
}

/// TLS for the HTTP port: signal sources may be old, so 1.2 is spoken too; nobody shows a certificate.
pub fn http_config(leaf: &ServerLeaf) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|source| TlsError::Config { source })?
        .with_no_client_auth()
        .with_single_cert(leaf.chain.clone(), leaf.key.clone_key())
        .map_err(|source| TlsError::Config { source })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    forget_sessions(&mut config);
    Ok(config)
}

fn forget_sessions(config: &mut ServerConfig) {
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
}

/// The usual verification, then ours: the certificate names a host and has not been revoked.
#[derive(Debug)]
struct AgentVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    revocations: Revocations,
}

impl ClientCertVerifier for AgentVerifier {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let identity = ca::identity(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))?;
        if self.revocations.covers(&identity) {
            return Err(Error::InvalidCertificate(CertificateError::Revoked));
        }
        Ok(verified)
    }

    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
