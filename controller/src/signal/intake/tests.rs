//! Samples of every kind of body, the corpus, and any bytes at all.

use super::*;
use proptest::prelude::*;

const NOW: At = At(1_800_000_000_000);

fn read_text(body: &str) -> Result<Intake, Refused> {
    read("alertmanager", body.as_bytes(), NOW)
}

/// The one place these tests touch the reader: a body in, what was understood out.
#[track_caller]
fn check(body: &str, expected: &str) {
    let told = match read_text(body) {
        Ok(intake) => intake
            .signals
            .iter()
            .map(|it| {
                let time = |at: Option<At>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
                format!(
                    "{} {} {} from {} to {}",
                    if it.name.is_empty() { "(unnamed)" } else { &it.name },
                    it.status.word(),
                    it.fingerprint,
                    time(it.starts_at),
                    time(it.ends_at)
                )
            })
            .collect::<Vec<_>>()
            .join("\n"),
        Err(refused) => format!("refused: {}\nfix: {}", refused.why, refused.fix),
    };
    assert_eq!(told, expected);
}

#[test]
fn a_whole_body_of_version_4_is_read() {
    check(
        r#"{"version":"4","groupKey":"{}:{alertname=\"Down\"}","truncatedAlerts":0,"status":"firing",
            "receiver":"fettle","groupLabels":{"alertname":"Down"},"commonLabels":{},"commonAnnotations":{},
            "externalURL":"http://am:9093","alerts":[
            {"status":"firing","labels":{"alertname":"Down","instance":"web-1:9100"},"annotations":{"summary":"s"},
             "startsAt":"2026-01-01T00:00:00.123456789Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://p",
             "fingerprint":"00000000000000aa"},
            {"status":"resolved","labels":{"alertname":"Down","instance":"web-2:9100"},"annotations":null,
             "startsAt":"2026-01-01T01:00:00+03:00","endsAt":"2026-01-01T00:05:00Z","fingerprint":"00000000000000ab"}
            ]}"#,
        "Down firing 00000000000000aa from 2026-01-01T00:00:00.123Z to -\n\
         Down resolved 00000000000000ab from 2025-12-31T22:00:00Z to 2026-01-01T00:05:00Z",
    );
}

#[test]
fn grafana_unified_alerting_is_read_by_the_alert_and_not_by_its_state() {
    check(
        r#"{"receiver":"fettle","status":"firing","orgId":1,"version":"1","groupKey":"{}:{}","truncatedAlerts":0,
            "title":"[FIRING:1, RESOLVED:1]","state":"alerting","message":"m","groupLabels":{},"commonLabels":{},
            "commonAnnotations":{},"externalURL":"http://g","alerts":[
            {"status":"resolved","labels":{"alertname":"A"},"annotations":{},"startsAt":"2026-01-01T00:00:00Z",
             "endsAt":"2026-01-01T00:01:00Z","values":{"B":1.5},"fingerprint":"aa","silenceURL":"u"}]}"#,
        "A resolved aa from 2026-01-01T00:00:00Z to 2026-01-01T00:01:00Z",
    );
}

#[test]
fn an_alert_without_a_status_takes_that_of_its_group_or_its_end() {
    let body = |group: &str, alerts: &str| format!(r#"{{"receiver":"r",{group}"alerts":[{alerts}]}}"#);
    let open = r#"{"labels":{"a":"1"},"fingerprint":"o","endsAt":"0001-01-01T00:00:00Z"}"#;
    let past = r#"{"labels":{"a":"2"},"fingerprint":"p","EndsAt":"2018-08-30T17:01:09.656110177+03:00"}"#;
    let (open_only, past_only) = (body("", open), body("", past));
    check(&open_only, "(unnamed) firing o from - to -");
    check(&past_only, "(unnamed) resolved p from - to 2018-08-30T14:01:09.656Z");
    check(&body(r#""status":"","#, past), "(unnamed) resolved p from - to 2018-08-30T14:01:09.656Z");
    check(&body(r#""status":"firing","#, past), "(unnamed) firing p from - to -");
    check(&body(r#""status":"resolved","#, open), "(unnamed) resolved o from - to -");
    check(
        &body(r#""status":"firing","#, &format!("{open},{past}")),
        "(unnamed) firing o from - to -\n(unnamed) resolved p from - to 2018-08-30T14:01:09.656Z",
    );
}

#[test]
fn an_absent_fingerprint_is_the_one_alertmanager_computes() {
    // FNV-1a of nothing is its offset basis; of one pair, by hand.
    assert_eq!(fingerprint(&BTreeMap::new()), "cbf29ce484222325");
    let labels = [("alertname".to_owned(), "Down".to_owned())].into();
    let body = r#"{"receiver":"r","alerts":[{"labels":{"alertname":"Down"},"fingerprint":""}]}"#;
    let read = read_text(body).expect("it is read");
    assert_eq!(read.signals[0].fingerprint, fingerprint(&labels));
}

#[test]
fn what_a_label_holds_is_data() {
    let body = r#"{"receiver":"r","alerts":[{"labels":{"alertname":"$(touch x);--help ${{ 1 }}","c":"\u0000\u001b[2J\n"}}]}"#;
    let read = read_text(body).expect("it is read");
    assert_eq!(read.signals[0].labels["alertname"], "$(touch x);--help ${{ 1 }}");
    assert_eq!(read.signals[0].labels["c"], "\u{0}\u{1b}[2J\n");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let fix = "post the webhook body of Alertmanager, version 4, as JSON";
    check("", &format!("refused: the body is empty\nfix: {fix}"));
    check(
        "{",
        &format!("refused: the body is not JSON: EOF while parsing an object at line 1 column 1\nfix: {fix}"),
    );
    check(
        "<html>",
        &format!(
            "refused: the body is not JSON: expected value at line 1 column 1; it looks like XML or HTML\nfix: {fix}"
        ),
    );
    check(
        "payload=1",
        &format!(
            "refused: the body is not JSON: expected value at line 1 column 1; it looks like a form\nfix: {fix}"
        ),
    );
    check(
        r#"{"receiver":"r","alerts":[]}"#,
        "refused: `alerts` is empty\nfix: a body says something about at least one alert",
    );
    check(
        r#"{"receiver":"r","version":"5","alerts":[{}]}"#,
        "refused: `version` is \"5\", which is not known\nfix: post version 4, as Alertmanager 0.8 and later do",
    );
    check(
        r#"{"receiver":"r","alerts":[{"labels":{"a":"1"}},{"labels":{"a":1}}]}"#,
        "refused: `alerts[1].labels` has `a`, which is not text\nfix: write every value as text, in quotes",
    );
    check(
        r#"{"receiver":"r","alerts":[{"labels":{"a":"1"},"startsAt":"yesterday\u001b"}]}"#,
        "refused: `alerts[0].startsAt` is yesterday\\u{1b}, which is not a time\nfix: write it as 2026-01-31T23:59:59Z",
    );
    check(
        r#"{"receiver":"r","alerts":[{"labels":{"a":"1"},"status":"suppressed"}]}"#,
        "refused: `alerts[0].status` is \"suppressed\"\nfix: it is `firing` or `resolved`",
    );
    check(
        r#"{"receiver":"r","alerts":[{}]}"#,
        "refused: `alerts[0].labels` is absent or empty\nfix: an alert is known by its labels; give it at least `alertname`",
    );
}

#[test]
fn what_is_too_much_is_refused() {
    let why = |body: &[u8]| read("s", body, NOW).expect_err("too much").why;
    assert_eq!(why(&vec![b' '; LARGEST_BODY + 1]), "the body is 1048577 bytes long, more than 1048576");
    assert!(why("[".repeat(LARGEST_BODY).as_bytes()).contains("recursion limit"));
    let labels: String = (0..129).map(|n| format!(r#","l{n}":"""#)).collect();
    let body = format!(r#"{{"receiver":"r","alerts":[{{"labels":{{{}}}}}]}}"#, &labels[1..]);
    assert_eq!(why(body.as_bytes()), "`alerts[0].labels` has 129 members, more than 128");
    let body = format!(r#"{{"receiver":"r","alerts":[{{"labels":{{"a":"{}"}}}}]}}"#, "x".repeat(8193));
    assert_eq!(why(body.as_bytes()), "`alerts[0].labels` has `a` of 8193 bytes, more than 8192");
    assert_eq!(why(b"{\xff}"), "the body is not UTF-8: the byte at 1 is wrong");
}

#[test]
fn a_body_in_disguise_is_refused_by_what_it_is() {
    let why = |body: &[u8]| read("s", body, NOW).expect_err("refused").why;
    assert_eq!(why(b"\xff\xfe{\0}\0"), "the body is UTF-16, not UTF-8");
    assert_eq!(why(b"{\0}\0"), "the body is UTF-16, not UTF-8");
    assert_eq!(why(b"\x1f\x8b\x08\0"), "the body is compressed (gzip)");
    assert_eq!(why(b"\x28\xb5\x2f\xfd"), "the body is compressed (zstd)");
    let marked = b"\xef\xbb\xbf{\"receiver\":\"r\",\"alerts\":[{\"labels\":{\"a\":\"1\"}}]}";
    assert_eq!(read("s", marked, NOW).expect("a byte order mark says nothing").signals.len(), 1);
}

#[test]
fn a_member_in_two_spellings_is_refused_and_labels_keep_their_case() {
    let refused = |group: &str, alert: &str| {
        let body = format!(
            r#"{{"receiver":"r",{group}"alerts":[{{{alert}"labels":{{"alertname":"A","Alertname":"B"}}}}]}}"#
        );
        read_text(&body).map(|read| read.signals[0].labels.len()).map_err(|refused| refused.why)
    };
    for (group, alert, expected) in [
        (
            "",
            r#""STATUS":"resolved","Status":"firing","#,
            "`alerts[0]` has the member `status` in two spellings",
        ),
        ("", r#""status":"firing","Status":null,"#, "`alerts[0]` has the member `status` in two spellings"),
        ("", r#""startsAt":"","StartsAt":"","#, "`alerts[0]` has the member `startsAt` in two spellings"),
        (
            r#""status":"firing","STATUS":"resolved","#,
            "",
            "the group has the member `status` in two spellings",
        ),
        (r#""ALERTS":[],"#, "", "the group has the member `alerts` in two spellings"),
    ] {
        assert_eq!(refused(group, alert), Err(expected.to_owned()));
    }
    assert_eq!(refused(r#""STATUS":"firing","#, r#""StartsAt":"","#), Ok(2));
}

#[test]
fn a_member_that_is_there_twice_is_refused_wherever_it_is() {
    let alert = r#"{"labels":{"alertname":"A"},"status":"resolved","status":"firing"}"#;
    let why = read_text(&format!(r#"{{"receiver":"r","alerts":[{alert}]}}"#)).expect_err("refused").why;
    assert!(why.contains("the member `status` is there twice"), "{why}");
    let why =
        read_text(r#"{"receiver":"r","x":[{"deep":{"a":1,"a":2}}],"alerts":[{}]}"#).expect_err("too").why;
    assert!(why.contains("the member `a` is there twice"), "{why}");
}

#[test]
fn a_body_that_contradicts_itself_starts_nothing() {
    check(
        r#"{"receiver":"r","status":"resolved","alerts":[{"labels":{"alertname":"A"},"status":"firing"}]}"#,
        "refused: `status` of the group is resolved, and `alerts[0].status` is firing\n\
         fix: a group is resolved once all its alerts are; post what is true of each",
    );
    let one = |status: &str, end: &str| {
        format!(
            r#"{{"labels":{{"a":"1"}},"fingerprint":"f","status":"{status}","startsAt":"2026-01-01T00:00:00Z"{end}}}"#
        )
    };
    let (firing, resolved) = (one("firing", ""), one("resolved", r#","endsAt":"2026-01-01T00:01:00Z""#));
    let over = "(unnamed) resolved f from 2026-01-01T00:00:00Z to 2026-01-01T00:01:00Z";
    for both in [[&firing, &resolved], [&resolved, &firing]] {
        let body = format!(r#"{{"receiver":"r","alerts":[{},{}]}}"#, both[0], both[1]);
        check(&body, &format!("{over}\n{over}"));
    }
}

#[test]
fn what_grafana_says_of_its_data_source_starts_nothing() {
    let remarks = |alert: &str| {
        let body = format!(r#"{{"receiver":"r","version":"1","alerts":[{alert}]}}"#);
        let signal = read_text(&body).expect("it is read").signals.remove(0);
        signal.remarks.into_iter().map(|it| (it.answer, it.text)).collect::<Vec<_>>()
    };
    let pseudo = remarks(r#"{"labels":{"alertname":"DatasourceNoData","rulename":"DiskFull"}}"#);
    assert_eq!(pseudo[0].0, Answer::No);
    assert!(
        pseudo[0].1.starts_with("Grafana got no data from its data source for the rule `DiskFull`"),
        "{pseudo:?}"
    );
    let kept =
        remarks(r#"{"labels":{"alertname":"DiskFull"},"annotations":{"grafana_state_reason":"Error"}}"#);
    assert!(
        kept[0].1.starts_with("Grafana could not ask its data source for the rule `DiskFull`"),
        "{kept:?}"
    );
    assert_eq!(remarks(r#"{"labels":{"alertname":"DiskFull"}}"#), []);
}

#[test]
fn what_the_sender_left_out_is_remarked() {
    let body = r#"{"receiver":"r","truncatedAlerts":7,"version":4,"alerts":[{"labels":{"alertname":"A"}}]}"#;
    let signal = read_text(body).expect("it is read").signals.remove(0);
    assert_eq!(signal.remarks.len(), 1);
    assert!(signal.remarks[0].text.starts_with("its sender left 7 more alerts out"), "{:?}", signal.remarks);
}

#[test]
fn other_products_are_named() {
    for (body, product) in [
        (
            r#"{"Type":"SubscriptionConfirmation","TopicArn":"arn"}"#,
            "Amazon SNS asking to confirm a subscription",
        ),
        (r#"{"Type":"Notification","TopicArn":"arn"}"#, "an Amazon SNS message"),
        (r#"{"Records":[{"Sns":{}}]}"#, "Amazon SNS messages as a Lambda receives them"),
        (r#"{"specversion":"1.0","source":"/x"}"#, "a CloudEvent"),
        (r#"[{"specversion":"1.0"}]"#, "a batch of CloudEvents"),
        (r#"{"detail-type":"d","source":"aws.ecs"}"#, "an Amazon EventBridge event"),
        (r#"{"schemaId":"azureMonitorCommonAlertSchema","data":{}}"#, "an Azure Monitor alert"),
        (r#"{"incident":{"incident_id":"x"},"version":"1.1"}"#, "a Google Cloud Monitoring notification"),
        (r#"{"evalMatches":[],"state":"ok"}"#, "Grafana's legacy alerting"),
        (
            r#"{"ruleName":"Test notification","state":"alerting","isTestAlert":true}"#,
            "Grafana's legacy alerting",
        ),
        (r#"{"ruleName":"r","state":"no_data"}"#, "Grafana's legacy alerting"),
        (r#"{"alert_uid":"u","state":"alerting"}"#, "a Grafana OnCall webhook"),
        (r#"{"event":{"event_type":"incident.triggered"}}"#, "a PagerDuty webhook, version 3"),
        (r#"{"check_id":1,"check_name":"n"}"#, "a Pingdom webhook"),
        (r#"{"condition_id":1,"policy_name":"n"}"#, "a New Relic alert"),
        (r#"{"alert_transition":"$T"}"#, "a Datadog webhook"),
        (r#"[{"actionPlanType":"httprequest"}]"#, "an AppDynamics HTTP action"),
        (r#"["NOTIFY_HOSTNAME"]"#, "the environment of a Nagios or Checkmk notification"),
        (r#"[{"flag":"v","macro":""}]"#, "the flags of a Nagios or Icinga notification"),
        (r#"[{"name":"id","value":"{EVENT.ID}"}]"#, "the parameters of a Zabbix media type"),
        (r#"[{"labels":{}}]"#, "alerts as Prometheus posts them to Alertmanager's own API"),
    ] {
        let why = read_text(body).expect_err("it is no body of Alertmanager").why;
        assert_eq!(why, format!("this looks like {product}, which is not read"));
    }
    for (body, shape) in [
        ("{}", "it is an empty object"),
        ("[]", "it is a list"),
        ("1", "it is a single value"),
        (r#""x""#, "it is a text"),
        (r#"{"a":1}"#, "it has no `alerts`"),
        (r#"{"alerts":{}}"#, "its `alerts` is not a list"),
        (r#"{"alerts":[]}"#, "it has `alerts`, but neither a receiver nor group labels"),
    ] {
        let why = read_text(body).expect_err("it is no body of Alertmanager").why;
        assert_eq!(why, format!("this is not a body of Alertmanager: {shape}"));
    }
}

/// Real bodies of many products, where they are kept; `FETTLE_CORPUS` names another place.
pub(super) fn corpus() -> Option<std::path::PathBuf> {
    let place = std::env::var_os("FETTLE_CORPUS").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"),
        std::path::PathBuf::from,
    );
    let alerts = place.join("alerts");
    if alerts.is_dir() {
        return Some(alerts);
    }
    eprintln!("SKIPPED: no corpus at {}; set FETTLE_CORPUS to read real bodies", alerts.display());
    None
}

#[test]
fn real_bodies_of_alertmanager_are_read_and_all_others_refused_with_a_reason() {
    let Some(corpus) = corpus() else { return };
    let (mut accepted, mut refused) = (0, 0);
    for product in std::fs::read_dir(corpus).expect("the corpus can be listed").flatten() {
        for file in std::fs::read_dir(product.path()).expect("it can be listed").flatten() {
            let body = std::fs::read(file.path()).expect("it can be read");
            let shown = file.path().display().to_string();
            let read = read("corpus", &body, NOW);
            if product.file_name() == "alertmanager-v4" {
                let intake = read.unwrap_or_else(|why| panic!("{shown}: {why}"));
                assert!(!intake.signals.is_empty(), "{shown}");
                accepted += 1;
            } else {
                let why = read.expect_err(&shown);
                assert!(!why.why.is_empty() && !why.fix.is_empty(), "{shown}");
                assert!(
                    why.why.starts_with("this looks like ") || why.why.starts_with("the body is not JSON"),
                    "{shown}: {why}"
                );
                refused += 1;
            }
        }
    }
    assert!(accepted > 10 && refused > 50, "{accepted} accepted, {refused} refused");
}

#[test]
fn real_fingerprints_are_the_ones_computed() {
    let Some(corpus) = corpus() else { return };
    let mut compared = 0;
    for file in std::fs::read_dir(corpus.join("alertmanager-v4")).expect("it can be listed").flatten() {
        let body = std::fs::read(file.path()).expect("it can be read");
        let document: Value = serde_json::from_slice(&body).expect("it is JSON");
        for (place, signal) in read("corpus", &body, NOW).expect("it is read").signals.iter().enumerate() {
            let given = document["alerts"][place]["fingerprint"].as_str().unwrap_or_default();
            if !given.is_empty() && given == fingerprint(&signal.labels) {
                compared += 1;
            }
        }
    }
    assert!(compared > 0, "no published body keeps the labels its fingerprint was made of");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = read("s", &body, NOW);
    }

    #[test]
    fn no_json_makes_it_panic(
        status in ".*", name in ".*", value in ".*", start in "[-+0-9TZ:.]{0,40}", version in "[0-9]?", extra in ".*",
    ) {
        let body = serde_json::json!({
            "receiver": extra, "version": version, "status": status, "alerts": [
                { "labels": { (name): value }, "startsAt": start, "endsAt": start, "fingerprint": extra },
            ],
        });
        let _ = read("s", body.to_string().as_bytes(), NOW);
    }

    #[test]
    fn labels_arrive_as_they_were_sent(labels in proptest::collection::btree_map("[a-z_]{1,12}", ".{0,40}", 1..8)) {
        let body = serde_json::json!({ "receiver": "r", "alerts": [{ "labels": labels }] });
        let intake = read("s", body.to_string().as_bytes(), NOW).expect("it is read");
        prop_assert_eq!(&intake.signals[0].labels, &labels);
        prop_assert_eq!(&intake.signals[0].fingerprint, &fingerprint(&labels));
    }
}
