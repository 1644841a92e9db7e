//! What people diagnose with works in the sandbox; what does not says what to use instead.

use fettle_agent::works::attempt::Ended;
use fettle_agent::works::sandbox::{Allowed, Reading};

use crate::place::{Agent, Place, agents, read_all, text};

fn works(place: &Place, script: &str, allowed: Allowed) -> String {
    let program = script.split(' ').next().unwrap_or_default();
    let there =
        std::process::Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    if !there.status.success() {
        eprintln!("not tried, because this host has no {program}: {script}");
        return "not tried".to_owned();
    }
    let ended: Ended = place.script(script, allowed);
    assert_eq!(ended.exit_code, Some(0), "{script}, {:?}: {ended:?}", place.agent);
    text(&ended)
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
            assert!(
                !works(&place, script, Allowed::default()).is_empty() || script.ends_with("true"),
                "{script}"
            );
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
