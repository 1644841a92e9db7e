//! `open_files("/var")`: what processes have open at or below a path, and what of it is deleted and so gives nothing back.
//!
//! A file belongs to the path's filesystem by its device, not by its name: a process that runs in another root or mount
//! namespace fills the same disk. Where the path is not the whole filesystem, the name that the kernel gives the file must be
//! below it, too. A file is deleted when it has no name left anywhere; one that only lost one of its names is not.
//!
//! Descriptors are asked, and, where the agent is root, mappings, which keep a file without any descriptor. On filesystems
//! that give a file another device than they are mounted with (btrfs), mappings are not found.
//!
//! Nothing here opens a file or waits for a server: that would hang on the mount that is the trouble.

use std::collections::{HashMap, HashSet};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fettle_runbooks::value::Value;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, Statx, StatxAttributes, StatxFlags, openat, readlinkat, statx};
use rustix::io::Errno;

use super::{NO_PROCESSES, Reading, absolute, int, owner, record};

/// Processes that are named one by one.
const MOST_PROCESSES: usize = 200;
/// Deleted files that are told of one by one, and the length of all their names.
const MOST_DELETED: usize = 50;
const MOST_NAMES: usize = 32 * 1024;

pub(super) fn read(path: &str, patience: Duration) -> Reading {
    absolute(path)?;
    let target = Target::of(Path::new(path))?;
    let deadline = Instant::now() + patience;
    let mut found = Found::default();
    let everybody = std::fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    let mut anybody = false;
    for entry in everybody.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        anybody = true;
        if Instant::now() > deadline {
            return Err(format!("there are too many open files to look through within {patience:?}"));
        }
        match Process::look(&entry.path(), pid, &target, &mut found) {
            Err(Errno::ACCESS | Errno::PERM) if is_somebody(&entry.path()) => found.hidden += 1,
            Ok(()) | Err(_) => {} // It is gone.
        }
    }
    if anybody { Ok(found.told()) } else { Err(NO_PROCESSES.into()) }
}

/// Which files are meant.
struct Target {
    device: (u32, u32),
    mount: u64,
    /// What their names begin with; absent where all of the filesystem is meant.
    below: Option<PathBuf>,
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID);

impl Target {
    fn of(path: &Path) -> Result<Target, String> {
        let real = path.canonicalize().map_err(|error| error.to_string())?;
        let stat = statx(rustix::fs::CWD, &real, AtFlags::STATX_DONT_SYNC, WANTED)
            .map_err(|error| error.to_string())?;
        let device = (stat.stx_dev_major, stat.stx_dev_minor);
        let is_mount = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        let whole = is_mount && is_whole(stat.stx_mnt_id);
        Ok(Target { device, mount: stat.stx_mnt_id, below: (!whole).then_some(real) })
    }

    /// Whether a file is on the same filesystem: on some (overlay) its device differs from the mount's.
    fn has(&self, stat: &Statx) -> bool {
        let same_mount = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0 && stat.stx_mnt_id == self.mount;
        same_mount || (stat.stx_dev_major, stat.stx_dev_minor) == self.device
    }

    fn covers(&self, name: &Path) -> bool {
        self.below.as_ref().is_none_or(|below| name.starts_with(below))
    }
}

/// Whether a mount shows its filesystem from the root on, and not a directory of it.
fn is_whole(mount: u64) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| {
        let mut fields = line.split(' ');
        fields.next().and_then(|id| id.parse().ok()) == Some(mount) && fields.nth(2) == Some("/")
    })
}

/// Whether a process that may not be looked at could have files at all: threads of the kernel and the dead have none.
fn is_somebody(process: &Path) -> bool {
    const KERNEL: u64 = 0x0020_0000;
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
    let fields: Vec<&str> = fields.split(' ').collect();
    let flags: u64 = fields.get(6).and_then(|flags| flags.parse().ok()).unwrap_or(0);
    !matches!(fields.first(), Some(&("Z" | "X"))) && flags & KERNEL == 0
}

/// A file, whoever has it open.
type Inode = (u32, u32, u64);

#[derive(Default)]
struct Found {
    files: HashSet<Inode>,
    processes: Vec<Process>,
    gone: HashMap<Inode, u64>,
    /// The biggest by file and unit, what one restart would give back; the biggest first.
    deleted: Vec<Deleted>,
    hidden: u64,
}

struct Process {
    pid: u32,
    name: String,
    unit: String,
    files: u64,
}

struct Deleted {
    inode: Inode,
    pid: u32,
    name: String,
    unit: String,
    path: String,
    bytes: u64,
    /// Whose the file is, and whose the process. Who has a file open need not have made it.
    uid: u32,
    process_uid: Option<u32>,
}

/// One process that is looked at.
struct Look<'a> {
    place: &'a Path,
    process: Process,
    process_uid: Option<u32>,
    target: &'a Target,
    found: &'a mut Found,
    held: HashSet<Inode>,
}

impl Process {
    fn look(place: &Path, pid: u32, target: &Target, found: &mut Found) -> Result<(), Errno> {
        let name = owner::name(place).unwrap_or_default();
        let process = Process { pid, name, unit: owner::unit(place), files: 0 };
        let process_uid = owner::uid(place);
        let mut look = Look { place, process, process_uid, target, found, held: HashSet::new() };
        look.descriptors()?;
        if rustix::process::geteuid().is_root() {
            look.mappings();
        }
        if !look.held.is_empty() {
            look.process.files = look.held.len() as u64;
            look.found.processes.push(look.process);
        }
        Ok(())
    }
}

impl Look<'_> {
    fn descriptors(&mut self) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(rustix::fs::CWD, self.place.join("fd"), flags, Mode::empty())?;
        for entry in Dir::read_from(&dir)? {
            let Ok(entry) = entry else { break };
            if entry.file_name().to_bytes().first() == Some(&b'.') {
                continue;
            }
            let Ok(stat) = statx(&dir, entry.file_name(), AtFlags::STATX_DONT_SYNC, WANTED) else { continue };
            if self.target.has(&stat) {
                let name = || readlinkat(&dir, entry.file_name(), Vec::new()).map(CString::into_bytes).ok();
                self.hold(&stat, name);
            }
        }
        Ok(())
    }

    /// Files that are mapped into memory. Their descriptors may be closed.
    fn mappings(&mut self) {
        let device = format!("{:02x}:{:02x}", self.target.device.0, self.target.device.1);
        let Ok(maps) = File::open(self.place.join("maps")) else { return };
        let mut last = String::new();
        for line in BufReader::new(maps).split(b'\n') {
            let Ok(line) = line else { return };
            let Ok(line) = str::from_utf8(&line) else { continue };
            let fields: Vec<&str> = line.splitn(6, ' ').collect();
            let [range, _, _, on, inode, _] = fields[..] else { continue };
            if on != device || inode == "0" || inode == last {
                continue;
            }
            inode.clone_into(&mut last);
            let link = self.place.join("map_files").join(range);
            let Ok(stat) = statx(rustix::fs::CWD, &link, AtFlags::STATX_DONT_SYNC, WANTED) else { continue };
            if self.target.has(&stat) {
                let name =
                    || std::fs::read_link(&link).map(|name| name.into_os_string().into_encoded_bytes()).ok();
                self.hold(&stat, name);
            }
        }
    }

    /// Takes a file. Names are asked for where they matter, and kept of the few files that will be told of: users may have
    /// millions of files open, with names of 4 KiB.
    fn hold(&mut self, stat: &Statx, name: impl FnOnce() -> Option<Vec<u8>>) {
        let inode = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        if self.held.contains(&inode) {
            return;
        }
        let is_dir = u32::from(stat.stx_mode) & 0o170_000 == 0o040_000;
        let is_deleted = stat.stx_nlink == 0 && !is_dir;
        let bytes = stat.stx_blocks * 512;
        let is_told = is_deleted && self.found.would_tell(inode, &self.process.unit, bytes);
        if is_told || self.target.below.is_some() {
            let Some(path) = name().map(|name| before_deletion(name, stat)) else { return };
            if !self.target.covers(&path) {
                return;
            }
            if is_told {
                self.found.tell(Deleted {
                    inode,
                    pid: self.process.pid,
                    name: self.process.name.clone(),
                    unit: self.process.unit.clone(),
                    path: path.to_string_lossy().into_owned(),
                    bytes,
                    uid: stat.stx_uid,
                    process_uid: self.process_uid,
                });
            }
        }
        self.held.insert(inode);
        self.found.files.insert(inode);
        if is_deleted {
            self.found.gone.insert(inode, bytes);
        }
    }
}

/// What a file was called. The kernel marks those that lost the name by which they were opened.
fn before_deletion(mut name: Vec<u8>, stat: &Statx) -> PathBuf {
    const MARK: &[u8] = b" (deleted)";
    if stat.stx_nlink == 0 && name.ends_with(MARK) {
        name.truncate(name.len() - MARK.len());
    }
    OsString::from_vec(name).into()
}

impl Found {
    /// Whether a deleted file is among the biggest so far, and not told of already. Processes come by their number, so that
    /// of several in one unit the first is named.
    fn would_tell(&self, inode: Inode, unit: &str, bytes: u64) -> bool {
        let has_room = self.deleted.len() < MOST_DELETED;
        let is_bigger = self.deleted.last().is_none_or(|smallest| smallest.bytes < bytes);
        (has_room || is_bigger) && !self.deleted.iter().any(|told| told.inode == inode && told.unit == unit)
    }

    fn tell(&mut self, file: Deleted) {
        let at = self.deleted.partition_point(|told| told.bytes >= file.bytes);
        self.deleted.insert(at, file);
        self.deleted.truncate(MOST_DELETED);
    }

    fn told(mut self) -> Value {
        self.processes.sort_by_key(|process| (std::cmp::Reverse(process.files), process.pid));
        self.processes.truncate(MOST_PROCESSES);
        let mut pids: Vec<u32> = self.processes.iter().map(|process| process.pid).collect();
        pids.sort_unstable();
        let mut names = 0;
        let told = self.deleted.into_iter().take_while(|file| {
            names += file.path.len();
            names <= MOST_NAMES
        });
        record([
            ("count", int(self.files.len() as u64)),
            ("pids", Value::List(pids.into_iter().map(|pid| int(pid.into())).collect())),
            ("deleted_count", int(self.gone.len() as u64)),
            ("deleted_bytes", int(self.gone.values().sum())),
            ("deleted", Value::List(told.map(Deleted::told).collect())),
            ("processes", Value::List(self.processes.into_iter().map(Process::told).collect())),
            ("hidden", int(self.hidden)),
        ])
    }
}

impl Process {
    fn told(self) -> Value {
        record([
            ("pid", int(self.pid.into())),
            ("name", Value::String(self.name)),
            ("unit", Value::String(self.unit)),
            ("files", int(self.files)),
        ])
    }
}

impl Deleted {
    fn told(self) -> Value {
        record([
            ("pid", int(self.pid.into())),
            ("name", Value::String(self.name)),
            ("unit", Value::String(self.unit)),
            ("path", Value::String(self.path)),
            ("bytes", int(self.bytes)),
            ("uid", int(self.uid.into())),
            ("process_uid", self.process_uid.map_or(Value::Null, |uid| int(uid.into()))),
        ])
    }
}

#[cfg(test)]
mod tests;
