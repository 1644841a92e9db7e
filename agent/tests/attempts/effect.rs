//! Steps that act, under a shim.

use std::time::Duration;

use fettle_agent::works::attempt::{BootLimit, Ended, Outcome, StartBy, StartError, Work};
use fettle_agent::works::clock;
use fettle_agent::works::output::Stream;
use fettle_agent::works::record::AttemptKey;
use fettle_agent::works::recovery::Found;

use crate::proc::lives;
use crate::wait::{LIMIT, eventually};
use crate::world::{Told, World, end, key, observer, script, settled, soon, step, text};

fn code(ended: &Ended) -> &str {
    match &ended.outcome {
        Outcome::NotStarted { code, .. } => code,
        Outcome::Exited | Outcome::TimedOut | Outcome::Killed => panic!("it started: {ended:?}"),
    }
}

#[test]
fn a_step_acts_and_its_result_is_told_and_stays() {
    let world = World::new();
    let spec = script("echo out; echo err >&2; exit 3");
    let ended = world.effect(&spec);
    assert_eq!((&ended.outcome, ended.exit_code, ended.signal), (&Outcome::Exited, Some(3), None));
    assert_eq!((text(&ended.stdout).as_str(), text(&ended.stderr).as_str()), ("out\n", "err\n"));
    assert_eq!(world.attempts.look(&spec.key).unwrap(), Found::Exit(Box::new(ended)));
    assert_eq!(world.attempts.output(&spec.key, Stream::Stdout, 1, 2).unwrap(), b"ut");
}

#[test]
fn an_attempt_starts_once_ever() {
    let world = World::new();
    let spec = script(&format!("echo ran >> {}", world.file("marker").display()));
    world.effect(&spec);
    let (observer, _told) = observer();
    let again = world.attempts.start_effect(&spec, &soon(), observer);
    assert!(matches!(again, Err(StartError::StartedBefore(key)) if key == spec.key));
    assert_eq!(world.written("marker"), "ran\n");
}

#[test]
fn a_step_inherits_nothing_from_agent_or_shim() {
    let world = World::new();
    let ended = world.effect(&step(Work::Argv(vec!["ls".into(), "/proc/self/fd".into()])));
    assert_eq!(text(&ended.stdout), "0\n1\n2\n3\n", "3 is the directory that ls is listing");

    let mut spec = step(Work::Argv(vec!["env".into()]));
    spec.key.path = "remediate/env".into();
    let names = text(&world.effect(&spec).stdout);
    let names: Vec<&str> = names.lines().filter_map(|line| line.split('=').next()).collect();
    assert_eq!(names, ["FETTLE_RUN", "FETTLE_STEP", "FETTLE_ATTEMPT", "PATH", "LANG", "HOME"]);
}

#[test]
fn output_is_told_while_the_step_still_runs() {
    let world = World::new();
    let go = world.file("go");
    let (_, told) = world.start(&script(&format!(
        "echo first; while [ ! -e {} ]; do sleep 0.01; done; echo second",
        go.display()
    )));
    match told.recv_timeout(LIMIT).unwrap() {
        Told::Output(Stream::Stdout, 0, bytes) => assert_eq!(bytes, b"first\n"),
        other @ (Told::Output(..) | Told::Ended(_) | Told::Unknown(_)) => panic!("{other:?}"),
    }
    std::fs::write(go, "").unwrap();
    // The end checks that the offsets go on from where they were, so it must have seen the beginning too.
    match told.recv_timeout(LIMIT).unwrap() {
        Told::Output(Stream::Stdout, 6, bytes) => assert_eq!(bytes, b"second\n"),
        other @ (Told::Output(..) | Told::Ended(_) | Told::Unknown(_)) => panic!("{other:?}"),
    }
    assert_eq!(end(&told).exit_code, Some(0));
}

#[test]
fn a_step_survives_whoever_started_it_and_is_followed_again() {
    let world = World::new();
    let go = world.file("go");
    let spec =
        script(&format!("echo first; while [ ! -e {} ]; do sleep 0.01; done; echo second", go.display()));
    let mut starter = world.starter(&spec, None);
    eventually("the step speaks", || match world.attempts.output(&spec.key, Stream::Stdout, 0, 100) {
        Ok(bytes) if bytes == b"first\n" => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
    starter.kill().unwrap(); // SIGKILL
    starter.wait().unwrap();

    assert_eq!(world.attempts.look(&spec.key).unwrap(), Found::Running);
    let (observer, told) = observer();
    world.attempts.reattach(&spec.key, observer).unwrap();
    std::fs::write(go, "").unwrap();
    let ended = end(&told);
    assert_eq!(text(&ended.stdout), "first\nsecond\n");
    assert_eq!(settled(&world, &spec.key), Found::Exit(Box::new(ended)));
}

#[test]
fn a_step_that_ignores_term_dies_with_all_its_grandchildren() {
    let world = World::new();
    let pids = world.file("pids");
    let mut spec = script(&format!(
        "trap '' TERM; echo $$ >> {0}; \
         setsid sh -c 'trap \"\" TERM; echo $$ >> {0}; (env -i setsid sh -c \"trap : TERM; echo \\$\\$ >> {0}; exec >&- 2>&-; while :; do sleep 1000; done\" &) ; while :; do sleep 1000; done' & \
         while [ $(wc -l < {0}) -lt 3 ]; do sleep 0.01; done; echo ready; while :; do sleep 1000; done",
        pids.display()
    ));
    spec.grace = Duration::from_millis(100);
    let (running, told) = world.start(&spec);
    assert!(matches!(told.recv_timeout(LIMIT), Ok(Told::Output(..))));
    running.kill().unwrap();
    let ended = end(&told);
    assert_eq!((&ended.outcome, ended.signal), (&Outcome::Killed, Some(9)));
    let pids = world.written("pids");
    assert_eq!(pids.lines().count(), 3);
    assert_eq!(pids.lines().filter(|pid| lives(pid)).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn the_shim_keeps_the_time_and_gives_the_grace() {
    let world = World::new();
    let mut spec = script("trap 'echo tidied; exit 0' TERM; while :; do sleep 0.01; done");
    spec.timeout = Duration::from_millis(300);
    let ended = world.effect(&spec);
    assert_eq!((&ended.outcome, ended.exit_code), (&Outcome::TimedOut, Some(0)));
    assert_eq!(text(&ended.stdout), "tidied\n");
}

#[test]
fn a_service_that_a_step_started_lives_on() {
    let world = World::new();
    let pid = world.file("pid");
    let ended =
        world.effect(&script(&format!("setsid sleep 1000 & echo $! > {}; echo started", pid.display())));
    assert_eq!(text(&ended.stdout), "started\n");
    let service = world.written("pid");
    assert!(lives(&service));
    std::process::Command::new("kill").arg(service.trim()).status().unwrap();
}

#[test]
fn a_flood_stays_on_the_host_up_to_a_limit_and_does_not_stop_the_step() {
    let world = World::new();
    let marker = world.file("marker");
    let spec = script(&format!("head -c 67108864 /dev/zero; echo > {}", marker.display()));
    let ended = world.effect(&spec);
    assert_eq!((ended.exit_code, ended.stdout.written()), (Some(0), 64 << 20));
    assert!(marker.exists());
    assert_eq!(world.attempts.output(&spec.key, Stream::Stdout, 16 << 20, 10).unwrap(), b"");
    assert_eq!(world.attempts.output(&spec.key, Stream::Stdout, (16 << 20) - 1, 10).unwrap(), [0]);
}

#[test]
fn a_start_that_comes_too_late_does_not_happen() {
    let world = World::new();
    let run = key();
    let touch = |path: &str| {
        let mut spec = script(&format!("echo ran >> {}", world.file("marker").display()));
        spec.key = AttemptKey { path: path.into(), ..run.clone() };
        spec
    };
    let late = StartBy { not_after_ms: clock::wall_ms() - 1, ..soon() };
    let limit = |boot: String| Some(BootLimit { boot, not_after_ms: 1 });
    let rebooted = StartBy { boot: limit("another".into()), ..soon() };
    let late_by_boot = StartBy { boot: limit(clock::boot_id().unwrap()), ..soon() };
    for (path, start_by, expected) in [
        ("remediate/a", late, "expired"),
        ("remediate/b", rebooted, "rebooted"),
        ("remediate/c", late_by_boot, "expired"),
    ] {
        let (observer, told) = observer();
        world.attempts.start_effect(&touch(path), &start_by, observer).unwrap();
        assert_eq!(code(&end(&told)), expected, "{path}");
    }

    world.attempts.tombstone(run.run).unwrap();
    assert!(world.attempts.is_tombstoned(run.run));
    assert_eq!(code(&world.effect(&touch("remediate/d"))), "cancelled");
    assert_eq!(world.written("marker"), "");
}

#[test]
fn the_veto_is_asked_again_when_the_step_starts() {
    let world = World::new();
    let marker = world.file("marker");
    let mut spec = script(&format!("echo ran >> {}", marker.display()));
    std::fs::write(world.file("policy.yaml"), "fettle-host-policy: 1\nfreeze: true\n").unwrap();
    assert_eq!(code(&world.effect(&spec)), "vetoed");
    spec.key.path = "remediate/other".into();
    std::fs::write(world.file("policy.yaml"), "fettle-host-policy: one\n").unwrap();
    assert_eq!(code(&world.effect(&spec)), "veto-unreadable");
    assert!(!marker.exists());
}

#[test]
fn a_program_that_cannot_be_started_is_known_not_to_have_run() {
    let world = World::new();
    assert_eq!(code(&world.effect(&step(Work::Argv(vec!["no-such-program".into()])))), "spawn-failed");
    let mut spec = script("true");
    spec.key.path = "remediate/cwd".into();
    spec.cwd = Some("/nonexistent".into());
    assert_eq!(code(&world.effect(&spec)), "spawn-failed");
}

#[test]
fn a_step_runs_as_the_account_it_names() {
    if !rustix::process::geteuid().is_root() {
        return; // only root may become another account
    }
    let world = World::new();
    let mut spec = script("id -un; id -gn; echo \"$HOME\"; cd /; pwd");
    spec.user = Some("nobody".into());
    let ended = world.effect(&spec);
    assert_eq!(text(&ended.stdout), "nobody\nnogroup\n/\n/\n", "{}", ended.stderr);

    spec.key.path = "remediate/nobody".into();
    spec.user = Some("no-such-account".into());
    assert_eq!(code(&world.effect(&spec)), "spawn-failed");
}

#[test]
fn what_is_forgotten_is_gone() {
    let world = World::new();
    let spec = script("true");
    world.effect(&spec);
    world.attempts.tombstone(spec.key.run).unwrap();
    settled(&world, &spec.key);
    let before = world.file("attempts").join(format!("{}.remediate~restart.before", spec.key.run));
    std::fs::write(before, "how a unit was").unwrap();
    // The end is known a moment before its supervisor is gone, and what a supervisor still holds is kept.
    eventually("nothing is kept of the run", || {
        world.attempts.forget(spec.key.run).unwrap();
        match std::fs::read_dir(world.file("attempts")).unwrap().count() {
            0 => Ok(()),
            left => Err(format!("{left} entries are left")),
        }
    });
}

#[test]
fn a_step_that_has_taken_every_file_there_can_be_is_stopped() {
    let world = World::new();
    let attempts = world.file("attempts");
    let mount = |words: &[&str]| {
        std::process::Command::new(words[0]).args(&words[1..]).arg(&attempts).status().unwrap().success()
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "nr_inodes=64", "tmpfs"]) {
        eprintln!("NOT RUN: only root can make a small disk, and this test needs one");
        return;
    }
    let here = attempts.display();
    let marker = world.file("marker");
    let spec = script(&format!(
        "n=0; while touch {here}/file-$n; do n=$((n+1)); done 2> /dev/null; echo full > {}; exec sleep 60",
        marker.display()
    ));
    let (running, told) = world.start(&spec);
    eventually("no file can be made any more", || match world.written("marker").as_str() {
        "full\n" => Ok(()),
        other => Err(other.to_owned()),
    });
    let full = std::fs::write(attempts.join("one-more"), "").unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let stopped = world.attempts.tombstone(spec.key.run).and_then(|()| running.kill());
    let outcome = stopped.map(|()| end(&told).outcome);
    assert!(mount(&["umount", "--lazy"]));
    assert_eq!(outcome.unwrap(), Outcome::Killed);
}

#[test]
fn what_a_step_that_is_over_left_running_on_purpose_outlives_a_cancel() {
    let world = World::new();
    let pid = world.file("pid");
    let spec = script(&format!("sleep 60 > /dev/null 2>&1 & echo $! > {}", pid.display()));
    assert_eq!(world.effect(&spec).outcome, Outcome::Exited);
    settled(&world, &spec.key);
    world.attempts.tombstone(spec.key.run).unwrap();
    assert!(world.attempts.stop_all(spec.key.run).unwrap(), "nothing of it is to be stopped");
    let left = world.written("pid");
    assert!(lives(&left));
    std::process::Command::new("kill").arg(left.trim()).status().unwrap();
}
