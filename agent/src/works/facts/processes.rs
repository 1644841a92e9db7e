//! `processes("nginx")`: the living processes of a name, which is what the kernel calls them or how they were called.

use std::ffi::OsStr;
use std::path::Path;

use fettle_runbooks::value::Value;
use sysinfo::{Process, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

use super::{Reading, int, record};

pub(super) fn read(name: &str) -> Reading {
    let mut system = System::new().map_err(|error| error.to_string())?;
    let what = ProcessRefreshKind::nothing().with_memory().with_cmd(UpdateKind::Always).without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
    if system.processes().is_empty() {
        return Err("the kernel shows no processes".into());
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
    ]))
}

fn is_called(process: &Process, name: &str) -> bool {
    let called = process.cmd().first().and_then(|arg| Path::new(arg).file_name());
    process.name() == OsStr::new(name) || called == Some(OsStr::new(name))
}
