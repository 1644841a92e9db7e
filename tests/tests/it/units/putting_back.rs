//! `undo: previous`.

use std::fs;

use super::{Scene, WEB, act, half};

#[test]
fn an_undo_puts_a_unit_back_as_it_was_before_the_step() {
    let Some(scene) = Scene::new(&["start", "stop", "restart"].map(half)) else { return };
    scene.machine.unit("web.service", WEB);
    for verb in ["start", "stop", "restart"] {
        for before in ["inactive", "active"] {
            if (verb, before) == ("restart", "inactive") {
                continue; // It would be refused.
            }
            let to = if before == "active" { "start" } else { "stop" };
            scene.machine.ok(&["systemctl", to, "web"]);
            let run = scene.expect(&format!("unit/half-{verb}"), "web", "undone");
            assert_eq!(scene.machine.property("web.service", "ActiveState"), before, "{verb}");
            let undo = scene.step(&run, "remediate/act/undo");
            assert_eq!(undo["state"], "succeeded", "{undo:#}");
            let logs = scene.logs(&run);
            assert!(logs.contains(&format!("before the step it was {before}")), "{logs}");
        }
    }
}

#[test]
fn a_unit_that_had_failed_is_stopped_again_and_one_that_nobody_remembers_is_left_alone() {
    let Some(scene) = Scene::new(&[half("start")]) else { return };
    let machine = &scene.machine;
    machine.unit("flaky.service", "[Service]\nExecStart=sh -c 'test -e /run/fine && exec sleep 1000'\n");
    let _ = machine.run(&["systemctl", "start", "flaky"]);
    machine.until("flaky.service", "ActiveState", "failed");
    machine.write("/run/fine", "");
    scene.expect("unit/half-start", "flaky", "undone");
    assert_eq!(machine.property("flaky.service", "ActiveState"), "inactive");

    // The failing step takes away what the host remembers.
    let attempts = machine.path("/var/lib/fettle-agent/attempts");
    machine.unit("web.service", WEB);
    let forget = format!(
        "[Service]\nExecStart=sh -c 'rm {}/*.before; exec sleep 1000'\n",
        "/var/lib/fettle-agent/attempts"
    );
    machine.unit("forget.service", &forget);
    let run = scene.expect("unit/half-start", "forget", "failed");
    let undo = scene.step(&run, "remediate/act/undo");
    let why = undo["message"].as_str().unwrap_or_default();
    assert!(why.contains("how forget.service was before the step is not known on this host"), "{undo:#}");
    assert_eq!(machine.property("forget.service", "ActiveState"), "active", "nobody guesses");
    assert!(fs::exists(attempts).unwrap());
}

#[test]
fn a_step_that_failed_leaves_no_crash_loop_and_one_that_did_nothing_has_nothing_to_put_back() {
    let undo = "undo: previous\n    on_failure: undo";
    let text = ["start", "restart"].map(|verb| act(verb, verb, undo, "true"));
    let Some(scene) = Scene::new(&[text[0].clone(), text[1].clone(), half("stop")]) else { return };
    let machine = &scene.machine;
    machine.unit(
        "loop.service",
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestart=always\nRestartSec=1\nExecStart=sh -c 'exit 3'\n",
    );
    scene.expect("unit/start", "loop", "undone");
    assert_eq!(machine.property("loop.service", "ActiveState"), "inactive");
    assert_eq!(machine.ok(&["systemctl", "list-jobs", "--no-legend"]).trim(), "");

    // Between two crashes it is one that runs: nobody has stopped it.
    machine.ok(&["systemctl", "start", "--no-block", "loop"]);
    let run = scene.expect("unit/half-stop", "loop", "failed");
    let logs = scene.logs(&run);
    assert!(logs.contains("start: job "), "it is put back, though it crashes again: {logs}");
    machine.ok(&["systemctl", "stop", "loop"]);

    machine.unit("web.service", WEB);
    let run = scene.expect("unit/restart", "web", "undone");
    assert!(scene.logs(&run).contains("there is nothing to put back"), "{}", scene.logs(&run));
    assert_eq!(machine.property("web.service", "ActiveState"), "inactive");
}
