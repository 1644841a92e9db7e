//! The notification webhook: who waits for whom, and what became of it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::receiver::{Received, Receiver};
use fettle_tests::{Cluster, eventually};
use serde_json::{Value, json};

const SECRET: &str = "a secret of the receiver and the controller";

const ASKS: &str = r#"fettle: 1
runbook: test/asks
title: Asks
owner: tests
on:
  - alert: Ask
    host: labels.instance
remediate:
  - id: act
    risk: high
    run: ["true"]
    repeat: safe
    undo: none
    approval: { from: [on-call], need: 1, within: 5m, escalate: { after: 1s, to: [dba] } }
verify:
  - id: well
    that: file("/").exists
"#;

fn cluster(receiver: &Receiver) -> Cluster {
    let url = format!("http://127.0.0.1:{}/hook?x=1", receiver.port);
    let notify = json!({ "notify": { "url": url, "secret": SECRET } });
    Cluster::builder().runbook(ASKS).policy(notify).agent("web-1").start()
}

/// HMAC-SHA-256 as OpenSSL computes it.
fn hmac(body: &[u8]) -> String {
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("key:{SECRET}"), "-r"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl can be run");
    openssl.stdin.take().expect("it has an input").write_all(body).expect("it reads");
    let said = openssl.wait_with_output().expect("it ends").stdout;
    String::from_utf8_lossy(&said).split(' ').next().unwrap_or_default().to_owned()
}

fn document(received: &Received) -> Value {
    serde_json::from_slice(&received.body).expect("a JSON document")
}

/// Waits for one of this kind that was taken, checks what holds for all, and answers with its document.
#[track_caller]
fn told_of(receiver: &Receiver, kind: &str) -> Value {
    let received = eventually(&format!("`{kind}` arrives"), LIMIT, || {
        let received = receiver.received();
        let found = received.iter().find(|one| one.answered == 200 && document(one)["kind"] == kind);
        found.cloned().ok_or_else(|| format!("{:#?}", received.iter().map(document).collect::<Vec<_>>()))
    });
    assert_eq!(received.line, "POST /hook?x=1 HTTP/1.1");
    assert_eq!(received.header("content-type"), Some("application/json"));
    let signature = format!("sha256={}", hmac(&received.body));
    assert_eq!(received.header("fettle-signature"), Some(signature.as_str()));
    let document = document(&received);
    assert_eq!(document["fettle"], "notification/2");
    document
}

#[test]
fn an_approver_is_told_of_a_gate_and_of_what_became_of_it() {
    let receiver = Receiver::start(200);
    let cluster = cluster(&receiver);
    let run = cluster.fire("Ask", &[("instance", "web-1")]);
    let gate = cluster.gate(&run);

    let opened = told_of(&receiver, "gate-opened");
    assert_eq!((&opened["gate"], &opened["run"]), (&json!(gate), &json!(run)), "{opened:#}");
    assert_eq!((&opened["host"], &opened["to"]), (&json!("web-1"), &json!(["on-call"])), "{opened:#}");
    assert!(opened["title"].to_string().contains("test/asks"), "{opened:#}");
    assert!(opened["incident"].to_string().contains("inc_"), "{opened:#}");
    let escalated = told_of(&receiver, "gate-escalated");
    assert_eq!((&escalated["gate"], &escalated["to"]), (&json!(gate), &json!(["dba"])), "{escalated:#}");

    let output = cluster.fettle("ana", &["approve", &gate, "--yes", "--reason", "seen it"]);
    assert!(output.status.success(), "{}", told(&output));
    let decided = told_of(&receiver, "gate-decided");
    assert_eq!(decided["gate"], json!(gate));
    assert!(decided["text"].to_string().contains("ana"), "who decided: {decided:#}");
    let ended = told_of(&receiver, "run-ended");
    assert_eq!(ended["run"], json!(run));
    assert!(format!("{}{}", ended["title"], ended["text"]).contains("verified"), "{ended:#}");

    let ids: Vec<String> = receiver.received().iter().map(|one| document(one)["id"].to_string()).collect();
    let mut once = ids.clone();
    once.dedup();
    assert_eq!(ids, once, "what was taken is not sent again");
}

#[test]
fn a_notification_is_tried_until_the_receiver_takes_it_also_after_a_crash() {
    // It is away: first it closes connections, then it is broken.
    let receiver = Receiver::start(0);
    let mut cluster = cluster(&receiver);
    let run = cluster.fire("Ask", &[("instance", "web-1")]);
    let gate = cluster.gate(&run);
    // Others are on their way, too: the escalation comes a second later.
    let tried = |answered: u16| {
        let received = receiver.received();
        let is_it = |one: &Received| one.answered == answered && document(one)["kind"] == "gate-opened";
        if received.iter().any(is_it) { Ok(()) } else { Err(format!("{received:#?}")) }
    };
    eventually("it was tried", LIMIT, || tried(0));
    receiver.answer(503);
    eventually("it was tried again", LIMIT, || tried(503));
    cluster.restart_controller();
    receiver.answer(200);
    let opened = told_of(&receiver, "gate-opened");
    assert_eq!(opened["gate"], json!(gate));
    // All tries of one notification are one notification: same id, same bytes.
    let received = receiver.received();
    let same: Vec<&Received> = received.iter().filter(|one| document(one)["kind"] == "gate-opened").collect();
    assert!(same.len() >= 3, "{}", same.len());
    assert!(same.iter().all(|one| one.body == same[0].body), "tries differ");
}
