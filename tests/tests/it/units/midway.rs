//! What happens to a step when something ends in the middle of it: the agent, the bus, somebody's patience.

use fettle_tests::cluster::{LIMIT, told};
use fettle_tests::eventually;

use super::{Scene, act};

/// Takes its time to stop: until somebody lets it.
const SLOW: &str = "[Service]
ExecStart=sleep 1000
ExecStop=sh -c 'until test -e /run/enough; do sleep 0.05; done'
TimeoutStopSec=1h
";

impl Scene {
    /// The step's own process inside, by its number outside.
    #[track_caller]
    fn process(&self) -> String {
        eventually("the step's process runs", LIMIT, || {
            let found = self.machine.ok(&["pgrep", "--full", "__shim service"]);
            let lines: Vec<&str> = found.lines().collect();
            if let [one] = lines.as_slice() { Ok((*one).to_owned()) } else { Err(found) }
        })
    }

    /// Starts the restart of a unit that stops slowly, and waits until it is stopping.
    #[track_caller]
    fn restarting(&self) -> String {
        self.machine.unit("slow.service", SLOW);
        self.machine.ok(&["systemctl", "start", "slow"]);
        let run = self.start("unit/restart", "slow");
        self.machine.until("slow.service", "ActiveState", "deactivating");
        run
    }
}

fn scene() -> Option<Scene> {
    let active = "unit(inputs.unit).active";
    Scene::new(&["start", "restart"].map(|verb| act(verb, verb, "undo: previous\n    timeout: 10m", active)))
}

#[test]
fn a_restart_goes_on_in_the_same_process_when_the_agent_is_killed_and_started_again() {
    let Some(scene) = scene() else { return };
    let run = scene.restarting();
    let process = scene.process();
    scene.machine.restart_agent(&scene.cluster, "web-1");
    assert_eq!(scene.process(), process);
    scene.machine.write("/run/enough", "");
    assert_eq!(scene.cluster.ending(&run), "verified", "{}", scene.machine.agent_said());
    let logs = scene.logs(&run);
    assert_eq!(logs.matches("restart: job ").count(), 1, "{logs}");
    assert_eq!(scene.step(&run, "remediate/act")["attempt"], 1);
}

#[test]
fn a_restart_outlives_the_bus() {
    let Some(scene) = scene() else { return };
    let run = scene.restarting();
    scene.machine.ok(&["systemctl", "kill", "--signal=KILL", "dbus.service"]);
    eventually("the step knows that the bus is gone", LIMIT, || {
        let said = scene.machine.ok(&["sh", "-c", "cat /var/lib/fettle-agent/attempts/*/stdout"]);
        if said.contains("looking again") { Ok(()) } else { Err(said) }
    });
    scene.machine.write("/run/enough", "");
    assert_eq!(scene.cluster.ending(&run), "verified", "{}", scene.logs(&run));
}

#[test]
fn a_restart_that_is_cancelled_midway_goes_on_is_said_to_and_waits_for_a_person() {
    let Some(scene) = scene() else { return };
    let run = scene.restarting();
    let cancelled = scene.cluster.fettle("ana", &["run", "cancel", &run, "--reason", "wrong unit"]);
    assert!(cancelled.status.success(), "{}", told(&cancelled));
    scene
        .cluster
        .until(&run, "waits for somebody to look", |run| run["hosts"][0]["waiting_for"] == "resolve");
    let logs = scene.logs(&run);
    assert!(logs.contains("systemd goes on with the job "), "{logs}");
    assert_eq!(
        scene.machine.run(&["pgrep", "--full", "__shim"]).status.code(),
        Some(1),
        "nothing is left of it"
    );
    scene.machine.write("/run/enough", "");
    scene.machine.until("slow.service", "ActiveState", "active");
}

#[test]
fn a_job_that_systemd_has_not_begun_is_taken_back_when_its_step_is_cancelled() {
    let Some(scene) = scene() else { return };
    scene.machine.unit("first.service", "[Service]\nType=oneshot\nExecStart=sleep 1000\n");
    scene.machine.unit(
        "second.service",
        "[Unit]\nRequires=first.service\nAfter=first.service\n[Service]\nExecStart=sleep 1000\n",
    );
    let run = scene.start("unit/start", "second");
    scene.machine.until("first.service", "ActiveState", "activating");
    let cancelled = scene.cluster.fettle("ana", &["run", "cancel", &run, "--reason", "wrong unit"]);
    assert!(cancelled.status.success(), "{}", told(&cancelled));
    scene
        .cluster
        .until(&run, "waits for somebody to look", |run| run["hosts"][0]["waiting_for"] == "resolve");
    assert!(scene.logs(&run).contains("which was taken back"), "{}", scene.logs(&run));
    assert!(!scene.machine.ok(&["systemctl", "list-jobs", "--no-pager"]).contains("second.service"));
}

#[test]
fn a_job_that_somebody_else_ordered_before_is_left_when_the_step_is_cancelled() {
    let Some(scene) = scene() else { return };
    scene.machine.unit("first.service", "[Service]\nType=oneshot\nExecStart=sleep 1000\n");
    scene.machine.unit(
        "second.service",
        "[Unit]\nRequires=first.service\nAfter=first.service\n[Service]\nExecStart=sleep 1000\n",
    );
    scene.machine.ok(&["systemctl", "start", "--no-block", "second"]);
    scene.machine.until("first.service", "ActiveState", "activating");
    let run = scene.start("unit/start", "second");
    eventually("the step waits for the job", LIMIT, || {
        let said = scene.machine.ok(&["sh", "-c", "cat /var/lib/fettle-agent/attempts/*/stdout || true"]);
        if said.contains("start: job ") { Ok(()) } else { Err(said) }
    });
    let cancelled = scene.cluster.fettle("ana", &["run", "cancel", &run, "--reason", "wrong unit"]);
    assert!(cancelled.status.success(), "{}", told(&cancelled));
    scene
        .cluster
        .until(&run, "waits for somebody to look", |run| run["hosts"][0]["waiting_for"] == "resolve");
    assert!(scene.logs(&run).contains("ordered by somebody else before"), "{}", scene.logs(&run));
    assert!(scene.machine.ok(&["systemctl", "list-jobs", "--no-pager"]).contains("second.service"));
}
