//! What systemd, the host or the language refuses, and what is said then.

use fettle_tests::cluster::told;
use fettle_tests::{Cluster, Systemd};

use super::{Scene, WEB, act};

#[test]
fn what_systemd_cannot_do_is_said_with_what_to_do_and_the_units_last_words() {
    let so = "unit(inputs.unit).exists";
    let Some(scene) = Scene::new(&[
        act("start", "start", "undo: none", so),
        act("restart", "restart", "undo: none", so),
        act("reload", "reload", "undo: none", so),
        act("stop", "stop", "undo: none", so),
    ]) else {
        return;
    };
    let machine = &scene.machine;
    machine.unit("plain.service", "[Service]\nExecStart=sleep 1000\n");
    machine.unit("crash.service", "[Service]\nExecStart=sh -c 'echo the disk is on fire; exit 3'\n");
    machine.unit("slow.service", "[Service]\nType=notify\nTimeoutStartSec=1\nExecStart=sleep 1000\n");
    machine.unit("broken.service", "[Service]\nType=oneshot\nExecStart=sh -c 'exit 1'\n");
    machine.unit(
        "needs.service",
        "[Unit]\nRequires=broken.service\nAfter=broken.service\n[Service]\nExecStart=sleep 1000\n",
    );
    machine
        .unit("never.service", "[Unit]\nConditionPathExists=/nonexistent\n[Service]\nExecStart=sleep 1000\n");
    machine.unit("hands.service", "[Unit]\nRefuseManualStart=yes\n[Service]\nExecStart=sleep 1000\n");
    machine.unit(
        "often.service",
        "[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=2\n[Service]\nExecStart=sh -c 'exit 4'\n",
    );
    machine.ok(&["systemctl", "mask", "masked.service"]);
    for _ in 0..3 {
        let _ = machine.run(&["systemctl", "start", "often"]);
        machine.until("often.service", "ActiveState", "failed");
    }
    for (runbook, unit, wanted) in [
        ("start", "nope", "there is no unit nope.service on this host"),
        ("start", "masked", "`systemctl unmask masked.service` allows it again"),
        ("start", "hands", "hands.service cannot be started by hand"),
        ("start", "never", "a condition of never.service does not hold"),
        ("start", "needs", "systemd could not start needs.service: a unit that it needs did not start"),
        ("start", "slow", "systemd could not start slow.service: it took longer than its unit lets it"),
        ("restart", "often", "`systemctl reset-failed often.service`"),
        ("reload", "plain", "restart it instead"),
        ("start", "crash", "its main process exited with 3"),
    ] {
        let (why, logs) = scene.refused(&format!("unit/{runbook}"), unit);
        assert!(why.contains(wanted), "{runbook} {unit}: {why}\n{logs}");
        if unit == "crash" {
            assert!(logs.contains("the disk is on fire"), "{logs}");
        }
    }

    // What others are just doing with a unit is not thrown away; only a stop ends whatever goes on.
    machine
        .unit("dying.service", "[Service]\nExecStart=sleep 1000\nExecStop=sleep 1000\nTimeoutStopSec=1h\n");
    machine.ok(&["systemctl", "start", "dying"]);
    machine.ok(&["systemctl", "stop", "--no-block", "dying"]);
    machine.until("dying.service", "ActiveState", "deactivating");
    let (why, _) = scene.refused("unit/start", "dying");
    assert!(why.contains("`systemctl list-jobs`"), "{why}");
    assert_eq!(machine.property("dying.service", "ActiveState"), "deactivating");
    machine.unit("hung.service", "[Service]\nType=notify\nTimeoutStartSec=1h\nExecStart=sleep 1000\n");
    machine.ok(&["systemctl", "start", "--no-block", "hung"]);
    machine.until("hung.service", "ActiveState", "activating");
    scene.expect("unit/stop", "hung", "verified");
    assert_eq!(machine.property("hung.service", "ActiveState"), "inactive");
}

#[test]
fn a_value_becomes_a_unit_that_a_step_may_act_on_or_nothing() {
    let so = "true";
    let Some(scene) = Scene::new(&[act("start", "start", "undo: none", so)]) else { return };
    for hostile in [
        "poweroff.target",
        "systemd-reboot.service",
        "--no-block",
        "web; touch /run/owned",
        "$(touch /run/owned)",
        "../../run/owned",
        "web.service\u{a0}x",
        "*",
        "modprobe@dccp",
        r"batch\x3breboot",
    ] {
        let (why, _) = scene.refused("unit/start", hostile);
        assert!(why.contains("would start `"), "{hostile}: {why}");
    }
    assert!(!scene.machine.path("/run/owned").exists());
    assert_eq!(scene.machine.property("poweroff.target", "ActiveState"), "inactive");
}

#[test]
fn a_hosts_veto_on_a_unit_holds_for_all_its_names() {
    let Some(scene) = Scene::new(&[act("start", "start", "undo: none", "true")]) else { return };
    let machine = &scene.machine;
    machine.unit("postgresql.service", &format!("{WEB}[Install]\nAlias=database.service\n"));
    machine.ok(&["systemctl", "enable", "postgresql"]);
    machine
        .write("/var/lib/fettle-agent/policy.yaml", "fettle-host-policy: 1\ndeny: [{ unit: 'postgres*' }]\n");
    let (run, ended) = scene.run("unit/start", "postgresql");
    let shown = scene.cluster.json("ana", &["run", "show", &run]).to_string();
    assert!(ended != "verified" && shown.contains("policy.yaml denies it"), "{ended} {shown}");
    let (why, _) = scene.refused("unit/start", "database");
    assert!(why.contains("postgresql.service: this host's policy.yaml denies it"), "{why}");
    assert_eq!(machine.property("postgresql.service", "ActiveState"), "inactive");
    machine.unit("web.service", WEB);
    scene.expect("unit/start", "web", "verified");
}

#[test]
fn a_hosts_veto_holds_for_what_systemd_stops_and_starts_along_and_no_step_stops_the_agent() {
    let verbs = ["start", "stop", "restart"];
    let Some(scene) = Scene::new(&verbs.map(|verb| act(verb, verb, "undo: none", "true"))) else { return };
    let machine = &scene.machine;
    machine.unit("data.service", WEB);
    machine.unit("postgresql.service", &format!("[Unit]\nRequires=data.service\n{WEB}"));
    machine.unit("app.service", &format!("[Unit]\nWants=postgresql.service\n{WEB}"));
    machine.unit("backup.service", &format!("[Unit]\nConflicts=postgresql.service\n{WEB}"));
    let policy = "fettle-host-policy: 1\ndeny: [{ unit: 'postgres*' }]\n";
    machine.write("/var/lib/fettle-agent/policy.yaml", policy);

    let denied = |verb: &str, unit: &str, told: &str| {
        let (why, _) = scene.refused(&format!("unit/{verb}"), unit);
        assert!(why.contains(told) && why.contains("policy.yaml denies it"), "{why}");
    };
    denied("start", "app", "to start app.service also starts postgresql.service");
    machine.ok(&["systemctl", "start", "postgresql"]);
    denied("stop", "data", "to stop data.service also stops postgresql.service");
    denied("restart", "data", "to restart data.service also stops postgresql.service");
    denied("start", "backup", "to start backup.service also stops postgresql.service");
    assert_eq!(machine.property("postgresql.service", "ActiveState"), "active");
    scene.expect("unit/start", "app", "verified");

    machine.write("/var/lib/fettle-agent/policy.yaml", "fettle-host-policy: 1\n");
    let run = scene.expect("unit/stop", "data", "verified");
    assert!(scene.logs(&run).contains("with it, systemd stops postgresql.service"), "{}", scene.logs(&run));
    let (why, _) = scene.refused("unit/stop", "fettle-agent");
    assert!(why.contains("stops the agent itself"), "{why}");
}

#[test]
fn an_agent_that_is_not_root_reads_units_and_says_what_it_may_not_do() {
    let so = "unit(inputs.unit).active";
    let runbooks =
        [act("restart", "restart", "undo: previous", so), act("reload", "reload", "undo: none", so)];
    let Some(scene) = Scene::with_agent_of("nobody", &runbooks) else { return };
    scene.machine.unit("web.service", WEB);
    scene.machine.ok(&["systemctl", "start", "web"]);
    let process = scene.machine.property("web.service", "MainPID");
    for runbook in ["unit/restart", "unit/reload"] {
        let run = scene.expect(runbook, "web", "failed");
        let why = scene.step(&run, "remediate/act")["message"].to_string();
        assert!(why.contains("systemd does not let this agent's user do it"), "{why}");
        assert!(why.contains("run the agent as root, or let its user do this by a rule of polkit"), "{why}");
        assert_eq!(scene.step(&run, "verify/so")["state"], "succeeded", "reading is everybody's");
    }
    assert_eq!(scene.machine.property("web.service", "MainPID"), process);
}

#[test]
fn a_unit_is_not_touched_before_two_persons_agree_when_nobody_reviewed_the_runbook() {
    let Some(machine) = Systemd::boot() else { return };
    let text = act("restart", "restart", "undo: previous", "unit(inputs.unit).active");
    let cluster = Cluster::builder().uncertified(&text).start();
    machine.agent(&cluster, "web-1");
    machine.unit("web.service", WEB);
    machine.ok(&["systemctl", "start", "web"]);
    let process = machine.property("web.service", "MainPID");
    let scene = Scene { machine, cluster };
    let run = scene.start("unit/restart", "web");
    let gate = scene.cluster.gate(&run);
    let brief = told(&scene.cluster.fettle("rosa", &["approve", &gate, "--yes", "--reason", "seen"]));
    assert!(brief.contains("restart the systemd unit web.service"), "{brief}");
    assert!(brief.contains("critical (written as low; not certified)"), "{brief}");
    assert_eq!(scene.machine.property("web.service", "MainPID"), process, "one is not enough");
    let approved = scene.cluster.fettle("ben", &["approve", &gate, "--yes", "--reason", "seen"]);
    assert!(approved.status.success(), "{}", told(&approved));
    assert_eq!(scene.cluster.ending(&run), "verified", "{}", scene.logs(&run));
    assert_ne!(scene.machine.property("web.service", "MainPID"), process);
}
