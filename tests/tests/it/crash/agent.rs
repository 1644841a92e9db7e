//! Agent and shim kill themselves at each of their points, in the middle of a real story.

use std::fs;

use fettle_agent::crash::{POINTS, SHIM_POINTS};
use fettle_agent::works::cgroup;
use fettle_tests::Cluster;
use serde_json::Value;

use super::{Kept, Low, Story, fresh_host, share, stage};

/// What a crash at a point means for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// Its result is known, or it had not begun: it acts once.
    Known,
    /// It was started, and nobody saw its end. So often it can have acted.
    Unknown(&'static [usize]),
}

fn means(point: &str) -> Means {
    match point {
        "attempt.before-prepare" | "attempt.before-spawn" | "attempt.after-spawn" => Means::Known,
        "shim.born" | "shim.before-started" => Means::Known,
        "shim.started-unsynced" | "shim.started-undurable" | "shim.started" | "shim.before-spawn" => {
            Means::Unknown(&[0])
        }
        "shim.after-spawn" => Means::Unknown(&[0, 1]),
        "shim.step-over" | "shim.exit-unsynced" | "shim.exit-unnamed" => Means::Unknown(&[1]),
        "shim.exit-undurable" | "shim.exit-durable" => Means::Known,
        other => panic!("what does a crash at {other} mean?"),
    }
}

/// An agent that dies, or whose shims die, where the file `arm` of its host says.
fn armed<'c>(cluster: &'c Cluster, host: &str) -> Kept<'c> {
    let at = format!("@{}", arm_file(cluster, host).display());
    let start = {
        let host = host.to_owned();
        move || cluster.launch_agent(&host, &[("FETTLE_CRASH_AT", &at)])
    };
    Kept::new(start(), start)
}

fn arm_file(cluster: &Cluster, host: &str) -> std::path::PathBuf {
    cluster.path(&format!("{host}.arm"))
}

fn arm(cluster: &Cluster, host: &str, point: &str) {
    let file = arm_file(cluster, host);
    let fresh = file.with_extension("new");
    fs::write(&fresh, point).and_then(|()| fs::rename(&fresh, &file)).expect("a file can be written");
}

#[track_caller]
fn it_has_crashed(cluster: &Cluster, host: &str, point: &str) {
    assert!(!fs::exists(arm_file(cluster, host)).unwrap_or_default(), "nothing ever came to {point}");
}

fn points_of_attempts() -> Vec<&'static str> {
    POINTS.iter().filter(|point| point.starts_with("attempt.")).chain(SHIM_POINTS).copied().collect()
}

/// The state that people see of the last attempt of a step.
fn state_of(seen: &Value, path: &str) -> String {
    let steps = seen["steps"].as_array().cloned().unwrap_or_default();
    let last = steps.iter().rfind(|step| step["path"] == path);
    last.and_then(|step| step["state"].as_str()).unwrap_or("not there").to_owned()
}

#[test]
fn a_crash_in_a_step_with_a_check_ends_verified_with_one_effect() {
    let cluster = stage().start();
    share(points_of_attempts(), 3, |point| {
        let host = fresh_host(&cluster);
        let mut agent = armed(&cluster, &host);
        arm(&cluster, &host, point);
        let story = Story::new(&cluster, &host, Low::Checked).begin();
        let seen = story.play(|| agent.look());
        it_has_crashed(&cluster, &host, point);
        if seen["waiting_for"] == "resolve" {
            // Only where nobody can tell whether it still runs.
            assert!(!cgroup::available() && matches!(means(point), Means::Unknown(_)), "{point}: {seen:#}");
            assert!(story.times("low") <= 1, "{point}");
        } else {
            story.healed(&seen);
        }
        assert_eq!(agent.deaths, usize::from(point.starts_with("attempt.")), "{point}");
    });
}

#[test]
fn a_crash_in_a_step_that_may_repeat_ends_verified() {
    let cluster = stage().start();
    let unknown = points_of_attempts().into_iter().filter(|point| means(point) != Means::Known).collect();
    share(unknown, 3, |point| {
        let host = fresh_host(&cluster);
        let mut agent = armed(&cluster, &host);
        arm(&cluster, &host, point);
        let story = Story::new(&cluster, &host, Low::Safe).begin();
        let seen = story.play(|| agent.look());
        it_has_crashed(&cluster, &host, point);
        let Means::Unknown(before) = means(point) else { return };
        if !cgroup::available() {
            assert_eq!(seen["waiting_for"], "resolve", "{point}: {seen:#}");
            return;
        }
        assert_eq!(seen["ending"], "verified", "{point}: {seen:#}");
        let low = story.times("low");
        assert!(before.iter().any(|times| times + 1 == low), "{point}: {}", story.ledger());
        assert_eq!(story.times("high"), 1, "{point}: {}", story.ledger());
    });
}

#[test]
fn a_crash_in_a_step_that_never_repeats_waits_for_a_person_where_nobody_can_tell() {
    let cluster = stage().start();
    share(points_of_attempts(), 3, |point| {
        let host = fresh_host(&cluster);
        let mut agent = armed(&cluster, &host);
        let story = Story::new(&cluster, &host, Low::Checked).begin();
        let gate = cluster.gate(&story.run);
        arm(&cluster, &host, point);
        story.approve(&gate);
        let seen = story.play(|| agent.look());
        it_has_crashed(&cluster, &host, point);
        match means(point) {
            Means::Known => story.healed(&seen),
            Means::Unknown(times) => {
                assert_eq!(seen["waiting_for"], "resolve", "{point}: {seen:#}");
                assert_eq!(state_of(&seen, "remediate/high"), "unknown", "{point}: {seen:#}");
                assert!(times.contains(&story.times("high")), "{point}: {}", story.ledger());
                assert_eq!(story.times("low"), 1, "{point}: {}", story.ledger());
                // Nor does a restart make anything of it.
                agent.restart();
                cluster.wait_for_agent(&host);
                let again = story.seen().expect("the controller answers");
                assert_eq!(again["waiting_for"], "resolve", "{point}: {again:#}");
                assert!(times.contains(&story.times("high")), "{point}: {}", story.ledger());
            }
        }
    });
}

#[test]
fn a_crash_at_every_write_of_the_journal_ends_verified_with_one_effect_each() {
    let cluster = stage().start();
    let all = ["journal.before-write", "journal.before-sync", "journal.after-sync"].into_iter();
    share(all.collect(), 3, |point: &'static str| {
        // The first time, the second time … until a whole story goes by without the next.
        for time in 1.. {
            assert!(time < 100, "{point} does not come to an end");
            let host = fresh_host(&cluster);
            let at = format!("{point}#{time}");
            let first = cluster.launch_agent(&host, &[("FETTLE_CRASH_AT", &at)]);
            let mut agent = Kept::new(first, || cluster.launch_agent(&host, &[]));
            let story = Story::new(&cluster, &host, Low::Checked).begin();
            let seen = story.play(|| agent.look());
            story.healed(&seen);
            if agent.deaths == 0 {
                assert!(time > 1, "nothing ever came to {point}");
                return;
            }
            assert_eq!(agent.deaths, 1, "{at}");
        }
    });
}
