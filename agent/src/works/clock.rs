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
    if let Some((name, _)) = pretended() {
        return Ok(name);
    }
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

/// Time since boot, suspend included.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let since =
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0));
    since.saturating_sub(pretended().map_or(Duration::ZERO, |(_, began)| began))
}

/// `NAME@MILLISECONDS`: a test says that the host was rebooted, and when by the kernel's boot clock. A test that cuts the
/// power would lie without it. Builds without crash points do not look at it.
pub(crate) const BOOT: &str = "FETTLE_BOOT";

/// The boot that a test says this is, and when it began.
fn pretended() -> Option<(String, Duration)> {
    if !fettle_crash::POSSIBLE {
        return None;
    }
    let told = std::env::var(BOOT).ok()?;
    let (name, began) = told.split_once('@')?;
    Some((name.to_owned(), Duration::from_millis(began.parse().ok()?)))
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
