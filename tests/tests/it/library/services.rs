//! `host/service-down`

use fettle_tests::alerts::firing;

use super::scene::Scene;

/// Fails until somebody has given it what it needs.
const WEB: &str = "[Service]
ExecStart=/bin/sh -c 'test -e /run/web.conf || { echo \"web.conf is missing\" >&2; exit 3; }; exec sleep 1000'
";

/// A unit that has been started and is now in this state.
#[track_caller]
fn broken(scene: &Scene, unit: &str, text: &str, state: &str) {
    scene.machine.unit(unit, text);
    scene.machine.run(&["systemctl", "start", unit]);
    scene.machine.until(unit, "ActiveState", state);
}

/// How often systemd has started it.
fn starts(scene: &Scene, unit: &str) -> usize {
    let journal = scene.machine.ok(&["journalctl", "--no-pager", "--output=cat", "--unit", unit]);
    journal.lines().filter(|line| line.starts_with("Started ")).count()
}

#[test]
fn a_failed_service_is_started_with_an_approval_and_is_back_when_it_goes_on_running() {
    let Some(scene) = Scene::new(|_| {}) else { return };
    broken(&scene, "web.service", WEB, "failed");
    let run = scene.fire("SystemdUnitFailed", &[("name", "web.service"), ("state", "failed")]);
    scene.cluster.gate(&run);
    assert_eq!(starts(&scene, "web.service"), 1, "nobody has approved yet");
    scene.machine.write("/run/web.conf", "");
    let shown = scene.approve(&run);
    assert!(shown.contains("web.service"), "who approves sees what is started: {shown}");
    let ended = scene.ended(&run);
    ended.is("verified");
    ended.steps(&[("remediate/start-unattended", "skipped"), ("remediate/start", "succeeded")]);
    assert!(ended.said.contains("web.conf is missing"), "it says what it said last: {}", ended.said);
    scene.machine.until("web.service", "ActiveState", "active");
    assert_eq!(starts(&scene, "web.service"), 2);
}

#[test]
fn a_service_on_the_list_is_started_at_once_and_a_job_is_not_done_again() {
    let Some(scene) = Scene::unguarded(|_| {}) else { return };
    broken(&scene, "web.service", WEB, "failed");
    scene.machine.write("/run/web.conf", "");
    let input = "unattended=web.service,job.service";
    let ended = scene.ended(&scene.start("host/service-down", &["unit=web.service", input]));
    ended.is("verified");
    ended.steps(&[("remediate/start-unattended", "succeeded"), ("remediate/start", "skipped")]);

    let job = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo paid >> /run/payments; exit 1'\n";
    broken(&scene, "job.service", job, "failed");
    let ended = scene.ended(&scene.start("host/service-down", &["unit=job.service", input]));
    ended.is("unverified");
    ended.steps(&[("remediate/start-unattended", "skipped"), ("remediate/start", "skipped")]);
    assert_eq!(scene.machine.ok(&["cat", "/run/payments"]), "paid", "once, and not a second time");
}

#[test]
fn a_service_that_crashes_again_and_again_is_not_started_and_people_are_told_why() {
    let Some(scene) = Scene::unguarded(|_| {}) else { return };
    let given_up = "[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=3\nRequires=database.service\n[Service]\n\
        ExecStart=/bin/sh -c 'echo no database >&2; sleep 0.1; exit 1'\nRestart=always\nRestartSec=10ms\n";
    scene.machine.unit("database.service", "[Service]\nType=oneshot\nExecStart=true\n");
    broken(&scene, "given-up.service", given_up, "failed");
    let before = starts(&scene, "given-up.service");
    let ended = scene.ended(&scene.fire("NodeSystemdServiceFailed", &[("name", "given-up.service")]));
    ended.is("unverified");
    ended.steps(&[("remediate/start-unattended", "skipped"), ("remediate/start", "skipped")]);
    assert_eq!(ended.output("diagnose/state", "looping"), "true", "{}", ended.all());
    assert_eq!(ended.output("diagnose/needs", "missing"), r#"["database.service"]"#, "{}", ended.all());
    assert!(ended.said.contains("no database"), "{}", ended.said);
    assert_eq!(starts(&scene, "given-up.service"), before);

    // Another one goes on for ever by itself, and is up for a moment each time.
    let for_ever = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/sh -c 'sleep 2; exit 1'\nRestart=always\n\
        RestartSec=10ms\n";
    broken(&scene, "for-ever.service", for_ever, "active");
    let labels = [("name", "for-ever.service")];
    let ended = scene.ended(&scene.fire("NodeSystemdServiceCrashlooping", &labels));
    ended.is("unverified");
    ended.steps(&[("remediate/start-unattended", "skipped"), ("remediate/start", "skipped")]);
}

#[test]
fn a_service_that_dies_after_each_start_is_started_once_and_then_people_must_look() {
    let Some(scene) = Scene::new(|_| {}) else { return };
    broken(&scene, "weak.service", "[Service]\nExecStart=/bin/sh -c 'sleep 1; exit 1'\n", "failed");
    let before = starts(&scene, "weak.service");
    let inputs = ["unit=weak.service", "unattended=weak.service"];
    let ended = scene.ended(&scene.start("host/service-down", &inputs));
    ended.is("unverified");
    assert_eq!(starts(&scene, "weak.service"), before + 1);
    let ended = scene.ended(&scene.start("host/service-down", &inputs));
    ended.is("refused");
    assert!(ended.all().contains("guard cooldown"), "{}", ended.all());
    assert_eq!(starts(&scene, "weak.service"), before + 1);
}

#[test]
fn what_is_masked_or_does_not_exist_is_not_started() {
    let Some(scene) = Scene::unguarded(|_| {}) else { return };
    broken(&scene, "web.service", WEB, "failed");
    scene.machine.ok(&["rm", "/etc/systemd/system/web.service"]);
    scene.machine.ok(&["ln", "-s", "/dev/null", "/etc/systemd/system/web.service"]);
    scene.machine.ok(&["systemctl", "daemon-reload"]);
    let input = "unattended=web.service";
    let ended = scene.ended(&scene.start("host/service-down", &["unit=web.service", input]));
    assert_ne!(ended.how(), "verified", "it is masked: {}", ended.all());
    assert_eq!(
        (ended.step("remediate/start-unattended"), ended.step("remediate/start")),
        ("skipped", "skipped")
    );

    let ended = scene.ended(&scene.start("host/service-down", &["unit=nothing.service"]));
    ended.is("unverified");
    assert!(ended.message("diagnose/state").contains("exists = false"), "{}", ended.all());
}

#[test]
fn a_hostile_unit_name_starts_nothing() {
    let Some(scene) = Scene::new(|_| {}) else { return };
    for name in [
        "-rf.service",
        "--version.service",
        "$(touch /run/mark).service",
        "`touch /run/mark`.service",
        "a;touch /run/mark;.service",
        "two words.service",
        "line\nfeed.service",
        "../etc/passwd.service",
        "/run/unit.service",
        "ssh.socket",
        "",
    ] {
        let answer =
            scene.cluster.post(&firing("SystemdUnitFailed", &[("instance", "web-1"), ("name", name)]));
        assert_eq!(answer.status, 200, "{answer:?}");
        let signal = scene.cluster.newest_signal();
        assert_eq!(signal["run"], serde_json::Value::Null, "{name:?}: {signal:#}");
        let trail = signal["trail"].to_string();
        let refused =
            trail.contains("its inputs do not fit: input `unit`") || trail.contains("its match is false");
        assert!(refused, "{name:?}: {trail}");
    }
    assert!(!scene.machine.path("/run/mark").exists());
}
