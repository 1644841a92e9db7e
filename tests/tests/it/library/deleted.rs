//! `host/deleted-open-files`

use fettle_tests::{Systemd, eventually};

use super::scene::{LIMIT, Scene, leaky};

/// A small file system of its own.
fn data(machine: &Systemd) {
    Scene::ext4(machine, "/data", 200, 1000);
}

#[track_caller]
fn lost(scene: &Scene) -> u64 {
    let used = scene.machine.ok(&["sh", "-c", "df --output=used --block-size=1M /data | tail -n 1"]);
    used.trim().parse().expect("a number")
}

#[track_caller]
fn leak(scene: &Scene, unit: &str) {
    scene.machine.run(&["rm", "-f", "/run/once"]);
    scene.machine.unit(unit, &leaky("/data/app.log", 120));
    scene.machine.ok(&["systemctl", "start", unit]);
    eventually("the space is lost", LIMIT, || {
        match (lost(scene), scene.machine.path("/data/app.log").exists()) {
            (megabytes, false) if megabytes >= 110 => Ok(()),
            seen => Err(format!("{seen:?}\n{}", scene.machine.journal(unit))),
        }
    });
}

#[test]
fn the_service_that_holds_deleted_files_is_restarted_or_asked_to_reload_with_an_approval() {
    let Some(scene) = Scene::unguarded(data) else { return };
    for by in ["restart", "reload"] {
        leak(&scene, "leaky.service");
        let pid = scene.machine.property("leaky.service", "MainPID");
        let run = scene.start("host/deleted-open-files", &["mount=/data", &format!("by={by}")]);
        scene.cluster.gate(&run);
        assert!(lost(&scene) >= 110, "nobody has approved yet");
        let shown = scene.approve(&run);
        assert!(shown.contains("leaky.service") && shown.contains(by), "{shown}");
        let ended = scene.ended(&run);
        ended.is("verified");
        let other = if by == "restart" { "reload" } else { "restart" };
        ended.steps(&[(&format!("remediate/{by}"), "succeeded"), (&format!("remediate/{other}"), "skipped")]);
        assert!(lost(&scene) < 10, "{} MB", lost(&scene));
        scene.machine.until("leaky.service", "ActiveState", "active");
        assert_eq!(scene.machine.property("leaky.service", "MainPID") == pid, by == "reload");
        scene.machine.ok(&["systemctl", "stop", "leaky.service"]);
    }
}

#[test]
fn a_process_of_no_service_that_holds_deleted_files_is_named_and_left_alone() {
    let Some(scene) = Scene::new(data) else { return };
    let script = "exec 3> '/data/my log'; head -c 120000000 /dev/zero >&3; rm '/data/my log'; echo $$; exec sleep 1000";
    let mut holder = scene
        .machine
        .command(&["sh", "-euc", script])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("nsenter can be run");
    let mut pid = String::new();
    let mut said = std::io::BufReader::new(holder.stdout.take().expect("a pipe"));
    std::io::BufRead::read_line(&mut said, &mut pid).expect("it says its number");
    let ended = scene.ended(&scene.start("host/deleted-open-files", &["mount=/data"]));
    let still_there = holder.try_wait().expect("a child can be asked for").is_none();
    scene.machine.ok(&["kill", pid.trim()]);
    let _ = holder.wait();
    ended.is("unverified");
    ended.steps(&[("remediate/reload", "skipped"), ("remediate/restart", "skipped")]);
    let holders = ended.output("diagnose/held", "holders");
    let told = format!("114 MB sleep ({}) no unit /data/my log", pid.trim());
    assert!(holders.contains(&told), "{told}: {}", ended.all());
    assert!(still_there, "it was left alone");
}
