//! When to connect again: at a random moment of a window that doubles (full jitter), so that ten thousand agents whose
//! controller restarted do not come back in step.

use std::time::Duration;

/// How long to wait before the next try. Endless; whoever sleeps draws the moment in the window.
#[derive(Clone, Debug)]
pub struct Backoff {
    window: Duration,
}

/// The first window.
pub const FIRST: Duration = Duration::from_millis(500);
/// The longest window.
pub const LONGEST: Duration = Duration::from_secs(30);

impl Default for Backoff {
    fn default() -> Self {
        Backoff { window: FIRST }
    }
}

impl Backoff {
    /// The next delay. `chance` is uniform in `0.0..1.0`.
    pub fn next(&mut self, chance: f64) -> Duration {
        let delay = self.window.mul_f64(chance.clamp(0.0, 1.0));
        self.window = (self.window * 2).min(LONGEST);
        delay
    }

    /// After a connection that worked, the next failure is a new story.
    pub fn worked(&mut self) {
        *self = Backoff::default();
    }
}

/// A uniform number in `0.0..1.0` from the operating system.
pub fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness the middle is as good as any.
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_double_up_to_a_limit_and_start_anew_after_success() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..8).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(delays, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        backoff.worked();
        assert_eq!(backoff.next(0.0), Duration::ZERO);
        assert_eq!(backoff.next(0.5), Duration::from_millis(500));
    }

    #[test]
    fn chance_is_a_fraction() {
        for _ in 0..100 {
            assert!((0.0..1.0).contains(&chance()));
        }
    }
}
