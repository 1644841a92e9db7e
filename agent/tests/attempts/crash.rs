//! Agent and shim killed at each of their points: what is found afterwards, and that nothing ever ran twice.

use std::process::{Command, Stdio};

use fettle_agent::crash::{POINTS, SHIM_POINTS};
use fettle_agent::works::attempt::{Outcome, StartError};
use fettle_agent::works::cgroup;
use fettle_agent::works::recovery::{Dead, Found};

use crate::wait::eventually;
use crate::world::{World, end, observer, script, settled, soon};

/// What is found after a crash at a point, and whether the step ran.
fn expected(point: &str) -> (&'static str, &'static [usize]) {
    match point {
        "attempt.before-prepare" | "attempt.before-spawn" => ("not started", &[0]),
        // Only the agent dies here. Its shim goes on.
        "attempt.after-spawn" => ("exit", &[1]),
        "shim.born" | "shim.before-started" => ("not started", &[0]),
        "shim.started-unsynced" | "shim.started-undurable" | "shim.started" | "shim.before-spawn" => {
            ("unknown", &[0])
        }
        // The step is on its own, and goes on or has not begun.
        "shim.after-spawn" => ("unknown", &[0, 1]),
        "shim.step-over" | "shim.exit-unsynced" | "shim.exit-unnamed" => ("unknown", &[1]),
        "shim.exit-undurable" | "shim.exit-durable" => ("exit", &[1]),
        other => panic!("what is found after a crash at {other}?"),
    }
}

#[test]
fn a_crash_anywhere_has_its_answer_and_no_step_runs_twice() {
    for point in POINTS.iter().filter(|point| point.starts_with("attempt.")).chain(SHIM_POINTS) {
        let world = World::new();
        let spec = script(&format!("echo ran >> {}", world.file("marker").display()));
        world.starter(&spec, Some(point)).wait().unwrap();
        let found = settled(&world, &spec.key);
        let (word, ran) = expected(point);
        let seen = match &found {
            Found::Exit(ended) => {
                assert_eq!(ended.outcome, Outcome::Exited, "{point}");
                "exit"
            }
            Found::Running => "running",
            Found::NotStarted => "not started",
            Found::Unknown(_) => "unknown",
        };
        assert_eq!(seen, word, "{point}");
        if let Found::Unknown(unknown) = &found {
            if cgroup::available() {
                assert_ne!(unknown.dead, Dead::NotKnown, "{point}");
                assert!(world.attempts.bury(&spec.key).unwrap(), "{point}");
                let Found::Unknown(buried) = world.attempts.look(&spec.key).unwrap() else {
                    panic!("{point}")
                };
                assert_eq!(buried.dead, Dead::Certainly, "{point}");
            } else {
                assert_eq!(unknown.dead, Dead::NotKnown, "{point}");
            }
        }
        let count = world.written("marker").lines().count();
        assert!(ran.contains(&count), "{point}: it ran {count} times");

        // Whoever starts it now gets a first start or a refusal, never a second start.
        let (observer, told) = observer();
        match world.attempts.start_effect(&spec, &soon(), observer) {
            Ok(_) => {
                assert_eq!(found, Found::NotStarted, "{point}");
                assert_eq!(end(&told).exit_code, Some(0), "{point}");
                assert_eq!(world.written("marker"), "ran\n", "{point}");
            }
            Err(StartError::StartedBefore(_)) => {
                assert_ne!(found, Found::NotStarted, "{point}");
                assert_eq!(world.written("marker").lines().count(), count, "{point}");
            }
            Err(other) => panic!("{point}: {other}"),
        }
        settled(&world, &spec.key);
        world.attempts.forget(spec.key.run).unwrap();
    }
}

#[test]
fn of_many_shims_that_race_for_an_attempt_one_runs_it() {
    let world = World::new();
    let spec = script(&format!("echo ran >> {}", world.file("marker").display()));
    world.starter(&spec, Some("shim.born")).wait().unwrap();
    assert_eq!(settled(&world, &spec.key), Found::NotStarted);
    let entries = std::fs::read_dir(world.file("attempts")).unwrap();
    let dir = entries.map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();

    // Each with a lock of its own, so that only `started` stands between them and a second start.
    let shims: Vec<_> = (0..12)
        .map(|number| {
            Command::new("/bin/sh")
                .args(["-c", "exec 3>\"$1\"; exec \"$2\" __shim watch \"$3\"", "sh"])
                .arg(world.file(&format!("lock-{number}")))
                .arg(env!("CARGO_BIN_EXE_fettle-agent"))
                .arg(&dir)
                .stdin(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let won =
        shims.into_iter().map(|mut shim| shim.wait().unwrap()).filter(|status| status.success()).count();
    assert_eq!((won, world.written("marker").as_str()), (1, "ran\n"));
    eventually("its end is known", || match world.attempts.look(&spec.key).unwrap() {
        Found::Exit(ended) if ended.exit_code == Some(0) => Ok(()),
        other @ (Found::Exit(_) | Found::Running | Found::NotStarted | Found::Unknown(_)) => {
            Err(format!("{other:?}"))
        }
    });
}

#[test]
fn a_shim_without_the_lock_of_its_agent_starts_nothing() {
    let world = World::new();
    let spec = script(&format!("echo ran >> {}", world.file("marker").display()));
    world.starter(&spec, Some("shim.born")).wait().unwrap();
    settled(&world, &spec.key);
    let entries = std::fs::read_dir(world.file("attempts")).unwrap();
    let dir = entries.map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_fettle-agent"))
        .args(["__shim", "watch"])
        .arg(&dir)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success());
    assert_eq!(world.attempts.look(&spec.key).unwrap(), Found::NotStarted);
    assert_eq!(world.written("marker"), "");
}
