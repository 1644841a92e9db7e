//! The keeper: the process under which everything of a demonstration runs, so that nothing of it can stay behind.
//!
//! It is this program again (`fettle __demo keeper DIR`), in a session of its own. It starts what it is told to on its
//! standard input, one JSON line each, and when that input ends (the demonstration is over, was interrupted, or was
//! killed in a way nobody can handle) it ends every process beneath it, removes the directory and goes. Told to `keep`,
//! it waits for a SIGTERM instead.
//!
//! It adopts orphans. Steps are meant to survive their agent, so "every process that was started" is not enough to find
//! them; "every process beneath the keeper" is.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, test_kill_process};
use serde::{Deserialize, Serialize};

/// How long programs get to end by themselves.
const GRACE: Duration = Duration::from_secs(2);

/// How often the keeper looks whether something has ended.
const TICK: Duration = Duration::from_millis(20);

/// What a keeper can be told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Told {
    /// Start a program. Its output goes to `NAME.log` in the directory.
    Start(Program),
    /// Stay when the input ends.
    Keep,
}

/// A program the keeper runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Program {
    /// Names its log.
    pub name: String,
    /// The executable and its arguments.
    pub argv: Vec<String>,
    /// Whether to start it again when it ends.
    pub again: bool,
}

/// Why the keeper wakes up.
enum Wake {
    Told(Told),
    InputEnded,
    Signalled,
}

/// Runs the keeper until it is over. `Err` means that it could not begin.
pub(super) fn run(directory: &Path) -> io::Result<()> {
    // Ctrl-C in the terminal reaches the demonstration, which then ends the keeper in order.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;

    let (wake, woken) = mpsc::channel();
    listen(wake)?;
    let mut programs: Vec<(Pid, Program)> = Vec::new();
    let mut keep = false;
    loop {
        match woken.recv_timeout(TICK) {
            Ok(Wake::Told(Told::Start(program))) => start(directory, program, &mut programs),
            Ok(Wake::Told(Told::Keep)) => keep = true,
            Ok(Wake::InputEnded) if keep => {}
            Ok(Wake::InputEnded | Wake::Signalled) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        for ended in reap() {
            let Some(at) = programs.iter().position(|(pid, _)| *pid == ended) else { continue };
            let (_, program) = programs.remove(at);
            if program.again {
                start(directory, program, &mut programs);
            }
        }
    }
    // What was started last may still need what was started first.
    for (pid, _) in programs.iter().rev() {
        end(*pid);
    }
    end_everything();
    fs::remove_dir_all(directory)
}

fn listen(wake: mpsc::Sender<Wake>) -> io::Result<()> {
    let told = wake.clone();
    std::thread::Builder::new().name("input".to_owned()).spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if let Ok(what) = serde_json::from_str(&line) {
                let _ = told.send(Wake::Told(what));
            }
        }
        let _ = told.send(Wake::InputEnded);
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if runtime.block_on(super::interrupted()).is_ok() {
            let _ = wake.send(Wake::Signalled);
        }
    })?;
    Ok(())
}

fn start(directory: &Path, program: Program, programs: &mut Vec<(Pid, Program)>) {
    let mut log = match OpenOptions::new().append(true).create(true).open(log_file(directory, &program.name))
    {
        Ok(log) => log,
        Err(_) => return,
    };
    match spawn(&program, &log) {
        Ok(pid) => {
            programs.push((pid, program));
        }
        Err(error) => {
            let _ = writeln!(log, "failed to start {}: {error}", program.argv.join(" "));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the keeper runs the programs of the demonstration, not steps")]
fn spawn(program: &Program, log: &fs::File) -> io::Result<Pid> {
    let (executable, arguments) =
        program.argv.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let child = Command::new(executable)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .process_group(0)
        .spawn()?;
    Ok(Pid::from_child(&child))
}

/// Takes leave of every child that has ended, adopted ones included.
fn reap() -> Vec<Pid> {
    let mut ended = Vec::new();
    while let Ok(Some((pid, _))) = rustix::process::wait(WaitOptions::NOHANG) {
        ended.push(pid);
    }
    ended
}

/// Asks one program to end, and gives it a while.
fn end(program: Pid) {
    let _ = kill_process(program, Signal::TERM);
    let deadline = Instant::now() + GRACE;
    loop {
        reap();
        if test_kill_process(program).is_err() || Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(TICK);
    }
}

/// Asks every process beneath this one to end, then makes it.
fn end_everything() {
    for (signal, limit) in [(Signal::TERM, GRACE), (Signal::KILL, GRACE)] {
        let deadline = Instant::now() + limit;
        let mut asked = Vec::new();
        loop {
            reap();
            let left = beneath(rustix::process::getpid());
            if left.is_empty() {
                return;
            }
            if Instant::now() >= deadline {
                break;
            }
            for pid in left {
                // A TERM is said once; a process that is just being born may miss the first KILL.
                if signal == Signal::KILL || !asked.contains(&pid) {
                    let _ = kill_process(pid, signal);
                    asked.push(pid);
                }
            }
            std::thread::sleep(TICK);
        }
    }
}

/// Every process that descends from this one, by `/proc`.
fn beneath(ancestor: Pid) -> Vec<Pid> {
    let mut parents: BTreeMap<i32, i32> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(parent) = parent_of(&entry.path()) {
            parents.insert(pid, parent);
        }
    }
    let descends = |mut pid: i32| {
        // A chain is never longer than there are processes.
        for _ in 0..=parents.len() {
            match parents.get(&pid) {
                Some(parent) if *parent == ancestor.as_raw_nonzero().get() => return true,
                Some(parent) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    parents.keys().copied().filter(|pid| descends(*pid)).filter_map(Pid::from_raw).collect()
}

/// The parent in `/proc/PID/stat`: the second word after the name, which is in brackets and may hold any character.
fn parent_of(process: &Path) -> Option<i32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Where the output of a program goes.
pub(super) fn log_file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.log"))
}
