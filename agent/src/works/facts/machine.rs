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
    let pressure = std::fs::read_to_string("/proc/pressure/memory").unwrap_or_default();
    Ok(record([
        ("total_bytes", int(total)),
        ("available_bytes", int(available)),
        ("used_percent", percent(total.saturating_sub(available), total)),
        ("swap_total_bytes", int(system.total_swap())),
        ("swap_used_percent", swap),
        ("pressure_some_percent", stalled(&pressure, "some")),
        ("pressure_full_percent", stalled(&pressure, "full")),
    ]))
}

/// The part of the last minute in which some, or all, of what wanted to run waited for memory; null where the kernel keeps
/// no account of it.
fn stalled(pressure: &str, who: &str) -> Value {
    let line = pressure.lines().find_map(|line| line.strip_prefix(who)?.strip_prefix(' '));
    let minute = line.and_then(|line| line.split(' ').find_map(|field| field.strip_prefix("avg60=")));
    minute.and_then(|text| text.parse().ok()).map_or(Value::Null, Value::Number)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_that_of_the_last_minute_and_null_where_the_kernel_tells_none() {
        let text = "some avg10=9.55 avg60=2.77 avg300=0.62 total=86\nfull avg10=6.59 avg60=1.91 avg300=0.43 total=23\n";
        assert_eq!(stalled(text, "some"), Value::Number(2.77));
        assert_eq!(stalled(text, "full"), Value::Number(1.91));
        assert_eq!(stalled("", "some"), Value::Null);
        assert_eq!(stalled("some total=1\n", "some"), Value::Null);
    }
}
