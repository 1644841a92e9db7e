//! What answers a stranger: a caller without certificate, session or token.
//!
//! The lists below are the whole surface. A new method or address appears in them, or a test fails.

use std::fs;
use std::process::{Command, Stdio};

use fettle_tests::Cluster;
use fettle_tests::cluster::told;
use sha2::{Digest as _, Sha256};

use crate::sources;

/// gRPC codes.
const OK: u8 = 0;
const INVALID: u8 = 3;
const UNIMPLEMENTED: u8 = 12;
const UNAUTHENTICATED: u8 = 16;

/// Every method of our services that does anything for a stranger, with what it says to an empty message. It asks who
/// one is (login), or takes a token that an operator made (enrolment).
const OPEN: &[(&str, u8)] = &[("fettle.v1.Agents/Enrol", INVALID), ("fettle.v1.Operators/Login", INVALID)];

/// What others have defined.
const FOREIGN: &[(&str, u8)] = &[
    ("grpc.health.v1.Health/Check", OK),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", UNIMPLEMENTED),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", UNIMPLEMENTED),
    ("fettle.v1.Operators/NoSuchMethod", UNIMPLEMENTED),
    ("fettle.v1.NoSuchService/Method", UNIMPLEMENTED),
];

/// Every method that the `.proto` files define.
fn methods() -> Vec<String> {
    let mut methods = Vec::new();
    let files = sources::all().into_iter().filter(|source| source.path.ends_with(".proto"));
    for source in files {
        let mut service = String::new();
        for line in source.text.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("service ") {
                service = rest.split([' ', '{']).next().unwrap_or_default().to_owned();
            } else if let Some(rest) = line.strip_prefix("rpc ") {
                let method = rest.split('(').next().unwrap_or_default().trim();
                methods.push(format!("fettle.v1.{service}/{method}"));
            }
        }
    }
    methods
}

/// Calls a method with one empty message, by `curl`, which shares no code with us; its gRPC status, and what it sent.
fn call(cluster: &Cluster, method: &str, headers: &[&str]) -> (Option<u8>, String) {
    let message = cluster.path("empty-message");
    fs::write(&message, [0; 5]).expect("it can be written");
    let body = ["--data-binary".to_owned(), format!("@{}", message.display())];
    let ask = |body: &[String]| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--http2", "--max-time", "10"]);
        curl.args(["--request", "POST", "--output", "/dev/null", "--dump-header", "-"]).args(body);
        curl.arg("--cacert").arg(cluster.path("ca.pem"));
        for header in ["content-type: application/grpc", "te: trailers"].iter().chain(headers) {
            curl.args(["--header", header]);
        }
        curl.arg(format!("https://localhost:{}/{method}", cluster.grpc)).stdin(Stdio::null());
        curl.output().expect("curl can be run")
    };
    // An answer that comes before the message has been read may be overtaken by the stream's end; whoever gives one needs no message.
    const RESET: Option<i32> = Some(92);
    let mut output = ask(&body);
    if output.status.code() == RESET {
        output = ask(&[]);
    }
    let said = told(&output);
    let status = said.lines().find_map(|line| line.strip_prefix("grpc-status:"));
    (status.and_then(|code| code.trim().parse().ok()), said)
}

#[test]
fn a_stranger_may_join_sign_in_and_ask_for_health_and_nothing_else() {
    let cluster = Cluster::builder().agent("web-1").start();
    let methods = methods();
    assert!(methods.len() > 20, "only {methods:?}");
    for method in &methods {
        let open = OPEN.iter().find(|(name, _)| name == method).map(|(_, code)| *code);
        let expected = open.unwrap_or(UNAUTHENTICATED);
        let (status, said) = call(&cluster, method, &[]);
        assert_eq!(status, Some(expected), "{method} without anything: {said}");
        // A made-up session, a session in the wrong clothes, and the header an inner proxy might set.
        for header in [
            "authorization: Bearer fts_0000",
            "authorization: Basic YW5hOmFuYQ==",
            "authorization: Bearer ",
            "x-forwarded-client-cert: Subject=\"CN=web-1\";URI=spiffe://fettle/host/web-1",
        ] {
            let (status, said) = call(&cluster, method, &[header]);
            assert_eq!(status, Some(expected), "{method} with {header}: {said}");
        }
    }
    for (method, expected) in FOREIGN {
        let (status, said) = call(&cluster, method, &[]);
        assert_eq!(status, Some(*expected), "{method}: {said}");
    }
    let listed = OPEN.iter().filter(|(name, _)| !methods.iter().any(|method| method == name));
    assert_eq!(listed.count(), 0, "every open method exists");
}

#[test]
fn a_stranger_reads_health_over_http_and_nothing_else() {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef-metrics";
    let hash: String = Sha256::digest(TOKEN).iter().map(|byte| format!("{byte:02x}")).collect();
    let policy = serde_json::json!({ "metrics": { "token_sha256": hash } });
    let cluster = Cluster::builder().policy(policy).start();
    let ask = |method: &str, path: &str, headers: &[String]| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "5", "--request", method, "--path-as-is"]);
        curl.args(["--output", "/dev/null", "--write-out", "%{http_code}"]);
        curl.arg("--cacert").arg(cluster.path("ca.pem"));
        for header in headers {
            curl.args(["--header", header]);
        }
        let output = curl.arg(cluster.url(path)).output().expect("curl can be run");
        String::from_utf8_lossy(&output.stdout).parse::<u16>().unwrap_or_default()
    };
    assert_eq!(ask("GET", "/metrics", &[format!("Authorization: Bearer {TOKEN}")]), 200);
    for (path, answers) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 401),
        ("/v1/signals/alertmanager", 405),
        ("/", 404),
        ("/v1", 404),
        ("/v1/signals", 404),
        ("/v1/runs", 404),
        ("/debug/pprof", 404),
        ("/favicon.ico", 404),
        ("/../trust.json", 404),
        ("/healthz/../metrics", 404),
        ("//metrics", 404),
    ] {
        assert_eq!(ask("GET", path, &[]), answers, "GET {path}");
    }
    assert_eq!(ask("GET", "/metrics", &["Authorization: Bearer wrong".to_owned()]), 401);
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(ask(method, path, &[]), 405, "{method} {path}");
        }
    }
    assert_eq!(ask("POST", "/v1/signals/alertmanager", &[]), 401);
}
