//! The store is copied while it is written to, and put back.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use fettle_tests::Cluster;
use fettle_tests::cluster::told;
use serde_json::Value;

use super::{ALONE, STEPS, Story, controller, history_gives_the_tables};

#[test]
fn a_backup_is_made_while_the_controller_runs_and_put_back_while_it_does_not() {
    let mut cluster = Cluster::builder().runbook(STEPS).agent("web-1").start();
    let (file, run) = {
        let story = Story::begin(&cluster, "a", &[]);
        let gate = cluster.gate(&story.run);
        // Both after the backup are lost, and the token must not be good for a second host.
        let token = cluster.json("ana", &["agent", "token", "create", "web-2"])["token"].clone();
        let file = cluster.path("monday.db").display().to_string();
        let made = controller(&cluster, &["backup", "--to", &file, "-o", "json"]);
        assert!(made.status.success(), "{}", told(&made));
        let said: Value = serde_json::from_slice(&made.stdout).expect("JSON");
        assert!(said["holds"]["events"].as_u64().is_some_and(|events| events > 10), "{said}");
        let mode = fs::metadata(&file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else reads it");
        let again = controller(&cluster, &["backup", "--to", &file]);
        assert_eq!(again.status.code(), Some(1), "{}", told(&again));
        assert!(told(&again).contains("there is a file of that name"), "{}", told(&again));
        story.approve(&gate);
        assert_eq!(cluster.ending(&story.run), "verified");
        let root = cluster.root_fingerprint();
        let joined = cluster.join_with("web-2", token.as_str().expect("a token"), &root);
        assert!(joined.status.success(), "{}", told(&joined));
        let running = controller(&cluster, &["restore", "--from", &file]);
        assert_eq!(running.status.code(), Some(1), "{}", told(&running));
        assert!(told(&running).contains("a controller uses it; stop it first"), "{}", told(&running));
        let revoked = cluster.fettle("ana", &["agent", "revoke", "web-2", "--reason", "gone"]);
        assert!(revoked.status.success(), "{}", told(&revoked));
        let left: Vec<String> = fs::read_dir(cluster.path(""))
            .expect("a folder")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.contains("unfinished"))
            .collect();
        assert_eq!(left, [""; 0]);
        fs::write(cluster.path("web-2.token"), token.as_str().unwrap_or_default()).expect("written");
        (file, story.run)
    };
    let status = cluster.controller().stop();
    assert!(status.success(), "{status}");
    let restored = controller(&cluster, &["restore", "--from", &file]);
    assert!(restored.status.success(), "{}", told(&restored));
    let said = told(&restored);
    for words in [
        "the database before is ",
        "controller.db.before-",
        "revoked since the backup, and still so: web-2",
        "void: 1 enrolment tokens",
        "nothing is started again",
    ] {
        assert!(said.contains(words), "`{words}` is not in: {said}");
    }
    history_gives_the_tables(&cluster);
    cluster.start_controller();
    cluster.wait_for_agent("web-1");
    // The token was spent after the backup, and is not good for anything any more.
    let token = fs::read_to_string(cluster.path("web-2.token")).expect("it was kept");
    fs::remove_dir_all(cluster.path("web-2")).expect("it had joined");
    let joined = cluster.join_with("web-2", &token, &cluster.root_fingerprint());
    assert!(told(&joined).contains("token-spent"), "{}", told(&joined));
    // Its host was asked, and knows how it ended.
    assert_eq!(cluster.ending(&run), "verified");
    let ledger = fs::read_to_string(cluster.path("stories/a/ledger")).expect("it was written");
    assert_eq!(ledger, "low\nhigh\n");
}

#[test]
fn what_is_no_whole_backup_of_this_version_is_refused_and_nothing_changes() {
    let mut cluster = Cluster::builder().runbook(STEPS).start();
    let good = cluster.path("good.db").display().to_string();
    assert!(controller(&cluster, &["backup", "--to", &good]).status.success());
    assert!(cluster.controller().stop().success());
    let store = cluster.path("controller/store/controller.db");
    let before = fs::read(&store).expect("a database");
    let refused = |name: &str, words: &str, spoil: &dyn Fn(&str)| {
        let file = cluster.path(name).display().to_string();
        fs::copy(&good, &file).expect("copied");
        spoil(&file);
        let output = controller(&cluster, &["restore", "--from", &file]);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", told(&output));
        assert!(told(&output).contains(words), "{name}: {}", told(&output));
        assert!(told(&output).contains("the database is as it was"), "{name}: {}", told(&output));
        assert!(fs::read(&store).expect("a database") == before, "{name}: the database is another");
    };
    let sql = |file: &str, sql: &str| {
        rusqlite::Connection::open(file).and_then(|it| it.execute_batch(sql)).expect("it is a database");
    };
    refused("cut.db", "cut.db is", &|file| {
        let bytes = fs::read(file).expect("read");
        fs::write(file, &bytes[..bytes.len() / 2]).expect("written");
    });
    refused("text.db", "no store of a controller", &|file| fs::write(file, "hello").expect("written"));
    refused("newer.db", "of version 99, and this controller knows versions 1 to", &|file| {
        sql(file, "PRAGMA user_version = 99");
    });
    refused("other.db", "of version 0", &|file| sql(file, "PRAGMA user_version = 0"));
    refused("edited.db", "its history does not give its tables", &|file| {
        sql(file, "DELETE FROM sessions");
    });
    refused("unread.db", "", &|file| sql(file, "UPDATE events SET body = '{\"no-such-change\":{}}'"));
}

/// Puts a backup back under a stopped controller, starts it, and waits until it knows of these runs: hosts tell of them one by one.
#[track_caller]
fn put_back(cluster: &mut Cluster, file: &str, runs: &[&str]) {
    let status = cluster.controller().stop();
    assert!(status.success(), "{status}");
    let restored = controller(cluster, &["restore", "--from", file]);
    assert!(restored.status.success(), "{}", told(&restored));
    cluster.start_controller();
    cluster.wait_for_agent("web-1");
    for run in runs {
        fettle_tests::eventually("the run is known", fettle_tests::cluster::LIMIT, || {
            let shown = cluster.fettle("ana", &["run", "show", run, "-o", "json"]);
            if shown.status.success() { Ok(()) } else { Err(told(&shown)) }
        });
    }
}

/// What the agent was let go by a backup that knows nothing of it: one run is over, one is at a gate, one is in the middle of a step.
#[test]
fn runs_that_only_their_host_knows_are_taken_in_and_nothing_is_run_twice() {
    let receiver = fettle_tests::receiver::Receiver::start(200);
    let mut cluster = Cluster::builder().runbook(STEPS).runbook(ALONE).agent("web-1").start();
    let policy = fs::read_to_string(cluster.path("policy/policy.yaml")).expect("a policy");
    let notify = format!("notify:\n  url: http://127.0.0.1:{}/hook\n  secret_file: token\n", receiver.port);
    fs::write(cluster.path("policy/policy.yaml"), format!("{policy}{notify}")).expect("written");
    let file = cluster.path("before.db").display().to_string();
    let made = controller(&cluster, &["backup", "--to", &file]);
    assert!(made.status.success(), "{}", told(&made));
    let dir = cluster.path("stories/alone");
    fs::create_dir_all(&dir).expect("a folder can be made");
    let input = format!("dir={}", dir.display());
    let (over, gate) = {
        let over = Story::begin(&cluster, "over", &[]);
        let gate = cluster.gate(&over.run);
        over.approve(&gate);
        assert_eq!(cluster.ending(&over.run), "verified");
        let at_gate = Story::begin(&cluster, "gate", &[]);
        let _ = cluster.gate(&at_gate.run);
        (over.run, at_gate.run)
    };
    let started =
        cluster.json("ben", &["start", "change/alone", "--host", "web-1", "-i", &input, "--detach"]);
    let running =
        started["run"].as_str().or(started["id"].as_str()).expect("a start names its run").to_owned();
    fettle_tests::eventually("the step runs", fettle_tests::cluster::LIMIT, || {
        let there = fs::exists(dir.join("pid")).unwrap_or_default();
        if there { Ok(()) } else { Err(cluster.said()) }
    });
    let before = receiver.received().len();
    put_back(&mut cluster, &file, &[&over, &running, &gate]);

    // The one that is over is known again, with how it ended and what ran.
    assert_eq!(cluster.ending(&over), "verified");
    let seen = cluster.json("ana", &["run", "show", &over]);
    let steps: Vec<(&str, &str)> = seen["hosts"][0]["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|step| Some((step["path"].as_str()?, step["state"].as_str()?)))
        .filter(|(path, _)| path.starts_with("remediate/"))
        .collect();
    assert_eq!(steps, [("remediate/low", "succeeded"), ("remediate/high", "succeeded")], "{seen:#}");
    let story = cluster.fettle("ana", &["watch", &over]);
    assert!(told(&story).contains("this controller did not know of the run"), "{}", told(&story));

    // The one that runs was not disturbed, is watched again, and ends as it should: by whom it was started is known.
    cluster.until(&running, "is remediating", |run| run["hosts"][0]["state"] == "remediating");
    let seen = cluster.json("ana", &["run", "show", &running]);
    assert_eq!(seen["origin"], "person ben", "{seen:#}");
    fs::write(dir.join("go"), "").expect("written");
    assert_eq!(cluster.ending(&running), "verified");

    // The one at a gate waits at a gate of this controller; the signatures for the old one are gone with it.
    let waits = cluster.gate(&gate);
    let approved = cluster.fettle("ana", &["approve", &waits, "--yes", "--reason", "seen again"]);
    assert!(approved.status.success(), "{}", told(&approved));
    assert_eq!(cluster.ending(&gate), "verified");

    for (name, ledger) in [("over", "low\nhigh\n"), ("gate", "low\nhigh\n"), ("alone", "alone\n")] {
        let found = fs::read_to_string(cluster.path(&format!("stories/{name}/ledger"))).unwrap_or_default();
        assert_eq!(found, ledger, "{name}: {}", cluster.said());
    }
    // People heard of the restore, that there are such runs, the new gate and what came of it: not of all that had been before.
    let kinds: Vec<String> = receiver.received()[before..]
        .iter()
        .filter_map(|request| serde_json::from_slice::<Value>(&request.body).ok())
        .map(|body| {
            format!(
                "{} {}",
                body["kind"].as_str().unwrap_or_default(),
                body["run"].as_str().unwrap_or_default()
            )
        })
        .collect();
    let count = |kind: &str| kinds.iter().filter(|it| it.starts_with(kind)).count();
    assert_eq!((count("restored"), count("adopted"), count("gate-opened")), (1, 1, 1), "{kinds:#?}");
    assert!(!kinds.contains(&format!("run-ended {over}")), "{kinds:#?}");
    cluster.controller().kill();
    history_gives_the_tables(&cluster);
}

/// A run that the backup knows in the middle, and that went on without anybody's asking again.
#[test]
fn a_run_that_went_on_since_the_backup_goes_on_where_it_is() {
    let mut cluster = Cluster::builder().runbook(STEPS).agent("web-1").start();
    let file = cluster.path("before.db").display().to_string();
    let run = {
        let story = Story::begin(&cluster, "a", &["low", "high"]);
        cluster.until(&story.run, "is remediating", |run| run["hosts"][0]["state"] == "remediating");
        let made = controller(&cluster, &["backup", "--to", &file]);
        assert!(made.status.success(), "{}", told(&made));
        story.go("low");
        let gate = cluster.gate(&story.run);
        story.approve(&gate);
        cluster.until(&story.run, "is behind the gate", |run| {
            run["hosts"][0]["steps"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|step| step["path"] == "remediate/high" && step["state"] == "running")
        });
        story.run
    };
    put_back(&mut cluster, &file, &[&run]);
    let high = |run: &Value| {
        let steps = run["hosts"][0]["steps"].as_array().into_iter().flatten();
        steps.filter(|step| step["path"] == "remediate/high").any(|step| step["state"] == "running")
    };
    cluster.until(&run, "is where it was", high);
    fs::write(cluster.path("stories/a/go-high"), "").expect("written");
    assert_eq!(cluster.ending(&run), "verified");
    assert_eq!(fs::read_to_string(cluster.path("stories/a/ledger")).unwrap_or_default(), "low\nhigh\n");
    // Once more, with the same backup: everything is told again, and nothing happens.
    put_back(&mut cluster, &file, &[&run]);
    assert_eq!(cluster.ending(&run), "verified");
    assert_eq!(fs::read_to_string(cluster.path("stories/a/ledger")).unwrap_or_default(), "low\nhigh\n");
}

/// Two hosts are in the middle of a run that the backup knows nothing of, and tell of it one after the other; and then once more.
#[test]
fn a_run_on_two_hosts_that_the_backup_does_not_know_is_over_when_both_are() {
    let mut cluster = Cluster::builder().runbook(ALONE).agent("web-1").agent("web-2").start();
    let file = cluster.path("before.db").display().to_string();
    let made = controller(&cluster, &["backup", "--to", &file]);
    assert!(made.status.success(), "{}", told(&made));
    let dir = cluster.path("stories/two");
    fs::create_dir_all(&dir).expect("a folder can be made");
    let input = format!("dir={}", dir.display());
    let on_two = ["start", "change/alone", "--host", "web-1", "--host", "web-2", "-i", &input, "--detach"];
    let run = cluster.json("ben", &on_two)["run"].as_str().expect("a start names its run").to_owned();
    let states = |run: &Value| -> Vec<(String, String, String)> {
        let hosts = run["hosts"].as_array().into_iter().flatten();
        let text = |host: &Value, name: &str| host[name].as_str().unwrap_or_default().to_owned();
        let states = hosts.map(|host| (text(host, "host"), text(host, "state"), text(host, "ending")));
        let mut states: Vec<_> = states.collect();
        states.sort_unstable();
        states
    };
    let both = |state: &str, ending: &str| {
        ["web-1", "web-2"].map(|host| (host.to_owned(), state.to_owned(), ending.to_owned())).to_vec()
    };
    fettle_tests::eventually("both steps run", fettle_tests::cluster::LIMIT, || {
        let begun = fs::read_to_string(dir.join("pid")).unwrap_or_default().lines().count();
        if begun == 2 { Ok(()) } else { Err(cluster.said()) }
    });
    for _ in 0..2 {
        put_back(&mut cluster, &file, &[&run]);
        cluster.wait_for_agent("web-2");
        cluster.until(&run, "goes on on both hosts", |run| states(run) == both("remediating", ""));
    }
    fs::write(dir.join("go"), "").expect("written");
    cluster.until(&run, "has ended on both hosts", |run| states(run) == both("ended", "verified"));
    assert_eq!(fs::read_to_string(dir.join("ledger")).unwrap_or_default(), "alone\nalone\n");
    put_back(&mut cluster, &file, &[&run]);
    cluster.wait_for_agent("web-2");
    cluster.until(&run, "ended on both hosts", |run| states(run) == both("ended", "verified"));
    assert_eq!(fs::read_to_string(dir.join("ledger")).unwrap_or_default(), "alone\nalone\n");
    cluster.controller().kill();
    history_gives_the_tables(&cluster);
}

#[test]
fn a_backup_that_finds_no_space_leaves_nothing_behind() {
    let cluster = Cluster::builder().runbook(STEPS).start();
    let disk = cluster.path("disk");
    fs::create_dir_all(&disk).expect("a folder can be made");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=32k", "tmpfs"])
        .arg(&disk)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("NOT RUN: only root can make a small disk, and this test needs one");
        return;
    }
    let full = controller(&cluster, &["backup", "--to", &disk.join("b.db").display().to_string()]);
    let left = fs::read_dir(&disk).expect("a folder").count();
    let _ = std::process::Command::new("umount").args(["--lazy"]).arg(&disk).status();
    assert_eq!(full.status.code(), Some(1), "{}", told(&full));
    assert!(told(&full).contains("full"), "{}", told(&full));
    assert_eq!(left, 0, "{}", told(&full));
    assert!(cluster.fettle("ana", &["status"]).status.success(), "the controller is not disturbed");
}
