//! Other processes: seen, and left alone.

use fettle_agent::works::attempt::Work;

use crate::place::{Agent, Place, agents, process_of, read_all, step, text};
use crate::proc::lives;
use crate::wait::eventually;

/// Tries something on a process outside; `pid` in a path is its number.
fn refused(what: &str, with: &str, root: &str, ordinary: &str) {
    for agent in agents() {
        let place = Place::new(agent);
        let mut bystander = place.bystander();
        let with = with.replace("PID", &bystander.pid());
        let expected = match agent {
            Agent::Root => root,
            Agent::Ordinary => ordinary,
        };
        assert_eq!(place.tries(what, &[&with]), expected, "{what} {with}, {agent:?}");
        assert!(bystander.lives(), "{what}, {agent:?}");
    }
}

#[test]
fn nobody_outside_is_signalled() {
    refused("signal", "PID", "EPERM", "EPERM");
}

#[test]
fn nobody_is_traced() {
    refused("ptrace", "PID", "EPERM", "EPERM");
}

#[test]
fn nobodys_memory_is_written() {
    refused("vm-write", "PID", "EPERM", "EPERM");
    refused("write", "/proc/PID/mem", "EACCES", "EACCES");
    refused("read", "/proc/PID/mem", "EACCES", "EACCES");
}

#[test]
fn nobodys_root_and_descriptors_are_a_way_out() {
    refused("list", "/proc/PID/root", "EACCES", "EACCES");
    refused("readlink", "/proc/PID/cwd", "EACCES", "EACCES");
    refused("readlink", "/proc/PID/fd/0", "EACCES", "EACCES");
    refused("read", "/proc/PID/fd/0", "EACCES", "EACCES");
    refused("read", "/proc/PID/environ", "EACCES", "EACCES");
    refused("pidfd-getfd", "PID", "EPERM", "EPERM");
}

#[test]
fn not_even_to_who_may_read_everything() {
    if !agents().contains(&Agent::Root) {
        return;
    }
    let place = Place::new(Agent::Root);
    let bystander = place.bystander();
    for (what, path) in [("list", "root"), ("readlink", "fd/0"), ("read", "environ"), ("read", "mem")] {
        let path = format!("/proc/{}/{path}", bystander.pid());
        assert_eq!(place.tries_allowed(read_all(), what, &[&path]), "EACCES", "{path}");
    }
}

#[test]
fn nobodys_priority_processors_and_limits_change() {
    refused("priority", "PID", "EPERM", "EPERM");
    refused("affinity", "PID", "EPERM", "EPERM");
    refused("prlimit", "PID", "EPERM", "EPERM");
}

#[test]
fn no_two_steps_are_the_same_user() {
    if !agents().contains(&Agent::Root) {
        return;
    }
    let place = Place::new(Agent::Root);
    let ended = place.script(
        "id -u; id -g; id -G; grep -E '^(Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status",
        Default::default(),
    );
    let said = text(&ended);
    let lines: Vec<&str> = said.lines().collect();
    let uid: u32 = lines[0].parse().unwrap();
    assert!((70_000..=70_999).contains(&uid), "{said}");
    assert_eq!(lines[1..3], [lines[0], lines[0]], "no group but its own");
    for line in &lines[3..7] {
        assert!(line.ends_with("\t0000000000000000"), "{said}");
    }
    assert_eq!(lines[7], "NoNewPrivs:\t1");
    assert_eq!(lines[8], "Seccomp:\t2");
}

#[test]
fn a_child_that_became_a_daemon_is_gone_with_its_step() {
    for agent in agents() {
        let place = Place::new(agent);
        // Another session, another parent, no environment, no outputs: nothing that names the step is left on it.
        let ended = place.script(
            "(setsid sh -c '(exec env -i setsid sh -c \"echo \\$\\$; exec sleep 1000 </dev/null >/dev/null 2>&1\") &' &)\n\
             sleep 0.3; echo over",
            Default::default(),
        );
        let said = text(&ended);
        let mut lines: Vec<&str> = said.lines().collect();
        lines.retain(|line| *line != "over");
        assert_eq!(lines.len(), 1, "{agent:?}: {said}");
        assert!(!lives(lines[0]), "{agent:?}: {} lives", lines[0]);
    }
}

#[test]
fn a_step_without_an_agent_ends() {
    for agent in agents() {
        let place = Place::new(agent);
        let time = format!("1000.{}", std::process::id());
        let work = Work::Argv(vec!["sleep".into(), time.clone()]);
        let mut starter = place.starter(&step(work, Default::default()));
        let step = process_of(&["sleep", &time]);
        starter.kill().unwrap();
        starter.wait().unwrap();
        eventually("the step ends", || if lives(&step) { Err(format!("{step} lives")) } else { Ok(()) });
    }
}

#[test]
fn what_is_left_of_a_step_whose_keeper_was_killed_is_gone_too() {
    if !agents().contains(&Agent::Root) {
        return;
    }
    let place = Place::new(Agent::Root);
    let time = format!("2000.{}", std::process::id());
    let script = format!("env -i setsid sleep {time} </dev/null >/dev/null 2>&1 &\nwait");
    let work = Work::Script { source: script, interpreter: vec!["/bin/sh".into()] };
    let mut starter = place.starter(&step(work, Default::default()));
    let daemon = process_of(&["sleep", &time]);
    // The step's shell is its parent, and the keeper that one's.
    let keeper = parent(&parent(&daemon));
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(keeper.parse().unwrap()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    assert!(starter.wait().unwrap().success());
    assert!(!lives(&daemon), "{daemon} lives");
}

fn parent(pid: &str) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat[stat.rfind(')').unwrap() + 1..].split_ascii_whitespace().nth(1).unwrap().to_owned()
}
