//! The gRPC port: which service answers which path, with the settings that long-lived streams need.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

use crate::accept::Incoming;
use crate::tasks::{TaskKind, Tasks};

type Route = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The services of the port, by name.
#[derive(Clone, Default)]
pub struct Services(Arc<Vec<(&'static str, Route)>>);

impl Services {
    /// With one more.
    #[must_use]
    pub fn and<S>(self, service: S) -> Services
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let mut all: Vec<_> = self.0.iter().cloned().collect();
        all.push((S::NAME, BoxCloneSyncService::new(service)));
        Services(Arc::new(all))
    }

    /// The names, in the order they were added.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }
}

impl Service<Request<Body>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let asked = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
        match self.0.iter().find(|(name, _)| *name == asked) {
            Some((_, service)) => Box::pin(service.clone().oneshot(request)),
            None => Box::pin(std::future::ready(Ok(Status::unimplemented("no such service").into_http()))),
        }
    }
}

/// Serves the port until the tasks are stopped, and then until its streams have ended.
pub fn serve(services: Services, incoming: Incoming, tasks: &Tasks) {
    let stopping = tasks.stopping();
    tasks.spawn(TaskKind::GrpcServer, async move {
        let served = server().serve_with_incoming_shutdown(services, incoming, stopping.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "The gRPC server ended.");
        }
    });
}

/// Windows that a burst of small messages does not exhaust, and keep-alive, so that a peer that vanished is noticed.
fn server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(512 * 1024)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .max_concurrent_streams(128)
        .http2_max_header_list_size(16 * 1024)
}
