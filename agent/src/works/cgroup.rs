//! Control groups: the one way to name, end and count all processes of a step, however often they fork.
//!
//! Where the host has no control groups of version 2, or they are not ours to write, there is none, and the rest of the
//! agent does without: see [`Dead`](super::recovery::Dead) for what is then not known.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::Access;
use sha2::{Digest as _, Sha256};

/// `statfs` says this of version 2.
const CGROUP2: u64 = 0x6367_7270;

/// A control group of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes the group of an attempt, named after its directory: outside the agent's, so that what ends the agent
    /// leaves shim and step alone.
    pub(crate) fn of_attempt(dir: &Path) -> Option<Cgroup> {
        Cgroup::create(Cgroup::maybe_of_attempt(dir)?)
    }

    /// The group that an attempt would have, whether it is there or not.
    pub(crate) fn maybe_of_attempt(dir: &Path) -> Option<Cgroup> {
        use std::os::unix::ffi::OsStrExt as _;
        let digest = Sha256::digest(dir.as_os_str().as_bytes());
        let name = digest[..12].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Some(Cgroup(mount()?.join("fettle").join(format!("step-{name}"))))
    }

    /// Where a shim goes before it kills the group it was in.
    pub(crate) fn of_shims() -> Option<Cgroup> {
        Cgroup::create(Cgroup(mount()?.join("fettle/shims")))
    }

    /// A group that was made before.
    pub(crate) fn at(path: PathBuf) -> Cgroup {
        Cgroup(path)
    }

    fn create(group: Cgroup) -> Option<Cgroup> {
        std::fs::create_dir_all(&group.0).ok().map(|()| group)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Moves the calling process (its only thread, in a shim) into the group, unless it was born there.
    pub(crate) fn enter(&self) -> io::Result<()> {
        if self.is_ours() { Ok(()) } else { std::fs::write(self.0.join("cgroup.procs"), "0") }
    }

    /// Whether the calling process is in it. The kernel may call it by another path than we do, but not by another name.
    fn is_ours(&self) -> bool {
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let ours = groups.lines().find_map(|line| line.strip_prefix("0::"));
        ours.is_some_and(|path| Path::new(path).file_name() == self.0.file_name())
    }

    /// Its directory, for something to be born into it.
    pub(crate) fn open(&self) -> io::Result<File> {
        File::open(&self.0)
    }

    /// Kills everything in it, at once and without a way out.
    pub(crate) fn kill(&self) -> io::Result<()> {
        std::fs::write(self.0.join("cgroup.kill"), "1")
    }

    /// Whether any process is in it. A group that is gone is empty: only an empty one can be removed.
    pub(crate) fn populated(&self) -> io::Result<bool> {
        match std::fs::read_to_string(self.0.join("cgroup.events")) {
            Ok(events) => Ok(!events.lines().any(|line| line == "populated 0")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until nothing is in it; false when something still is.
    pub(crate) fn empties_within(&self, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            if !self.populated()? {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Removes it, if it is empty; what a step left running on purpose keeps it.
    pub(crate) fn remove(&self) {
        // The kernel says "busy" for a moment after the last process is gone.
        for _ in 0..20 {
            match std::fs::remove_dir(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    if self.populated().unwrap_or(true) {
                        return;
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
                Ok(()) | Err(_) => return,
            }
        }
    }
}

/// Where control groups of version 2 are, if they are.
fn mount() -> Option<PathBuf> {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .find(|path| rustix::fs::statfs(*path).is_ok_and(|fs| fs.f_type as u64 == CGROUP2))
        .map(PathBuf::from)
}

/// Whether this process may make groups. What is missing is said in `Hello`.
pub fn available() -> bool {
    // It may be there because somebody else made it.
    let writable = |group: Cgroup| rustix::fs::access(group.0.join("cgroup.procs"), Access::WRITE_OK).is_ok();
    Cgroup::of_shims().is_some_and(writable)
}
