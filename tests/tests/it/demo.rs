//! `fettle demo`, as a newcomer runs it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fettle_tests::cluster::told;
use fettle_tests::programs::binary;
use fettle_tests::{eventually, remains};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A temporary directory for a demonstration to make its own in; anybody may, as in `/tmp`.
fn somewhere() -> TempDir {
    let directory = tempfile::Builder::new().prefix("fettle-test-").tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).expect("it is ours");
    directory
}

/// The demonstration as a new command, with no environment but a place for temporary files: no home, no terminal.
fn demo(somewhere: &TempDir) -> Command {
    let mut command = Command::new(binary("fettle"));
    command.arg("demo").env_clear().env("TMPDIR", somewhere.path()).env("PATH", "/usr/bin:/bin");
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn nothing_is_left(somewhere: &TempDir) {
    let left: Vec<_> =
        fs::read_dir(somewhere.path()).expect("it is there").flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let processes = remains::of(somewhere.path());
    assert!(processes.is_empty(), "still running: {processes:?}");
}

#[track_caller]
fn went_well(output: &Output) {
    let said = told(output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for word in ["answers again", "demo/service-down", "ana", "detect", "investigate", "remediate"] {
        assert!(said.contains(word), "nothing is said of `{word}`: {said}");
    }
}

#[test]
fn the_demonstration_heals_its_service_and_leaves_nothing() {
    let somewhere = somewhere();
    let began = Instant::now();
    let output = demo(&somewhere).output().expect("it runs");
    went_well(&output);
    assert!(began.elapsed() < Duration::from_secs(60), "a newcomer has left after {:?}", began.elapsed());
    nothing_is_left(&somewhere);
}

#[test]
fn two_demonstrations_at_once_do_not_meet() {
    let somewhere = somewhere();
    let both: Vec<Child> = (0..2).map(|_| demo(&somewhere).spawn().expect("it runs")).collect();
    for one in both {
        went_well(&one.wait_with_output().expect("it ends"));
    }
    nothing_is_left(&somewhere);
}

#[test]
fn an_interrupted_demonstration_leaves_nothing_whenever_it_is_interrupted() {
    // Each after another sign of progress: a directory, a controller, an agent, a broken service.
    for sign in ["controller.yaml", "controller.log", "agent.log", "kiosk.log"] {
        let somewhere = somewhere();
        let mut child = demo(&somewhere).spawn().expect("it runs");
        eventually(&format!("{sign} is there"), Duration::from_secs(30), || find(somewhere.path(), sign));
        let _ = kill_process(Pid::from_child(&child), Signal::INT);
        let status = eventually("it ends", Duration::from_secs(15), || {
            child.try_wait().ok().flatten().ok_or("it still runs")
        });
        assert_eq!(status.code(), Some(130), "interrupted after {sign}");
        nothing_is_left(&somewhere);
    }
}

#[test]
fn a_demonstration_that_is_killed_is_cleared_away_by_its_keeper() {
    let somewhere = somewhere();
    let mut child = demo(&somewhere).spawn().expect("it runs");
    eventually("the kiosk runs", Duration::from_secs(30), || find(somewhere.path(), "kiosk.log"));
    child.kill().expect("it can be killed");
    child.wait().expect("it is gone");
    eventually("the keeper has cleared away", Duration::from_secs(15), || {
        let left = fs::read_dir(somewhere.path()).expect("it is there").count()
            + remains::of(somewhere.path()).len();
        if left == 0 { Ok(()) } else { Err(format!("{left} things are left")) }
    });
}

#[test]
fn the_demonstration_needs_no_root() {
    if !rustix::process::geteuid().is_root() {
        // Then every other test here has shown it.
        return;
    }
    let somewhere = somewhere();
    // The binary may be where nobody else can read it.
    let copy = somewhere.path().join("fettle");
    fs::copy(binary("fettle"), &copy).expect("a copy");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&copy).arg("demo");
    command.env_clear().env("TMPDIR", somewhere.path()).env("PATH", "/usr/bin:/bin").current_dir("/");
    let output = command.stdin(Stdio::null()).output().expect("setpriv runs");
    fs::remove_file(copy).expect("the copy is ours");
    went_well(&output);
    nothing_is_left(&somewhere);
}

#[test]
fn a_kept_demonstration_does_what_its_last_lines_promise() {
    let somewhere = somewhere();
    let output = demo(&somewhere).arg("--keep").output().expect("it runs");
    went_well(&output);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, promised) = said.split_once("# what waits").expect("it says what to try");
    let lines: Vec<&str> =
        promised.lines().skip(1).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(lines.len() > 5, "{lines:?}");
    for line in &lines {
        let output = Command::new("sh")
            .args(["-c", line])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .output()
            .expect("a shell runs");
        assert!(output.status.success(), "{line}: {}", told(&output));
    }
    assert!(lines.last().is_some_and(|line| line.starts_with("kill ")), "{lines:?}");
    eventually("everything is removed", Duration::from_secs(15), || {
        let left = fs::read_dir(somewhere.path()).expect("it is there").count()
            + remains::of(somewhere.path()).len();
        if left == 0 { Ok(()) } else { Err(format!("{left} things are left")) }
    });
}

fn find(below: &Path, name: &str) -> Result<(), String> {
    let below: Vec<_> = fs::read_dir(below).map_err(|error| error.to_string())?.flatten().collect();
    if below.iter().any(|entry| entry.path().join(name).exists()) {
        Ok(())
    } else {
        Err(format!("{below:?}"))
    }
}
