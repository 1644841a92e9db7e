//! Steps that start, stop, restart and reload units of a real systemd, and the fact that reads them.

use fettle_tests::cluster::told;
use fettle_tests::{Cluster, Systemd};
use serde_json::Value;

mod midway;
mod putting_back;
mod refusals;

/// Does one thing with a unit and reads it again.
fn act(name: &str, verb: &str, more: &str, verify: &str) -> String {
    format!(
        r#"fettle: 1
runbook: unit/{name}
title: Something with a unit
owner: tests
inputs:
  unit: {{ type: string, pattern: '.*' }}
remediate:
  - id: act
    risk: low
    service: {{ {verb}: "${{{{ inputs.unit }}}}" }}
    repeat: safe
    {more}
verify:
  - id: so
    that: {verify}
"#
    )
}

/// The same, and then fails and has everything undone.
fn half(verb: &str) -> String {
    let runbook = act(&format!("half-{verb}"), verb, "undo: previous", "unit(inputs.unit).exists");
    let fail = "  - id: fail\n    risk: low\n    run: [\"false\"]\n    repeat: safe\n    undo: none\n    on_failure: undo\n";
    runbook.replace("verify:\n", &format!("{fail}verify:\n"))
}

/// A host with units, and a controller outside of it.
struct Scene {
    machine: Systemd,
    cluster: Cluster,
}

impl Scene {
    /// None where nobody may boot a systemd.
    fn new(runbooks: &[String]) -> Option<Scene> {
        Scene::with_agent_of("root", runbooks)
    }

    fn with_agent_of(user: &str, runbooks: &[String]) -> Option<Scene> {
        let machine = Systemd::boot()?;
        let cluster = runbooks.iter().fold(Cluster::builder(), |builder, text| builder.runbook(text)).start();
        machine.agent_as(&cluster, "web-1", user);
        Some(Scene { machine, cluster })
    }

    /// Starts a run with a unit as its input.
    #[track_caller]
    fn start(&self, runbook: &str, unit: &str) -> String {
        let unit = format!("unit={unit}");
        let begun = self.cluster.json("ana", &["start", runbook, "--host", "web-1", "-i", &unit, "--detach"]);
        begun["run"].as_str().or(begun["id"].as_str()).expect("a start names its run").to_owned()
    }

    /// Runs it to its end, and says how it ended.
    #[track_caller]
    fn run(&self, runbook: &str, unit: &str) -> (String, String) {
        let run = self.start(runbook, unit);
        let ending = self.cluster.ending(&run);
        (run, ending)
    }

    /// What is told of a step.
    #[track_caller]
    fn step(&self, run: &str, path: &str) -> Value {
        let shown = self.cluster.json("ana", &["run", "show", run]);
        let steps = shown["hosts"][0]["steps"].as_array().cloned().unwrap_or_default();
        let found = steps.into_iter().rfind(|step| step["path"] == path);
        found.unwrap_or_else(|| panic!("no {path} in {shown:#}"))
    }

    /// What its steps printed.
    #[track_caller]
    fn logs(&self, run: &str) -> String {
        told(&self.cluster.fettle("ana", &["logs", run]))
    }

    /// Runs what must end so, and says what was told otherwise.
    #[track_caller]
    fn expect(&self, runbook: &str, unit: &str, ending: &str) -> String {
        let (run, ended) = self.run(runbook, unit);
        assert_eq!(ended, ending, "{}\n{}", self.logs(&run), self.machine.agent_said());
        run
    }

    /// Runs what must fail in its step, and gives back the reason and what the step printed.
    #[track_caller]
    fn refused(&self, runbook: &str, unit: &str) -> (String, String) {
        let run = self.expect(runbook, unit, "failed");
        let step = self.step(&run, "remediate/act");
        (step["message"].as_str().unwrap_or_default().to_owned(), self.logs(&run))
    }
}

/// Keeps running, and notes what happens to it.
const WEB: &str = "[Service]
ExecStart=sh -c 'echo started >> /run/web.log; exec sleep 1000'
ExecReload=sh -c 'echo reloaded >> /run/web.log'
ExecStopPost=sh -c 'echo stopped >> /run/web.log'
";

#[test]
fn a_unit_is_started_reloaded_restarted_and_stopped_and_every_step_says_what_it_did() {
    let active = "unit(inputs.unit).active";
    let Some(scene) = Scene::new(&[
        act("start", "start", "undo: previous", active),
        act("reload", "reload", "undo: none", active),
        act("restart", "restart", "undo: previous", active),
        act("stop", "stop", "undo: previous", "'!unit(inputs.unit).active'"),
    ]) else {
        return;
    };
    scene.machine.unit("web.service", WEB);
    let log = || std::fs::read_to_string(scene.machine.path("/run/web.log")).unwrap_or_default();

    let planned = scene.cluster.fettle("ana", &["plan", "unit/restart", "--host", "web-1", "-i", "unit=web"]);
    assert!(told(&planned).contains("restart the systemd unit web.service"), "{}", told(&planned));
    assert!(told(&planned).contains("put it back as it was before the step"), "{}", told(&planned));
    assert_eq!(log(), "");

    let run = scene.expect("unit/start", "web", "verified");
    let logs = scene.logs(&run);
    for line in [
        "web.service is inactive (dead)",
        "start: job ",
        ": done after ",
        "web.service is active (running), main process ",
    ] {
        assert!(logs.contains(line), "{line} is missing in {logs}");
    }
    assert_eq!(log(), "started\n");
    scene.expect("unit/start", "web.service", "verified");
    assert_eq!(log(), "started\n", "it runs already, and is left alone");
    scene.expect("unit/reload", "web", "verified");
    assert_eq!(log(), "started\nreloaded\n");
    scene.expect("unit/restart", "web", "verified");
    assert_eq!(log(), "started\nreloaded\nstopped\nstarted\n");
    scene.expect("unit/stop", "web", "verified");
    assert_eq!(log(), "started\nreloaded\nstopped\nstarted\nstopped\n");
    assert_eq!(scene.machine.property("web.service", "ActiveState"), "inactive");
    let (why, _) = scene.refused("unit/restart", "web");
    assert!(why.contains("only what runs or has failed is restarted; start it instead"), "{why}");
    assert_eq!(scene.machine.property("web.service", "ActiveState"), "inactive");
}

#[test]
fn a_unit_whose_work_is_done_when_it_ends_counts_as_started_and_a_socket_is_a_unit_too() {
    let Some(scene) = Scene::new(&[
        act("start", "start", "undo: previous", "unit(inputs.unit).exists"),
        act("stop", "stop", "undo: previous", "'!unit(inputs.unit).active'"),
    ]) else {
        return;
    };
    scene.machine.unit("once.service", "[Service]\nType=oneshot\nExecStart=touch /run/once\n");
    scene.expect("unit/start", "once", "verified");
    assert!(scene.machine.path("/run/once").exists());
    scene.machine.unit("fails.service", "[Service]\nType=oneshot\nExecStart=sh -c 'exit 7'\n");
    let (why, _) = scene.refused("unit/start", "fails");
    assert!(why.contains("systemd could not start fails.service: its main process exited with 7"), "{why}");

    scene.machine.unit("door.socket", "[Socket]\nListenStream=/run/door\n");
    scene.machine.unit("door.service", "[Service]\nExecStart=sleep 1000\n");
    scene.expect("unit/start", "door.socket", "verified");
    assert_eq!(scene.machine.property("door.socket", "SubState"), "listening");
    scene.expect("unit/stop", "door.socket", "verified");
    assert_eq!(scene.machine.property("door.socket", "ActiveState"), "inactive");
}

#[test]
fn the_fact_tells_of_running_failed_absent_masked_and_broken_units() {
    let runbook = r#"fettle: 1
runbook: unit/facts
title: Read units
owner: tests
diagnose:
  - id: runs
    that: unit("web").active && unit("web").exists && unit("web").main_pid > 1 && unit("web").can_restart
  - id: since
    that: unit("web").active_seconds < 3600 && unit("web").restarts == 0 && unit("web").exit_status == null
  - id: crashed
    that: unit("crash").failed && unit("crash").result == "exit-code" && unit("crash").exit_status == 3
  - id: killed
    that: unit("killed").result == "signal" && unit("killed").exit_status == 137 && unit("killed").main_pid == null
  - id: absent
    that: '!unit("nope").exists && unit("nope").load_state == "not-found" && !unit("nope").active'
  - id: masked
    that: unit("masked").load_state == "masked" && !unit("masked").can_restart
  - id: broken
    that: unit("broken").load_state == "bad-setting"
  - id: instance
    that: unit("app@one").exists && unit("app@one").description == "App one"
  - id: target
    that: unit("basic.target").active && unit("basic.target").main_pid == null && unit("basic.target").result == ""
  - id: template
    that: unit("app@").exists
  - id: invalid
    that: unit("a b").exists
"#;
    let Some(scene) = Scene::new(&[runbook.to_owned()]) else { return };
    let machine = &scene.machine;
    machine.unit("web.service", WEB);
    machine.unit("crash.service", "[Service]\nExecStart=sh -c 'exit 3'\n");
    machine.unit("killed.service", "[Service]\nExecStart=sh -c 'kill -9 $$$$'\n");
    machine.unit("broken.service", "[Service]\nExecStart=relative/path and\nType=nonsense\n[Service\n");
    machine.unit("app@.service", "[Unit]\nDescription=App %i\n[Service]\nExecStart=sleep 1000\n");
    machine.ok(&["systemctl", "mask", "masked.service"]);
    machine.ok(&["systemctl", "start", "web"]);
    for unit in ["crash.service", "killed.service"] {
        let _ = machine.run(&["systemctl", "start", unit]);
        machine.until(unit, "ActiveState", "failed");
    }
    let run = scene.expect_facts();
    for step in ["runs", "since", "crashed", "killed", "absent", "masked", "broken", "instance", "target"] {
        let told = scene.step(&run, &format!("diagnose/{step}"));
        assert_eq!(told["state"], "succeeded", "{told:#}");
    }
    for (step, why) in [("template", "is a template"), ("invalid", "cannot be the name of a unit")] {
        let told = scene.step(&run, &format!("diagnose/{step}"));
        assert!(told["message"].as_str().unwrap_or_default().contains(why), "{told:#}");
    }
}

impl Scene {
    /// Runs `unit/facts`.
    #[track_caller]
    fn expect_facts(&self) -> String {
        let begun = self.cluster.json("ana", &["start", "unit/facts", "--host", "web-1", "--detach"]);
        let run = begun["run"].as_str().or(begun["id"].as_str()).expect("a start names its run").to_owned();
        self.cluster.ending(&run);
        run
    }
}
