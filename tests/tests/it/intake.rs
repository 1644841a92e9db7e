//! What arrives at the port for signals: bodies that cannot be read, are too much, or are meant ill.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fettle_tests::Cluster;
use fettle_tests::alerts::{Answer, firing};
use fettle_tests::cluster::SOURCE;
use serde_json::{Value, json};

/// A `curl` that believes the cluster's authority, told what else to do.
fn curl(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}"]);
    curl.arg("--cacert").arg(cluster.path("ca.pem")).args(arguments);
    curl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    curl
}

fn answered(curl: &mut Command) -> Answer {
    answer(&curl.output().expect("curl can be run").stdout)
}

fn answer(stdout: &[u8]) -> Answer {
    let said = String::from_utf8_lossy(stdout).into_owned();
    let (body, status) = said.rsplit_once('\n').unwrap_or(("", "0"));
    Answer { status: status.parse().unwrap_or_default(), body: body.to_owned() }
}

/// Asserts a refusal that says what, why and what next, in JSON.
#[track_caller]
fn refused(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let said: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("not JSON: {answer:?}"));
    let error = &said["error"];
    assert!(error["what"].as_str().is_some_and(|what| !what.is_empty()), "{said:#}");
    assert!(error.to_string().contains(words), "`{words}` is missing: {said:#}");
}

#[test]
fn bodies_that_are_no_alerts_are_refused_and_leave_no_trace() {
    let cluster = Cluster::builder().start();
    let post = |body: &[u8]| cluster.post_bytes(Some(SOURCE.1), body);
    let deep = |count: usize| {
        let open = "{\"alerts\":[".repeat(count);
        format!("{open}{}", "]}".repeat(count))
    };
    let alert = |members: Value| {
        let mut body = firing("X", &[("instance", "web-1")]);
        for (name, value) in members.as_object().into_iter().flatten() {
            body["alerts"][0][name] = value.clone();
        }
        body.to_string().into_bytes()
    };
    let good = firing("X", &[]).to_string();

    let status = || cluster.json("ana", &["status"])["warnings"].to_string();
    assert!(!status().contains("refused"), "{}", status());

    // Unreadable.
    refused(&post(b""), 400, "empty");
    refused(&post(b"\xff\xfe{}"), 400, "UTF-8");
    refused(&post(b"<alerts/>"), 400, "XML");
    refused(&post(b"payload=%7B%7D"), 400, "form");
    refused(&post(&good.as_bytes()[..good.len() / 2]), 400, "EOF");
    refused(&post(b"{\"alerts\":\x00[]}"), 400, "JSON");
    // Deep: refused by the depth, not by the stack.
    refused(&post(deep(100).as_bytes()), 400, "recursion");
    refused(&post("[".repeat(500_000).as_bytes()), 400, "recursion");
    // Something else.
    refused(&post(b"[]"), 422, "");
    refused(&post(b"null"), 422, "");
    refused(&post(b"{\"alerts\":{}}"), 422, "");
    refused(&post(br#"{"receiver":"x","alerts":[]}"#), 422, "empty");
    refused(&post(br#"{"receiver":"x","version":"5","alerts":[{}]}"#), 422, "version");
    refused(&post(br#"{"receiver":"x","alerts":[1]}"#), 422, "alerts[0]");
    refused(&post(&alert(json!({"labels": {}}))), 422, "labels");
    refused(&post(&alert(json!({"labels": {"a": 1}}))), 422, "labels");
    refused(&post(&alert(json!({"labels": {"a": {"b": "c"}}}))), 422, "labels");
    refused(&post(&alert(json!({"startsAt": "yesterday"}))), 422, "startsAt");
    refused(&post(&alert(json!({"startsAt": 4}))), 422, "startsAt");
    refused(&post(&alert(json!({"status": "burning"}))), 422, "burning");
    refused(&post(&alert(json!({"fingerprint": "f".repeat(1000)}))), 422, "fingerprint");
    refused(&post(&alert(json!({"labels": {"a": "x".repeat(9000)}}))), 422, "9000");
    let many: serde_json::Map<String, Value> = (0..500).map(|n| (format!("l{n}"), json!("x"))).collect();
    refused(&post(&alert(json!({ "labels": many }))), 422, "500");
    let mut group = firing("X", &[]);
    group["alerts"] = json!(vec![json!({"labels": {"a": "b"}}); 1001]);
    refused(&post(group.to_string().as_bytes()), 422, "1001");

    // One bad alert spoils its whole body: half a group would hide the other half.
    let mut group = firing("X", &[("instance", "web-1")]);
    group["alerts"].as_array_mut().expect("a list").push(json!({"labels": 7}));
    refused(&post(group.to_string().as_bytes()), 422, "alerts[1]");
    assert_eq!(cluster.json("ana", &["signal", "list"]), json!([]), "nothing of it was taken");
    assert_eq!(cluster.json("ana", &["incident", "list"]), json!([]));

    // Whoever misses an alert finds out why, without the sender's log.
    let said = status();
    assert!(
        said.contains("posts of source `alertmanager` were refused") && said.contains("alerts[1]"),
        "{said}"
    );

    // And the port is as well as before.
    assert_eq!(post(good.as_bytes()).status, 200);
    assert!(status().contains("taken in since: 1"), "{}", status());
}

#[test]
fn bodies_over_one_mebibyte_are_refused_announced_or_not() {
    let cluster = Cluster::builder().start();
    let url = cluster.url("/v1/signals/alertmanager");
    let token = format!("Authorization: Bearer {}", SOURCE.1);
    let exact = |size: usize| {
        let mut body = firing("X", &[]).to_string();
        body.push_str(&" ".repeat(size - body.len()));
        body
    };
    let send = |body: &str, more: &[&str]| {
        let mut all = vec!["--header", token.as_str(), "--data-binary", "@-"];
        all.extend(more);
        all.push(&url);
        let mut curl = curl(&cluster, &all).stdin(Stdio::piped()).spawn().expect("curl can be run");
        let mut input = curl.stdin.take().expect("it has an input");
        // It stops reading when it has been refused.
        let _ = input.write_all(body.as_bytes());
        drop(input);
        answer(&curl.wait_with_output().expect("it ends").stdout)
    };
    const LIMIT: usize = 1024 * 1024;
    for way in [&[][..], &["--header", "Transfer-Encoding: chunked"]] {
        assert_eq!(send(&exact(LIMIT), way).status, 200, "{way:?}");
        refused(&send(&exact(LIMIT + 1), way), 413, "1 MiB");
        refused(&send(&exact(8 * LIMIT), way), 413, "1 MiB");
    }
    // Compressed: nobody unpacks a bomb.
    refused(&send("x", &["--header", "Content-Encoding: gzip"]), 415, "compressed");
    // An announced length that is none, and two of them, end the request before it is one.
    for length in ["-1", "99999999999999999999", "5, 6"] {
        let header = format!("Content-Length: {length}");
        let answer = send("x", &["--header", &header]);
        assert!(matches!(answer.status, 400 | 413), "{length}: {answer:?}");
    }
    assert_eq!(cluster.post(&firing("Y", &[])).status, 200, "the port is as well as before");
}

#[test]
fn a_body_that_does_not_come_ends_and_others_do_not_wait_for_it() {
    let cluster = Cluster::builder().start();
    let mut slow = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_quiet", "-verify_return_error", "-servername", "localhost"])
        .args(["-connect", &format!("127.0.0.1:{}", cluster.http), "-CAfile"])
        .arg(cluster.path("ca.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl can be run");
    let mut input = slow.stdin.take().expect("it has an input");
    let head = format!(
        "POST /v1/signals/alertmanager HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        SOURCE.1
    );
    input.write_all(format!("{head}5\r\n{{\"ale\r\n").as_bytes()).expect("it reads");
    let began = Instant::now();
    assert_eq!(cluster.post(&firing("Y", &[])).status, 200, "others are served meanwhile");
    assert!(began.elapsed() < Duration::from_secs(5), "others waited {:?}", began.elapsed());
    // The controller ends it: the input stays open until then.
    let said = slow.wait_with_output().expect("it ends");
    drop(input);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let (head, body) = said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {said:?}"));
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    refused(&Answer { status: 408, body: body.to_owned() }, 408, "in time");
}

#[test]
fn only_who_has_the_token_of_a_source_posts_for_it() {
    let cluster = Cluster::builder().start();
    let body = firing("X", &[]).to_string();
    let token = format!("Authorization: Bearer {}", SOURCE.1);
    let post = |path: &str, headers: &[&str]| {
        let mut arguments: Vec<&str> = headers.iter().flat_map(|header| ["--header", header]).collect();
        let url = cluster.url(path);
        arguments.extend(["--data-binary", &body, &url]);
        answered(&mut curl(&cluster, &arguments))
    };
    const HERE: &str = "/v1/signals/alertmanager";
    refused(&post(HERE, &[]), 401, "Authorization");
    refused(&post(HERE, &["Authorization: Bearer"]), 401, "bearer");
    refused(&post(HERE, &["Authorization: Bearer wrong"]), 401, "token");
    refused(&post(HERE, &["Authorization: Basic YTpi"]), 401, "bearer");
    refused(&post(HERE, &[&format!("Authorization: Bearer {}x", SOURCE.1)]), 401, "token");
    refused(&post(HERE, &[&format!("X-Token: {}", SOURCE.1)]), 401, "Authorization");
    refused(&post("/v1/signals/nobody", &[&token]), 404, "source");
    refused(&post("/v1/signals/..%2Falertmanager", &[&token]), 404, "");
    refused(&post("/v1/signals/", &[&token]), 404, "");
    refused(&post("/v1/signals/alertmanager/", &[&token]), 404, "");
    // A stranger learns nothing of which sources there are.
    let (known, unknown) = (post(HERE, &[]), post("/v1/signals/nobody", &[]));
    assert_eq!(known, unknown, "an address without a token answers alike");
    assert_eq!(cluster.json("ana", &["signal", "list"]), json!([]));
    assert_eq!(post(HERE, &[&token]).status, 200);

    // A GET decides nothing.
    let got = answered(&mut curl(&cluster, &["--header", &token, &cluster.url(HERE)]));
    refused(&got, 405, "method");
}
