//! Tells people, through one webhook, that a gate waits for them and what became of it.
//!
//! The body is one JSON object:
//!
//! ```json
//! { "fettle": "notification/2", "id": "17", "kind": "gate-opened", "at": "2026-11-21T03:04:05Z",
//!   "title": "host/disk-full on web-1 waits for approval", "run": "run_…", "gate": "gate_…", "incident": "inc_…",
//!   "host": "web-1", "to": ["dba-oncall"], "text": "needs 1 of dba-oncall, decide by 03:08:05",
//!   "ending": "", "since": "", "evidence": null }
//! ```
//!
//! `kind` is `gate-opened`, `gate-escalated`, `gate-decided`, `run-ended`, `resolve-wanted`, `still-firing`, `restored` or `adopted`; members that do
//! not apply are empty. Of a run that ended, `ending` says how, and `since` when the trouble began as far as is known. Where
//! people must look, `evidence` is what they need ([`crate::evidence::Evidence`]); `notify.golden.json` is one of those, whole.
//! The version counts up when a member goes or means something else. The header `fettle-signature: sha256=HEX` is the HMAC-SHA-256 of the body with the configured secret. Any 2xx
//! answer is taken as received; everything else is tried again, later and later. A receiver may get one twice: `id` tells.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::evidence::Evidence;
use crate::policy::Notify;
use crate::world::At;

/// After so many tries it is given up.
pub const TRIES: u32 = 24;

/// A receiver may take so long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What there is to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the members are described where the format is")]
pub struct Notification {
    pub fettle: &'static str,
    pub id: String,
    pub kind: &'static str,
    pub at: String,
    pub title: String,
    pub run: String,
    pub gate: String,
    pub incident: String,
    pub host: String,
    pub to: Vec<String>,
    pub text: String,
    pub ending: &'static str,
    pub since: String,
    pub evidence: Option<Evidence>,
}

/// The format, with its version.
pub const FORMAT: &str = "notification/2";

/// How long to wait after so many failed tries: a second at first, then twice as long each time, at most ten minutes.
pub fn backoff(tries: u32) -> Duration {
    Duration::from_secs(1 << tries.saturating_sub(1).min(10)).min(Duration::from_secs(600))
}

/// When to try next after a failed try; absent: never.
pub fn retry(tries: u32, now: At) -> Option<At> {
    (tries < TRIES).then(|| now.plus(backoff(tries)))
}

/// The answer of a delivery: why it failed, if it did.
pub type Delivery = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Whatever carries a body to its receiver.
pub trait Deliver: Send + Sync + 'static {
    /// Delivers one body, once.
    fn deliver(&self, to: &Notify, body: String) -> Delivery;
}

/// Delivers over HTTP and HTTPS.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<bytes::Bytes>>,
}

impl Http {
    /// A client that trusts what the machine trusts.
    pub fn new() -> std::io::Result<Http> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Http { client: Client::builder(TokioExecutor::new()).build(connector) })
    }
}

impl Deliver for Http {
    fn deliver(&self, to: &Notify, body: String) -> Delivery {
        let request = http::Request::post(&to.url)
            .header("content-type", "application/json")
            .header("fettle-signature", format!("sha256={}", hex(&hmac(&to.secret, body.as_bytes()))))
            .body(Full::new(bytes::Bytes::from(body)));
        let client = self.client.clone();
        Box::pin(async move {
            let request = request.map_err(|error| error.to_string())?;
            let answer = tokio::time::timeout(TIMEOUT, client.request(request))
                .await
                .map_err(|_| format!("no answer within {} s", TIMEOUT.as_secs()))?
                .map_err(|error| match std::error::Error::source(&error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                })?;
            match answer.status() {
                status if status.is_success() => Ok(()),
                status => Err(format!("the receiver answered {status}")),
            }
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    fettle_proto::signed::words::hex(bytes)
}

/// HMAC-SHA-256 (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_published_test_vectors() {
        assert_eq!(
            hex(&hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(&hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn the_format_is_the_golden_one() {
        use crate::evidence::{Seen, Tried};
        let whole = Notification {
            fettle: FORMAT,
            id: "17".into(),
            kind: "run-ended",
            at: "2026-11-21T03:04:05Z".into(),
            title: "host/disk-full on web-1: unverified".into(),
            run: "run_01".into(),
            gate: String::new(),
            incident: "inc_01".into(),
            host: "web-1".into(),
            to: Vec::new(),
            text: "everything ran; the symptom is still there".into(),
            ending: "unverified",
            since: "2026-11-21T03:02:50Z".into(),
            evidence: Some(Evidence {
                tried: vec![Tried {
                    step: "remediate/vacuum".into(),
                    outcome: "succeeded".into(),
                    why: String::new(),
                }],
                readings: vec![
                    r#"`disk("/var").used_percent < 85.0` is false (disk("/var").used_percent = 97.3)"#
                        .into(),
                ],
                seen: vec![Seen {
                    step: "diagnose/biggest".into(),
                    lines: vec!["9.1G\t/var/lib/app".into()],
                }],
                next: vec!["fettle incident show inc_01".into()],
            }),
        };
        let written = serde_json::to_string_pretty(&whole).expect("JSON") + "\n";
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/notify.golden.json");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&golden, &written).expect("it can be written");
        }
        assert_eq!(
            std::fs::read_to_string(golden).expect("it is there"),
            written,
            "a changed format needs a new version"
        );
    }

    #[test]
    fn tries_come_later_and_later_and_end() {
        assert_eq!(backoff(1), Duration::from_secs(1));
        assert_eq!(backoff(4), Duration::from_secs(8));
        assert_eq!(backoff(20), Duration::from_secs(600));
        assert_eq!(retry(3, At(0)), Some(At(4_000)));
        assert_eq!(retry(TRIES, At(0)), None);
    }
}
