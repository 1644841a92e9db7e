//! Who stands between a person's command line and the controller, and makes either of them one of another version.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use fettle_controller::accept::{self, Connections, Limits, Port, Security};
use fettle_controller::ca::{Ca, Revocations};
use fettle_controller::tasks::{TaskKind, Tasks};
use fettle_controller::tls::{ServerTls, grpc_config, provider};
use fettle_controller::world::{System, World as _};
use fettle_tests::Cluster;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the controller.
    Asked,
    /// To the person.
    Told,
}

/// What becomes of a message of a call. A status is the answer instead.
pub(super) type Change = fn(Way, &str, Bytes) -> Result<Vec<u8>, Status>;

/// For as long as it lives.
pub(super) struct Between {
    port: u16,
    /// Dropping it ends the server.
    _stop: oneshot::Sender<()>,
}

impl Between {
    pub(super) fn of(cluster: &Cluster, change: Change) -> Between {
        let now = System.now();
        let ca = Ca::open(&cluster.path("controller"), now).expect("the authority is in the state folder");
        let leaf = ca.server_leaf(&["localhost".to_owned()], now).expect("it signs");
        let tls = ServerTls::new(grpc_config(&ca, &leaf, Revocations::default()).expect("a configuration"));
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        listener.set_nonblocking(true).expect("it can be");
        let port = listener.local_addr().expect("it has an address").port();
        let to = To { port: cluster.grpc, ca: ca.certificate().to_vec() };
        let (stop, stopped) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(serve(listener, tls, to, change, stopped));
        });
        Between { port, _stop: stop }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

struct To {
    port: u16,
    ca: Vec<u8>,
}

impl To {
    fn channel(self) -> Channel {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.ca)).expect("a certificate");
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (tls, port) = (tokio_rustls::TlsConnector::from(Arc::new(config)), self.port);
        let connector = tower::service_fn(move |_: http::Uri| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(("127.0.0.1", port)).await?;
                let name = ServerName::try_from("localhost").expect("a name");
                tls.connect(name, stream).await.map(TokioIo::new)
            }
        });
        Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
    }
}

async fn serve(
    listener: std::net::TcpListener,
    tls: ServerTls,
    to: To,
    change: Change,
    stopped: oneshot::Receiver<()>,
) {
    let port = Port {
        listener: TcpListener::from_std(listener).expect("a listener"),
        security: Security::Tls(tls),
        limits: Limits::default(),
        connections: Connections::default(),
        world: Arc::new(System),
        kind: TaskKind::GrpcAccept,
    };
    let tasks = Tasks::new();
    let incoming = accept::start(port, &tasks).expect("it accepts");
    let service = Service { channel: to.channel(), change };
    let served = tonic::transport::Server::builder().serve_with_incoming(service, incoming);
    tokio::select! {
        served = served => served.expect("served"),
        _ = stopped => {}
    }
}

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Every call of every service, its messages as bytes.
#[derive(Clone)]
struct Service {
    channel: Channel,
    change: Change,
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Later<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = Call { path: request.uri().path().to_owned(), service: self.clone() };
        Box::pin(async move { Ok(tonic::server::Grpc::new(Raw).streaming(call, request).await) })
    }
}

struct Call {
    path: String,
    service: Service,
}

impl tonic::server::StreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = Later<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (path, Service { channel, change }) = (self.path.clone(), self.service.clone());
        Box::pin(carry(path, channel, change, request))
    }
}

async fn carry(
    path: String,
    channel: Channel,
    change: Change,
    request: Request<Streaming<Bytes>>,
) -> Result<Response<BoxStream<'static, Result<Bytes, Status>>>, Status> {
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    let (metadata, extensions, mut asked) = request.into_parts();
    let first = asked.message().await?.ok_or_else(|| Status::internal("a call without a message"))?;
    let first = change(Way::Asked, &name, first)?;
    let call = name.clone();
    let rest = asked.filter_map(move |message| {
        let changed = message.and_then(|message| change(Way::Asked, &call, message));
        std::future::ready(changed.ok().map(Bytes::from))
    });
    let asked = stream::once(std::future::ready(Bytes::from(first))).chain(rest);
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = path.parse().expect("it was one");
    let told = client.streaming(Request::from_parts(metadata, extensions, asked), path, Raw).await?;
    Ok(told.map(|messages| changed(messages, change, name).boxed()))
}

fn changed(
    messages: Streaming<Bytes>,
    change: Change,
    name: String,
) -> impl Stream<Item = Result<Bytes, Status>> {
    messages.map(move |message| change(Way::Told, &name, message?).map(Bytes::from))
}

/// Messages as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
