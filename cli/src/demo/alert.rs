//! The alert, posted as Alertmanager posts it.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::{Error, Result};
use crate::exit::Exit;

/// The body Alertmanager (webhook version 4) would send for a kiosk that does not answer, or that did not until then.
pub(super) fn body(
    host: &str,
    kiosk: u16,
    directory: &Path,
    since: Timestamp,
    until: Option<Timestamp>,
) -> Value {
    let status = if until.is_some() { "resolved" } else { "firing" };
    let ends_at = until.map_or("0001-01-01T00:00:00Z".to_owned(), |until| until.to_string());
    let labels = json!({
        "alertname": "DemoServiceDown",
        "severity": "critical",
        "instance": host,
        "service": "kiosk",
        "address": format!("127.0.0.1:{kiosk}"),
    });
    let annotations = json!({
        "summary": "kiosk does not answer on its port",
        "pid_file": super::kiosk::pid_file(directory),
        "log": super::keeper::log_file(directory, "kiosk"),
    });
    json!({
        "version": "4",
        "groupKey": "{}:{alertname=\"DemoServiceDown\"}",
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "fettle",
        "groupLabels": { "alertname": "DemoServiceDown" },
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "http://alertmanager.example:9093",
        "alerts": [{
            "status": status,
            "labels": labels,
            "annotations": annotations,
            "startsAt": since.to_string(),
            "endsAt": ends_at,
            "generatorURL": "http://prometheus.example:9090/graph",
            "fingerprint": "8f3c1d5a90b2e764",
        }],
    })
}

/// Posts a body to `/v1/signals/alertmanager` over TLS, believing only the controller's own authority. `Ok` is the
/// controller's answer to a body it took.
pub(super) async fn post(port: u16, ca_der: &[u8], token: &str, body: &Value) -> Result<String> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Error::new(Exit::Failed, "failed to post the alert")
            .at(format!("https://127.0.0.1:{port}"))
            .because(error)
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca_der.to_vec())).map_err(|error| failed(&error))?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| failed(&error))?;
    let name = ServerName::try_from("localhost").map_err(|error| failed(&error))?;
    let mut tls =
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|error| failed(&error))?;

    let body = body.to_string();
    let head = format!(
        "POST /v1/signals/alertmanager HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    tls.write_all(head.as_bytes()).await.map_err(|error| failed(&error))?;
    tls.write_all(body.as_bytes()).await.map_err(|error| failed(&error))?;
    let mut answer = Vec::new();
    match tls.read_to_end(&mut answer).await {
        // Some servers end the connection without ending TLS first; the answer is whole all the same.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        other => drop(other.map_err(|error| failed(&error))?),
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default().to_owned();
    if status.split(' ').nth(1).is_some_and(|code| code.starts_with('2')) {
        return Ok(body.trim().to_owned());
    }
    Err(Error::new(Exit::Failed, "the controller did not take the alert").why(status).why(body.trim()))
}
