//! Steps that only read: each below a keeper that is a child of the agent, with a thread that listens to it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, waitid};

use super::{Attempts, Ended, Happening, Observer, Outcome, Running, Spec, StartError, Stop, Work};
use crate::works::disk;
use crate::works::kin;
use crate::works::launch::{self, Ends};
use crate::works::oom::Kills;
use crate::works::output::{Kept, Stream};
use crate::works::sandbox::{self, Confinement, Keeper, Reading, Said, Uid, denied};

/// How long a killed process may take to be gone.
const DYING: Duration = Duration::from_secs(5);
/// What a pipe holds, bytes.
const PIPE: usize = 64 * 1024;
/// What is told at once, bytes.
const CHUNK: usize = 16 * 1024;
/// How long a keeper may take to notice that its step is gone.
const NOTICE: Duration = Duration::from_millis(500);

impl Attempts {
    /// Starts a step that only reads, as a child of this process. Nothing is made durable: should the agent die, it
    /// may simply run again.
    ///
    /// # Errors
    /// When no process was born.
    pub fn start_read(&self, spec: &Spec, observer: Observer) -> Result<Running, StartError> {
        let failed = |source| StartError::Spawn { program: spec.work.program().to_owned(), source };
        let (life, stop) = Life::begin(spec, observer, &self.confinement).map_err(failed)?;
        let thread = std::thread::Builder::new().name("read".into()).stack_size(256 * 1024);
        // Where no thread can be had, dropping the life ends the process again.
        thread.spawn(move || life.see_out()).map_err(failed)?;
        Ok(Running::new(spec.key.clone(), Arc::new(Bell(stop))))
    }
}

/// Rung to end the attempt.
#[derive(Debug)]
struct Bell(Arc<OwnedFd>);

impl Stop for Bell {
    fn stop(&self) -> io::Result<()> {
        rustix::io::write(&*self.0, &1u64.to_ne_bytes())?;
        Ok(())
    }
}

/// A running step and everything that is needed to see it to its end.
struct Life {
    /// Its keeper, below which is everything the step ever forks.
    pid: Pid,
    pidfd: OwnedFd,
    marks: Vec<Vec<u8>>,
    began: Instant,
    kills: Kills,
    deadline: Option<Instant>,
    grace: Duration,
    bell: Arc<OwnedFd>,
    ending: Option<Outcome>,
    status: Option<WaitIdStatus>,
    outputs: [Output; 2],
    observer: Observer,
    /// Where the keeper says how the step ended.
    said: OwnedFd,
    /// The step's own user: nobody else's until nothing of the step lives.
    uid: Option<Uid>,
    program: String,
    script: Option<String>,
    reading: Reading,
}

impl Life {
    fn begin(spec: &Spec, observer: Observer, confinement: &Confinement) -> io::Result<(Life, Arc<OwnedFd>)> {
        let null = File::open("/dev/null")?;
        let (stdout, out) = Output::new(Stream::Stdout)?;
        let (stderr, err) = Output::new(Stream::Stderr)?;
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let ends = Ends { stdin: null.as_fd(), stdout: out.as_fd(), stderr: err.as_fd() };
        let kills = Kills::count();
        let Keeper { pid, said, uid } = launch::launch_reader(spec, confinement, &ends)?;
        let began = Instant::now();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).inspect_err(|_| {
            kin::signal(&[pid], Signal::KILL);
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
        })?;
        let life = Life {
            pid,
            pidfd,
            marks: launch::mark_bytes(&spec.key),
            began,
            kills,
            deadline: began.checked_add(spec.timeout),
            grace: spec.grace,
            bell: Arc::clone(&bell),
            ending: None,
            status: None,
            outputs: [stdout, stderr],
            observer,
            said,
            uid,
            program: spec.work.program().to_owned(),
            script: match &spec.work {
                Work::Script { source, .. } => Some(source.clone()),
                Work::Argv(_) | Work::Service { .. } => None,
            },
            reading: spec.allowed.read,
        };
        Ok((life, bell))
    }

    fn see_out(mut self) {
        let mut buffer = vec![0; PIPE];
        while self.status.is_none() {
            self.wait();
            for output in &mut self.outputs {
                output.read_once(&mut buffer, &mut self.observer);
            }
            // Last words come before the end: whoever has exited has written all it ever will.
            if let Ok(Some(status)) =
                waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
            {
                self.status = Some(status);
            } else {
                self.end_if_due();
            }
        }
        let took = self.began.elapsed();
        for output in &mut self.outputs {
            output.finish(&mut buffer, &mut self.observer);
        }
        let said = sandbox::hear(&self.said);
        // Its keeper has left nobody behind, unless it was killed itself.
        if said.is_none() {
            self.kill_orphans();
        }
        let status = self.status.take();
        let (exit_code, signal, failed) = match said {
            Some(Said::Exited(code)) => (Some(code), None, None),
            Some(Said::Signalled(signal)) => (None, Some(signal), None),
            Some(Said::Failed(message)) => (None, None, Some(message)),
            None => (None, status.as_ref().and_then(WaitIdStatus::terminating_signal), None),
        };
        let outcome = match (self.ending.take(), failed) {
            (Some(ending), _) => ending,
            (None, Some(message)) => Outcome::NotStarted { code: "spawn-failed".to_owned(), message },
            (None, None) => Outcome::Exited,
        };
        let stderr = std::mem::take(&mut self.outputs[1].kept);
        let hint = if outcome == Outcome::Exited && exit_code != Some(0) {
            let said = if stderr.tail.is_empty() { &stderr.head } else { &stderr.tail };
            let said = String::from_utf8_lossy(said);
            let memory = self.kills.hint(exit_code, signal);
            if memory.is_empty() {
                denied::hint(&self.program, self.script.as_deref(), &said, self.reading)
            } else {
                memory
            }
        } else {
            String::new()
        };
        let stdout = std::mem::take(&mut self.outputs[0].kept);
        let ended = Ended { outcome, exit_code, signal, stdout, stderr, took, hint };
        (self.observer)(Happening::Ended(ended));
    }

    fn wait(&self) {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        let pipes = self.outputs.iter().filter_map(|output| output.pipe.as_ref()).map(AsFd::as_fd);
        // A bell that has rung rings for ever: nobody listens to it any more once the end is under way.
        let bell = self.ending.is_none().then(|| self.bell.as_fd());
        let all = pipes.chain([self.pidfd.as_fd()]).chain(bell);
        let mut fds: Vec<PollFd<'_>> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let _ = poll(&mut fds, left.as_ref());
    }

    fn end_if_due(&mut self) {
        let due = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        match &self.ending {
            Some(_) if due => self.kill(),
            Some(_) => {}
            None if rustix::io::read(&*self.bell, &mut [0; 8]).is_ok() => self.ask_to_end(Outcome::Killed),
            None if due => self.ask_to_end(Outcome::TimedOut),
            None => {}
        }
    }

    fn ask_to_end(&mut self, why: Outcome) {
        self.ending = Some(why);
        self.deadline = Instant::now().checked_add(self.grace);
        kin::signal(&self.living(), Signal::TERM);
    }

    /// Ends the step, and then its keeper, should that not notice.
    fn kill(&mut self) {
        let gone = kin::kill_all(None, DYING, || self.living());
        if self.status.is_none() && !self.keeper_ends_within(NOTICE) {
            kin::signal(&[self.pid], Signal::KILL);
        }
        if !gone {
            // It waits for a disk that does not answer. Its thread has waited long enough.
            self.deadline = Instant::now().checked_add(DYING);
        }
    }

    /// Not buried here: `see_out` does that.
    fn keeper_ends_within(&self, limit: Duration) -> bool {
        let limit = Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() };
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut fds, Some(&limit)).is_ok_and(|ready| ready > 0)
    }

    /// All processes of the step. Its keeper, which adopts orphans, is not one of them.
    fn living(&self) -> Vec<Pid> {
        kin::descendants(self.pid)
    }

    /// Without a keeper, processes of the step are known by its marks.
    fn kill_orphans(&self) {
        let me = rustix::process::getpid();
        kin::kill_all(None, DYING, || {
            let mut found = kin::of_reader(self.pid, &self.marks, self.uid.as_ref().map(Uid::number));
            found.retain(|pid| *pid != me);
            found
        });
    }
}

/// One output: from a pipe to the observer, and its head and tail kept.
struct Output {
    stream: Stream,
    pipe: Option<OwnedFd>,
    read: u64,
    kept: Kept,
}

impl Output {
    fn new(stream: Stream) -> io::Result<(Output, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        Ok((Output { stream, pipe: Some(read), read: 0, kept: Kept::default() }, write))
    }

    fn read_once(&mut self, buffer: &mut [u8], observer: &mut Observer) -> usize {
        let Some(pipe) = &self.pipe else { return 0 };
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => self.pipe = None,
            Ok(read) => {
                let bytes = &buffer[..read];
                self.kept.push(bytes);
                // As much as a step that acts may leave on the disk; a flood is not carried to the controller.
                for bytes in bytes.chunks(CHUNK) {
                    if self.read < disk::SPOOL {
                        observer(Happening::Output { stream: self.stream, offset: self.read, bytes });
                    }
                    self.read += bytes.len() as u64;
                }
                return read;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.pipe = None,
        }
        0
    }

    /// What is still in the pipe, but not what somebody left behind goes on writing.
    fn finish(&mut self, buffer: &mut [u8], observer: &mut Observer) {
        let size = self.pipe.as_ref().and_then(|pipe| rustix::pipe::fcntl_getpipe_size(pipe).ok());
        let mut left = size.unwrap_or(0) + 1;
        while left > 0 {
            match self.read_once(buffer, observer) {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        self.kept.finish();
    }
}
