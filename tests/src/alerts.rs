//! Alerts, as Alertmanager posts them.

use std::process::{Command, Stdio};

use jiff::Timestamp;
use serde_json::{Value, json};

/// What the controller answered to a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status; 0 when there was no answer.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// One alert of version 4 of the webhook, firing since now.
pub fn firing(alertname: &str, labels: &[(&str, &str)]) -> Value {
    one("firing", alertname, labels, &[])
}

/// The same alerts, over now.
pub fn resolved(body: &Value) -> Value {
    let mut body = body.clone();
    body["status"] = json!("resolved");
    for alert in body["alerts"].as_array_mut().into_iter().flatten() {
        alert["status"] = json!("resolved");
        alert["endsAt"] = json!(Timestamp::now().to_string());
    }
    body
}

/// One alert with annotations.
pub fn one(status: &str, alertname: &str, labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Value {
    let mut all: serde_json::Map<String, Value> =
        labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    all.insert("alertname".to_owned(), json!(alertname));
    let annotations: serde_json::Map<String, Value> =
        annotations.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let now = Timestamp::now().to_string();
    json!({
        "version": "4", "groupKey": "{}", "truncatedAlerts": 0, "status": status, "receiver": "fettle",
        "groupLabels": {}, "commonLabels": all, "commonAnnotations": annotations, "externalURL": "",
        "alerts": [{
            "status": status, "labels": all, "annotations": annotations, "startsAt": now,
            "endsAt": if status == "resolved" { now.as_str() } else { "0001-01-01T00:00:00Z" },
            "generatorURL": "", "fingerprint": fingerprint(&all),
        }],
    })
}

/// Names an alert by its labels, as Alertmanager does (it uses another hash).
fn fingerprint(labels: &serde_json::Map<String, Value>) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(labels).expect("labels are text").hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Posts bytes as a source would, with `curl`, which shares no code with us.
pub fn post(url: &str, ca: &std::path::Path, token: Option<&str>, body: &[u8]) -> Answer {
    use std::io::Write as _;
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "10", "--cacert"]).arg(ca);
    curl.args([
        "--header",
        "Content-Type: application/json",
        "--write-out",
        "\n%{http_code}",
        "--data-binary",
        "@-",
    ]);
    if let Some(token) = token {
        curl.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    let mut child =
        curl.arg(url).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("curl can be run");
    // It stops reading when it has been refused.
    let _ = child.stdin.take().expect("it has an input").write_all(body);
    let said = child.wait_with_output().expect("curl ends").stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    let (body, status) = said.rsplit_once('\n').unwrap_or(("", "0"));
    Answer { status: status.parse().unwrap_or_default(), body: body.to_owned() }
}
