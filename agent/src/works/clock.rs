//! The host's clocks, and which boot they belong to.
//!
//! A grant expires by two clocks: the wall's, which people read and somebody may set back, and the boot clock, which
//! goes on during suspend and which nobody can set. The boot clock means nothing in another boot, so the boot has a
//! name too.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// The kernel's name for this boot; another one after every reboot.
///
/// # Errors
/// When `/proc` is not there, or not the kernel's.
pub fn boot_id() -> std::io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

/// Time since boot, suspend included.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The wall clock, milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "this is the clock that others are handed")]
pub fn wall_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_boot_has_one_name_and_a_clock_that_goes_on() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        let before = since_boot();
        assert!(since_boot() >= before);
        assert!(wall_ms() > 0);
    }
}
