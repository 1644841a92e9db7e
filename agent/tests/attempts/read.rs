//! Steps that only read.

use std::time::Duration;

use fettle_agent::works::attempt::{Outcome, StartError, Work};

use crate::proc::lives;
use crate::wait::{LIMIT, eventually};
use crate::world::{Told, World, is_root, observer, script, step, text};

fn argv(words: &[&str]) -> Work {
    Work::Argv(words.iter().map(|word| (*word).to_owned()).collect())
}

#[test]
fn a_step_gets_its_three_descriptors_and_none_else() {
    let world = World::new();
    let _open = std::fs::File::open("/dev/null").unwrap();
    let ended = world.read(&step(argv(&["ls", "/proc/self/fd"])));
    assert_eq!(text(&ended.stdout), "0\n1\n2\n3\n", "3 is the directory that ls is listing");
    let ended = world.read(&script("readlink /proc/$$/fd/0"));
    assert_eq!(text(&ended.stdout), "/dev/null\n");
}

#[test]
fn a_step_gets_the_fixed_environment_and_its_own_values_as_they_are() {
    let world = World::new();
    let mut spec = step(argv(&["env"]));
    let nasty = "$(touch x);--help ${{ 1 }} \"'\n`id`";
    spec.env.insert("LABEL".into(), nasty.into());
    let ended = world.read(&spec);
    // Where it may write, if anywhere.
    let scratch = if is_root() { "TMPDIR=/dev/shm\n" } else { "" };
    let expected = format!(
        "FETTLE_RUN={}\nFETTLE_STEP=remediate/step\nFETTLE_ATTEMPT=1\n\
         PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nLANG=C.UTF-8\nHOME=/\nLABEL={nasty}\n{scratch}",
        spec.key.run
    );
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&text(&ended.stdout)), sorted(&expected));
}

#[test]
fn a_step_leads_a_session_of_its_own_in_the_directory_it_was_given() {
    let world = World::new();
    let mut spec = script("cut -d' ' -f5,6 /proc/$$/stat; echo $$; pwd");
    spec.cwd = Some("/usr".into());
    let ended = world.read(&spec);
    let seen = text(&ended.stdout);
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines, [format!("{0} {0}", lines[1]).as_str(), lines[1], "/usr"]);
}

#[test]
fn exit_codes_signals_and_both_outputs_come_back() {
    let world = World::new();
    let ended = world.read(&script("echo out; echo err >&2; exit 3"));
    assert_eq!((ended.outcome, ended.exit_code, ended.signal), (Outcome::Exited, Some(3), None));
    assert_eq!((text(&ended.stdout).as_str(), text(&ended.stderr).as_str()), ("out\n", "err\n"));

    let ended = world.read(&script("kill -9 $$"));
    assert_eq!((ended.outcome, ended.exit_code, ended.signal), (Outcome::Exited, None, Some(9)));
}

#[test]
fn a_program_that_is_not_there_is_an_error_and_not_an_end() {
    let world = World::new();
    let (observer, _told) = observer();
    let failed = world.attempts.start_read(&step(argv(&["no-such-program"])), observer);
    assert!(matches!(failed, Err(StartError::Spawn { program, .. }) if program == "no-such-program"));
}

#[test]
fn a_step_that_ignores_term_dies_with_all_its_grandchildren() {
    let world = World::new();
    let mut spec = script(
        "trap '' TERM; echo $$; \
         setsid sh -c 'trap \"\" TERM; echo $$; (setsid sh -c \"trap : TERM; echo \\$\\$; exec >&- 2>&-; while :; do sleep 1000; done\" &) ; while :; do sleep 1000; done' & \
         while :; do sleep 1000; done",
    );
    spec.timeout = LIMIT;
    spec.grace = Duration::from_millis(100);
    let (observer, told) = observer();
    let running = world.attempts.start_read(&spec, observer).unwrap();
    let mut written = String::new();
    while written.lines().count() < 3 {
        match told.recv_timeout(LIMIT) {
            Ok(Told::Output(_, _, bytes)) => written.push_str(&String::from_utf8(bytes).unwrap()),
            other => panic!("{other:?} after {written:?}"),
        }
    }
    running.kill().unwrap();
    let ended = loop {
        match told.recv_timeout(LIMIT).unwrap() {
            Told::Ended(ended) => break ended,
            Told::Output(..) => {}
            Told::Unknown(reason) => panic!("{reason}"),
        }
    };
    assert_eq!(ended.outcome, Outcome::Killed);
    eventually("its processes are gone", || {
        let alive: Vec<&str> = written.lines().filter(|pid| lives(pid)).collect();
        if alive.is_empty() { Ok(()) } else { Err(format!("{alive:?} live")) }
    });
}

#[test]
fn a_step_that_takes_too_long_is_asked_to_end_before_it_is_killed() {
    let world = World::new();
    let mut spec = script("trap 'echo tidied; exit 0' TERM; while :; do sleep 0.01; done");
    spec.timeout = Duration::from_millis(300);
    let ended = world.read(&spec);
    assert_eq!((ended.outcome, ended.exit_code), (Outcome::TimedOut, Some(0)));
    assert_eq!(text(&ended.stdout), "tidied\n");
}

#[test]
fn a_step_that_closes_its_outputs_is_still_waited_for() {
    let world = World::new();
    let ended = world.read(&script("exec >&- 2>&-; sleep 0.2; exit 5"));
    assert_eq!(ended.exit_code, Some(5));
    assert!(ended.took >= Duration::from_millis(200), "{:?}", ended.took);
}

#[test]
fn what_a_reader_leaves_behind_does_not_keep_it_from_ending() {
    let world = World::new();
    let ended = world.read(&script("setsid sleep 1000 & echo $!"));
    assert_eq!(ended.exit_code, Some(0));
    let pid = text(&ended.stdout);
    assert!(!lives(&pid), "{pid} lives");
}

#[test]
fn a_gigabyte_of_output_is_counted_and_not_kept() {
    let world = World::new();
    let ended = world.read(&step(argv(&["head", "-c", "1073741824", "/dev/zero"])));
    assert_eq!(ended.exit_code, Some(0));
    assert_eq!(ended.stdout.written(), 1 << 30);
    assert!(ended.stdout.head.len() + ended.stdout.tail.len() <= 64 * 1024);
}

#[test]
fn scripts_of_readers_are_gone_when_they_are_over() {
    let world = World::new();
    world.read(&script("true"));
    assert_eq!(std::fs::read_dir(world.file("attempts")).unwrap().count(), 0);
}
