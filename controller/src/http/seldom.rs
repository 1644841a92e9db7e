//! Lines that a stranger can cause: so many are said, and the rest is counted.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lines in each span of time.
const MOST: u32 = 20;
/// The span.
const WITHIN: Duration = Duration::from_secs(10);

/// Whether one more line is said.
#[derive(Default)]
pub(super) struct Seldom(Mutex<Option<Span>>);

struct Span {
    since: Instant,
    said: u32,
    unsaid: u64,
}

impl Seldom {
    /// None: this line is not said. Otherwise how many were not since the last one that was.
    pub(super) fn may_say(&self) -> Option<u64> {
        let now = Instant::now();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let span = kept.get_or_insert(Span { since: now, said: 0, unsaid: 0 });
        if now.duration_since(span.since) >= WITHIN {
            (span.since, span.said) = (now, 0);
        }
        if span.said == MOST {
            span.unsaid += 1;
            return None;
        }
        span.said += 1;
        Some(std::mem::take(&mut span.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_some_lines_and_a_number() {
        let seldom = Seldom::default();
        let said = (0..1000).filter(|_| seldom.may_say() == Some(0)).count();
        assert_eq!(said, MOST as usize);
        if let Some(span) = seldom.0.lock().unwrap().as_mut() {
            span.since -= WITHIN;
        }
        assert_eq!(seldom.may_say(), Some(980));
        assert_eq!(seldom.may_say(), Some(0));
    }
}
