//! The journal of a unit, as `journalctl` tells it: newest first, the bare messages.
//!
//! The program is started with whole arguments and an environment of its own, and is ended when the question is answered, its
//! time is over, or enough was read. Whatever it complains of makes an error of an answer that is not already certain: with too
//! few rights it tells less, and calls that nothing.

use std::io::{ErrorKind, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fettle_runbooks::unit::UnitName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Ask, Hits, MOST_BYTES, MOST_OF_A_LINE, TOO_SLOW, too_much};
use crate::works::systemd::{self, Systemd};
use crate::works::unix;

/// Where journals are kept: on disk, or until the next boot.
const PLACES: [&str; 2] = ["/var/log/journal", "/run/log/journal"];
/// How long systemd may take to say what else a unit is called.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a host says that has no journal to be asked.
const NONE: &str = "this host keeps no journal: ask the file that the unit logs to, by its path";

pub(super) fn read(unit: &str, ask: &Ask) -> Result<Hits, String> {
    // journalctl takes patterns for units and reads options: neither can come of a value.
    let unit: UnitName =
        unit.parse().map_err(|why| format!("neither an absolute path nor the name of a unit: {why}"))?;
    let program = ["/usr/bin/journalctl", "/bin/journalctl"].iter().map(Path::new).find(|path| path.exists());
    let program = program.ok_or(
        "this host has no journalctl to read a journal with: ask the file that the unit logs to, by its path",
    )?;
    if !PLACES.iter().any(|place| is_kept(Path::new(place))) {
        return Err(NONE.into());
    }
    ask_program(program, &other_names(&unit, ask.deadline), unit.as_str(), ask)
}

/// Options for what systemd calls the unit besides: journalctl knows no aliases. None where systemd does not answer.
fn other_names(unit: &UnitName, deadline: Instant) -> Vec<PathBuf> {
    if unit.is_template() {
        return Vec::new();
    }
    let patience = PATIENCE.min(deadline.saturating_duration_since(Instant::now()) / 4);
    let asked = systemd::wait(patience, async {
        Systemd::connect(Path::new(systemd::SOCKET)).await?.unit(unit).await
    });
    let known = asked.map(|unit| unit.names).unwrap_or_default();
    let names = known.iter().filter_map(|name| name.parse::<UnitName>().ok());
    names.filter(|name| name != unit).map(|name| format!("--unit={name}").into()).collect()
}

/// Whether there is a journal, or something that may not be looked into. To root, journalctl calls no journal an empty one.
pub(super) fn is_kept(place: &Path) -> bool {
    let is_journal = |path: &Path| path.extension().is_some_and(|ending| ending == "journal");
    let of_machine = |dir: &Path| match std::fs::read_dir(dir) {
        Ok(files) => files.flatten().any(|file| is_journal(&file.path())),
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    };
    match std::fs::read_dir(place) {
        Ok(machines) => machines.flatten().any(|machine| of_machine(&machine.path())),
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    }
}

pub(super) fn ask_program(program: &Path, more: &[PathBuf], unit: &str, ask: &Ask) -> Result<Hits, String> {
    let mut running = Running::start(program, more, unit, ask)?;
    let mut lines = Lines { hits: Hits::default(), rest: Vec::new(), read: 0 };
    let mut stderr = Vec::new();
    loop {
        match running.wait(ask.deadline)? {
            Said::Out(text) => {
                if lines.take(&text, ask)? {
                    return Ok(lines.hits); // Ends the program, too.
                }
            }
            Said::Err(text) => {
                let left = 4096usize.saturating_sub(stderr.len());
                stderr.extend(text.into_iter().take(left));
            }
            Said::Done => break,
        }
    }
    lines.line(ask);
    if lines.hits.decide(ask.question) {
        return Ok(lines.hits);
    }
    let status = running.child.wait().map_err(|error| format!("journalctl: {error}"))?;
    let complaint = String::from_utf8_lossy(&stderr);
    match why(&complaint) {
        Some(why) => Err(why),
        None if !status.success() => Err(format!("journalctl ended with {status}")),
        None => Ok(lines.hits),
    }
}

/// What is wrong, by what journalctl says. Anything it says is.
fn why(complaint: &str) -> Option<String> {
    let first = complaint.lines().find(|line| !line.trim().is_empty())?;
    let has = |words: &str| complaint.contains(words);
    Some(if has("No journal files were found") {
        NONE.to_owned()
    } else if has("insufficient permissions") || has("not seeing messages") || has("Permission denied") {
        "the agent may not read the system's journal: it has to be root, or in the group systemd-journal"
            .to_owned()
    } else {
        let line: String = first.chars().filter(|c| !c.is_control()).take(200).collect();
        format!("journalctl says: {line}")
    })
}

/// The lines of what was read so far.
struct Lines {
    hits: Hits,
    /// The beginning of the line that has not ended.
    rest: Vec<u8>,
    read: u64,
}

impl Lines {
    /// Takes more of them; true when nothing older matters.
    fn take(&mut self, text: &[u8], ask: &Ask) -> Result<bool, String> {
        self.read += text.len() as u64;
        let mut pieces = text.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let left = MOST_OF_A_LINE.saturating_sub(self.rest.len());
            self.rest.extend_from_slice(&piece[..piece.len().min(left)]);
            if pieces.peek().is_some() {
                self.line(ask);
            }
            if self.hits.decide(ask.question) {
                return Ok(true);
            }
        }
        if self.read > MOST_BYTES { Err(too_much("and the journal has more")) } else { Ok(false) }
    }

    /// A line has ended.
    fn line(&mut self, ask: &Ask) {
        let line = String::from_utf8_lossy(&self.rest);
        if !is_remark(&line) {
            self.hits.take(&line, ask);
        }
        self.rest.clear();
    }
}

/// What journalctl itself writes between the lines.
fn is_remark(line: &str) -> bool {
    let starts = ["-- No entries", "-- Boot ", "-- Reboot", "-- Journal begins at ", "-- Logs begin at "];
    line.is_empty() || line.ends_with(" --") && starts.iter().any(|start| line.starts_with(start))
}

pub(super) struct Running {
    pub(super) child: Child,
    out: Option<std::process::ChildStdout>,
    err: Option<std::process::ChildStderr>,
}

enum Said {
    Out(Vec<u8>),
    Err(Vec<u8>),
    Done,
}

impl Running {
    #[expect(
        clippy::disallowed_methods,
        reason = "part of the works; it is waited for here and ended at its deadline"
    )]
    pub(super) fn start(program: &Path, more: &[PathBuf], unit: &str, ask: &Ask) -> Result<Running, String> {
        let mut command = Command::new(program);
        command
            .args(["--no-pager", "--reverse", "--output=cat", "--all"])
            .arg(format!("--since=@{}", ask.from_ms.max(0) / 1000))
            .arg(format!("--unit={unit}"))
            .args(more)
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("LC_ALL", "C.UTF-8"), ("SYSTEMD_COLORS", "0")])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // An agent that is killed leaves nothing behind that goes through a whole journal.
        unix::end_with_us(&mut command);
        let mut child =
            command.spawn().map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        Ok(Running { child, out, err })
    }

    /// The next that it says on either output.
    fn wait(&mut self, deadline: Instant) -> Result<Said, String> {
        let mut text = vec![0; 32 * 1024];
        loop {
            let mut fds: Vec<PollFd<'_>> = Vec::new();
            fds.extend(self.out.as_ref().map(|out| PollFd::from_borrowed_fd(out.as_fd(), PollFlags::IN)));
            fds.extend(self.err.as_ref().map(|err| PollFd::from_borrowed_fd(err.as_fd(), PollFlags::IN)));
            if fds.is_empty() {
                return Ok(Said::Done);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut fds, Some(&left)) {
                Ok(0) => return Err(TOO_SLOW.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("journalctl: {error}")),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            let out_ready = self.out.is_some() && ready.first() == Some(&true);
            if let Some(out) = self.out.as_mut().filter(|_| out_ready) {
                match out.read(&mut text).map_err(|error| format!("journalctl: {error}"))? {
                    0 => self.out = None,
                    count => return Ok(Said::Out(text[..count].to_vec())),
                }
                continue;
            }
            if let Some(err) = self.err.as_mut().filter(|_| ready.last() == Some(&true)) {
                match err.read(&mut text).map_err(|error| format!("journalctl: {error}"))? {
                    0 => self.err = None,
                    count => return Ok(Said::Err(text[..count].to_vec())),
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
