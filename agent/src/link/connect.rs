//! One TLS connection to the controller, and gRPC over it.
//!
//! TLS 1.3 alone; the only root is the one pinned at `join`; the server's name is checked; nothing is resumed. The
//! gRPC channel gets this one connection and cannot make another by itself: reconnecting is decided in one place.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use super::once::{Once, Why};

/// From the first packet to the end of the handshake.
const CONNECT: Duration = Duration::from_secs(15);

/// Where a controller's gRPC port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    host: String,
    port: u16,
    name: ServerName<'static>,
}

/// Text that does not say where a controller is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("understand `{0}`: a controller is written `https://HOST:PORT`")]
pub struct NotAController(String);

impl FromStr for Controller {
    type Err = NotAController;

    fn from_str(given: &str) -> Result<Controller, NotAController> {
        let bad = || NotAController(given.chars().take(200).collect());
        let uri: http::Uri = given.parse().map_err(|_| bad())?;
        let plain = uri.path().is_empty() || uri.path() == "/";
        let authority = uri.authority().ok_or_else(bad)?;
        if uri.scheme_str() != Some("https")
            || !plain
            || uri.query().is_some()
            || authority.as_str().contains('@')
        {
            return Err(bad());
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().ok_or_else(bad)?;
        let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
        Ok(Controller { host, port, name })
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "https://[{}]:{}", self.host, self.port),
            false => write!(f, "https://{}:{}", self.host, self.port),
        }
    }
}

impl Controller {
    /// Its name or number.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The name its certificate must hold.
    pub(crate) fn server_name(&self) -> &ServerName<'static> {
        &self.name
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The controller cannot be reached.
    #[error("connect to {controller}")]
    Tcp {
        /// Where.
        controller: Controller,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("connect to {controller} within {} s", CONNECT.as_secs())]
    TooSlow {
        /// Where.
        controller: Controller,
    },
    /// The controller is not who it should be, or refuses us.
    #[error("agree on TLS with {controller}")]
    Tls {
        /// Where.
        controller: Controller,
        /// Why.
        source: io::Error,
    },
    /// Our own key or certificate, or the pinned root, is not usable.
    #[error("use this host's identity")]
    Identity {
        /// Why.
        source: rustls::Error,
    },
    /// gRPC over the connection.
    #[error("speak gRPC with {controller}")]
    Grpc {
        /// Where.
        controller: Controller,
        /// Why.
        source: tonic::transport::Error,
    },
}

/// The one cryptography provider.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A store that holds the pinned root and nothing else.
pub(crate) fn pinned(ca_der: &[u8]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca_der.to_vec()))?;
    Ok(roots)
}

/// TLS as a joined host speaks it.
pub(crate) fn mutual_tls(
    ca_der: &[u8],
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, ConnectError> {
    let build = || {
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(pinned(ca_der)?)
            .with_client_auth_cert(vec![certificate], key)
    };
    build().map(settle).map_err(|source| ConnectError::Identity { source })
}

/// What every configuration of ours has.
pub(crate) fn settle(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// Where a controller is now. Asked on a thread of our own: where none can be had, the runtime would panic.
async fn resolve(controller: &Controller) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = controller.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::from((address, controller.port))]);
    }
    let (tell, told) = tokio::sync::oneshot::channel();
    let (host, port) = (controller.host.clone(), controller.port);
    std::thread::Builder::new().name("resolve".into()).spawn(move || {
        let _ = tell.send((host.as_str(), port).to_socket_addrs().map(Iterator::collect));
    })?;
    told.await.unwrap_or_else(|gone| Err(io::Error::other(gone)))
}

/// Connects and shakes hands.
pub(crate) async fn dial(
    controller: &Controller,
    config: ClientConfig,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let steps = async {
        let tcp = |source| ConnectError::Tcp { controller: controller.clone(), source };
        let addresses = resolve(controller).await.map_err(tcp)?;
        let stream = TcpStream::connect(&addresses[..]).await.map_err(tcp)?;
        // Only latency depends on it.
        let _ = stream.set_nodelay(true);
        TlsConnector::from(Arc::new(config))
            .connect(controller.name.clone(), stream)
            .await
            .map_err(|source| ConnectError::Tls { controller: controller.clone(), source })
    };
    tokio::time::timeout(CONNECT, steps)
        .await
        .unwrap_or_else(|_| Err(ConnectError::TooSlow { controller: controller.clone() }))
}

/// gRPC over a connection; and what remembers how TLS ended it.
pub(crate) async fn channel<S>(controller: &Controller, stream: S) -> Result<(Channel, Why), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let grpc = |source| ConnectError::Grpc { controller: controller.clone(), source };
    let (once, why) = Once::new(stream);
    let channel = Endpoint::from_shared(controller.to_string())
        .map_err(grpc)?
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(512 * 1024)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true)
        .connect_with_connector(tower::service_fn(move |_: http::Uri| {
            std::future::ready(once.take().map(TokioIo::new))
        }))
        .await
        .map_err(grpc)?;
    Ok((channel, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_an_https_address_with_a_port() {
        for good in ["https://controller.example:7443", "https://127.0.0.1:7443", "https://[::1]:7443"] {
            assert_eq!(good.parse::<Controller>().expect("good").to_string(), good);
        }
        for bad in [
            "controller:7443",
            "http://c:1",
            "https://c",
            "https://c:1/x",
            "https://u@c:1",
            "https://c:99999",
            "",
        ] {
            assert!(bad.parse::<Controller>().is_err(), "{bad}");
        }
    }
}
