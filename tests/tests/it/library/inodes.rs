//! `host/inode-full`

use fettle_tests::Systemd;

use super::scene::Scene;

/// `/var` as an ext4 file system with few inodes.
fn fill(machine: &Systemd) {
    Scene::ext4(machine, "/new", 100, 1024);
    machine.ok(&[
        "sh",
        "-euc",
        r#"
        cd /new
        mkdir -p lib/fettle-agent lib/php/sessions tmp spool/app cache/app
        chmod 1777 tmp
        mount --move /new /var
        mount -t tmpfs -o mode=700 tmpfs /var/lib/fettle-agent
    "#,
    ]);
}

/// So many files in a directory, of that age, with names that begin so.
fn files(machine: &Systemd, place: &str, name: &str, count: u32, age: &str) {
    let script = r#"cd "$1"; i=0; while [ "$i" -lt "$3" ]; do : > "$2$i"; i=$((i + 1)); done; find . -name "$2*" -exec touch -d "$4" {} +"#;
    machine.ok(&["sh", "-euc", script, "sh", place, name, &count.to_string(), age]);
}

#[test]
fn lost_inodes_are_won_back_from_old_sessions_and_temporary_files_only() {
    let Some(scene) = Scene::new(fill) else { return };
    let machine = &scene.machine;
    // This host's own rule; Debian comes without one for `/var/tmp`.
    machine.write("/etc/tmpfiles.d/var-tmp.conf", "e /var/tmp - - - m:10d\n");
    files(machine, "/var/lib/php/sessions", "sess_old", 600, "3 days ago");
    files(machine, "/var/lib/php/sessions", "sess_new", 20, "1 hour ago");
    files(machine, "/var/lib/php/sessions", "other", 20, "3 days ago");
    files(machine, "/var/tmp", "left", 60, "60 days ago");
    files(machine, "/var/tmp", "used", 10, "1 hour ago");
    files(machine, "/var/spool/app", "sess_mail", 240, "60 days ago");
    let before = scene.listing("/var");
    let labels = [("mountpoint", "/var"), ("fstype", "ext4"), ("device", "/dev/vdb")];
    let run = scene.fire("NodeFilesystemAlmostOutOfFiles", &labels);
    let ended = scene.ended(&run);
    ended.is("verified");
    ended.steps(&[
        ("remediate/tidy", "succeeded"),
        ("remediate/sessions", "succeeded"),
        ("remediate/purge", "skipped"),
    ]);
    assert_eq!(ended.output("diagnose/hogs", "worst"), "\"/var/lib/php/sessions\"");
    let gone: Vec<String> = before.difference(&scene.listing("/var")).cloned().collect();
    let of = |place: &str| gone.iter().filter(|entry| entry.contains(place)).count();
    let places = (of("/var/lib/php/sessions/sess_old"), of("/var/tmp/left"));
    assert_eq!((gone.len(), places), (660, (600, 60)), "{gone:?}");
}

#[test]
fn inodes_used_anywhere_else_stay_used_and_it_is_said_where() {
    let Some(scene) = Scene::unguarded(fill) else { return };
    let machine = &scene.machine;
    machine.ok(&["mkdir", "/var/spool/app/in \u{fc}ber\nqueue"]);
    files(machine, "/var/spool/app/in \u{fc}ber\nqueue", "-rf", 900, "60 days ago");
    // Sessions are not below a planted link.
    machine.ok(&["sh", "-euc", "rmdir /var/lib/php/sessions; ln -s /var/spool/app /var/lib/php/sessions"]);
    files(machine, "/var/spool/app", "sess_a", 50, "60 days ago");
    let before = scene.listing("/var");
    let run = scene.fire("HostOutOfInodes", &[("mountpoint", "/var")]);
    let ended = scene.ended(&run);
    ended.is("unverified");
    assert_eq!(scene.listing("/var"), before, "{}", ended.all());
    assert!(ended.said.contains("/var/spool/app/in \u{fc}ber?queue"), "it says where: {}", ended.all());
    assert!(ended.said.contains("a link on the way leads to /var/spool/app"), "{}", ended.all());

    // Who knows that these may go gives the directory, and another person approves.
    machine.ok(&["mv", "/var/spool/app/in \u{fc}ber\nqueue", "/var/cache/app/queue"]);
    let run = scene.start("host/inode-full", &["mount=/var", "cache=/var/cache/app"]);
    scene.approve(&run);
    let ended = scene.ended(&run);
    ended.is("verified");
    let gone: Vec<String> = before.difference(&scene.listing("/var")).cloned().collect();
    assert!(gone.iter().all(|entry| entry.contains("queue")), "{gone:?}");
}
