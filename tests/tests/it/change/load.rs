//! Policy and library change while alerts pour in.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fettle_tests::alerts::firing;
use fettle_tests::cluster::LIMIT;
use fettle_tests::{Cluster, eventually};
use serde_json::Value;

/// It says which version of it ran, and needs nobody to vouch for it: it starts no program.
fn versioned(word: &str) -> String {
    format!(
        r#"fettle: 1
runbook: change/versioned
title: Say which version this is
owner: tests
inputs:
  n: {{ type: int }}
on:
  - alert: Versioned
    host: labels.instance
    inputs: {{ n: "${{{{ labels.n }}}}" }}
diagnose:
  - id: {word}
    that: inputs.n >= 0
"#
    )
}

#[track_caller]
fn warned(cluster: &Cluster, word: &str) {
    eventually(&format!("the status warns of {word}"), LIMIT, || {
        let warnings = cluster.json("ana", &["status"])["warnings"].to_string();
        if warnings.contains(word) { Ok(()) } else { Err(warnings) }
    });
}

#[track_caller]
fn not_warned(cluster: &Cluster, word: &str) {
    eventually(&format!("the status does not warn of {word} any more"), LIMIT, || {
        let warnings = cluster.json("ana", &["status"])["warnings"].to_string();
        if warnings.contains(word) { Err(warnings) } else { Ok(()) }
    });
}

#[test]
fn runs_begin_and_end_with_one_runbook_while_library_and_policy_change_under_them() {
    let cluster = Cluster::builder().uncertified(&versioned("first")).agent("web-1").start();
    let library = cluster.path("library/change/versioned.yaml");
    let policy = cluster.path("policy/policy.yaml");
    let good = fs::read_to_string(&policy).expect("a policy");
    let (stop, posted) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let number = posted.load(Ordering::Relaxed);
                let answer =
                    cluster.post(&firing("Versioned", &[("instance", "web-1"), ("n", &number.to_string())]));
                assert_eq!(answer.status, 200, "{answer:?}");
                let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
                let why = || {
                    cluster.json(
                        "ana",
                        &["signal", "explain", said["signals"][0]["signal"].as_str().unwrap_or_default()],
                    )
                };
                assert!(said["signals"][0]["run"].is_string(), "alert {number} starts a run: {:#}", why());
                posted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let steps = || {
            fs::write(&library, versioned("second")).expect("written");
            eventually("the second version is in force", LIMIT, || {
                let shown = cluster.fettle("ana", &["runbook", "show", "change/versioned", "--source"]);
                let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
                if shown.contains("second") { Ok(()) } else { Err(shown) }
            });
            fs::write(&library, "fettle: 1\nrunbook: change/versioned\ndiagnose: [\n").expect("written");
            warned(&cluster, "versioned.yaml");
            fs::write(&policy, format!("{good}mods: []\n")).expect("written");
            warned(&cluster, "policy not put in force");
            fs::write(&policy, format!("{good}gates: {{ decide_within: 7m }}\n")).expect("written");
            not_warned(&cluster, "policy not put in force");
            fs::write(&library, versioned("third")).expect("written");
            not_warned(&cluster, "versioned.yaml");
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(steps));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });

    let posted = posted.load(Ordering::Relaxed);
    let runs = eventually("every run has ended", LIMIT, || {
        let runs = cluster.json("ana", &["run", "list", "-n", "1000"]);
        let all = runs.as_array().cloned().unwrap_or_default();
        let open = all.iter().filter(|run| run["hosts"][0]["state"] != "ended").count();
        if open == 0 { Ok(all) } else { Err(format!("{open} of {}", all.len())) }
    });
    assert_eq!(runs.len(), posted, "no alert without its run, and none twice");
    // Of each version a few: the digest that a run began with is that of what ran.
    let mut said_by = std::collections::BTreeMap::<String, std::collections::BTreeSet<String>>::new();
    for run in runs.iter().step_by((posted / 24).max(1)) {
        assert_eq!(run["hosts"][0]["ending"], "succeeded", "{run:#}");
        let seen = cluster.json("ana", &["run", "show", run["id"].as_str().unwrap_or_default()]);
        let said = seen["hosts"][0]["steps"][0]["path"].to_string();
        let digest = seen["runbook_digest"].as_str().unwrap_or_default().to_owned();
        said_by.entry(digest).or_default().insert(said);
    }
    assert!(said_by.len() > 1, "more than one version ran: {said_by:?}");
    assert!(said_by.values().all(|said| said.len() == 1), "one digest, one text: {said_by:?}");
}
