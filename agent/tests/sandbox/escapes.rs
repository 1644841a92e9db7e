//! Ways to become more than one is.

use std::os::unix::fs::PermissionsExt as _;

use crate::place::{Agent, Place, agents, read_all, text};

fn refused(what: &str, with: &[&str], answer: &str) {
    for agent in agents() {
        let place = Place::new(agent);
        assert_eq!(place.tries(what, with), answer, "{what} {with:?}, {agent:?}");
    }
}

#[test]
fn a_setuid_program_is_an_ordinary_one() {
    for agent in agents() {
        let place = Place::new(agent);
        let program = place.path("id");
        std::fs::copy("/usr/bin/id", &program).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755)).unwrap();
        let ended = place.script(&format!("{} -u", program.display()), Default::default());
        assert_ne!(text(&ended), "0\n", "{agent:?}: {ended:?}");
        assert_eq!(ended.exit_code, Some(0));
    }
}

#[test]
fn nobody_becomes_root_again() {
    refused("dumpable-root", &[], "EPERM");
}

#[test]
fn there_are_no_namespaces_to_hide_in() {
    refused("unshare-user", &[], "EPERM");
    refused("clone-user", &[], "EPERM");
    refused("call", &[&libc::SYS_clone3.to_string()], "ENOSYS");
    refused("call", &[&libc::SYS_setns.to_string()], "EPERM");
    refused("call", &[&libc::SYS_mount.to_string()], "EPERM");
    refused("call", &[&libc::SYS_chroot.to_string()], "EPERM");
}

#[test]
fn the_kernels_engines_are_closed() {
    for number in [
        libc::SYS_io_uring_setup,
        libc::SYS_bpf,
        libc::SYS_keyctl,
        libc::SYS_userfaultfd,
        libc::SYS_perf_event_open,
        libc::SYS_kexec_load,
        libc::SYS_finit_module,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_shmget,
    ] {
        refused("call", &[&number.to_string()], "EPERM");
    }
}

#[test]
fn calls_nobody_knew_of_do_not_exist() {
    for number in [1_000, 0x4000_0000 + 90] {
        refused("call", &[&number.to_string()], "ENOSYS");
    }
}

#[test]
fn the_kernels_log_is_read_and_not_emptied() {
    if !agents().contains(&Agent::Root) {
        return;
    }
    let place = Place::new(Agent::Root);
    assert_eq!(place.tries_allowed(read_all(), "log-clear", &[]), "EPERM");
    assert_eq!(place.tries_allowed(read_all(), "log-read", &[]), "allowed");
}

#[test]
fn what_a_step_sets_for_itself_does_not_reach_who_confines_it() {
    for agent in agents() {
        let place = Place::new(agent);
        let mut spec = crate::place::step(
            fettle_agent::works::attempt::Work::Argv(vec!["true".into()]),
            Default::default(),
        );
        spec.env.insert("LD_PRELOAD".into(), "/no/such/library.so".into());
        let ended = place.run(&spec);
        let said = String::from_utf8(ended.stderr.whole().unwrap()).unwrap();
        assert_eq!(said.matches("/no/such/library.so").count(), 1, "once, by the step itself: {said}");
    }
}
