//! What people diagnose with works in the sandbox; what does not says what to use instead.

use fettle_agent::works::attempt::Ended;
use fettle_agent::works::sandbox::{Allowed, Reading};

use crate::place::{Agent, Place, agents, read_all, text};

fn works(place: &Place, script: &str, allowed: Allowed) -> String {
    ended(place, script, allowed).map_or("not tried".to_owned(), |ended| text(&ended))
}

/// How a script ended, which is well; nothing if this host does not have its program.
fn ended(place: &Place, script: &str, allowed: Allowed) -> Option<Ended> {
    let program = script.split(' ').next().unwrap_or_default();
    let there =
        std::process::Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    if !there.status.success() {
        eprintln!("not tried, because this host has no {program}: {script}");
        return None;
    }
    let ended = place.script(script, allowed);
    assert_eq!(ended.exit_code, Some(0), "{script}, {:?}: {ended:?}", place.agent);
    Some(ended)
}

#[test]
fn the_usual_commands_work() {
    for agent in agents() {
        let place = Place::new(agent);
        for script in [
            "df -P /",
            "du -s /usr/lib/os-release",
            "ps -e -o pid,user,comm",
            "ss -tn",
            "ss -lnt",
            "ip address",
            "ip route",
            "free",
            "uptime",
            "cat /proc/meminfo /proc/loadavg /proc/mounts",
            "getent passwd root",
            "hostname",
            "uname -a",
            "find /etc -maxdepth 1 -name passwd",
            "seq 100000 | sort -n | tail -n 1",
            "nice -n 5 true",
            "timeout 5 true",
            "date",
        ] {
            // A busy host has more to say than is kept.
            let written = ended(&place, script, Allowed::default()).map(|ended| ended.stdout.written());
            assert!(written != Some(0) || script.ends_with("true"), "{script}");
        }
    }
}

#[test]
fn all_processes_are_seen() {
    for agent in agents() {
        let place = Place::new(agent);
        let bystander = place.bystander();
        let seen = text(
            &place.script("cat /proc/[0-9]*/stat 2>/dev/null | cut -d' ' -f1 || true", Allowed::default()),
        );
        assert!(seen.lines().any(|line| line == bystander.pid()), "{agent:?}: {seen}");
    }
}

#[test]
fn a_certified_step_reads_what_only_root_may() {
    if !agents().contains(&Agent::Root) {
        return;
    }
    let place = Place::new(Agent::Root);
    let path = place.path("private");
    std::fs::write(&path, "for root").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let script = format!("cat {}", path.display());
    assert_eq!(works(&place, &script, read_all()), "for root");
    works(&place, "dmesg | wc -l", read_all());
    works(&place, "du -sx /root", read_all());

    let refused = place.script(&script, Allowed::default());
    assert_eq!(refused.exit_code, Some(1));
    assert!(refused.hint.starts_with("denied by the read-only sandbox: `cat: "), "{}", refused.hint);
    assert!(
        refused.hint.ends_with("a certified runbook may say `sandbox: { read: all }`"),
        "{}",
        refused.hint
    );
    let uncertified = Allowed { read: Reading::NotCertified, ..Allowed::default() };
    let refused = place.script(&script, uncertified);
    assert!(refused.hint.ends_with("this one is not certified here"), "{}", refused.hint);
}

/// A journal of a day, as systemd's own tool writes it; nothing where the tool is not there.
fn journal(place: &Place) -> Option<std::path::PathBuf> {
    let remote = "/lib/systemd/systemd-journal-remote";
    if !std::path::Path::new(remote).exists() || !std::path::Path::new("/usr/bin/journalctl").exists() {
        eprintln!("NOT RUN: systemd-journal-remote is not installed, so no journal can be made");
        return None;
    }
    let path = place.path("test.journal");
    let lines: String = (1..=3)
        .map(|number| {
            let at = 1_795_294_800_000_000u64 + number;
            let boot = "0123456789abcdef0123456789abcdef";
            format!("__REALTIME_TIMESTAMP={at}\n__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID={boot}\n_SYSTEMD_UNIT=demo.service\nMESSAGE=line {number}\n\n")
        })
        .collect();
    let mut writer = std::process::Command::new(remote)
        .args(["--split-mode=none", "--output"])
        .args([path.as_os_str(), "-".as_ref()])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut writer.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    place.give("test.journal");
    Some(path)
}

#[test]
fn the_journal_is_read_by_who_may() {
    for agent in agents() {
        let place = Place::new(agent);
        let Some(path) = journal(&place) else { return };
        let script = format!("journalctl --file={} --unit=demo --output=cat --no-pager", path.display());
        let allowed = if agent == Agent::Root { read_all() } else { Allowed::default() };
        assert_eq!(works(&place, &script, allowed), "line 1\nline 2\nline 3\n", "{agent:?}");
        if agent == Agent::Root {
            let refused = place.script(&script, Allowed::default());
            assert_ne!(refused.exit_code, Some(0), "{refused:?}");
            assert!(refused.hint.starts_with("denied by the read-only sandbox"), "{refused:?}");
            assert!(refused.hint.contains("`log(target).matches(pattern, since)` is a fact"), "{refused:?}");
        }
        // It is not thinned out either.
        let vacuum = format!("journalctl --file={} --rotate --no-pager", path.display());
        assert_ne!(place.script(&vacuum, Allowed::default()).exit_code, Some(0));
    }
}

#[test]
fn the_kernels_log_is_told_to_who_may_read_all() {
    if !agents().contains(&Agent::Root) {
        eprintln!("NOT RUN: only root's agent can grant the kernel's log");
        return;
    }
    let place = Place::new(Agent::Root);
    // Not the log itself: a host that was busy has said more than is kept of a step.
    let lines = "dmesg --level=emerg,alert,crit,err,warn,notice,info,debug | wc -l";
    let said = works(&place, lines, read_all());
    assert!(said == "not tried" || said.trim().parse::<u32>().is_ok_and(|lines| lines > 1), "{said}");
    let refused = place.script("dmesg", Allowed::default());
    if std::fs::read_to_string("/proc/sys/kernel/dmesg_restrict").is_ok_and(|set| set.trim() == "1") {
        assert!(refused.hint.starts_with("denied by the read-only sandbox"), "{refused:?}");
    }
}

#[test]
fn who_asks_for_the_files_of_others_is_told_of_the_fact() {
    for agent in agents() {
        let place = Place::new(agent);
        let bystander = place.bystander();
        let script = format!(
            "lsof() {{ echo \"lsof: $(ls -l /proc/$1/fd 2>&1 | head -n 1)\" >&2; return 1; }}; lsof {}",
            bystander.pid()
        );
        let ended = place.script(&script, Allowed::default());
        assert!(ended.hint.contains("`open_files(path)` is a fact"), "{agent:?}: {ended:?}");
    }
}

#[test]
fn what_cannot_be_seen_is_named_with_the_fact_to_use() {
    for agent in agents() {
        let place = Place::new(agent);
        let bystander = place.bystander();
        let ended = place.script(&format!("kill {}", bystander.pid()), Allowed::default());
        assert_ne!(ended.exit_code, Some(0));
        assert!(ended.hint.contains("`processes(name)`"), "{agent:?}: {ended:?}");
        let ended = place.script("echo x > /etc/fettle-was-here", Allowed::default());
        assert!(ended.hint.starts_with("denied by the read-only sandbox"), "{agent:?}: {ended:?}");
    }
}

#[test]
fn a_step_that_fails_by_itself_is_not_blamed_on_the_sandbox() {
    for agent in agents() {
        let ended = Place::new(agent).script("cat /no/such/file", Allowed::default());
        assert_eq!((ended.exit_code, ended.hint.as_str()), (Some(1), ""));
    }
}
