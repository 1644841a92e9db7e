//! Policies that are good, and what is said of those that are not.

use super::*;

fn problem(text: &str) -> String {
    check(Path::new("p.yaml"), text).expect_err("it is refused").to_string()
}

#[test]
fn a_whole_policy_is_read() {
    let text = "
fettle-policy: 1
sources:
  prod:
    token_sha256: 0000000000000000000000000000000000000000000000000000000000000000
    onset: { for: 1m, interval: 15s }
hosts: { db-primary: db-1 }
modes:
  - { runbook: \"host/*\", hosts: [\"web-*\"], mode: auto }
  - { runbook: \"*\", alert: Down, mode: approve }
guards:
  - { runbook: \"*\", cooldown: 30m, max_runs: 3 per 24h, breaker: 4 }
incidents: { still_firing_after: 20m }
gates: { decide_within: 4m }
approvals:
  - { risk: high, need: 2, from: [dba] }
notify: { url: \"https://hooks.example/x\", secret: s3cret }
";
    let policy = check(Path::new("p.yaml"), text).expect("it is good").policy;
    let host: Host = "web-1".parse().unwrap();
    let other: Host = "db-1".parse().unwrap();
    assert_eq!(policy.mode("host/x", "Down", &host).0, Mode::Auto);
    assert_eq!(policy.mode("host/x", "Down", &other).0, Mode::Approve);
    assert_eq!(policy.mode("host/x", "Up", &other).0, Mode::Observe);
    assert_eq!(policy.guards("a", &host).next().unwrap().max_runs, Some((3, Duration::from_secs(86_400))));
    assert_eq!(policy.guards("a", &host).next().unwrap().breaker, Some(4));
    assert_eq!(policy.gates.decide_within, Duration::from_secs(240));
    assert_eq!(policy.incidents.still_firing_after, Duration::from_secs(1200));
    assert_eq!(policy.additions("a", &host, Risk::Critical).count(), 1);
    assert_eq!(policy.additions("a", &host, Risk::Medium).count(), 0);
}

fn onset(onset: &str) -> String {
    let token = "0".repeat(64);
    format!("fettle-policy: 1\nsources: {{ a: {{ token_sha256: {token}, onset: {onset} }} }}\n")
}

#[test]
fn an_onset_is_declared_or_learnt_or_both() {
    let read = |text: &str| {
        let policy = check(Path::new("/etc/p.yaml"), &onset(text)).expect("it is good").policy;
        let source = &policy.sources["a"];
        (source.declared.is_some(), source.learn.clone())
    };
    let learn = |prometheus: Option<&str>, rules: &[&str]| {
        Some(Learn {
            prometheus: prometheus.map(PathBuf::from),
            rules: rules.iter().map(PathBuf::from).collect(),
        })
    };
    assert_eq!(read("{ for: 1m, interval: 15s }"), (true, None));
    assert_eq!(read("{ prometheus: prometheus.yml }"), (false, learn(Some("/etc/prometheus.yml"), &[])));
    assert_eq!(
        read("{ rules: [/r/*.yml, more.yml], for: 1m, interval: 15s }"),
        (true, learn(None, &["/r/*.yml", "/etc/more.yml"]))
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, expected) in [
        ("fettle-policy: 1\nmods: []\n", "p.yaml:2:1: unknown field `mods`"),
        (
            "fettle-policy: 1\nmodes:\n  - { runbook: a, mode: yolo }\n",
            "p.yaml:3:25: modes[0].mode: unknown variant `yolo`",
        ),
        ("fettle-policy: 1\nguards:\n  - runbook: a\n    cooldown: soon\n", "`soon` is not a length of time"),
        ("fettle-policy: 2\n", "p.yaml:1:1: `fettle-policy: 2` is not known here"),
        ("sources: {}\n", "missing field `fettle-policy`"),
        ("fettle-policy: 1\nsources: { a: {} }\n", "source `a` needs either"),
        ("fettle-policy: 1\nmetrics: {}\n", "`metrics` needs either"),
        (&onset("{ for: 1m }"), "source `a`: `onset` with `for` or `interval` needs both"),
        (&onset("{}"), "`prometheus` or `rules` to learn them from"),
        (&onset("{ from: x }"), "unknown field `from`"),
    ] {
        let problem = problem(text);
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn lengths_of_time_have_units() {
    assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
    assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
    for wrong in ["", "10", "m", "1w", "1 m", "-1s"] {
        assert_eq!(duration(wrong), None, "{wrong}");
    }
}
