//! `undo: previous`.

use std::fs;

use fettle_tests::cluster::LIMIT;
use fettle_tests::eventually;

use super::{Scene, WEB, act, half};

/// Crashes again and again, until somebody has mended it.
const LOOP: &str = "[Unit]
StartLimitIntervalSec=0
[Service]
Restart=always
RestartSec=1
ExecStart=sh -c 'test -e /run/fine && exec sleep 1000'
";

impl Scene {
    /// Goes on from a run as ana, who says how, to the end that is expected.
    #[track_caller]
    fn follow(&self, how: &str, run: &str, ending: &str) -> String {
        let words = ["run", how, run, "--reason", "it was looked at", "--detach"];
        let next = self.cluster.json("ana", &words)["run"].as_str().expect("its id").to_owned();
        let ended = self.cluster.ending(&next);
        assert_eq!(ended, ending, "{}\n{}", self.logs(&next), self.machine.agent_said());
        next
    }
}

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

#[test]
fn what_a_retry_puts_back_is_how_the_unit_was_before_the_first_run_that_tried_the_step() {
    let undo = "undo: previous";
    let start = act("start", "start", undo, "unit(inputs.unit).active");
    let Some(scene) = Scene::new(&[half("start"), half("restart"), start]) else { return };
    let machine = &scene.machine;
    let state = |unit: &str| machine.property(unit, "ActiveState");

    // It did not run; the first run leaves it crashing again and again.
    machine.unit("loop.service", LOOP);
    let first = scene.expect("unit/half-start", "loop", "failed");
    machine.restart_agent(&scene.cluster, "web-1");
    machine.write("/run/fine", "");
    machine.until("loop.service", "ActiveState", "active");
    let second = scene.follow("retry", &first, "undone");
    assert_eq!(state("loop.service"), "inactive", "{}", scene.logs(&second));

    // What was put back is over: the next run starts from how it finds the unit.
    machine.ok(&["systemctl", "start", "loop"]);
    let third = scene.follow("retry", &second, "undone");
    assert_eq!(state("loop.service"), "active", "{}", scene.logs(&third));
    machine.ok(&["systemctl", "stop", "loop"]);

    // It ran; two runs leave it down.
    machine.unit(
        "web.service",
        "[Service]\nExecStart=sh -c 'test ! -e /run/bad && touch /run/up && exec sleep 1000'\n",
    );
    machine.ok(&["systemctl", "start", "web"]);
    eventually("it is past what would end it", LIMIT, || fs::metadata(machine.path("/run/up")).map(drop));
    machine.write("/run/bad", "");
    let first = scene.expect("unit/half-restart", "web", "failed");
    let second = scene.follow("retry", &first, "failed");
    fs::remove_file(machine.path("/run/bad")).expect("it is there");
    let third = scene.follow("retry", &second, "undone");
    assert_eq!(state("web.service"), "active", "{}", scene.logs(&third));
    assert!(scene.logs(&third).contains("before the first attempt of this step it was active"));
}

#[test]
fn an_undo_run_puts_back_what_a_run_and_its_retry_did_with_a_unit() {
    let undo = "undo: previous";
    let Some(scene) = Scene::new(&[act("start", "start", undo, "unit(inputs.unit).active")]) else { return };
    let machine = &scene.machine;
    machine.unit("loop.service", LOOP);
    let first = scene.expect("unit/start", "loop", "failed");
    machine.write("/run/fine", "");
    machine.until("loop.service", "ActiveState", "active");
    let second = scene.follow("retry", &first, "verified");
    assert_eq!(machine.property("loop.service", "ActiveState"), "active");

    let third = scene.follow("undo", &second, "undone");
    assert_eq!(machine.property("loop.service", "ActiveState"), "inactive", "{}", scene.logs(&third));
    assert_eq!(scene.step(&third, "remediate/act/undo")["state"], "succeeded");
}
