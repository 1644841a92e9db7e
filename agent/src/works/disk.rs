//! Writing so that it is there after a power failure.
//!
//! What the driver itself keeps (journal, epoch, roster) goes through [`Disk`], whose calls are the kernel's, one by one:
//! so a simulation can lose what was not synced, tear what was being written, and be full.

use std::any::Any;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use fettle_crash::Replaced;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;

use super::ballast;
use crate::crash::crash_point;

/// The most of each output of a step that stays on the host; the rest is counted.
pub(crate) const SPOOL: u64 = 16 << 20;

/// The disk, as the state directory needs it. All that is created is for its owner alone.
///
/// # Errors
/// Each as the kernel says.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Makes a directory and those it is in, unless it is there.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// What is in a directory, in no particular order.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// The whole content of a file.
    fn read(&self, file: &Path) -> io::Result<Vec<u8>>;
    /// Creates a file. Fails when it is there already.
    fn create_new(&self, file: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file that is there, for writing.
    fn open(&self, file: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, whose old bearer is gone afterwards.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, file: &Path) -> io::Result<()>;
    /// Makes the entries of a directory durable: files created, renamed and removed in it.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes a lock until what is given back is dropped or the process ends; none: somebody else has it.
    fn lock(&self, file: &Path) -> io::Result<Option<Box<dyn Any + Send>>>;
}

/// A file that is open for writing.
///
/// # Errors
/// Each as the kernel says.
pub trait DiskFile: Send + fmt::Debug {
    /// Its size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Cuts it off, or fills it up with zeros.
    fn set_size(&mut self, size: u64) -> io::Result<()>;
    /// Makes sure that there is space for the bytes between, which become zeros.
    fn reserve(&mut self, from: u64, to: u64) -> io::Result<()>;
    /// Writes all of it.
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Makes content and size durable; its name is a matter of [`Disk::sync_dir`].
    fn sync(&mut self) -> io::Result<()>;
}

/// This host's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostDisk;

impl Disk for HostDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(file)
    }

    fn create_new(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(create_new(file, 0o600)?))
    }

    fn open(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().write(true).open(file)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        std::fs::remove_file(file)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_dir(dir)
    }

    fn lock(&self, file: &Path) -> io::Result<Option<Box<dyn Any + Send>>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_size(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn reserve(&mut self, from: u64, to: u64) -> io::Result<()> {
        match fallocate(&*self, FallocateFlags::empty(), from, to - from) {
            Ok(()) => Ok(()),
            // Some file systems cannot reserve; there, a full disk shows when it is written to.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.set_len(to),
            Err(error) => Err(error.into()),
        }
    }

    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Makes the entries of a directory durable: files created, renamed and removed in it.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates a file that nobody else may read. Fails when it is there already.
pub(crate) fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

/// Creates or truncates a file that nobody else may read.
pub(crate) fn create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)
}

/// Replaces a file as a whole: after a crash it has its old or its new content.
pub(crate) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8], points: &Replaced) -> io::Result<()> {
    let tmp = path.with_extension("tmp");
    let write = || {
        let _ = disk.remove(&tmp); // left by a crash
        let mut file = disk.create_new(&tmp)?;
        file.write_at(bytes, 0).map(|()| file)
    };
    let mut file = match (write(), path.parent()) {
        (Err(error), Some(dir)) if ballast::is_full(&error) && ballast::give_back(disk, dir) => write()?,
        (written, _) => written?,
    };
    crash_point(points.unsynced);
    file.sync()?;
    crash_point(points.unnamed);
    disk.rename(&tmp, path)?;
    crash_point(points.undurable);
    path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))?;
    crash_point(points.durable);
    Ok(())
}
