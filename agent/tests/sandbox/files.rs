//! Files: nothing changes, and secrets are not there.

use crate::place::{Agent, Place, agents, read_all, text};

/// Each try, and the refusal root's agent and an ordinary user's gives.
fn refused(what: &str, names: &[&str], root: &str, ordinary: &str) {
    for agent in agents() {
        let place = Place::new(agent);
        let paths: Vec<String> = names.iter().map(|name| place.path(name).display().to_string()).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let expected = match agent {
            Agent::Root => root,
            Agent::Ordinary => ordinary,
        };
        assert_eq!(place.tries(what, &paths), expected, "{what}, {agent:?}");
        assert_eq!(std::fs::read_to_string(place.path("file")).unwrap(), "a file of everybody's");
    }
}

#[test]
fn nothing_is_written() {
    refused("write", &["file"], "EROFS", "EACCES");
    refused("truncate", &["file"], "EROFS", "EACCES");
    refused("create", &["new"], "EROFS", "EACCES");
    refused("mkdir", &["new"], "EROFS", "EACCES");
    refused("mknod", &["new"], "EROFS", "EACCES");
}

#[test]
fn nothing_is_deleted() {
    refused("delete", &["file"], "EROFS", "EACCES");
}

#[test]
fn nothing_is_renamed() {
    refused("rename", &["file", "other"], "EROFS", "EACCES");
}

#[test]
fn nothing_gets_a_second_name() {
    refused("link", &["file", "other"], "EROFS", "EACCES");
}

#[test]
fn modes_owners_times_and_attributes_stay() {
    refused("chmod", &["file"], "EROFS", "EPERM");
    refused("chown", &["file"], "EROFS", "EPERM");
    refused("utime", &["file"], "EROFS", "EPERM");
    refused("xattr", &["file"], "EROFS", "EPERM");
}

#[test]
fn a_handle_opens_nothing() {
    refused("handle", &["file"], "EPERM", "EPERM");
}

#[test]
fn passwords_and_private_keys_are_not_to_be_had() {
    for agent in agents() {
        let place = Place::new(agent);
        for path in ["/etc/shadow", "/etc/gshadow"] {
            assert_eq!(place.tries("read", &[path]), "EACCES", "{agent:?}");
            if agent == Agent::Root {
                // Who may read everything finds nothing in them.
                assert_eq!(place.tries_allowed(read_all(), "read-something", &[path]), "empty", "{path}");
            }
        }
        for (home, path) in [("/etc/ssl", "private"), ("/root", ".ssh")] {
            let path = std::path::Path::new(home).join(path);
            if agent == Agent::Root && path.exists() {
                let path = path.display().to_string();
                assert_eq!(place.tries_allowed(read_all(), "list", &[&path]), "empty", "{path}");
            }
        }
    }
}

#[test]
fn private_keys_are_not_to_be_had_even_where_their_mode_would_let_them() {
    if !agents().contains(&Agent::Root) {
        eprintln!("NOT RUN: only root can put keys where they are looked for");
        return;
    }
    for agent in agents() {
        let place = Place::new(agent);
        let home = place.path("home");
        std::fs::create_dir_all(home.join(".ssh")).unwrap();
        let own = home.join(".ssh/id_ed25519");
        std::fs::write(&own, "a private key").unwrap();
        let people = std::fs::read_to_string("/etc/passwd").unwrap();
        let people =
            people.lines().filter(|line| !line.starts_with("nobody:")).collect::<Vec<_>>().join("\n");
        let nobody = format!("nobody:x:65534:65534:nobody:{}:/bin/sh", home.display());
        std::fs::write(place.path("passwd"), format!("{people}\n{nobody}\n")).unwrap();
        let script = format!(
            "mount --bind {} /etc/passwd; mount -t tmpfs tmpfs /etc/ssl; mkdir -m 755 /etc/ssl/private; echo key > /etc/ssl/private/host.key; chmod 644 /etc/ssl/private/host.key",
            place.path("passwd").display(),
        );
        let place = place.after(&script);
        let (hosts, own) = ("/etc/ssl/private/host.key", own.display().to_string());
        match agent {
            Agent::Root => {
                assert_eq!(place.tries("read", &[hosts]), "EACCES");
                assert_eq!(place.tries_allowed(read_all(), "read", &[hosts]), "ENOENT");
                assert_eq!(place.tries_allowed(read_all(), "read", &[&own]), "ENOENT");
            }
            Agent::Ordinary => {
                assert_eq!(place.tries("read", &[hosts]), "EACCES");
                assert_eq!(place.tries("read", &[&own]), "EACCES");
            }
        }
        // What is beside them is.
        assert_eq!(place.tries("read", &["/etc/passwd"]), "allowed", "{agent:?}");
    }
}

#[test]
fn the_agents_own_state_is_not_to_be_had() {
    for agent in agents() {
        let place = Place::new(agent);
        let secret = place.path("state/secret").display().to_string();
        assert_eq!(place.tries("read", &[&secret]), "EACCES", "{agent:?}");
        assert_eq!(place.tries("write", &[&secret]), "EACCES", "{agent:?}");
        if agent == Agent::Root {
            assert_eq!(place.tries_allowed(read_all(), "read", &[&secret]), "ENOENT");
        }
        let beside = place.path("file").display().to_string();
        assert_eq!(place.tries("read", &[&beside]), "allowed", "{agent:?}");
    }
}

#[test]
fn the_kernels_own_files_take_no_orders() {
    for agent in agents() {
        let place = Place::new(agent);
        for path in ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/self/oom_score_adj"] {
            let answer = place.tries("write", &[path]);
            assert!(
                ["EACCES", "EROFS", "EPERM", "ENOENT"].contains(&answer.as_str()),
                "{path}, {agent:?}: {answer}"
            );
        }
    }
}

#[test]
fn roots_agent_lets_a_step_write_where_nobody_else_looks() {
    if !agents().contains(&Agent::Root) {
        return;
    }
    let place = Place::new(Agent::Root);
    let ended = place.script(
        "echo kept > \"$TMPDIR/x\"; cat \"$TMPDIR/x\"; echo \"$TMPDIR\"; ls /dev",
        Default::default(),
    );
    let said = text(&ended);
    assert!(said.starts_with("kept\n/dev/shm\n"), "{said}");
    assert!(!std::path::Path::new("/dev/shm/x").exists());
    for name in ["null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "stdout", "stderr", "shm"]
    {
        assert!(said.lines().any(|line| line == name), "{name} in {said}");
    }
    assert_eq!(said.lines().count(), 2 + 11, "{said}");
}

#[test]
fn outputs_can_be_opened_by_name() {
    for agent in agents() {
        let place = Place::new(agent);
        let ended = place.script(
            "echo one > /dev/stdout; echo two > /dev/stderr; echo three > /dev/null",
            Default::default(),
        );
        assert_eq!(text(&ended), "one\n", "{agent:?}: {ended:?}");
        assert_eq!(ended.stderr.whole().unwrap(), b"two\n", "{agent:?}");
    }
}
