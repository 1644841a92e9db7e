//! Bodies as nobody meant them: real ones and small ones of our own, changed at random places.
//!
//! Whatever is changed, a body is read or refused with a reason that a person can use, and what calls itself resolved
//! never comes out as firing.

use super::tests::corpus;
use super::*;
use proptest::prelude::*;
use proptest::sample::Index;

const NOW: At = At(1_800_000_000_000);

/// Small bodies of the shapes that are read.
const SAMPLES: &[&str] = &[
    r#"{"version":"4","groupKey":"{}:{a=\"b\"}","truncatedAlerts":2,"status":"firing","receiver":"r","groupLabels":{},
        "commonLabels":{"alertname":"A"},"commonAnnotations":{},"externalURL":"http://am","alerts":[
        {"status":"firing","labels":{"alertname":"A","instance":"web-1:9100"},"annotations":{"summary":"s"},
         "startsAt":"2026-01-01T00:00:00.123456789Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"u","fingerprint":"a1"},
        {"status":"resolved","labels":{"alertname":"A","instance":"web-2:9100"},"annotations":{},
         "startsAt":"2026-01-01T01:00:00+03:00","endsAt":"2026-01-01T00:05:00Z","fingerprint":"a2"}]}"#,
    r#"{"receiver":"r","status":"firing","orgId":1,"version":"1","groupKey":"{}:{}","title":"[FIRING:1]","state":"alerting",
        "message":"m","groupLabels":{},"commonLabels":{},"alerts":[{"status":"resolved","labels":{"alertname":"B",
        "grafana_folder":"f"},"annotations":{"grafana_state_reason":"NoData"},"startsAt":"2026-01-01T00:00:00Z",
        "endsAt":"2026-01-01T00:01:00Z","values":{"B":1.5},"valueString":"[ var='B' ]","fingerprint":"b1"}]}"#,
    r#"{"title":"[Alerting] Test notification","ruleId":0,"ruleName":"Test notification","state":"alerting",
        "evalMatches":[{"value":100,"metric":"High value","tags":null}],"isTestAlert":true}"#,
];

fn bodies() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = SAMPLES.iter().map(|sample| sample.as_bytes().to_vec()).collect();
    let Some(corpus) = corpus() else { return bodies };
    for product in ["alertmanager-v4", "grafana-legacy"] {
        let files = std::fs::read_dir(corpus.join(product)).expect("it can be listed").flatten();
        bodies.extend(files.map(|file| std::fs::read(file.path()).expect("it can be read")));
    }
    bodies.sort();
    bodies
}

/// What stands in the place of a value.
fn other(which: usize) -> Value {
    let deep = || (0..140).fold(Value::Null, |inner, _| serde_json::json!([inner]));
    match which % 18 {
        0 => Value::Null,
        1 => serde_json::json!(true),
        2 => serde_json::json!(-1),
        3 => serde_json::json!(1e308),
        4 => serde_json::json!(9_007_199_254_740_993_u64),
        5 => serde_json::json!(""),
        6 => serde_json::json!("{{ $labels.instance }}"),
        7 => serde_json::json!("firing"),
        8 => serde_json::json!("resolved"),
        9 => serde_json::json!("0000-00-00T00:00:00Z"),
        10 => serde_json::json!("9999-12-31T23:59:60.999999999+14:00"),
        11 => serde_json::json!("\u{0}\u{1b}[2J\u{202e}"),
        12 => serde_json::json!("x".repeat(70_000)),
        13 => serde_json::json!([]),
        14 => serde_json::json!({}),
        15 => serde_json::json!({ "alertname": 1 }),
        16 => deep(),
        _ => serde_json::json!([[], {}, "a"]),
    }
}

/// How many values a tree has.
fn count(value: &Value) -> usize {
    let below: usize = match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    };
    1 + below
}

/// The value in the given place, counted from the root.
fn place<'v>(value: &'v mut Value, left: &mut usize) -> Option<&'v mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| place(item, left)),
        Value::Object(members) => members.values_mut().find_map(|item| place(item, left)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn change(document: &mut Value, at: Index, how: usize) {
    let mut left = at.index(count(document));
    let Some(value) = place(document, &mut left) else { return };
    match (how % 4, &mut *value) {
        (0, Value::Object(members)) => {
            let name = members.keys().nth(how % members.len().max(1)).cloned();
            name.and_then(|name| members.remove(&name));
        }
        (1, Value::Object(members)) => {
            let name = members.keys().nth(how % members.len().max(1)).cloned();
            if let Some((name, value)) = name.and_then(|name| members.remove_entry(&name)) {
                members.insert(name.to_uppercase(), value);
            }
        }
        (0 | 1, Value::Array(items)) => items.extend(items.clone()),
        _ => *value = other(how),
    }
}

/// What must hold of any body whatever.
fn hold(body: &[u8]) {
    match read("s", body, NOW) {
        Ok(intake) => {
            assert!((1..=MOST_ALERTS).contains(&intake.signals.len()));
            let document: Value =
                serde_json::from_slice(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)).expect("JSON");
            let alerts =
                document.as_object().and_then(|group| member(group, "alerts")).and_then(Value::as_array);
            for (signal, alert) in intake.signals.iter().zip(alerts.into_iter().flatten()) {
                let said = alert.as_object().and_then(|alert| member(alert, "status"));
                let resolved = said.and_then(Value::as_str) == Some("resolved");
                assert!(!resolved || signal.status == Status::Resolved, "{}", String::from_utf8_lossy(body));
                assert!(signal.labels.len() <= MOST_LABELS && !signal.labels.is_empty());
                assert!(signal.labels.values().all(|value| value.len() <= LONGEST_LABEL));
                assert!(signal.remarks.iter().all(|remark| remark.text.len() < 500));
            }
        }
        Err(refused) => {
            for text in [&refused.why, &refused.fix] {
                assert!(!text.is_empty() && text.len() < 600, "{text}");
                assert!(!text.chars().any(char::is_control), "{text:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_body_changed_anywhere_is_read_or_refused_with_a_reason(
        which: Index, changes in proptest::collection::vec((any::<Index>(), 0usize..72), 1..4),
    ) {
        let bodies = bodies();
        let body = &bodies[which.index(bodies.len())];
        let Ok(mut document) = serde_json::from_slice::<Value>(body) else { return Ok(()) };
        for (at, how) in changes {
            change(&mut document, at, how);
        }
        hold(document.to_string().as_bytes());
    }

    #[test]
    fn bytes_changed_anywhere_are_read_or_refused_with_a_reason(
        which: Index, at: Index, how in 0usize..4, byte: u8,
    ) {
        let bodies = bodies();
        let mut body = bodies[which.index(bodies.len())].clone();
        let at = at.index(body.len());
        match how {
            0 => body[at] = byte,
            1 => body.insert(at, byte),
            2 => body.truncate(at),
            _ => {
                let half = body.split_off(at);
                body.extend_from_slice(&half);
                body.extend_from_slice(&half);
            }
        }
        hold(&body);
    }
}
