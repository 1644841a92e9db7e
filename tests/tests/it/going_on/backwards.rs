//! `fettle run undo`.

use super::{Scene, THREE};

#[test]
fn what_a_run_did_is_undone_in_reverse_and_only_once() {
    let scene = Scene::new(THREE);
    scene.touch(".ok");
    let first = scene.start("ben", "verified");
    let (said, second) = scene.typed(7, &["undo", &first, "--reason", "it made things worse"]);
    assert_eq!(scene.ledger()[3..], ["undo-two", "undo-one"], "{said}");
    assert!(said.contains("cannot be undone, and stays: remediate/three on web-1"), "{said}");
    assert_eq!(scene.steps(&second), ["remediate/two/undo succeeded", "remediate/one/undo succeeded"]);
    let plan = &scene.show(&second)["hosts"][0]["plan"];
    assert_eq!(plan["of"]["says"][0], "stays: remediate/three has no undo");
    let (page, _) = scene.typed(0, &["show", &first]);
    assert!(page.contains(&format!("undo by:  {second}")), "{page}");

    let (said, _) = scene.typed(1, &["undo", &first, "--reason", "again"]);
    assert!(said.contains(&format!("was undone on web-1 by {second}")), "{said}");
    let (said, _) = scene.typed(1, &["undo", &second, "--reason", "back"]);
    assert!(said.contains("is an undo itself"), "{said}");
    assert_eq!(scene.ledger().len(), 5);
}

#[test]
fn what_a_failed_run_had_done_is_undone_and_so_is_what_a_retry_of_it_did() {
    let scene = Scene::new(THREE);
    let first = scene.start("ben", "failed");
    let (said, second) = scene.typed(7, &["undo", &first, "--reason", "leave no half"]);
    assert_eq!(scene.ledger(), ["one false", "undo-one"], "{said}");
    let says = scene.show(&second)["hosts"][0]["plan"]["of"]["says"].to_string();
    assert!(says.contains("remediate/two failed midway: its undo is for a finished step"), "{says}");

    // What is undone is not done: it runs again.
    scene.touch(".ok");
    let (_, third) = scene.typed(0, &["retry", &first]);
    assert_eq!(scene.ledger()[2..], ["one false", "two", "three"]);
    let (_, _) = scene.typed(7, &["undo", &third, "--reason", "all of it"]);
    assert_eq!(scene.ledger()[5..], ["undo-two", "undo-one"]);
}

#[test]
fn an_undo_needs_the_approvals_of_what_it_undoes_and_not_of_who_asked_for_it() {
    let scene = Scene::new(&THREE.replacen("risk: low", "risk: high", 1));
    scene.touch(".ok");
    let input = format!("file={}", scene.file);
    let words = ["start", "test/three", "--host", "web-1", "-i", &input, "--detach"];
    let first = scene.cluster.json("ben", &words)["run"].as_str().expect("its id").to_owned();
    let gate = scene.cluster.gate(&first);

    let (said, _) = scene.typed(8, &["undo", &first, "--reason", "no"]);
    assert!(said.contains("--cancel"), "{said}");
    let (said, _) = scene.typed(1, &["undo", &first, "--cancel", "--reason", "no"]);
    assert!(said.contains("there is nothing to undo"), "{said}");
    assert_eq!(scene.cluster.ending(&first), "cancelled");
    assert_eq!(scene.cluster.fettle("ana", &["approve", &gate, "--yes"]).status.code(), Some(9));

    let second = scene.cluster.json("ben", &words)["run"].as_str().expect("its id").to_owned();
    let gate = scene.cluster.gate(&second);
    assert!(scene.cluster.fettle("ana", &["approve", &gate, "--yes"]).status.success());
    assert_eq!(scene.cluster.ending(&second), "verified");

    let undo = ["run", "undo", &second, "--reason", "not this", "--detach"];
    let undo = scene.cluster.json("ana", &undo)["run"].as_str().expect("its id").to_owned();
    let gate = scene.cluster.gate(&undo);
    assert_eq!(scene.ledger()[3..], ["undo-two"], "the low one needs nobody");
    let own = scene.cluster.fettle("ana", &["approve", &gate, "--yes"]);
    assert_eq!(own.status.code(), Some(5), "{}", fettle_tests::cluster::told(&own));
    let (said, _) = scene.typed(1, &["undo", &second, "--reason", "twice at a time"]);
    assert!(said.contains("which is not over"), "{said}");
    let shown = scene.cluster.fettle("ben", &["approve", &gate, "--yes"]);
    let shown = fettle_tests::cluster::told(&shown);
    assert!(shown.contains(&format!("undoes what {second} did")), "{shown}");
    assert_eq!(scene.cluster.ending(&undo), "undone", "{shown}");
    assert_eq!(scene.ledger()[3..], ["undo-two", "undo-one"]);
}

#[test]
fn an_undo_that_fails_is_said_first_and_may_be_tried_again() {
    let scene = Scene::new(&THREE.replace("echo undo-two", "test -e \"$FILE.back\" && echo undo-two"));
    scene.touch(".ok");
    let first = scene.start("ben", "verified");
    let (_, second) = scene.typed(1, &["undo", &first, "--reason", "no"]);
    let reason = scene.show(&second)["hosts"][0]["reason"].to_string();
    assert!(reason.starts_with("\"an undo failed: remediate/two/undo"), "{reason}");
    assert_eq!(scene.ledger().len(), 3, "after it, none was tried");
    scene.touch(".back");
    scene.typed(7, &["undo", &first, "--reason", "no"]);
    assert_eq!(scene.ledger()[3..], ["undo-two", "undo-one"]);
}
