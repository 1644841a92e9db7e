//! The life of a step, as its shim sees it.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Timespec, inotify};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, WaitStatus, getpid, pidfd_open};

use super::{itself, not_started};
use crate::crash::crash_point;
use crate::works::attempt::{Ended, Outcome};
use crate::works::cgroup::Cgroup;
use crate::works::disk;
use crate::works::kin;
use crate::works::launch::{self, Ends};
use crate::works::oom::{self, Kills};
use crate::works::output::{Kept, Stream};
use crate::works::place::{Order, Place};

/// How long a killed process may take to be gone.
const DYING: Duration = Duration::from_secs(5);
/// What a pipe holds, bytes.
const PIPE: usize = 64 * 1024;
/// How often to look for `stop` where the kernel cannot tell us.
const LOOK: Duration = Duration::from_millis(200);

/// Runs the step to its end. `group`: where this process is, and the step will be.
pub(super) fn step(place: &Place, order: &Order, group: Option<Cgroup>) -> Ended {
    match begin(place, order, group) {
        Ok(mut watch) => watch.see_out(),
        Err(error) => {
            not_started("spawn-failed", format!("`{}` did not start: {error}", order.spec.work.program()))
        }
    }
}

fn begin(place: &Place, order: &Order, group: Option<Cgroup>) -> std::io::Result<Watch> {
    let null = File::open("/dev/null")?;
    let (stdout, out) = Output::new(place, Stream::Stdout)?;
    let (stderr, err) = Output::new(place, Stream::Stderr)?;
    let told = watch_for_stop(place);
    let ends = Ends { stdin: null.as_fd(), stdout: out.as_fd(), stderr: err.as_fd() };
    crash_point("shim.before-spawn");
    let kills = Kills::count();
    let born = oom::as_anybody(|| launch::launch(&order.spec, itself(), place, &ends));
    // From here on the step lives, and nothing may fail.
    let pid = born?;
    let began = Instant::now();
    crash_point("shim.after-spawn");
    Ok(Watch {
        place: place.clone(),
        group,
        pid,
        pidfd: pidfd_open(pid, PidfdFlags::empty()).ok(),
        began,
        kills,
        deadline: began.checked_add(order.spec.timeout),
        grace: order.spec.grace,
        ending: None,
        status: None,
        outputs: [stdout, stderr],
        told,
    })
}

/// Something to poll that says when the directory changes.
fn watch_for_stop(place: &Place) -> Option<OwnedFd> {
    let told = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
    let appears = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&told, place.dir(), appears).ok()?;
    Some(told)
}

struct Watch {
    place: Place,
    group: Option<Cgroup>,
    pid: Pid,
    pidfd: Option<OwnedFd>,
    began: Instant,
    kills: Kills,
    /// When its time is up; with `ending`, when its grace is. None: in a time so far away that clocks cannot say it.
    deadline: Option<Instant>,
    grace: Duration,
    /// Why it was told to end.
    ending: Option<Outcome>,
    status: Option<WaitStatus>,
    outputs: [Output; 2],
    told: Option<OwnedFd>,
}

impl Watch {
    fn see_out(&mut self) -> Ended {
        while self.status.is_none() {
            self.end_if_due();
            self.wait();
            self.bury();
            for output in &mut self.outputs {
                output.read_once();
            }
        }
        let took = self.began.elapsed();
        if self.ending.is_some() {
            self.kill();
        }
        // Closing it takes the kernel about ten milliseconds: that is left to the end of this process, for which nobody
        // waits.
        std::mem::forget(self.told.take());
        let [stdout, stderr] = &mut self.outputs;
        let (stdout, stderr) = (stdout.finish(), stderr.finish());
        let outcome = self.ending.take().unwrap_or(Outcome::Exited);
        let exit_code = self.status.and_then(WaitStatus::exit_status);
        let signal = self.status.and_then(WaitStatus::terminating_signal);
        let hint = match outcome {
            Outcome::Exited => self.kills.hint(exit_code, signal),
            Outcome::TimedOut | Outcome::Killed | Outcome::NotStarted { .. } => String::new(),
        };
        Ended { outcome, exit_code, signal, stdout, stderr, took, hint }
    }

    fn wait(&mut self) {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let all_told = self.told.is_some() && self.pidfd.is_some();
        let left = if all_told { left } else { Some(left.unwrap_or(LOOK).min(LOOK)) };
        let left =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        let ends = self.outputs.iter().filter_map(|output| output.pipe.as_ref()).map(AsFd::as_fd);
        let all = ends.chain(self.pidfd.iter().chain(&self.told).map(AsFd::as_fd));
        let mut fds: Vec<PollFd<'_>> =
            all.map(|fd: BorrowedFd<'_>| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let _ = poll(&mut fds, left.as_ref());
        if let Some(told) = &self.told {
            let mut news = [0; 1024];
            while rustix::io::read(told, &mut news).is_ok_and(|read| read > 0) {}
        }
    }

    fn bury(&mut self) {
        while let Some((pid, status)) = kin::bury_one() {
            if pid == self.pid {
                self.status = Some(status);
            }
        }
    }

    /// TERM when its time is up or somebody asks; KILL when its grace is over.
    fn end_if_due(&mut self) {
        let due = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        match &self.ending {
            Some(_) if due => self.kill(),
            Some(_) => {}
            None if self.place.file("stop").exists() => self.ask_to_end(Outcome::Killed),
            None if due => self.ask_to_end(Outcome::TimedOut),
            None => {}
        }
    }

    fn ask_to_end(&mut self, why: Outcome) {
        self.ending = Some(why);
        self.deadline = Instant::now().checked_add(self.grace);
        kin::signal(&kin::descendants(getpid()), Signal::TERM);
    }

    /// Ends the whole tree. Orphans are adopted by this process, so everything the step ever forked is below it; and
    /// once this process has left the group, the kernel can end the rest of it at one stroke.
    fn kill(&mut self) {
        let left = || Cgroup::of_shims().is_some_and(|home| home.enter().is_ok());
        let group = self.group.clone().filter(|_| left());
        kin::kill_all(group.as_ref(), DYING, || {
            self.bury();
            kin::descendants(getpid())
        });
        self.bury();
    }
}

/// One output of the step: from a pipe to a file, as far as that may grow.
struct Output {
    pipe: Option<OwnedFd>,
    spool: File,
    spooled: u64,
    kept: Kept,
}

impl Output {
    /// The reading side, and the end that is the step's.
    fn new(place: &Place, stream: Stream) -> std::io::Result<(Output, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        let spool = disk::create(&place.spool(stream), 0o600)?;
        Ok((Output { pipe: Some(read), spool, spooled: 0, kept: Kept::default() }, write))
    }

    /// Reads what is there, at most one buffer full. Gives back how much that was.
    fn read_once(&mut self) -> usize {
        let Some(pipe) = &self.pipe else { return 0 };
        let mut buffer = [0; PIPE];
        match rustix::io::read(pipe, &mut buffer) {
            Ok(0) => self.pipe = None,
            Ok(read) => {
                self.take(&buffer[..read]);
                return read;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.pipe = None,
        }
        0
    }

    fn take(&mut self, bytes: &[u8]) {
        self.kept.push(bytes);
        let room = (disk::SPOOL - self.spooled).min(bytes.len() as u64) as usize;
        // A full disk costs the whole output, not the step: head, tail and count still stand in the result.
        if room > 0 {
            match self.spool.write_all(&bytes[..room]) {
                Ok(()) => self.spooled += room as u64,
                Err(_) => self.spooled = disk::SPOOL,
            }
        }
    }

    /// What is still in the pipe, but not what a process that the step left behind goes on writing.
    fn finish(&mut self) -> Kept {
        let pipe = self.pipe.as_ref().and_then(|pipe| fcntl_getpipe_size(pipe).ok());
        let mut left = pipe.unwrap_or(0);
        while left > 0 {
            match self.read_once() {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        self.kept.finish();
        std::mem::take(&mut self.kept)
    }
}
