//! Steps that act: children of a shim, and here the thread that follows what the shim writes.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use fettle_runbooks::id::RunId;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Timespec, inotify};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::{Attempts, Happening, Observer, Running, Spec, StartBy, StartError, Stop};
use crate::crash::{self, crash_point};
use crate::works::ballast;
use crate::works::cgroup::Cgroup;
use crate::works::disk;
use crate::works::facts::owner;
use crate::works::output::Stream;
use crate::works::place::{self, Order, Place, Start};
use crate::works::record::AttemptKey;
use crate::works::recovery::{self, Found};
use crate::works::shim;
use crate::works::unix::{self, Birth};

/// How often to look at the output where the kernel cannot tell us that it grew.
const LOOK: Duration = Duration::from_millis(50);

impl Attempts {
    /// Starts a step that acts, under a shim. The caller has journaled its intent.
    ///
    /// # Errors
    /// When no shim was born; nothing ran.
    pub fn start_effect(
        &self,
        spec: &Spec,
        start_by: &StartBy,
        observer: Observer,
    ) -> Result<Running, StartError> {
        crash_point("attempt.before-prepare");
        self.dir.parent().into_iter().for_each(ballast::make_room);
        let place = self.place(&spec.key);
        let prepare = |path: PathBuf| move |source| StartError::Prepare { path, source };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(place.dir())
            .map_err(prepare(place.dir().into()))?;
        let lock = place.lock().map_err(prepare(place.file("lock")))?;
        let before = || StartError::StartedBefore(spec.key.clone());
        let lock = lock.ok_or_else(before)?;
        if place.file("started").exists() {
            return Err(before());
        }
        let order = Order {
            spec: spec.clone(),
            start_by: start_by.clone(),
            policy: self.policy.clone(),
            agent: owner::unit("/proc/self".as_ref()),
            tombstone: place::tombstone(&self.dir, spec.key.run),
        };
        self.reserve(&place, spec.key.run).map_err(prepare(place.file("stop")))?;
        write_order(&place, &order).map_err(prepare(place.file("order")))?;
        crash_point("attempt.before-spawn");
        let failed = |source| StartError::Spawn { program: self.program.display().to_string(), source };
        // First whoever will follow it: where no thread can be had, nothing runs.
        let follow = Follower::thread().map_err(failed)?;
        let pid = self.spawn_shim(&place, &lock).map_err(failed)?;
        crash_point("attempt.after-spawn");
        // The shim has the lock now: ours would keep it looking alive.
        drop(lock);
        let pidfd = pidfd_open(pid, PidfdFlags::empty());
        // From here on the step may live: whatever fails now, it is looked for, and never called not started.
        follow.send(Follower::new(&place, pidfd.ok(), Some(pid), observer)).map_err(|_| before())?;
        Ok(Running::new(spec.key.clone(), Arc::new(place)))
    }

    /// Follows an attempt that an earlier agent started and that [`look`](Attempts::look) found running: its output
    /// from the beginning, and its end.
    ///
    /// # Errors
    /// When its directory cannot be read, or there is no thread for it.
    pub fn reattach(&self, key: &AttemptKey, observer: Observer) -> io::Result<Running> {
        let place = self.place(key);
        let follower = Follower::new(&place, shim_of(&place)?, None, observer);
        let gone = |_| io::Error::other("its thread has ended");
        Follower::thread()?.send(follower).map_err(gone)?;
        Ok(Running::new(key.clone(), Arc::new(place)))
    }

    /// What became of an attempt that was intended: the first question after a restart.
    ///
    /// # Errors
    /// When its directory cannot be read.
    pub fn look(&self, key: &AttemptKey) -> io::Result<Found> {
        let place = self.place(key);
        let found = recovery::look(&place)?;
        if let Found::Exit(_) = found {
            recovery::remove_group(&place);
        }
        Ok(found)
    }

    /// Kills what an attempt with an unknown end may have left running. True: nothing of it runs any more, for
    /// certain; without a control group that can only be said after a reboot.
    ///
    /// # Errors
    /// When its control group cannot be read or written.
    pub fn bury(&self, key: &AttemptKey) -> io::Result<bool> {
        recovery::bury(&self.place(key))
    }

    /// Tells every attempt of a run that still runs to end, whoever started it. True: none does any more, as far as anybody can
    /// tell.
    ///
    /// # Errors
    /// When one cannot be told.
    pub fn stop_all(&self, run: RunId) -> io::Result<bool> {
        let prefix = format!("{run}.");
        let mut over = true;
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(&prefix) || !entry.file_type()?.is_dir() {
                continue;
            }
            let place = Place::at(entry.path());
            // What a step that is over left running on purpose stays.
            if place.file("exit").exists() {
                continue;
            }
            over &= match place.lock()? {
                Some(_its_shim_is_dead) => recovery::put_down(&place)?,
                None => {
                    place.stop()?;
                    false
                }
            };
        }
        Ok(over)
    }

    /// Makes sure that no attempt of the run starts any more, not even one whose shim is already on its way. Durable
    /// when it returns. What runs already goes on: [`Running::kill`] it.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub fn tombstone(&self, run: RunId) -> io::Result<()> {
        let path = place::tombstone(&self.dir, run);
        if path.exists() {
            return disk::sync_dir(&self.dir);
        }
        let reserved = place::reserved(&path);
        let file = disk::create(&reserved, 0o600)?;
        crash_point(crash::TOMBSTONE.unsynced);
        file.sync_all()?;
        crash_point(crash::TOMBSTONE.unnamed);
        std::fs::rename(&reserved, &path)?;
        crash_point(crash::TOMBSTONE.undurable);
        disk::sync_dir(&self.dir)?;
        crash_point(crash::TOMBSTONE.durable);
        Ok(())
    }

    /// Makes the files now that it takes to stop an attempt: later there may be no room for them.
    fn reserve(&self, place: &Place, run: RunId) -> io::Result<()> {
        disk::create(&place::reserved(&place.file("stop")), 0o600)?;
        let tombstone = place::tombstone(&self.dir, run);
        if !tombstone.exists() {
            disk::create(&place::reserved(&tombstone), 0o600)?;
        }
        Ok(())
    }

    /// Whether the run has a tombstone.
    pub fn is_tombstoned(&self, run: RunId) -> bool {
        place::tombstone(&self.dir, run).exists()
    }

    /// Removes what is kept of a run's ended attempts, and its tombstone, for good: nobody would look for it again. Call it
    /// only when no order for the run can be accepted any more: what is removed could start again. An attempt whose shim
    /// lives is left alone.
    ///
    /// # Errors
    /// When something cannot be removed, or not for good.
    pub fn forget(&self, run: RunId) -> io::Result<()> {
        crash_point("forget.unremoved");
        let prefix = format!("{run}.");
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // The second is the first while it was written.
            if name.starts_with(&prefix) && [place::BEFORE, ".tmp"].iter().any(|end| name.ends_with(end)) {
                std::fs::remove_file(entry.path())?;
            }
            if !name.starts_with(&prefix) || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let place = Place::at(entry.path());
            if let Some(_lock) = place.lock()? {
                recovery::remove_group(&place);
                std::fs::remove_dir_all(place.dir())?;
            }
        }
        crash_point("forget.tombstone");
        match std::fs::remove_file(place::tombstone(&self.dir, run)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        crash_point("forget.undurable");
        disk::sync_dir(&self.dir)?;
        crash_point("forget.durable");
        Ok(())
    }

    /// The whole output an attempt left on this host, from an offset, at most `limit` bytes.
    ///
    /// # Errors
    /// When it cannot be read, or is not kept.
    pub fn output(&self, key: &AttemptKey, stream: Stream, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
        let file = File::open(self.place(key).spool(stream))?;
        let mut bytes = vec![0; limit];
        let mut read = 0;
        while read < limit {
            match file.read_at(&mut bytes[read..], offset + read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        bytes.truncate(read);
        Ok(bytes)
    }

    fn place(&self, key: &AttemptKey) -> Place {
        Place::of(&self.dir, key)
    }

    fn spawn_shim(&self, place: &Place, lock: &File) -> io::Result<Pid> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        // Nothing of the agent's environment, but what tests say of both: where to die, and which boot this is.
        let env = crash::told();
        // Outside the agent's group from its first moment on.
        let group = Cgroup::of_attempt(place.dir()).and_then(|group| group.open().ok());
        unix::spawn(&Birth {
            program: &self.program,
            args: &shim::arguments(place),
            env: &env,
            cwd: "/".as_ref(),
            fds: [null.as_fd(), null.as_fd(), null.as_fd()],
            extra: vec![lock.as_fd()],
            group: group.as_ref().map(AsFd::as_fd),
        })
    }
}

/// It need not be durable: without `started`, it is written anew.
fn write_order(place: &Place, order: &Order) -> io::Result<()> {
    use std::io::Write as _;
    let bytes = serde_json::to_vec(order)?;
    disk::create(&place.file("order"), 0o600)?.write_all(&bytes)
}

/// The living shim of an attempt, as something to poll; none when it has just died.
fn shim_of(place: &Place) -> io::Result<Option<OwnedFd>> {
    let Start::Made(started) = place.started()? else { return Ok(None) };
    let Some(pid) = Pid::from_raw(started.pid) else { return Ok(None) };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(None) };
    // The lock is held *after* we got hold of the process: so its shim lived then, and the number was still its own.
    Ok(if place.lock()?.is_none() { Some(pidfd) } else { None })
}

impl Stop for Place {
    fn stop(&self) -> io::Result<()> {
        let stop = self.file("stop");
        // An older agent has reserved nothing.
        std::fs::rename(place::reserved(&stop), &stop).or_else(|_| disk::create(&stop, 0o600).map(drop))
    }
}

/// Follows one shim.
struct Follower {
    place: Place,
    /// None: look at the lock now and then.
    pidfd: Option<OwnedFd>,
    /// Ours to bury.
    child: Option<Pid>,
    grows: Option<OwnedFd>,
    tails: [Tail; 2],
    observer: Observer,
}

/// How far an output was read.
struct Tail {
    stream: Stream,
    file: Option<File>,
    at: u64,
}

impl Follower {
    fn new(place: &Place, pidfd: Option<OwnedFd>, child: Option<Pid>, observer: Observer) -> Follower {
        let tail = |stream| Tail { stream, file: None, at: 0 };
        let grows = watch(place).ok();
        let tails = [tail(Stream::Stdout), tail(Stream::Stderr)];
        Follower { place: place.clone(), pidfd, child, grows, tails, observer }
    }

    /// A thread that waits for one; without one it ends.
    fn thread() -> io::Result<SyncSender<Follower>> {
        let (give, given) = sync_channel::<Follower>(1);
        let thread = std::thread::Builder::new().name("follow".into()).stack_size(256 * 1024);
        thread.spawn(move || given.recv().map(Follower::see_out))?;
        Ok(give)
    }

    fn see_out(mut self) {
        loop {
            let over = self.is_over();
            self.read_on();
            if over {
                break;
            }
            self.wait();
        }
        let word = match recovery::look(&self.place) {
            Ok(Found::Exit(ended)) => Happening::Ended(*ended),
            Ok(Found::NotStarted) => Happening::NeverBorn,
            Ok(Found::Unknown(unknown)) => Happening::Unknown(unknown.reason),
            // Not this shim: another one has the attempt, and its follower will tell.
            Ok(Found::Running) => Happening::Unknown("another supervisor has this attempt".into()),
            Err(error) => Happening::Unknown(format!("its result cannot be read: {error}")),
        };
        let over = matches!(word, Happening::Ended(_));
        (self.observer)(word);
        // Nobody need wait for that.
        if let Some(child) = self.child {
            let _ = waitid(WaitId::Pid(child), WaitIdOptions::EXITED);
        }
        if over {
            recovery::remove_group(&self.place);
        }
        self.place.dir().parent().and_then(Path::parent).into_iter().for_each(ballast::put_back);
    }

    /// Whether the shim has left word, or is no more. Its own end takes the kernel longer than many a step.
    fn is_over(&mut self) -> bool {
        self.place.file("exit").exists() || self.is_gone()
    }

    fn is_gone(&mut self) -> bool {
        let over = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match (self.child, &self.pidfd) {
            (Some(child), _) => {
                let gone = !matches!(waitid(WaitId::Pid(child), over), Ok(None));
                if gone {
                    // Its number may soon be another's.
                    self.child = None;
                }
                gone
            }
            (None, Some(pidfd)) => {
                let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
                poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
            }
            (None, None) => self.place.lock().is_ok_and(|lock| lock.is_some()),
        }
    }

    fn wait(&self) {
        let all_told = self.pidfd.is_some() && self.grows.is_some();
        let limit = (!all_told).then_some(Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() });
        let all = self.pidfd.iter().chain(&self.grows);
        let mut fds: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let _ = poll(&mut fds, limit.as_ref());
        if let Some(grows) = &self.grows {
            let mut news = [0; 4096];
            while rustix::io::read(grows, &mut news).is_ok_and(|read| read > 0) {}
        }
    }

    /// Tells what was written since.
    fn read_on(&mut self) {
        let mut buffer = vec![0; 16 * 1024];
        for tail in &mut self.tails {
            if tail.file.is_none() {
                tail.file = File::open(self.place.spool(tail.stream)).ok();
            }
            let Some(file) = &tail.file else { continue };
            while let Ok(read @ 1..) = file.read_at(&mut buffer, tail.at) {
                let bytes = &buffer[..read];
                (self.observer)(Happening::Output { stream: tail.stream, offset: tail.at, bytes });
                tail.at += read as u64;
            }
        }
    }
}

/// Something to poll that says when a file in the directory grows, and when the result gets its name.
fn watch(place: &Place) -> io::Result<OwnedFd> {
    let told = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&told, place.dir(), inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVED_TO)?;
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_a_forgotten_run_and_nothing_is_taken_from_another() {
        let state = tempfile::tempdir().unwrap();
        let attempts = Attempts::open(state.path()).unwrap();
        let [run, other]: [RunId; 2] =
            ["run_0193a1b2c3d4e5f60718293a4b5c6d7e", "run_0193a1b2c3d4e5f60718293a4b5c6d7f"]
                .map(|run| run.parse().unwrap());
        let files = |run| {
            [format!("{run}.remediate~x.before"), format!("{run}.remediate~y.tmp"), format!("{run}.tmp")]
        };
        for name in files(run).iter().chain(&files(other)) {
            std::fs::write(attempts.dir.join(name), "").unwrap();
        }
        attempts.tombstone(run).unwrap();
        attempts.forget(run).unwrap();
        let left = std::fs::read_dir(&attempts.dir).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, files(other));
    }
}
