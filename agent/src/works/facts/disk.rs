//! `disk("/var")`: the filesystem that a path is on, counted as `df` does.

use fettle_runbooks::value::Value;
use rustix::fs::{StatVfsMountFlags, statvfs};

use super::{Reading, absolute, int, percent, record};

pub(super) fn read(mount: &str) -> Reading {
    absolute(mount)?;
    let fs = statvfs(mount).map_err(|error| error.to_string())?;
    let unit = if fs.f_frsize == 0 { fs.f_bsize } else { fs.f_frsize };
    let used = fs.f_blocks.saturating_sub(fs.f_bfree);
    // What is reserved for root is neither used nor available.
    let usable = used.saturating_add(fs.f_bavail);
    let inodes = percent(fs.f_files.saturating_sub(fs.f_ffree), fs.f_files);
    Ok(record([
        ("used_percent", percent(used, usable)),
        ("total_bytes", int(fs.f_blocks.saturating_mul(unit))),
        ("used_bytes", int(used.saturating_mul(unit))),
        ("available_bytes", int(fs.f_bavail.saturating_mul(unit))),
        ("inodes_used_percent", inodes),
        ("fstype", fstype(mount).map_or(Value::Null, Value::String)),
        ("readonly", Value::Bool(fs.f_flag.contains(StatVfsMountFlags::RDONLY))),
    ]))
}

/// The type of the mount that a path is under, from the kernel's own list.
fn fstype(path: &str) -> Option<String> {
    let path = std::fs::canonicalize(path).ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let point = unescape(before.split(' ').nth(4)?);
            path.starts_with(&point).then_some((point.len(), after.split(' ').next()?))
        })
        // The longest; of two on the same place, the later one hides the earlier.
        .max_by_key(|(length, _)| *length)
        .map(|(_, fstype)| fstype.to_owned())
}

/// The list writes blanks and backslashes as `\040`.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                out.push_str(&part[3..]);
            }
            None => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}
