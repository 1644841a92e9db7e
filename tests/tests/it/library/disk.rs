//! `host/disk-full`

use fettle_tests::{Systemd, eventually};

use super::scene::{LIMIT, Scene, leaky};

/// `/var` as an ext4 file system of its own that is as good as full: with what may go, and with what must stay.
fn fill(machine: &Systemd) {
    Scene::ext4(machine, "/new", 200, 4000);
    machine.ok(&["sh", "-euc", r#"
        cd /new
        mkdir -p lib/fettle-agent lib/systemd/coredump crash tmp spool log/journal log/audit log/app cache/apt/archives/partial cache/app/deep
        mount --move /new /var
        mount -t tmpfs -o mode=700 tmpfs /var/lib/fettle-agent
        cd /var
        make() { fallocate -l "$1" "$2"; touch -d "$3" "$2"; }
        # What may go.
        make 20M cache/apt/archives/tool_1.0_amd64.deb now
        make 20M lib/systemd/coredump/core.app.1000.zst '10 days ago'
        make 10M log/syslog.4.gz '30 days ago'
        make 2M log/app/run.log.2.gz '40 days ago'
        make 1M log/app/run.log-20260901 '40 days ago'
        mkdir lib/logrotate
        printf '%s\n' 'logrotate state -- version 2' '"/var/log/syslog" 2026-11-20-0:0:0' '"/var/log/auth.log" 2026-11-20-0:0:0' \
          '"/var/log/app/run.log" 2026-11-20-0:0:0' '"/var/log/audit/audit.log" 2026-11-20-0:0:0' '"/var/log/app/../../lib/x" 2026-11-20-0:0:0' \
          > lib/logrotate/status
        # What must stay.
        make 2M 'log/app/with blank
and newline.log.2.gz' '40 days ago'
        make 1M log/app/-rf.gz '40 days ago'
        make 1M log/app/run.log-of-2025.gz '40 days ago'
        mkdir -p log/remote/web1 && make 1M log/remote/web1/app-2026-10.log.gz '40 days ago'
        make 1M crash/vmcore '40 days ago'
        make 1M lib/systemd/coredump/core.new.1.zst now
        make 1M log/syslog.1 '2 days ago'
        make 1M log/syslog '30 days ago'
        make 1M log/auth.log.4.gz '40 days ago'
        make 1M log/wtmp.1 '40 days ago'
        make 1M log/audit/audit.log.4.gz '40 days ago'
        make 1M cache/app/old '40 days ago'
        make 1M cache/app/deep/new now
        mkdir -p /elsewhere && make 1M /elsewhere/other.gz '40 days ago'
        ln -s /elsewhere log/app/link
        ln -s /elsewhere/other.gz log/app/link.gz
        touch -h -d '40 days ago' log/app/link.gz
    "#]);
}

/// Fills what is left but for so many megabytes.
fn leave(machine: &Systemd, megabytes: u64) {
    machine.ok(&[
        "sh",
        "-euc",
        r#"
        free=$(df --output=avail --block-size=1M /var | tail -n 1)
        fallocate -l "$((free - $1))M" /var/lib/database
    "#,
        "sh",
        &megabytes.to_string(),
    ]);
}

#[test]
fn a_full_disk_is_healed_from_known_places_and_nothing_else_is_touched() {
    let Some(scene) = Scene::new(fill) else { return };
    leave(&scene.machine, 4);
    let (before, elsewhere) = (scene.listing("/var"), scene.listing("/elsewhere"));
    let run = scene.fire(
        "NodeFilesystemAlmostOutOfSpace",
        &[("mountpoint", "/var"), ("fstype", "ext4"), ("device", "/dev/vdb")],
    );
    let ended = scene.ended(&run);
    ended.is("verified");
    let gone: Vec<String> = before.difference(&scene.listing("/var")).cloned().collect();
    assert_eq!(
        gone,
        [
            "f 20971520 /var/cache/apt/archives/tool_1.0_amd64.deb",
            "f 20971520 /var/lib/systemd/coredump/core.app.1000.zst",
        ],
        "{}",
        ended.all()
    );
    assert_eq!(scene.listing("/elsewhere"), elsewhere);
    ended.steps(&[
        ("remediate/vacuum", "skipped"),
        ("remediate/apt", "succeeded"),
        ("remediate/cores", "succeeded"),
        ("remediate/logs", "skipped"),
        ("remediate/purge", "skipped"),
    ]);
}

#[test]
fn a_disk_is_healed_by_a_shorter_journal_and_an_approved_purge() {
    let Some(scene) = Scene::new(fill) else { return };
    let machine = &scene.machine;
    machine.write("/etc/systemd/journald.conf.d/test.conf", "[Journal]\nStorage=persistent\nSystemMaxFileSize=4M\nSystemMaxUse=90M\nSystemKeepFree=1M\nRateLimitIntervalSec=0\nCompress=no\n");
    machine.ok(&["systemctl", "restart", "systemd-journald"]);
    machine.ok(&["journalctl", "--flush"]);
    let talk =
        "head -c 40M /dev/urandom | base64 --wrap=40000 | systemd-cat --identifier=talker; journalctl --sync";
    machine.ok(&["sh", "-euc", talk]);
    machine.ok(&["sh", "-euc", "make() { fallocate -l 15M \"$1\"; touch -d '40 days ago' \"$1\"; }
        cd /var/cache/app; make ./-delete; make './two words'; make \"$(printf 'a\\nb')\"
        ln -s /var/lib deep/out; mkdir deep/other; mount -t tmpfs tmpfs deep/other; fallocate -l 1M deep/other/stays; touch -d '40 days ago' deep/other/stays"]);
    leave(machine, 4);
    let before = scene.listing("/var");
    // What it may give back by itself is not enough for this.
    let run = scene.start(
        "host/disk-full",
        &["mount=/var", "max_used=50", "keep_journal_mb=32", "keep_logs_days=20", "cache=/var/cache/app"],
    );
    let shown = scene.approve(&run);
    assert!(shown.contains("/var/cache/app"), "who approves sees which directory: {shown}");
    let ended = scene.ended(&run);
    ended.is("verified");
    ended.steps(&[
        ("remediate/vacuum", "succeeded"),
        ("remediate/apt", "succeeded"),
        ("remediate/cores", "succeeded"),
        ("remediate/logs", "succeeded"),
        ("remediate/purge", "succeeded"),
    ]);
    let after = scene.listing("/var");
    let journal = |entry: &&String| entry.contains("/var/log/journal/");
    let megabytes = |all: &std::collections::BTreeSet<String>| -> u64 {
        all.iter()
            .filter(journal)
            .filter_map(|entry| entry.split(' ').nth(1)?.parse::<u64>().ok())
            .sum::<u64>()
            >> 20
    };
    assert!(
        megabytes(&before) > 46 && megabytes(&after) <= 38,
        "{} MB, then {} MB",
        megabytes(&before),
        megabytes(&after)
    );
    let gone: Vec<&str> =
        before.difference(&after).filter(|entry| !journal(entry)).map(String::as_str).collect();
    assert_eq!(
        gone,
        [
            "f 1048576 /var/cache/app/old",
            "f 1048576 /var/log/app/run.log-20260901",
            "f 10485760 /var/log/syslog.4.gz",
            "f 15728640 /var/cache/app/-delete",
            "f 15728640 /var/cache/app/a\nb",
            "f 15728640 /var/cache/app/two words",
            "f 2097152 /var/log/app/run.log.2.gz",
            "f 20971520 /var/cache/apt/archives/tool_1.0_amd64.deb",
            "f 20971520 /var/lib/systemd/coredump/core.app.1000.zst",
        ],
        "{}",
        ended.all()
    );
    assert!(machine.path("/var/cache/app/deep/other/stays").exists(), "another filesystem is left alone");
}

#[test]
fn a_disk_that_stays_full_ends_unverified_and_says_what_fills_it() {
    let Some(scene) = Scene::new(fill) else { return };
    leave(&scene.machine, 4);
    // Nothing that may go is on it.
    scene.machine.ok(&[
        "sh",
        "-euc",
        "rm -r /var/cache/apt/archives/*.deb /var/lib/systemd/coredump/* /var/log/*.gz /var/log/app/run.log*
        fallocate -l \"$(df --output=avail --block-size=1M /var | tail -n 1)M\" '/var/lib/
surprise' || true",
    ]);
    let before = scene.listing("/var");
    let run = scene.fire("HostOutOfDiskSpace", &[("mountpoint", "/var")]);
    let ended = scene.ended(&run);
    ended.is("unverified");
    assert_eq!(scene.listing("/var"), before, "nothing was done for nothing");
    for told in ["/var/lib/database", "/var/lib/?surprise"] {
        assert!(ended.said.contains(told), "it says that {told} is big: {}", ended.all());
    }
    let why = ended.message("verify/below");
    assert!(why.contains("disk(\"/var\")"), "it says what it saw: {why}");
    assert_eq!(ended.output("diagnose/places", "apt_mb"), "0", "{}", ended.all());
}

#[test]
fn a_purge_follows_no_link_and_leaves_what_is_no_cache() {
    let Some(scene) = Scene::unguarded(fill) else { return };
    leave(&scene.machine, 4);
    scene.machine.ok(&["sh", "-euc", "cd /var; ln -s ../lib/app cache/planted; mkdir lib/app; rm log/*.gz log/app/run.log* lib/systemd/coredump/* cache/apt/archives/*.deb
        mkdir -p lib/thumbs cache/bound/below; fallocate -l 1M lib/thumbs/x; touch -d '40 days ago' lib/thumbs/x; mount --bind lib/thumbs cache/bound/below
        fallocate -l 1M cache/bound/old; touch -d '40 days ago' cache/bound/old
        fallocate -l 1M lib/app/data; touch -d '40 days ago' lib/app/data; fallocate -l 1M spool/mail; touch -d '40 days ago' spool/mail
        fallocate -l \"$(df --output=avail --block-size=1M /var | tail -n 1)M\" lib/more || true"]);
    let before = scene.listing("/var");
    for (cache, why) in [
        ("/var/cache/planted", "a link on the way leads to /var/lib/app"),
        ("/var/spool", "it holds more than a cache"),
        ("/var", "it is the whole filesystem"),
        ("/var/lib/thumbs", "nothing in its name says that it is a cache"),
        ("/var/cache/bound", "something else is mounted below it"),
        ("/elsewhere", ""),
    ] {
        let run = scene.start("host/disk-full", &["mount=/var", &format!("cache={cache}")]);
        if !why.is_empty() {
            scene.approve(&run);
        }
        let ended = scene.ended(&run);
        ended.is("unverified");
        assert_eq!(scene.listing("/var"), before, "{}", ended.all());
        assert!(ended.said.contains(why), "{}", ended.all());
    }
    assert!(scene.machine.path("/elsewhere/other.gz").exists());
}

#[test]
fn a_disk_filled_by_a_deleted_file_is_healed_by_an_approved_restart_of_who_holds_it() {
    let Some(scene) = Scene::new(fill) else { return };
    scene.machine.unit("leaky.service", &leaky("/var/log/app/run.log", 100));
    scene.machine.ok(&["systemctl", "start", "leaky.service"]);
    eventually("the file is deleted", LIMIT, || {
        if scene.machine.path("/run/once").exists() {
            Ok(())
        } else {
            Err(scene.machine.journal("leaky.service"))
        }
    });
    leave(&scene.machine, 4);
    let run = scene.start("host/disk-full", &["mount=/var", "max_used=65", "min_deleted_mb=50"]);
    let shown = scene.approve(&run);
    assert!(shown.contains("leaky.service"), "who approves sees what is restarted: {shown}");
    let ended = scene.ended(&run);
    ended.is("verified");
    ended.steps(&[("remediate/release", "succeeded"), ("remediate/purge", "skipped")]);
    scene.machine.until("leaky.service", "ActiveState", "active");
}
