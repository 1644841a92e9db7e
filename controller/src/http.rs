//! The HTTP port: signals in, and what monitors read.
//!
//! ```text
//! POST /v1/signals/{source}   bearer token of the source; 200 only once every signal is durable
//! GET  /metrics                bearer token of the policy's `metrics:`
//! GET  /healthz /readyz        anybody
//! ```
//!
//! A `GET` never changes anything. Every other answer than 200 is JSON that says what, why and what next; 503 means
//! that posting the same body again is right and safe, other codes that it is of no use.
//!
//! Deliberately missing: what a body means (`signal::intake`) and what it leads to (the coordinator).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

mod refusals;
mod seldom;

pub use refusals::Refusals;
use seldom::Seldom;

use crate::accept::{Connections, Incoming};
use crate::coordinator::{Handle, Receipt};
use crate::metrics::{Metrics, Posted};
use crate::policy::Policy;
use crate::problem::Problem;
use crate::share::Shares;
use crate::signal::Signal;
use crate::signal::intake::{self, Fault, LARGEST_BODY};
use crate::tasks::{TaskKind, Tasks};
use crate::world::World;

/// From the connection's first byte to the end of its headers, and between two requests.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// For the whole of a body.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// What is read of a body that is refused, bytes.
const UNREAD: usize = 16 * LARGEST_BODY;
/// And for how long.
const UNREAD_WITHIN: Duration = Duration::from_secs(3);
/// For the store to say that it is there.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// Bodies that arrive at once, and as many that are being taken in; more are told to come back.
const BODIES: usize = 64;
/// A body that takes longer to arrive gives way when there are too many.
const BODY_HURRIES: Duration = Duration::from_secs(2);

/// What the port needs of the rest of the controller; the coordinator gives it.
pub trait Intake: Clone + Send + Sync + 'static {
    /// The policy in force, for its sources.
    fn policy(&self) -> Arc<Policy>;
    /// Takes signals in; returns once all are durable.
    fn take(&self, signals: Vec<Signal>) -> impl Future<Output = Result<Vec<Receipt>, Problem>> + Send;
    /// Whether the store answers.
    fn ready(&self) -> impl Future<Output = Result<(), Problem>> + Send;
    /// What `/metrics` shows of the state.
    fn look(&self) -> impl Future<Output = Result<fettle_proto::v1::Status, Problem>> + Send;
}

impl Intake for Handle {
    fn policy(&self) -> Arc<Policy> {
        Handle::policy(self)
    }

    fn take(&self, signals: Vec<Signal>) -> impl Future<Output = Result<Vec<Receipt>, Problem>> + Send {
        self.signal(signals)
    }

    fn ready(&self) -> impl Future<Output = Result<(), Problem>> + Send {
        Handle::ready(self)
    }

    fn look(&self) -> impl Future<Output = Result<fettle_proto::v1::Status, Problem>> + Send {
        self.status()
    }
}

/// What the port is made of.
#[derive(Clone)]
pub struct Parts<I> {
    /// The rest of the controller.
    pub intake: I,
    /// What is counted.
    pub metrics: Metrics,
    /// Counted too.
    pub connections: Connections,
    /// Where its tasks go.
    pub tasks: Tasks,
    /// When a body arrived.
    pub world: Arc<dyn World>,
    /// What was posted in vain, for the status.
    pub refusals: Refusals,
}

struct Shared<I> {
    parts: Parts<I>,
    /// By source: one whose senders are slow keeps no other from posting.
    arriving: Shares<String>,
    bodies: Semaphore,
    refused: Seldom,
}

/// Serves connections until the tasks are stopped; requests that have begun are finished.
pub async fn serve<I: Intake>(mut incoming: Incoming, parts: Parts<I>) {
    let tasks = parts.tasks.clone();
    let stopping = tasks.stopping();
    let app = router(parts);
    while let Some(Some(next)) = stopping.run_until_cancelled(incoming.next()).await {
        // Handshakes that fail never get here.
        let Ok(connection) = next else { continue };
        let (app, stopping) = (app.clone(), stopping.clone());
        tasks.spawn(TaskKind::HttpConnection, async move {
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_WITHIN)
                .max_buf_size(64 * 1024)
                .serve_connection(TokioIo::new(connection), TowerToHyperService::new(app));
            let mut served = std::pin::pin!(served);
            if stopping.run_until_cancelled(served.as_mut()).await.is_none() {
                served.as_mut().graceful_shutdown();
                // The peer went away: nobody is left to be answered.
                let _ = served.await;
            }
        });
    }
}

/// The routes, without a socket.
pub fn router<I: Intake>(parts: Parts<I>) -> Router {
    let arriving = Shares::new(BODIES, BODY_HURRIES);
    let refused = Seldom::default();
    let shared = Arc::new(Shared { parts, arriving, bodies: Semaphore::new(BODIES), refused });
    Router::new()
        .route("/v1/signals/{source}", post(take_in::<I>))
        .route("/metrics", get(metrics::<I>))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready::<I>))
        .method_not_allowed_fallback(async |request: Request| {
            No::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take this method")
                .why(format!("{} {}", request.method(), request.uri().path()))
                .next("post signals to /v1/signals/SOURCE; get /metrics, /healthz and /readyz")
        })
        .fallback(async |request: Request| {
            No::new(StatusCode::NOT_FOUND, "there is nothing at this address")
                .why(format!("{} {}", request.method(), request.uri().path()))
                .next("post signals to /v1/signals/SOURCE")
        })
        .with_state(shared)
}

async fn take_in<I: Intake>(
    State(shared): State<Arc<Shared<I>>>,
    Path(source): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = answer(&shared, &source, &headers, body).await;
    let (result, known) = match &answer {
        Ok(_) => (Posted::Accepted, true),
        Err(no) if no.status == StatusCode::NOT_FOUND => (Posted::Refused, false),
        Err(no) if no.status == StatusCode::UNAUTHORIZED => (Posted::Unauthorised, false),
        Err(no) if no.status == StatusCode::SERVICE_UNAVAILABLE => (Posted::Unavailable, true),
        Err(_) => (Posted::Refused, true),
    };
    // A name that a stranger chose must not become a label.
    shared.parts.metrics.posted(if known { &source } else { "unknown" }, result);
    match answer {
        Ok(said) => {
            shared.parts.refusals.taken(&source);
            axum::Json(said).into_response()
        }
        Err(no) => {
            if known && no.status != StatusCode::SERVICE_UNAVAILABLE {
                let why = if no.why.is_empty() { no.what.to_owned() } else { no.why.clone() };
                shared.parts.refusals.refused(&source, shared.parts.world.now(), why);
            }
            if let Some(unsaid) = shared.refused.may_say() {
                tracing::warn!(
                    source = %source.chars().take(60).collect::<String>().escape_debug(),
                    status = no.status.as_u16(), what = %no.what, why = %no.why, unsaid,
                    "A post was not taken in."
                );
            }
            no.into_response()
        }
    }
}

async fn answer<I: Intake>(
    shared: &Shared<I>,
    source: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<serde_json::Value, No> {
    let parts = &shared.parts;
    authorise(&parts.intake.policy(), source, headers)?;
    // More than there is room for is told to come back, never queued.
    let full = || {
        No::new(StatusCode::SERVICE_UNAVAILABLE, "too many bodies are being taken in at once")
            .next("post the same body again in a few seconds")
    };
    let place = shared.arriving.take(source.to_owned()).ok_or_else(full)?;
    let body = place.lost().run_until_cancelled(collect(headers, body)).await.ok_or_else(full)??;
    let _room = shared.bodies.try_acquire().map_err(|_| full())?;
    drop(place);
    let received = parts.world.now();
    let read = intake::read(source, &body, received).map_err(No::from)?;
    let said: Vec<_> = read.signals.iter().map(|signal| signal.status).collect();
    let receipts = parts.intake.take(read.signals).await.map_err(No::from)?;
    for (status, receipt) in said.iter().zip(&receipts) {
        parts.metrics.signal(source, *status, receipt.new);
    }
    let signals: Vec<_> = receipts
        .iter()
        .map(|receipt| {
            json!({
                "signal": receipt.signal.to_string(), "new": receipt.new,
                "run": receipt.run.map(|run| run.to_string()),
            })
        })
        .collect();
    Ok(json!({ "signals": signals, "truncated": read.truncated }))
}

/// Checks the bearer token before a byte of the body is read.
fn authorise(policy: &Policy, source: &str, headers: &HeaderMap) -> Result<(), No> {
    let unauthorised = |why: &str| {
        No::new(StatusCode::UNAUTHORIZED, "this source may not post here without its token")
            .why(why)
            .next("send the header `Authorization: Bearer TOKEN` with the token of this source")
    };
    let token = bearer(headers).map_err(unauthorised)?;
    let Some(known) = policy.sources.get(source) else {
        return Err(No::new(StatusCode::NOT_FOUND, "the policy names no such source")
            .next("add it under `sources:` of a policy file, or correct the address"));
    };
    if same(&Sha256::digest(token).into(), &known.token_sha256) {
        Ok(())
    } else {
        Err(unauthorised("the token is not the one of this source"))
    }
}

/// The bearer token of a request.
fn bearer(headers: &HeaderMap) -> Result<&[u8], &'static str> {
    let sent = headers.get(header::AUTHORIZATION).ok_or("there is no Authorization header")?;
    match sent.as_bytes().split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(token.trim_ascii()),
        Some(_) | None => Err("the Authorization header is not a bearer token"),
    }
}

/// Compares in a time that does not depend on where two hashes differ.
fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    std::hint::black_box(one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b))) == 0
}

async fn collect(headers: &HeaderMap, mut body: Body) -> Result<Bytes, No> {
    let too_large = || {
        No::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB")
            .next("set `max_alerts` of the receiver, so that a body holds fewer alerts")
    };
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes());
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        return Err(No::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is compressed")
            .next("post it as it is; compression is not read"));
    }
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > LARGEST_BODY as u64) {
        // Whoever asked before sending is answered before sending.
        if !headers.contains_key(header::EXPECT) {
            hear_out(&mut body).await;
        }
        return Err(too_large());
    }
    let limited = http_body_util::Limited::new(&mut body, LARGEST_BODY);
    let collected = http_body_util::BodyExt::collect(limited);
    match tokio::time::timeout(BODY_WITHIN, collected).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            hear_out(&mut body).await;
            Err(too_large())
        }
        Ok(Err(error)) => {
            Err(No::new(StatusCode::BAD_REQUEST, "the body ended before it was whole").why(error))
        }
        Err(_) => Err(No::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")
            .why(format!("waited {} s for it", BODY_WITHIN.as_secs()))
            .next("post the same body again")),
    }
}

/// Reads on and throws away, for a while: a sender that is refused while it sends may see a broken connection instead of why.
async fn hear_out(body: &mut Body) {
    let read = async {
        let mut left = UNREAD;
        while let Some(Ok(frame)) = http_body_util::BodyExt::frame(body).await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(less) = left.checked_sub(length) else { return };
            left = less;
        }
    };
    // However that ends, the answer is the same.
    let _ = tokio::time::timeout(UNREAD_WITHIN, read).await;
}

async fn ready<I: Intake>(State(shared): State<Arc<Shared<I>>>) -> Response {
    let why = match tokio::time::timeout(READY_WITHIN, shared.parts.intake.ready()).await {
        Ok(Ok(())) => return "ready\n".into_response(),
        Ok(Err(problem)) => problem.to_string(),
        Err(_) => format!("the store did not answer in {} s", READY_WITHIN.as_secs()),
    };
    No::new(StatusCode::SERVICE_UNAVAILABLE, "the controller is not ready").why(why).into_response()
}

async fn metrics<I: Intake>(State(shared): State<Arc<Shared<I>>>, headers: HeaderMap) -> Response {
    let parts = &shared.parts;
    // Names of runbooks and hosts are nobody else's affair.
    let no = |why: &str| {
        No::new(StatusCode::UNAUTHORIZED, "the metrics are not read without their token")
            .why(why)
            .next(
                "send the header `Authorization: Bearer TOKEN` with the token under `metrics:` of the policy",
            )
            .into_response()
    };
    match (bearer(&headers), parts.intake.policy().metrics) {
        (Err(why), _) => return no(why),
        (Ok(_), None) => return no("the policy names no token for them"),
        (Ok(token), Some(known)) if !same(&Sha256::digest(token).into(), &known) => {
            return no("the token is not the one of the policy");
        }
        (Ok(_), Some(_)) => {}
    }
    // Without the state, the counters are still worth reading.
    if let Ok(Ok(status)) = tokio::time::timeout(READY_WITHIN, parts.intake.look()).await {
        parts.metrics.look(&status, parts.connections.count(), parts.tasks.panics());
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], parts.metrics.text()).into_response()
}

/// An answer that is a "no".
#[derive(Debug)]
struct No {
    status: StatusCode,
    what: &'static str,
    why: String,
    next: String,
}

impl No {
    fn new(status: StatusCode, what: &'static str) -> No {
        No { status, what, why: String::new(), next: String::new() }
    }

    fn why(self, why: impl ToString) -> No {
        No { why: why.to_string(), ..self }
    }

    fn next(self, next: impl Into<String>) -> No {
        No { next: next.into(), ..self }
    }
}

impl From<intake::Refused> for No {
    fn from(refused: intake::Refused) -> No {
        let (status, what) = match refused.fault {
            Fault::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB"),
            Fault::Unreadable => (StatusCode::BAD_REQUEST, "the body cannot be read"),
            Fault::NotOurs => (StatusCode::UNPROCESSABLE_ENTITY, "the body was refused, all of it"),
        };
        No::new(status, what).why(refused.why).next(refused.fix)
    }
}

impl From<Problem> for No {
    fn from(problem: Problem) -> No {
        let status = match problem {
            Problem::Unavailable { .. } => {
                return No::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "whether the signals were taken in is not known",
                )
                .why(problem)
                .next("post the same body again: a signal is never taken in twice");
            }
            Problem::NotFound { .. } => StatusCode::NOT_FOUND,
            Problem::SignIn { .. } => StatusCode::UNAUTHORIZED,
            Problem::NotAllowed { .. } => StatusCode::FORBIDDEN,
            Problem::Conflict { .. } | Problem::Guard { .. } => StatusCode::CONFLICT,
            Problem::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        };
        No::new(status, "the signals were refused").why(problem)
    }
}

impl IntoResponse for No {
    fn into_response(self) -> Response {
        let said = json!({ "error": { "what": self.what, "why": self.why, "next": self.next } });
        let mut response = (self.status, axum::Json(said)).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests;
