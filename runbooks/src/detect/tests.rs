//! Files as people write them, and what they come to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

/// Files of a test, by path. A pattern may end in `*.yml`.
struct Memory(BTreeMap<PathBuf, String>);

impl Files for Memory {
    fn read(&self, path: &Path) -> Result<String, String> {
        self.0.get(path).cloned().ok_or_else(|| "cannot be read: there is no such file".to_owned())
    }

    fn matching(&self, pattern: &Path) -> Result<Vec<PathBuf>, String> {
        let text = pattern.display().to_string();
        let fits = |path: &&PathBuf| match text.split_once('*') {
            Some((before, after)) => {
                let path = path.display().to_string();
                path.starts_with(before) && path.ends_with(after)
            }
            None => path.as_path() == pattern,
        };
        Ok(self.0.keys().filter(fits).cloned().collect())
    }
}

fn monitoring(prometheus: &str, rules: &str, alertmanager: &str) -> Result<Monitoring, Vec<Wrong>> {
    let files = [
        ("/etc/p/prometheus.yml", prometheus),
        ("/etc/p/rules/node.yml", rules),
        ("/etc/a.yml", alertmanager),
    ];
    let files = files.into_iter().filter(|(_, text)| !text.is_empty());
    let memory = Memory(files.map(|(path, text)| (path.into(), text.to_owned())).collect());
    let sources = Sources {
        prometheus: Some("/etc/p/prometheus.yml".into()),
        alertmanager: (!alertmanager.is_empty()).then(|| "/etc/a.yml".into()),
        ..Sources::default()
    };
    Monitoring::read(&sources, &memory)
}

const PROMETHEUS: &str = "
global:
  external_labels: { region: ug }
rule_files: [rules/*.yml]
alerting:
  alertmanagers: [{ static_configs: [{ targets: ['localhost:9093'] }] }]
scrape_configs:
  - job_name: node
    scrape_interval: 15s
  - job_name: slow
    scrape_interval: 2m
";

const TO_FETTLE: &str = "
route: { receiver: fettle }
receivers:
  - name: fettle
    webhook_configs:
      - url: https://fettle.example:7480/v1/signals/alertmanager
  - name: mail
";

fn rule(more: &str) -> String {
    format!("groups:\n  - name: node\n    rules:\n      - alert: Full\n{more}")
}

fn one(prometheus: &str, rules: &str, alertmanager: &str, limit: u64) -> Detection {
    let read = monitoring(prometheus, rules, alertmanager).unwrap_or_else(|wrongs| panic!("{wrongs:?}"));
    let mut all = read.detections(Duration::from_secs(limit));
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// A detection as text: `best–worst verdict`, then its parts, fixes and remarks.
fn told(it: &Detection) -> String {
    let span = |span: Span| {
        format!("{}–{}", crate::duration::format(span.best), crate::duration::format(span.worst))
    };
    let mut lines = vec![format!("{} {} {}", it.alert, span(it.span), it.verdict.word())];
    lines.extend(
        it.parts
            .iter()
            .map(|part| format!("  {} {} ({}) {}", part.name, span(part.span), part.setting, part.place)),
    );
    lines.extend(it.fixes.iter().map(|fix| format!("  fix {}: {}", fix.place, fix.write)));
    lines.extend(it.notes.iter().map(|note| format!("  note {note}")));
    lines.extend(it.unsure.iter().map(|unsure| format!("  not told: {unsure}")));
    lines.join("\n")
}

#[test]
fn with_nothing_but_defaults_the_first_minutes_pass_without_anybody_knowing() {
    let text = rule("        expr: up{job=\"node\"} == 0\n        for: 15m\n");
    insta::assert_snapshot!(told(&one(PROMETHEUS, &text, TO_FETTLE, 60)), @r"
    Full 930s–1285s late
      next scrape 0s–15s (scrape_interval 15s of job node) /etc/p/prometheus.yml:9
      scrape 0s–10s (scrape_timeout 10s) /etc/p/prometheus.yml:2
      next evaluation 0s–1m (evaluation_interval 1m) /etc/p/prometheus.yml:2
      for 15m–15m (for 15m) /etc/p/rules/node.yml:6
      group 30s–5m (group_interval 5m) /etc/a.yml:2
      fix /etc/a.yml:2: group_by: ['...']
      fix /etc/a.yml:2: group_wait: 0s
      fix /etc/a.yml:2: group_interval: 10s
      fix /etc/p/prometheus.yml:2: evaluation_interval: 10s
      fix /etc/p/rules/node.yml:6: for: 20s
    ");
}

#[test]
fn what_the_fixes_say_is_in_time_once_it_is_done() {
    let prometheus = PROMETHEUS.replace("external_labels: { region: ug }", "evaluation_interval: 10s");
    let text = rule("        expr: up{job=\"node\"} == 0\n        for: 20s\n");
    let alertmanager = TO_FETTLE.replace(
        "receiver: fettle }",
        "receiver: fettle, group_by: ['...'], group_wait: 0s, group_interval: 10s }",
    );
    let it = one(&prometheus, &text, &alertmanager, 60);
    insta::assert_snapshot!(told(&it), @r"
    Full 20s–55s in time
      next scrape 0s–15s (scrape_interval 15s of job node) /etc/p/prometheus.yml:9
      scrape 0s–10s (scrape_timeout 10s) /etc/p/prometheus.yml:2
      next evaluation 0s–10s (evaluation_interval 10s) /etc/p/prometheus.yml:3
      for 20s–20s (for 20s) /etc/p/rules/node.yml:6
      group 0s–0s (group_wait 0s) /etc/a.yml:2
    ");
}

#[test]
fn a_fix_is_one_that_prometheus_takes_and_recorded_metrics_are_as_late_as_their_offset() {
    let prometheus =
        PROMETHEUS.replace("scrape_interval: 15s", "scrape_interval: 1m\n    scrape_timeout: 50s");
    let text = rule("        expr: up{job=\"node\"} == 0\n");
    let fixes = one(&prometheus, &text, "", 100).fixes;
    let fixes: Vec<&str> = fixes.iter().map(|fix| fix.write.as_str()).collect();
    assert_eq!(fixes, ["scrape_interval: 16s", "scrape_timeout: 8s"]);
    let recorded = "groups:\n  - name: r\n    interval: 5s\n    query_offset: 5m\n    rules: [{ record: 'a:b', expr: 'x{job=\"node\"}' }]\n  - name: a\n    interval: 5s\n    rules: [{ alert: A, expr: 'a:b > 1' }]\n";
    let it = one(PROMETHEUS, recorded, "", 60);
    assert_eq!((it.verdict, it.span.worst), (Verdict::PerhapsLate, Duration::from_secs(335)));
}

#[test]
fn for_is_rounded_up_to_evaluations_of_its_group() {
    let text = "groups:\n  - name: g\n    interval: 25s\n    query_offset: 5s\n    rules: [{ alert: A, expr: 'x{job=\"node\"}', for: 30s }]\n";
    insta::assert_snapshot!(told(&one(PROMETHEUS, text, "", 60)), @r"
    A 55s–105s perhaps late
      next scrape 0s–15s (scrape_interval 15s of job node) /etc/p/prometheus.yml:9
      scrape 0s–10s (scrape_timeout 10s) /etc/p/prometheus.yml:2
      query offset 5s–5s (query_offset 5s) /etc/p/rules/node.yml:4
      next evaluation 0s–25s (interval 25s) /etc/p/rules/node.yml:3
      for 50s–50s (for 30s, rounded up to 50s) /etc/p/rules/node.yml:5
      fix /etc/p/rules/node.yml:3: interval: 10s
      fix /etc/p/prometheus.yml:9: scrape_interval: 10s
      fix /etc/p/prometheus.yml:2: scrape_timeout: 5s
    ");
}

#[test]
fn a_job_is_told_by_its_matcher_and_is_the_slowest_where_there_is_none() {
    let worst = |expr: &str| {
        let it = one(PROMETHEUS, &rule(&format!("        expr: '{expr}'\n")), "", 60);
        it.parts.first().map(|part| part.setting.clone()).unwrap_or_default()
    };
    assert_eq!(worst("up{job=\"node\"} == 0"), "scrape_interval 15s of job node");
    assert_eq!(worst("up{job=~\"no.*\"} == 0"), "scrape_interval 15s of job node");
    assert_eq!(worst("up{job!=\"slow\"} == 0"), "scrape_interval 15s of job node");
    assert_eq!(worst("up == 0"), "scrape_interval 2m of job slow, the slowest it may read");
    let it = one(PROMETHEUS, &rule("        expr: up{job=\"gone\"}\n"), "", 60);
    assert!(it.unsure[0].contains("no job of prometheus.yml"), "{it:?}");
}

#[test]
fn ranges_and_recording_rules_count_at_worst() {
    let text = "
groups:
  - name: records
    interval: 30s
    rules:
      - record: errors:rate5m
        expr: rate(errors_total{job=\"node\"}[5m])
      - record: round
        expr: round
  - name: alerts
    rules:
      - alert: Errors
        expr: max_over_time(errors:rate5m[10m]) > 1 and round
";
    insta::assert_snapshot!(told(&one(PROMETHEUS, text, "", 60)), @r"
    Errors 0s–1015s perhaps late
      next scrape 0s–15s (scrape_interval 15s of job node) /etc/p/prometheus.yml:9
      scrape 0s–10s (scrape_timeout 10s) /etc/p/prometheus.yml:2
      recording rules 0s–30s (intervals and offsets 30s) /etc/p/rules/node.yml:4
      range 0s–15m (range 15m) /etc/p/rules/node.yml:13
      next evaluation 0s–1m (evaluation_interval 1m) /etc/p/prometheus.yml:2
      fix /etc/p/prometheus.yml:2: evaluation_interval: 10s
      fix /etc/p/rules/node.yml:4: interval: 10s
      fix /etc/p/rules/node.yml:13: expr: without its range; none that holds two samples is short enough
      not told: what `round` rests on: its recording rules go round
    ");
    let absent = one(PROMETHEUS, &rule("        expr: absent_over_time(up{job=\"node\"}[40s])\n"), "", 60);
    assert_eq!(absent.span.best, Duration::from_secs(40));
}

#[test]
fn the_route_is_found_as_alertmanager_finds_it() {
    let routes = |routes: &str| {
        let text = format!(
            "route:\n  receiver: mail\n  group_wait: 10s\n  routes:\n{routes}{}",
            TO_FETTLE.split_once("}\n").unwrap().1
        );
        let rules =
            rule("        expr: up\n        labels: { severity: critical, team: \"{{ $labels.team }}\" }\n");
        let it = one(PROMETHEUS, &rules, &text, 3600);
        let group = it.parts.iter().find(|part| part.name == "group");
        let group = group.map(|part| format!("{} {}", part.setting, part.place)).unwrap_or_default();
        (it.verdict, group, it.notes.join("; "))
    };
    let (verdict, group, _) = routes(
        "    - { matchers: ['severity=~\"critical|warning\"', 'region!=\"ke\"'], receiver: fettle, group_interval: 7s }\n",
    );
    assert_eq!(
        (verdict, group.as_str()),
        (Verdict::InTime, "group_wait 10s /etc/a.yml:5"),
        "a child inherits and overrides"
    );
    // The first that matches wins, unless it goes on.
    let (verdict, _, notes) =
        routes("    - { match: { severity: critical }, receiver: mail }\n    - { receiver: fettle }\n");
    assert_eq!(
        (verdict, notes.as_str()),
        (Verdict::Never, "/etc/a.yml:5: it goes to `mail` and not to Fettle")
    );
    let (verdict, ..) = routes(
        "    - { match_re: { severity: crit.* }, receiver: mail, continue: true }\n    - { receiver: fettle }\n",
    );
    assert_eq!(verdict, Verdict::InTime);
    // A nested route that does not match leaves it to the one around it.
    let (verdict, ..) =
        routes("    - receiver: fettle\n      routes: [{ match: { severity: info }, receiver: mail }]\n");
    assert_eq!(verdict, Verdict::InTime);
    // What hangs on a label of the metric, or on a template, cannot be told.
    for label in ["team", "instance"] {
        let (verdict, _, notes) =
            routes(&format!("    - {{ matchers: '{label}=\"db\"', receiver: fettle }}\n"));
        assert_eq!(verdict, Verdict::PerhapsNever, "{notes}");
        assert!(notes.contains(&format!("if not {label}=\"db\"")), "{notes}");
    }
    let (verdict, _, notes) = routes("    - { receiver: fettle, mute_time_intervals: [nights] }\n");
    assert_eq!(
        (verdict, notes.as_str()),
        (Verdict::PerhapsNever, "/etc/a.yml:5: it sends nothing in `nights`")
    );
    // Too many ways to follow each of them: nothing is promised.
    let many: String = (0..20)
        .map(|at| format!("    - {{ matchers: ['l{at}=x'], receiver: mail, continue: true }}\n"))
        .collect();
    let (verdict, ..) = routes(&format!("{many}    - {{ receiver: fettle }}\n"));
    assert_eq!(verdict, Verdict::PerhapsNever);
    // An alert that two routes bring is here with the faster one.
    let (verdict, group, _) =
        routes("    - { receiver: fettle, continue: true }\n    - { receiver: fettle, group_by: ['...'] }\n");
    assert_eq!((verdict, group.as_str()), (Verdict::InTime, "group_wait 10s /etc/a.yml:6"));
}

#[test]
fn an_alert_that_nobody_sends_here_is_the_worst_of_all() {
    let rules = rule("        expr: up{job=\"node\"} == 0\n");
    let mail = TO_FETTLE.replace("receiver: fettle }", "receiver: mail }");
    let it = one(PROMETHEUS, &rules, &mail, 3600);
    assert_eq!(it.verdict, Verdict::Never);
    assert!(it.fixes.iter().any(|fix| fix.write.contains("alertname=\"Full\"")), "{it:?}");
    let alone = PROMETHEUS.replace(
        "alertmanagers: [{ static_configs: [{ targets: ['localhost:9093'] }] }]",
        "alertmanagers: []",
    );
    let it = one(&alone, &rules, TO_FETTLE, 3600);
    assert_eq!(it.verdict, Verdict::Never);
    assert!(it.notes.iter().any(|note| note.contains("sends alerts to nobody")), "{it:?}");
    let hidden =
        mail.replace("  - name: mail\n", "  - name: mail\n    webhook_configs: [{ url_file: /etc/url }]\n");
    assert!(one(PROMETHEUS, &rules, &hidden, 60).notes.iter().any(|note| note.contains("url_file")));
    let named = Sources {
        prometheus: Some("/p.yml".into()),
        rules: vec!["/r.yml".into()],
        alertmanager: Some("/a.yml".into()),
        receivers: BTreeSet::from(["mail".to_owned()]),
    };
    let memory = |am: &str| {
        Memory(
            [("/p.yml", PROMETHEUS), ("/r.yml", &rules), ("/a.yml", am)]
                .map(|(path, text)| (path.into(), text.to_owned()))
                .into(),
        )
    };
    let read = Monitoring::read(&named, &memory(&mail)).unwrap();
    assert_ne!(read.detections(Duration::from_secs(60))[0].verdict, Verdict::Never, "it was named");
    assert_eq!(read.unanswered(), ["/rules/*.yml"]);
}

#[test]
fn what_would_keep_an_incident_open_or_leave_an_alert_out_is_said() {
    let rules = rule("        expr: up{job=\"node\"} == 0\n        keep_firing_for: 5m\n");
    let slack = TO_FETTLE.replace(
        "signals/alertmanager\n",
        "signals/alertmanager\n        send_resolved: false\n        max_alerts: 3\n",
    );
    let notes = one(PROMETHEUS, &rules, &slack, 60).notes.join("\n");
    for word in ["send_resolved: true", "max_alerts: 3", "fires for 5m after"] {
        assert!(notes.contains(word), "{word}: {notes}");
    }
    let inhibit = format!(
        "{TO_FETTLE}inhibit_rules:\n  - source_matchers: [a=b]\n    target_matchers: [severity=info]\n  - target_match: {{ region: ug }}\n"
    );
    let unsure = one(PROMETHEUS, &rules, &inhibit, 60).unsure.join("\n");
    assert!(unsure.contains("a.yml:11") || unsure.contains("a.yml:12"), "{unsure}");
}

#[test]
fn a_file_that_is_wrong_says_where_and_all_of_them_are_told() {
    for (prometheus, rules, alertmanager, said) in [
        (
            "global: { scrape_interval: 5 }\n",
            "",
            TO_FETTLE,
            "/etc/p/prometheus.yml:1: `scrape_interval: 5` is not a length of time",
        ),
        (
            PROMETHEUS,
            "groups:\n  - rules:\n      - alert: A\n",
            TO_FETTLE,
            "/etc/p/rules/node.yml:3: a rule needs an `expr:`",
        ),
        (
            PROMETHEUS,
            "groups:\n  - rules:\n      - expr: a\n        for: 1x\n        alert: A",
            "",
            "/etc/p/rules/node.yml:4: `for: 1x`",
        ),
        (PROMETHEUS, "rules: []\n", "", "is no rule file"),
        (PROMETHEUS, "- a\n", "", "expected a map"),
        (
            PROMETHEUS,
            "",
            "route: { receiver: who }\nreceivers: []\n",
            "/etc/a.yml:1: there is no receiver `who`",
        ),
        (PROMETHEUS, "", "route: { routes: [] }\n", "first route needs a `receiver:`"),
        (PROMETHEUS, "", "receivers: []\n", "no `route:`"),
        (
            PROMETHEUS,
            "",
            "route:\n  receiver: a\n  routes:\n    - matchers: [nonsense]\nreceivers: [{name: a}]\n",
            "/etc/a.yml:4: `nonsense` is no matcher",
        ),
        ("a: [", "", "b: [", "/etc/a.yml"),
        ("", "", "", "prometheus.yml: cannot be read"),
    ] {
        let wrongs = monitoring(prometheus, rules, alertmanager).expect_err("it is wrong");
        let all = wrongs.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(all.contains(said), "`{said}` is missing:\n{all}");
    }
    assert_eq!(monitoring("a: [", "", "b: [").expect_err("both are wrong").len(), 2);
}

#[test]
fn the_onset_is_learnt_from_the_rules_whose_labels_agree() {
    let rules = "
groups:
  - name: node
    interval: 10s
    rules:
      - { alert: Full, expr: 'disk{job=\"node\"} > 90', for: 25s, labels: { severity: critical } }
      - { alert: Full, expr: 'disk{job=\"node\"} > 80', for: 15m, labels: { severity: warning } }
      - { alert: Any, expr: 'x', labels: { team: '{{ $labels.team }}' } }
";
    let read = monitoring(PROMETHEUS, rules, "").unwrap();
    let learnt = |alert: &str, labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        read.onset(alert, &labels)
            .map(|it| format!("{}–{} {}", it.least.as_secs(), it.most.as_secs(), it.from))
    };
    // 25 s are three evaluations; one more until it is seen, and a scrape that may take its timeout.
    assert_eq!(learnt("Full", &[("severity", "critical")]).unwrap(), "30–65 node.yml:6");
    assert_eq!(learnt("Full", &[("severity", "warning"), ("job", "slow")]).unwrap(), "900–1040 node.yml:7");
    assert_eq!(learnt("Full", &[("severity", "info")]), None);
    assert_eq!(learnt("Gone", &[]), None);
    assert_eq!(learnt("Any", &[("team", "us"), ("job", "node")]).unwrap(), "0–35 node.yml:8");
    assert_eq!(
        learnt("Any", &[]).unwrap(),
        "0–140 node.yml:8",
        "of the slowest job, where the alert names none"
    );
    // Two that agree: either.
    let both = rules.replace("severity: warning", "severity: critical");
    let read = monitoring(PROMETHEUS, &both, "").unwrap();
    let it = read.onset("Full", &[("severity".to_owned(), "critical".to_owned())].into()).unwrap();
    assert_eq!((it.least.as_secs(), it.most.as_secs()), (30, 935));
    assert_eq!(it.from, "node.yml:6, node.yml:7");
}

#[test]
fn a_range_that_no_setting_makes_short_enough_is_told_and_leaves_its_time_to_for() {
    let fixes = |expr: &str| {
        let text = rule(&format!("        expr: {expr}\n        for: 1h\n"));
        let it = one(PROMETHEUS, &text, "", 60);
        it.fixes.iter().map(|fix| fix.write.clone()).collect::<Vec<_>>().join("; ")
    };
    let interval = "evaluation_interval: 10s";
    assert_eq!(
        fixes("rate(x{job=\"node\"}[2m]) > 1"),
        format!("{interval}; expr: without its range; none that holds two samples is short enough; for: 20s")
    );
    assert_eq!(
        fixes("predict_linear(x{job=\"node\"}[6h], 3600) < 0"),
        format!("{interval}; alert: one more, without `predict_linear`, for what is wrong already; for: 20s")
    );
}

#[test]
fn whatever_the_files_hold_is_answered_and_best_is_never_more_than_worst() {
    use proptest::prelude::*;
    let word = prop_oneof![
        Just("rate(x[5m])".to_owned()),
        Just("by (job)".to_owned()),
        Just("{job=~\"(\"}".to_owned()),
        Just("offset 1h".to_owned()),
        "[a-z(){}\\[\\]\"'=~!0-9.,@:#\\\\ ]{0,12}",
    ];
    let lengths = prop_oneof![Just("0s"), Just("15s"), Just("7m"), Just("1y"), Just("x")];
    let strategy = (proptest::collection::vec(word, 0..8), lengths.clone(), lengths, any::<bool>());
    proptest!(|((words, held, every, alone) in strategy)| {
        let expr = serde_yaml::to_string(&words.join(" ")).unwrap();
        let rules = format!("groups:\n- name: g\n  interval: {every}\n  rules:\n  - alert: A\n    for: {held}\n    expr: {expr}");
        let route = if alone { "route: { receiver: fettle, group_by: ['...'] }" } else { "route: { receiver: fettle }" };
        let alertmanager = TO_FETTLE.replace("route: { receiver: fettle }", route);
        if let Ok(read) = monitoring(PROMETHEUS, &rules, &alertmanager) {
            for it in read.detections(Duration::from_secs(60)) {
                prop_assert!(it.span.best <= it.span.worst, "{}", told(&it));
                prop_assert_eq!(it.verdict == Verdict::InTime, it.fixes.is_empty(), "{}", told(&it));
            }
        }
    });
}
