//! A file that takes space only to give it back: what fills a disk is what many a runbook is there to remove, and to run one,
//! and write down that it ran, takes space. Where the journal, the epoch or a step that acts finds none, this file goes; when
//! a step that acts is over, or the agent starts, and there is plenty of space, it is put back.
//!
//! Deliberately absent: a promise. Whatever fills the disk may be quicker, and a file system that cannot reserve has no ballast.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::disk::{Disk, HostDisk};

/// What it takes, bytes: a growth of the journal, and the results and outputs of several steps.
const SIZE: u64 = 4 * 1024 * 1024;

/// With less than this a step that acts might not find the space for its files, bytes.
const LITTLE: u64 = 1024 * 1024;

fn file(state: &Path) -> PathBuf {
    state.join("ballast")
}

/// Whether a disk, or what somebody may take of it, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What is left for whoever is not root, bytes; none when the kernel does not say.
fn left(state: &Path) -> Option<u64> {
    let fs = statvfs(state).ok()?;
    Some(fs.f_bavail.saturating_mul(if fs.f_frsize == 0 { fs.f_bsize } else { fs.f_frsize }))
}

/// Puts it in the state folder, if it is not there and takes but a part of what is left.
pub(crate) fn put_back(state: &Path) {
    let path = file(state);
    let there = std::fs::metadata(&path).is_ok_and(|file| file.blocks() * 512 >= SIZE);
    if there || left(state).is_none_or(|left| left < 2 * SIZE) {
        return;
    }
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let put = opened.and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, SIZE)?));
    if let Err(error) = put {
        tracing::debug!(%error, "No ballast: a full disk may stop steps.");
        let _ = std::fs::remove_file(&path);
    }
}

/// Gives it back. False: there is none.
pub(crate) fn give_back(disk: &dyn Disk, state: &Path) -> bool {
    let gone = disk.remove(&file(state)).is_ok();
    if gone {
        tracing::warn!("The disk is full. The agent's ballast is given back, so that it can go on.");
    }
    gone
}

/// Gives it back if little is left.
pub(crate) fn make_room(state: &Path) {
    if left(state).is_some_and(|left| left < LITTLE) {
        give_back(&HostDisk, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_takes_is_taken_once_and_given_back_once() {
        let state = tempfile::tempdir().unwrap();
        let blocks = || std::fs::metadata(file(state.path())).map(|file| file.blocks() * 512).ok();
        put_back(state.path());
        assert!(blocks().is_some_and(|taken| taken >= SIZE), "{:?}", blocks());
        put_back(state.path());
        make_room(state.path());
        assert!(blocks().is_some(), "there is plenty");
        assert!(give_back(&HostDisk, state.path()));
        assert_eq!(blocks(), None);
        assert!(!give_back(&HostDisk, state.path()));
        // Begun by an agent that died.
        std::fs::write(file(state.path()), "").unwrap();
        put_back(state.path());
        assert!(blocks().is_some_and(|taken| taken >= SIZE), "{:?}", blocks());
    }
}
