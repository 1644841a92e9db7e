//! How a "no" of the sandbox reads: from what a failed step wrote to its error output, to what people are told.
//!
//! The kernel tells a program "permission denied" and nothing more, and programs tell that in their own words. Whether it was
//! the sandbox or the host itself that said no cannot always be known, so only words that fit are taken for it.

use super::Reading;

/// Words of a refusal, and what it was that was refused.
const WORDS: &[(&str, &str)] = &[
    ("read-only file system", "writing"),
    ("address family not supported", "a socket"),
    ("failed to connect to bus", "D-Bus"),
    ("failed to get d-bus connection", "D-Bus"),
    ("connect to the docker daemon", "the container engine"),
    ("permission denied", ""),
    ("operation not permitted", ""),
    ("access denied", ""),
    ("insufficient permissions", ""),
];

/// Programs that ask for what a step cannot have, and what to write instead.
const INSTEAD: &[(&[&str], &str)] = &[
    (
        &["lsof", "fuser"],
        "other processes' files are closed to steps; `open_files(path)` is a fact, and `processes(name)` tells how many descriptors each has",
    ),
    (
        &["ss", "netstat"],
        "which process owns a socket is closed to steps; `tcp(address)` and `processes(name)` are facts",
    ),
    (&["ps", "pgrep", "pidof", "pmap"], "`processes(name)` is a fact"),
    (
        &["systemctl", "busctl", "loginctl", "service", "networkctl"],
        "D-Bus and systemd's socket are closed to steps; `unit(name)` is a fact",
    ),
    (
        &["docker", "podman", "crictl", "ctr", "nerdctl"],
        "a container engine's socket obeys whoever connects to it",
    ),
    (
        &["kill", "pkill", "killall"],
        "a step that only reads signals nobody; `processes(name)` tells whether one lives",
    ),
    (
        &["ping", "dig", "nslookup", "nc"],
        "a step reaches only the TCP ports of its `sandbox: { connect: […] }`; `tcp(address)` is a fact",
    ),
    (&["journalctl", "dmesg", "du", "find", "cat", "tail", "head", "grep", "ls"], ""),
];

/// Programs that read logs, for which there is a fact besides.
const OF_LOGS: [&str; 5] = ["journalctl", "tail", "cat", "grep", "head"];

/// What people are told of a step that failed, or nothing when it was nothing of the sandbox.
pub(crate) fn hint(program: &str, script: Option<&str>, stderr: &str, reading: Reading) -> String {
    let lines = stderr.lines().rev().take(200);
    let found = lines.filter_map(|line| {
        let lower = line.to_lowercase();
        let (_, what) = WORDS.iter().find(|(word, _)| lower.contains(word))?;
        Some((line.trim(), *what))
    });
    // The last one is nearest to the end.
    let mut found: Vec<(&str, &str)> = found.collect();
    found.sort_by_key(|(_, what)| what.is_empty());
    let Some((line, what)) = found.first() else { return String::new() };
    let what = if what.is_empty() { String::new() } else { format!(" ({what})") };
    let line: String = line.chars().take(160).collect();
    let mut hint = format!("denied by the read-only sandbox{what}: `{line}`");
    let names = names(program, script, &line);
    let instead = names
        .iter()
        .find_map(|name| {
            INSTEAD.iter().find(|(of, _)| of.contains(&name.as_str())).map(|(_, instead)| *instead)
        })
        .unwrap_or_default();
    if !instead.is_empty() {
        hint.push_str("; ");
        hint.push_str(instead);
    } else if what.is_empty() {
        let of_logs = names.first().is_some_and(|name| OF_LOGS.contains(&name.as_str()));
        if of_logs && (line.contains("/var/log") || names.first().is_some_and(|name| name == "journalctl")) {
            hint.push_str("; `log(target).matches(pattern, since)` is a fact");
        }
        hint.push_str(match reading {
            Reading::Ordinary => "; a certified runbook may say `sandbox: { read: all }`",
            Reading::All => "",
            Reading::NotCertified => {
                "; `read: all` is for certified runbooks, and this one is not certified here"
            }
        });
    }
    hint
}

/// Names of programs that may have been refused: the one that complains, the one that was started, those of the script.
fn names(program: &str, script: Option<&str>, line: &str) -> Vec<String> {
    let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let complains = line.split(':').map(|part| base(part.trim())).take(4);
    let started = [base(program)];
    let said =
        script.into_iter().flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '/'));
    let known = |name: &String| INSTEAD.iter().any(|(of, _)| of.contains(&name.as_str()));
    complains.chain(started).chain(said.map(base)).filter(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(program: &str, stderr: &str) -> String {
        hint(program, None, stderr, Reading::Ordinary)
    }

    #[test]
    fn a_no_of_the_sandbox_is_told_with_what_was_said() {
        assert_eq!(
            of("touch", "touch: cannot touch '/etc/x': Read-only file system\n"),
            "denied by the read-only sandbox (writing): `touch: cannot touch '/etc/x': Read-only file system`"
        );
        assert_eq!(of("df", "df: /x: No such file or directory\n"), "");
    }

    #[test]
    fn it_names_the_fact_to_use_instead() {
        let said = of("lsof", "lsof: WARNING: can't stat(): Permission denied\n");
        assert!(said.contains("`open_files(path)`"), "{said}");
        let said = of("/bin/sh", "/proc/self/fd/3: 2: kill: Operation not permitted\n");
        assert!(said.contains("signals nobody"), "{said}");
        let said = of("systemctl", "Failed to connect to bus: Operation not permitted\n");
        assert!(said.contains("(D-Bus)") && said.contains("`unit(name)`"), "{said}");
    }

    #[test]
    fn what_only_root_may_read_can_be_asked_for() {
        let stderr = "cat: /var/log/secure: Permission denied\n";
        assert!(of("cat", stderr).contains("read: all"));
        assert!(hint("cat", None, stderr, Reading::NotCertified).contains("not certified here"));
        assert!(!hint("cat", None, stderr, Reading::All).contains("certified"));
        assert!(!of("cat", "cat: /etc/sudoers: Permission denied\n").contains("log("));
    }

    #[test]
    fn a_log_that_cannot_be_read_is_a_fact_besides() {
        for (program, stderr) in [
            ("journalctl", "No journal files were opened due to insufficient permissions.\n"),
            ("tail", "tail: cannot open '/var/log/auth.log' for reading: Permission denied\n"),
        ] {
            let said = of(program, stderr);
            assert!(
                said.contains("`log(target).matches(pattern, since)`") && said.contains("read: all"),
                "{said}"
            );
        }
    }
}
