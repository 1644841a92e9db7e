//! `fettle run retry`.

use std::fs;

use super::{Scene, THREE};

#[test]
fn a_retry_resumes_at_the_step_that_failed_and_both_runs_name_each_other() {
    let scene = Scene::new(THREE);
    let first = scene.start("ben", "failed");
    assert_eq!(scene.ledger(), ["one false"]);

    scene.touch(".ok");
    let (said, second) = scene.typed(0, &["retry", &first, "--reason", "the file is there"]);
    assert_ne!(first, second);
    assert_eq!(scene.ledger(), ["one false", "two", "three"], "{said}");
    assert!(said.contains(&format!("remediate/one skipped: done in {first}")), "{said}");
    assert_eq!(scene.steps(&first)[1..3], ["remediate/one succeeded", "remediate/two failed"]);
    assert_eq!(scene.show(&first)["hosts"][0]["ending"], "failed", "what is over does not change");

    let (earlier, later) = (scene.show(&first), scene.show(&second));
    assert_eq!((&later["of"]["run"], &later["of"]["how"]), (&first.clone().into(), &"retry".into()));
    assert_eq!(later["of"]["reason"], "the file is there");
    assert_eq!(earlier["follow_ups"][0]["run"], *second, "{earlier:#}");
    let plan = &later["hosts"][0]["plan"];
    assert_eq!((&plan["of"]["run"], &plan["of"]["how"]), (&first.clone().into(), &"retry".into()));
    assert_eq!(plan["steps"][0]["done_in"], *first, "what is skipped is in the bytes that are approved");
    let (page, _) = scene.typed(0, &["show", &first]);
    assert!(page.contains(&format!("retry by:  {second}  person ana on web-1: the file is there")), "{page}");

    let story = fettle_tests::cluster::told(&scene.cluster.fettle("ana", &["watch", &first]));
    let followed = format!("ana: {second} goes on from it: retry on web-1: the file is there");
    assert_eq!(story.matches(&followed).count(), 1, "{story}");

    let (said, _) = scene.typed(1, &["retry", &second]);
    assert!(said.contains("is left to retry"), "{said}");
    let (said, _) = scene.typed(13, &["retry", &first]);
    assert!(said.contains(&format!("{second} went on from {first}: name that one")), "{said}");
    assert_eq!(scene.ledger().len(), 3);
}

#[test]
fn a_step_that_would_be_done_otherwise_runs_again_with_all_after_it() {
    let scene = Scene::new(THREE);
    let first = scene.start("ben", "failed");
    scene.touch(".ok");
    scene.touch(".other");
    let (_, second) = scene.typed(0, &["retry", &first]);
    assert_eq!(scene.ledger(), ["one false", "one true", "two", "three"]);
    let says = scene.show(&second)["hosts"][0]["plan"]["of"]["says"].to_string();
    assert!(says.contains("remediate/one would now be done otherwise"), "{says}");
}

#[test]
fn a_retry_goes_by_what_the_host_wrote_down_and_a_host_that_has_forgotten_skips_nothing() {
    let mut scene = Scene::new(THREE);
    let first = scene.start("ben", "failed");
    scene.cluster.restart_agent("web-1");
    let (_, second) = scene.typed(1, &["retry", &first]);
    assert_eq!(scene.ledger(), ["one false"], "after a restart as before");

    // What was done two runs ago is done.
    scene.cluster.restart_agent("web-1");
    scene.touch(".ok");
    let (_, third) = scene.typed(0, &["retry", &second]);
    assert_eq!(scene.ledger(), ["one false", "two", "three"]);
    assert_eq!(scene.show(&third)["hosts"][0]["plan"]["steps"][0]["done_in"], *first);

    fs::remove_file(format!("{}.ok", scene.file)).expect("it is there");
    let fourth = scene.start("ben", "failed");
    scene.cluster.agent("web-1").kill();
    fs::remove_dir_all(scene.cluster.path("web-1/journal")).expect("it is there");
    scene.cluster.start_agent("web-1");
    scene.touch(".ok");
    let (_, fifth) = scene.typed(0, &["retry", &fourth]);
    assert_eq!(scene.ledger()[3..], ["one false", "one false", "two", "three"]);
    let says = scene.show(&fifth)["hosts"][0]["plan"]["of"]["says"].to_string();
    assert!(says.contains(&format!("does not remember {fourth}: no step is skipped")), "{says}");
}

#[test]
fn a_run_that_an_alert_started_is_retried_in_its_incident_unless_the_library_has_moved_on() {
    let scene = Scene::new(THREE);
    let labels = [("instance", "web-1"), ("file", &*scene.file)];
    let first = scene.cluster.fire("Three", &labels);
    assert_eq!(scene.cluster.ending(&first), "failed");
    let (_, second) = scene.typed(1, &["retry", &first]);
    assert_eq!(scene.show(&second)["incident"], scene.show(&first)["incident"]);
    assert_eq!(scene.show(&second)["origin"], "person ana");
    assert_eq!(scene.ledger(), ["one false"]);

    let input = format!("file={}", scene.file);
    let file = scene.cluster.path("library/test/three.yaml");
    fs::write(&file, THREE.replace("Three steps", "Three other steps")).expect("it can be written");
    let (said, _) =
        fettle_tests::eventually("the library is read again", fettle_tests::cluster::LIMIT, || {
            let output = scene.cluster.fettle("ana", &["run", "retry", &second]);
            let said = fettle_tests::cluster::told(&output);
            if said.contains("the library has another") { Ok((said, output)) } else { Err(said) }
        });
    assert!(said.contains(&format!("fettle start test/three --host web-1 -i {input}")), "{said}");
}
