//! Steps that only read: children of the agent, each with a thread that listens to it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, waitid};

use super::{Attempts, Ended, Happening, Observer, Outcome, Running, Spec, StartError, Stop};
use crate::works::disk;
use crate::works::kin;
use crate::works::launch::{self, Ends};
use crate::works::output::{Kept, Stream};

/// How long a killed process may take to be gone.
const DYING: Duration = Duration::from_secs(5);

impl Attempts {
    /// Starts a step that only reads, as a child of this process. Nothing is made durable: should the agent die, it
    /// may simply run again.
    ///
    /// # Errors
    /// When no process was born.
    pub fn start_read(&self, spec: &Spec, observer: Observer) -> Result<Running, StartError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let script = self.dir.join(format!(".read-{}-{count}", std::process::id()));
        let failed = |source| StartError::Spawn { program: spec.work.program().to_owned(), source };
        let (life, stop) = Life::begin(spec, observer, &self.program, script).map_err(failed)?;
        let thread = std::thread::Builder::new().name("read".into()).stack_size(256 * 1024);
        // Where no thread can be had, dropping the life ends the process again.
        thread.spawn(move || life.see_out()).map_err(failed)?;
        Ok(Running::new(spec.key.clone(), Arc::new(Bell(stop))))
    }
}

/// Removes scripts that an agent left when it died.
pub(super) fn sweep(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(".read-")) {
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(())
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
    pid: Pid,
    pidfd: OwnedFd,
    marks: Vec<Vec<u8>>,
    began: Instant,
    deadline: Option<Instant>,
    grace: Duration,
    bell: Arc<OwnedFd>,
    ending: Option<Outcome>,
    status: Option<WaitIdStatus>,
    outputs: [Output; 2],
    observer: Observer,
    script: PathBuf,
}

impl Life {
    fn begin(
        spec: &Spec,
        observer: Observer,
        helper: &Path,
        script: PathBuf,
    ) -> io::Result<(Life, Arc<OwnedFd>)> {
        let null = File::open("/dev/null")?;
        let (stdout, out) = Output::new(Stream::Stdout)?;
        let (stderr, err) = Output::new(Stream::Stderr)?;
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let ends = Ends { stdin: null.as_fd(), stdout: out.as_fd(), stderr: err.as_fd() };
        let pid = launch::launch(spec, helper, &script, &ends).inspect_err(|_| {
            let _ = std::fs::remove_file(&script);
        })?;
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
            deadline: began.checked_add(spec.timeout),
            grace: spec.grace,
            bell: Arc::clone(&bell),
            ending: None,
            status: None,
            outputs: [stdout, stderr],
            observer,
            script,
        };
        Ok((life, bell))
    }

    fn see_out(mut self) {
        let mut buffer = vec![0; 16 * 1024];
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
        // A reader that is over leaves nobody behind. A pipe that somebody still holds tells of somebody.
        let leftovers = self.ending.is_some() || self.outputs.iter().any(|output| output.pipe.is_some());
        if leftovers {
            self.kill();
        }
        let _ = std::fs::remove_file(&self.script);
        let status = self.status.take();
        let ended = Ended {
            outcome: self.ending.take().unwrap_or(Outcome::Exited),
            exit_code: status.as_ref().and_then(WaitIdStatus::exit_status),
            signal: status.as_ref().and_then(WaitIdStatus::terminating_signal),
            stdout: std::mem::take(&mut self.outputs[0].kept),
            stderr: std::mem::take(&mut self.outputs[1].kept),
            took,
        };
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

    fn kill(&mut self) {
        if !kin::kill_all(None, DYING, || self.living()) {
            // It waits for a disk that does not answer. Its thread has waited long enough.
            self.deadline = Instant::now().checked_add(DYING);
        }
    }

    fn living(&self) -> Vec<Pid> {
        let mut found = kin::of_reader(self.pid, &self.marks);
        // Until its status was read, its number is nobody else's; a zombie is not found here, and that is right.
        found.retain(|pid| *pid != rustix::process::getpid());
        if self.status.is_none() && !found.contains(&self.pid) && kin::alive(self.pid) {
            found.push(self.pid);
        }
        found
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
                if self.read < disk::SPOOL {
                    observer(Happening::Output { stream: self.stream, offset: self.read, bytes });
                }
                self.read += read as u64;
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
