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

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fettle_runbooks::value::Value;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, Statx, StatxAttributes, StatxFlags, openat, readlinkat, statx};
use rustix::io::Errno;

use super::{Reading, int, owner, record};

/// Processes that are named one by one.
const MOST_PROCESSES: usize = 200;
/// Deleted files that are told of one by one, and the length of all their names.
const MOST_DELETED: usize = 50;
const MOST_NAMES: usize = 32 * 1024;

pub(super) fn read(path: &str, patience: Duration) -> Reading {
    if !path.starts_with('/') {
        return Err("not an absolute path".into());
    }
    let target = Target::of(Path::new(path))?;
    let deadline = Instant::now() + patience;
    let mut found = Found::default();
    let everybody = std::fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    for entry in everybody.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if Instant::now() > deadline {
            return Err(format!("there are too many open files to look through within {patience:?}"));
        }
        match Process::look(&entry.path(), pid, &target, &mut found) {
            Err(Errno::ACCESS | Errno::PERM) if is_somebody(&entry.path()) => found.hidden += 1,
            Ok(()) | Err(_) => {} // It is gone.
        }
    }
    Ok(found.told())
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
    files: HashMap<Inode, u64>,
    processes: Vec<Process>,
    /// By file and unit: what one restart would give back.
    deleted: BTreeMap<(Inode, String), Deleted>,
    hidden: u64,
}

struct Process {
    pid: u32,
    name: String,
    unit: String,
    files: u64,
}

struct Deleted {
    pid: u32,
    name: String,
    path: String,
    bytes: u64,
    /// Whose the file is, and whose the process. Who has a file open need not have made it.
    uid: u32,
    process_uid: Option<u32>,
}

/// What one process has of a file.
struct Held {
    inode: Inode,
    bytes: u64,
    uid: u32,
    /// Its name, if it is deleted.
    deleted: Option<String>,
}

impl Process {
    fn look(place: &Path, pid: u32, target: &Target, found: &mut Found) -> Result<(), Errno> {
        let mut held: HashMap<Inode, Held> = HashMap::new();
        each(&place.join("fd"), target, &mut held)?;
        if rustix::process::geteuid().is_root() {
            mapped(place, target, &mut held);
        }
        if held.is_empty() {
            return Ok(());
        }
        let name = owner::name(place).unwrap_or_default();
        let process = Process { pid, name, unit: owner::unit(place), files: held.len() as u64 };
        let process_uid = owner::uid(place);
        for file in held.into_values() {
            found.files.insert(file.inode, file.bytes);
            let Some(path) = file.deleted else { continue };
            let name = process.name.clone();
            let deleted = Deleted { pid, name, path, bytes: file.bytes, uid: file.uid, process_uid };
            let same = found.deleted.entry((file.inode, process.unit.clone())).or_insert(deleted);
            if same.pid > pid {
                (same.pid, same.name, same.process_uid) = (pid, process.name.clone(), process_uid);
            }
        }
        found.processes.push(process);
        Ok(())
    }
}

/// What the links of a directory of `/proc` lead to.
fn each(links: &Path, target: &Target, held: &mut HashMap<Inode, Held>) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(rustix::fs::CWD, links, flags, Mode::empty())?;
    for entry in Dir::read_from(&dir)? {
        let Ok(entry) = entry else { break };
        if entry.file_name().to_bytes().first() == Some(&b'.') {
            continue;
        }
        let Ok(stat) = statx(&dir, entry.file_name(), AtFlags::STATX_DONT_SYNC, WANTED) else { continue };
        if target.has(&stat) {
            let name = || readlinkat(&dir, entry.file_name(), Vec::new()).map(|name| name.into_bytes()).ok();
            hold(&stat, name, target, held);
        }
    }
    Ok(())
}

/// Files that are mapped into memory. Their descriptors may be closed.
fn mapped(place: &Path, target: &Target, held: &mut HashMap<Inode, Held>) {
    let device = format!("{:02x}:{:02x}", target.device.0, target.device.1);
    let maps = std::fs::read(place.join("maps")).unwrap_or_default();
    let mut last = "";
    for line in maps.split(|byte| *byte == b'\n') {
        let Ok(line) = str::from_utf8(line) else { continue };
        let fields: Vec<&str> = line.splitn(6, ' ').collect();
        let [range, _, _, on, inode, _] = fields[..] else { continue };
        if on != device || inode == "0" || inode == last {
            continue;
        }
        last = inode;
        let link = place.join("map_files").join(range);
        let Ok(stat) = statx(rustix::fs::CWD, &link, AtFlags::STATX_DONT_SYNC, WANTED) else { continue };
        if target.has(&stat) {
            let name =
                || std::fs::read_link(&link).map(|name| name.into_os_string().into_encoded_bytes()).ok();
            hold(&stat, name, target, held);
        }
    }
}

fn hold(
    stat: &Statx,
    name: impl FnOnce() -> Option<Vec<u8>>,
    target: &Target,
    held: &mut HashMap<Inode, Held>,
) {
    let inode = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
    let is_dir = u32::from(stat.stx_mode) & 0o170_000 == 0o040_000;
    let is_deleted = stat.stx_nlink == 0 && !is_dir;
    if held.contains_key(&inode) || (target.below.is_none() && !is_deleted) {
        // Its name does not matter.
        held.entry(inode).or_insert(Held {
            inode,
            bytes: stat.stx_blocks * 512,
            uid: stat.stx_uid,
            deleted: None,
        });
        return;
    }
    let Some(mut name) = name() else { return };
    if stat.stx_nlink == 0
        && let Some(before) = name.strip_suffix(b" (deleted)")
    {
        name = before.to_vec();
    }
    let path = Path::new(OsStr::from_bytes(&name));
    if target.covers(path) {
        let deleted = is_deleted.then(|| path.to_string_lossy().into_owned());
        held.insert(inode, Held { inode, bytes: stat.stx_blocks * 512, uid: stat.stx_uid, deleted });
    }
}

impl Found {
    fn told(mut self) -> Value {
        let gone: HashMap<Inode, u64> =
            self.deleted.iter().map(|((inode, _), file)| (*inode, file.bytes)).collect();
        self.processes.sort_by_key(|process| (std::cmp::Reverse(process.files), process.pid));
        self.processes.truncate(MOST_PROCESSES);
        let mut pids: Vec<u32> = self.processes.iter().map(|process| process.pid).collect();
        pids.sort_unstable();
        let mut deleted: Vec<_> = self.deleted.into_iter().collect();
        deleted.sort_by_key(|((inode, _), file)| (std::cmp::Reverse(file.bytes), *inode));
        let mut names = 0;
        let told = deleted.into_iter().take(MOST_DELETED).take_while(|(_, file)| {
            names += file.path.len();
            names <= MOST_NAMES
        });
        record([
            ("count", int(self.files.len() as u64)),
            ("pids", Value::List(pids.into_iter().map(|pid| int(pid.into())).collect())),
            ("deleted_count", int(gone.len() as u64)),
            ("deleted_bytes", int(gone.values().sum())),
            ("deleted", Value::List(told.map(|((_, unit), file)| file.told(unit)).collect())),
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
    fn told(self, unit: String) -> Value {
        record([
            ("pid", int(self.pid.into())),
            ("name", Value::String(self.name)),
            ("unit", Value::String(unit)),
            ("path", Value::String(self.path)),
            ("bytes", int(self.bytes)),
            ("uid", int(self.uid.into())),
            ("process_uid", self.process_uid.map_or(Value::Null, |uid| int(uid.into()))),
        ])
    }
}

#[cfg(test)]
mod tests;
