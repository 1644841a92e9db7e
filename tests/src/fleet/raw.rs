//! A host whose agent keeps to nothing: its certificate is good, and what it sends is up to the test.

use std::path::Path;
use std::sync::{Arc, Mutex};

use fettle_agent::identity::Identity;
use fettle_proto::v1;
use fettle_proto::v1::agents_client::AgentsClient;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// A connection with a host's certificate, its handshake done.
pub async fn shake_hands(state: &Path) -> std::io::Result<TlsStream<TcpStream>> {
    let identity = Identity::load(state).expect("an identity");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(identity.trust.ca_der.clone())).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider knows TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    let stream = TcpStream::connect((identity.controller.host(), identity.controller.port())).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// gRPC over one connection, without any manners of an agent.
pub async fn connect(state: &Path) -> std::io::Result<AgentsClient<Channel>> {
    let once = Mutex::new(Some(shake_hands(state).await?));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = once.lock().expect("not poisoned").take();
        std::future::ready(stream.map(TokioIo::new).ok_or_else(|| std::io::Error::other("it is over")))
    });
    let channel = Endpoint::from_static("https://localhost").connect_with_connector(connector).await;
    Ok(AgentsClient::new(channel.map_err(std::io::Error::other)?).max_encoding_message_size(64 * 1024 * 1024))
}

/// Opens a control stream with any first message.
pub async fn session(
    client: &mut AgentsClient<Channel>,
    first: v1::from_agent::What,
) -> Result<(mpsc::Sender<v1::FromAgent>, Streaming<v1::ToAgent>), Status> {
    let (say, messages) = mpsc::channel(4);
    let _ = say.send(v1::FromAgent { what: Some(first) }).await;
    let hear = client.session(ReceiverStream::new(messages)).await?.into_inner();
    Ok((say, hear))
}
