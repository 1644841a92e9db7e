//! Whom the kernel ends first when memory runs out.
//!
//! Agent and shims are small and know what became of a step; they go last. A step that only reads may simply run again, and
//! goes first. One that acts is as any other process of the host: it may leave a service behind, for which neither would do.

use std::fs;

/// The kernel's scale goes from -1000, never, to 1000, first of all.
const LAST: &str = "-500";
const FIRST: &str = "500";
const ANYBODY: &str = "0";
const OWN: &str = "/proc/self/oom_score_adj";

/// Has this process, and shims that it starts, ended last. Only root may.
pub(crate) fn go_last() {
    let _ = fs::write(OWN, LAST);
}

/// Has this process, and what it becomes, ended first. Everybody may.
pub(super) fn go_first() {
    let _ = fs::write(OWN, FIRST);
}

/// Starts something that is as any other process. Only for a process of one thread.
pub(super) fn as_anybody<T>(start: impl FnOnce() -> T) -> T {
    let before = fs::read_to_string(OWN).unwrap_or_default();
    let _ = fs::write(OWN, ANYBODY);
    let started = start();
    let _ = fs::write(OWN, before.trim());
    started
}

/// How many processes of this host the kernel has ended for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kills(Option<u64>);

impl Kills {
    /// Until now.
    pub(super) fn count() -> Kills {
        let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Kills(count.and_then(|count| count.trim().parse().ok()))
    }

    /// What to tell people of a step that began after this count and was ended so; empty if memory is not the reason.
    pub(super) fn hint(self, exit_code: Option<i32>, signal: Option<i32>) -> String {
        // A shell says 137 of a program that was killed.
        if signal != Some(9) && exit_code != Some(137) {
            return String::new();
        }
        match (self.0, Kills::count().0) {
            (Some(before), Some(now)) if now > before => {
                "the kernel ended a process for want of memory while this step ran: probably one of this step"
                    .to_owned()
            }
            (Some(_) | None, _) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_named_only_where_the_kernel_counted_and_the_step_was_killed() {
        let before = Kills::count();
        assert!(before.0.is_some());
        assert_eq!(Kills(Some(u64::MAX)).hint(None, Some(9)), "");
        let earlier = before.0.unwrap().checked_sub(1).map(|count| Kills(Some(count)));
        if let Some(earlier) = earlier {
            assert!(earlier.hint(None, Some(9)).contains("memory"));
            assert!(earlier.hint(Some(137), None).contains("memory"));
            assert_eq!(earlier.hint(Some(1), None), "");
        }
    }
}
