//! The port over real sockets, with an intake that remembers.

use std::collections::BTreeMap;
use std::sync::Mutex;

use fettle_proto::v1;
use fettle_runbooks::id::SignalId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::accept::{self, Limits, Port, Security};
use crate::policy::Source;
use crate::world::System;

/// Takes in what it is given, and remembers it.
#[derive(Clone, Default)]
struct Remembers {
    taken: Arc<Mutex<Vec<Signal>>>,
    away: bool,
}

impl Intake for Remembers {
    fn policy(&self) -> Arc<Policy> {
        let source = Source { token_sha256: Sha256::digest(b"secret").into(), declared: None, learn: None };
        Arc::new(Policy {
            sources: BTreeMap::from([("alertmanager".to_owned(), source)]),
            metrics: Some(Sha256::digest(b"scrape").into()),
            ..Policy::default()
        })
    }

    async fn take(&self, signals: Vec<Signal>) -> Result<Vec<Receipt>, Problem> {
        if self.away {
            return Err(Problem::Unavailable { message: "the disk is full".to_owned() });
        }
        let receipts = signals
            .iter()
            .map(|_| Receipt { signal: SignalId::new(uuid::Uuid::now_v7()), new: true, run: None })
            .collect();
        self.taken.lock().expect("not poisoned").extend(signals);
        Ok(receipts)
    }

    async fn ready(&self) -> Result<(), Problem> {
        if self.away { Err(Problem::Unavailable { message: "the disk is full".to_owned() }) } else { Ok(()) }
    }

    async fn look(&self) -> Result<v1::Status, Problem> {
        Ok(v1::Status { agents_connected: 7, ..Default::default() })
    }
}

struct Served {
    address: std::net::SocketAddr,
    intake: Remembers,
    tasks: Tasks,
}

async fn served(intake: Remembers) -> Served {
    let tasks = Tasks::new();
    let world: Arc<dyn World> = Arc::new(System);
    let connections = Connections::default();
    let port = Port {
        listener: TcpListener::bind("127.0.0.1:0").await.expect("a free port"),
        security: Security::Plain,
        limits: Limits::default(),
        connections: connections.clone(),
        world: Arc::clone(&world),
        kind: TaskKind::HttpAccept,
    };
    let incoming = accept::start(port, &tasks).expect("it listens");
    let address = incoming.address();
    let parts = Parts {
        intake: intake.clone(),
        metrics: Metrics::new(),
        connections,
        tasks: tasks.clone(),
        world,
        refusals: Refusals::default(),
    };
    tasks.spawn(TaskKind::HttpServer, serve(incoming, parts));
    Served { address, intake, tasks }
}

impl Served {
    /// The one place these tests touch the port: bytes in, bytes out.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        // A refusal may close the connection before all was sent.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "no end after {:?}", String::from_utf8_lossy(&answer));
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Status line and body of a post with a token.
    async fn post(&self, path: &str, token: &str, body: &[u8]) -> (u16, String) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        parts(&self.raw(&[head.as_bytes(), body].concat()).await)
    }

    async fn get(&self, path: &str) -> (u16, String) {
        parts(
            &self
                .raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer scrape\r\nConnection: close\r\n\r\n").as_bytes())
                .await,
        )
    }
}

fn parts(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, body.to_owned())
}

const GOOD: &[u8] = br#"{"receiver":"r","status":"firing","alerts":[{"labels":{"alertname":"Down"}}]}"#;
const PATH: &str = "/v1/signals/alertmanager";

#[tokio::test]
async fn a_body_with_the_right_token_is_taken_in() {
    let served = served(Remembers::default()).await;
    let (status, body) = served.post(PATH, "secret", GOOD).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains(r#""new":true"#) && body.contains("sig_"), "{body}");
    let taken = served.intake.taken.lock().expect("not poisoned").clone();
    assert_eq!((taken.len(), taken[0].name.as_str(), taken[0].source.as_str()), (1, "Down", "alertmanager"));
    let (_, metrics) = served.get("/metrics").await;
    assert!(
        metrics.contains(r#"fettle_signals_total{source="alertmanager",status="firing",new="yes"} 1"#),
        "{metrics}"
    );
    assert!(metrics.contains("fettle_agents_connected 7"), "{metrics}");
}

#[tokio::test]
async fn a_wrong_token_a_missing_one_and_an_unknown_source_are_told_apart() {
    let served = served(Remembers::default()).await;
    let (status, body) = served.post(PATH, "guess", GOOD).await;
    assert_eq!(status, 401);
    assert!(body.contains("not the one of this source"), "{body}");
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let answer = served.raw(head.as_bytes()).await;
    assert_eq!(parts(&answer).0, 401);
    assert!(answer.to_lowercase().contains("www-authenticate: bearer"), "{answer}");
    let (status, body) = served.post("/v1/signals/nagios%1b", "secret", GOOD).await;
    assert_eq!(status, 404, "{body}");
    assert!(served.intake.taken.lock().expect("not poisoned").is_empty());
    let (_, metrics) = served.get("/metrics").await;
    assert!(metrics.contains(r#"source="unknown""#) && !metrics.contains("nagios"), "{metrics}");
}

#[tokio::test]
async fn what_cannot_be_read_is_400_and_what_is_something_else_is_422() {
    let served = served(Remembers::default()).await;
    for (body, expected, word) in [
        (&b""[..], 400, "empty"),
        (b"not json", 400, "not JSON"),
        (b"\xff\xfe{}", 400, "UTF-8"),
        (b"{}", 422, "empty object"),
        (br#"{"Type":"Notification","TopicArn":"a"}"#, 422, "Amazon SNS"),
    ] {
        let (status, said) = served.post(PATH, "secret", body).await;
        assert_eq!(status, expected, "{said}");
        let said: serde_json::Value = serde_json::from_str(&said).expect("a refusal is JSON");
        assert!(said["error"]["why"].as_str().is_some_and(|why| why.contains(word)), "{said}");
        assert!(said["error"]["next"].as_str().is_some_and(|next| !next.is_empty()), "{said}");
    }
}

#[tokio::test]
async fn a_body_over_one_mebibyte_is_refused_whether_it_is_announced_or_not() {
    let served = served(Remembers::default()).await;
    let head =
        format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nConnection: close\r\n");
    // Announced: refused before a byte of it was sent.
    let announced = format!("{head}Content-Length: 99999999999\r\n\r\n");
    assert_eq!(parts(&served.raw(announced.as_bytes()).await).0, 413);
    // Not announced: refused as soon as it is too much.
    let mut chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..17 {
        chunked.extend(format!("{:x}\r\n", 64 * 1024).into_bytes());
        chunked.extend(vec![b' '; 64 * 1024]);
        chunked.extend(b"\r\n");
    }
    let (status, _) = parts(&served.raw(&chunked).await);
    assert_eq!(status, 413);
    // Exactly the limit is read.
    let mut most = GOOD.to_vec();
    most.resize(LARGEST_BODY, b' ');
    assert_eq!(served.post(PATH, "secret", &most).await.0, 200);
}

#[tokio::test]
async fn compressed_bodies_other_methods_and_other_addresses_have_their_errors() {
    let served = served(Remembers::default()).await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: bearer secret\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
    );
    assert_eq!(parts(&served.raw(head.as_bytes()).await).0, 415);
    assert_eq!(served.get(PATH).await.0, 405);
    assert_eq!(served.post("/healthz", "secret", b"").await.0, 405);
    assert_eq!(served.get("/").await.0, 404);
    assert_eq!(served.get("/v1/signals/a/b").await.0, 404);
    assert_eq!(served.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(served.get("/readyz").await, (200, "ready\n".to_owned()));
    assert!(served.raw(b"\x16\x03\x01\x00\x00 this is TLS\r\n\r\n").await.contains("400"));
}

#[tokio::test]
async fn a_store_that_is_away_is_503_and_worth_another_try() {
    let served = served(Remembers { away: true, ..Remembers::default() }).await;
    let (status, body) = served.post(PATH, "secret", GOOD).await;
    assert_eq!(status, 503);
    assert!(body.contains("never taken in twice"), "{body}");
    let (status, body) = served.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("the disk is full"), "{body}");
    assert_eq!(served.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn stopping_ends_idle_connections() {
    let served = served(Remembers::default()).await;
    let mut idle = TcpStream::connect(served.address).await.expect("it listens");
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.expect("answered");
    assert_eq!(&first, b"HTTP/1.1 200");
    assert_eq!(served.tasks.stop(Duration::from_secs(5)).await, crate::tasks::Stopped::Clean);
}

#[test]
fn what_was_refused_is_told_for_a_day_though_other_posts_are_taken_in() {
    let (refusals, policy) = (Refusals::default(), Remembers::default().policy());
    for source in ["alertmanager", "alertmanager", "taken-out-of-the-policy"] {
        refusals.refused(source, crate::world::At(0), "`alerts` is empty".to_owned());
    }
    let told = "the last 2 posts of source `alertmanager` were refused, the newest at 1970-01-01T00:00:00Z: `alerts` is empty";
    let day = 24 * 60 * 60 * 1000;
    assert_eq!(refusals.sentences(&policy, crate::world::At(9 * day)), [told]);
    refusals.taken("alertmanager");
    refusals.taken("alertmanager");
    let told = "a post of source `alertmanager` was refused at 1970-01-01T00:00:00Z; taken in since: 2; why: `alerts` is empty";
    assert_eq!(refusals.sentences(&policy, crate::world::At(day - 1)), [told]);
    assert_eq!(refusals.sentences(&policy, crate::world::At(day)), [""; 0]);
}
