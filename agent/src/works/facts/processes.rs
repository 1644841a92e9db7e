//! `processes("nginx")`: the living processes of a name, which is what the kernel calls them or how they were called.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use fettle_runbooks::value::Value;
use sysinfo::{Process, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

use super::{NO_PROCESSES, Reading, int, owner, record};

/// Processes that are told of one by one.
const MOST: usize = 200;

pub(super) fn read(name: &str) -> Reading {
    let mut system = System::new().map_err(|error| error.to_string())?;
    let what = ProcessRefreshKind::nothing()
        .with_memory()
        .with_cmd(UpdateKind::Always)
        .with_user(UpdateKind::Always)
        .without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
    if system.processes().is_empty() {
        return Err(NO_PROCESSES.into());
    }
    let mut found: Vec<&Process> = system
        .processes()
        .values()
        .filter(|process| !matches!(process.status(), ProcessStatus::Zombie | ProcessStatus::Dead))
        .filter(|process| is_called(process, name))
        .collect();
    found.sort_by_key(|process| process.pid());
    let oldest = found.iter().map(|process| process.run_time()).max();
    Ok(record([
        ("count", int(found.len() as u64)),
        ("pids", Value::List(found.iter().map(|process| int(process.pid().as_u32().into())).collect())),
        ("oldest_seconds", oldest.map_or(Value::Null, int)),
        ("memory_bytes", int(found.iter().map(|process| process.memory()).sum())),
        ("all", Value::List(biggest(found).into_iter().map(described).collect())),
    ]))
}

fn biggest(mut found: Vec<&Process>) -> Vec<&Process> {
    found.sort_by_key(|process| (std::cmp::Reverse(process.memory()), process.pid()));
    found.truncate(MOST);
    found
}

fn described(process: &Process) -> Value {
    let place = PathBuf::from(format!("/proc/{}", process.pid()));
    let descriptors = std::fs::read_dir(place.join("fd")).map(|open| open.count() as u64);
    record([
        ("pid", int(process.pid().as_u32().into())),
        ("parent_pid", process.parent().map_or(Value::Null, |parent| int(parent.as_u32().into()))),
        ("name", Value::String(process.name().to_string_lossy().into_owned())),
        ("unit", Value::String(owner::unit(&place))),
        ("uid", process.user_id().map_or(Value::Null, |user| int((**user).into()))),
        ("age_seconds", int(process.run_time())),
        ("memory_bytes", int(process.memory())),
        ("descriptors", descriptors.map_or(Value::Null, int)),
        ("state", Value::String(state(process.status()).to_owned())),
    ])
}

fn state(status: ProcessStatus) -> &'static str {
    match status {
        ProcessStatus::Run => "running",
        ProcessStatus::Sleep => "sleeping",
        ProcessStatus::UninterruptibleDiskSleep => "disk-sleep",
        ProcessStatus::Stop => "stopped",
        ProcessStatus::Tracing => "traced",
        ProcessStatus::Idle => "idle",
        ProcessStatus::Zombie
        | ProcessStatus::Dead
        | ProcessStatus::Wakekill
        | ProcessStatus::Waking
        | ProcessStatus::Parked
        | ProcessStatus::LockBlocked
        | ProcessStatus::Suspended
        | ProcessStatus::Unknown(_) => "other",
    }
}

fn is_called(process: &Process, name: &str) -> bool {
    let called = process.cmd().first().and_then(|arg| Path::new(arg).file_name());
    process.name() == OsStr::new(name) || called == Some(OsStr::new(name))
}
