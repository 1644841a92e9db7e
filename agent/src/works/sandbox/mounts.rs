//! What a step sees of the host's files: everything read-only, a small `/dev`, and no secrets.
//!
//! The host's `/tmp` stays to be seen, read-only like the rest: filling filesystems are what people diagnose, and sockets
//! in it cannot be connected to anyway. Where a step may write is [`SCRATCH`], which is its own and gone with it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::thread::UnshareFlags;

use super::{Order, Reading, secrets};
use crate::works::unix::{freeze_mounts, mount};

/// A directory of the step's own, in memory.
pub(super) const SCRATCH: &str = "/dev/shm";

/// Character devices that a step finds, with their numbers.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Those it may open for writing.
pub(super) const SINKS: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty"];

/// What stands in for a secret file, and for a secret directory: nothing, for nobody.
const NO_FILE: &str = "/dev/.no-file";
const NO_DIR: &str = "/dev/.no-dir";

/// Leaves the host's mounts and shared memory behind, and makes the step's.
pub(super) fn arrange(order: &Order) -> io::Result<()> {
    unshare()?;
    mount("", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")?;
    // Found while everything can still be seen.
    let hidden = secrets::present(&order.state, order.allowed.read == Reading::All);
    freeze_mounts().map_err(|error| told("make every mount read-only", &error))?;
    devices().map_err(|error| told("make /dev", &error))?;
    for path in hidden {
        hide(&path).map_err(|error| told(&format!("hide {}", path.display()), &error))?;
    }
    Ok(())
}

fn told(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// A mount namespace, and one for the shared memory, semaphores and queues of System V and POSIX.
#[expect(deprecated, reason = "no descriptor table is unshared, which is what the other name warns of")]
fn unshare() -> io::Result<()> {
    Ok(rustix::thread::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWIPC)?)
}

fn devices() -> io::Result<()> {
    let dev = Path::new("/dev");
    let data = "mode=755,size=64m,nr_inodes=4096";
    mount("tmpfs", dev, "tmpfs", libc::MS_NOSUID | libc::MS_NOEXEC, data)?;
    let mask = rustix::process::umask(Mode::empty());
    for (name, major, minor) in DEVICES {
        mknodat(
            CWD,
            dev.join(name),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            makedev(major, minor),
        )?;
    }
    rustix::fs::mkdir(SCRATCH, Mode::from_raw_mode(0o1777))?;
    rustix::fs::mkdir(NO_DIR, Mode::empty())?;
    mknodat(CWD, NO_FILE, FileType::RegularFile, Mode::empty(), 0)?;
    for (name, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        rustix::fs::symlink(format!("/proc/self/fd{target}"), dev.join(name))?;
    }
    rustix::process::umask(mask);
    Ok(())
}

fn hide(path: &PathBuf) -> io::Result<()> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(_) => return Ok(()), // below one that is hidden already
    };
    let nothing = if kind.is_dir() { NO_DIR } else { NO_FILE };
    mount(nothing, path, "", libc::MS_BIND, "")
}
