//! `memory`, `cpu` and `load`.

use fettle_runbooks::value::Value;
use sysinfo::{MINIMUM_CPU_UPDATE_INTERVAL, System};

use super::{Reading, int, percent, record};

pub(super) fn memory() -> Reading {
    let mut system = System::new().map_err(|error| error.to_string())?;
    system.refresh_memory();
    let (total, available) = (system.total_memory(), system.available_memory());
    if total == 0 {
        return Err("the kernel does not say how much memory there is".into());
    }
    // Without swap, none of it is used: a condition over it holds or not, and is no error.
    let swap = percent(system.used_swap(), system.total_swap().max(1));
    Ok(record([
        ("total_bytes", int(total)),
        ("available_bytes", int(available)),
        ("used_percent", percent(total.saturating_sub(available), total)),
        ("swap_used_percent", swap),
    ]))
}

/// Over the quarter of a second from now on: the first reading there is counts from boot, and says nothing.
pub(super) fn cpu() -> Reading {
    let mut system = System::new().map_err(|error| error.to_string())?;
    system.refresh_cpu_usage();
    std::thread::sleep(MINIMUM_CPU_UPDATE_INTERVAL.mul_f32(1.25));
    system.refresh_cpu_usage();
    let cores = system.cpus().len() as u64;
    if cores == 0 {
        return Err("the kernel names no processor".into());
    }
    let used = f64::from(system.global_cpu_usage());
    Ok(record([("used_percent", Value::Number(used)), ("cores", int(cores))]))
}

pub(super) fn load() -> Reading {
    let load = System::load_average().map_err(|error| error.to_string())?;
    Ok(record([
        ("one", Value::Number(load.one)),
        ("five", Value::Number(load.five)),
        ("fifteen", Value::Number(load.fifteen)),
    ]))
}
