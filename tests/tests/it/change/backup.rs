//! The store is copied while it is written to, and put back.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use fettle_tests::Cluster;
use fettle_tests::cluster::told;
use serde_json::Value;

use super::{STEPS, Story, controller, history_gives_the_tables};

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
        assert_eq!(fs::read(&store).expect("a database"), before, "{name}");
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
