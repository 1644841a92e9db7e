//! Which files are logs that a runbook may read.
//!
//! An agent that is root can read everything, and what it reads it tells. A fact is not kept in by the sandbox of steps, so
//! the same limits are drawn here: nothing on the list of secrets, and of the rest what anybody on the host may read. Logs
//! are the exception, since most are for root and its group only: what is below `/var/log` may be read.
//!
//! What is asked is a file that is held, not its name, and that one is opened: nobody can put another in its place in between.

use std::fs::{File, Metadata};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::works::sandbox::secrets;

/// Where logs are kept.
const LOGS: &str = "/var/log";
/// What looks like files and is the kernel's.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// An open log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) file: File,
    pub(super) meta: Metadata,
}

impl Log {
    /// What is the same for all its names.
    pub(super) fn identity(&self) -> (u64, u64) {
        (self.meta.dev(), self.meta.ino())
    }
}

/// Opens a log; nothing if there is none.
pub(super) fn open(path: &Path, state: &Path) -> Result<Option<Log>, String> {
    // To hold a file is not to open it, which does things: a device acts, a pipe waits.
    let held = match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(held) => File::from(held),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let meta = held.metadata().map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("not a regular file".into());
    }
    let same = format!("/proc/self/fd/{}", held.as_raw_fd());
    let real = std::fs::read_link(&same).map_err(|error| format!("/proc: {error}"))?;
    may_be_read(&real, &meta, state)?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(&same)
        .map_err(|error| error.to_string())?;
    Ok(Some(Log { file, meta }))
}

fn may_be_read(real: &Path, meta: &Metadata, state: &Path) -> Result<(), String> {
    if KERNEL.iter().any(|kernel| real.starts_with(kernel)) {
        return Err("not a log: it is the kernel's".into());
    }
    if secrets::present(state, true).iter().any(|secret| real.starts_with(secret)) {
        return Err("it is on the list of secrets, which no runbook may read".into());
    }
    let logs = Path::new(LOGS).canonicalize().unwrap_or_else(|_| PathBuf::from(LOGS));
    if !rustix::process::geteuid().is_root() || real.starts_with(logs) || anybody_may(real, meta) {
        return Ok(());
    }
    let name = real.display();
    Err(format!(
        "{name} is neither below {LOGS} nor readable by everybody: read it in a certified step with `sandbox: {{ read: all }}`"
    ))
}

/// Whether any user could open it.
fn anybody_may(real: &Path, meta: &Metadata) -> bool {
    let passable = |dir: &Path| std::fs::metadata(dir).is_ok_and(|meta| meta.mode() & 0o001 != 0);
    meta.mode() & 0o004 != 0 && real.ancestors().skip(1).all(passable)
}
