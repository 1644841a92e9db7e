//! A step whose outcome is unknown, and the attempt that people let follow it: which attempts are that one, and whether one was born.

use super::{ExitBy, Program};

impl Program {
    /// Lets the step at this path run again, though nobody knows what became of this attempt: the next one follows it.
    #[must_use]
    pub fn again(self, path: String, attempt: u32) -> Program {
        Program { again: Some((path, attempt)), ..self }
    }

    /// The number of a step's first attempt here. One that was never born when its step was to run again is not tried anew.
    pub(super) fn first_attempt(&self, path: &str) -> u32 {
        let unborn = |attempt: &u32| {
            let known = self.past.get(path).and_then(|attempts| attempts.get(attempt)?.as_ref());
            known.is_some_and(|exit| matches!(exit.by, ExitBy::NotStarted(_)))
        };
        match &self.again {
            Some((again, unknown)) if again == path => {
                let next = unknown.saturating_add(1);
                (next..=u32::MAX).find(|attempt| !unborn(attempt)).unwrap_or(next)
            }
            Some(_) | None => 1,
        }
    }

    /// The attempt whose outcome is unknown, if an attempt of this step is one that people let follow it.
    pub(super) fn follows(&self, path: &str, attempt: u32) -> Option<u32> {
        let (again, unknown) = self.again.as_ref()?;
        (again == path && attempt > *unknown).then_some(*unknown)
    }

    /// An attempt that people let follow the unknown one was born before.
    pub(super) fn ran_again(&self) -> bool {
        let Some((path, unknown)) = &self.again else { return false };
        let attempts = self.past.get(path).into_iter().flatten();
        let mut later = attempts.filter(|(attempt, _)| *attempt > unknown).peekable();
        while let Some((_, exit)) = later.next() {
            match exit {
                Some(exit) if matches!(exit.by, ExitBy::NotStarted(_)) => {}
                Some(_) => return true,
                // Whether it was the last, and still runs, shows later.
                None if later.peek().is_some() => return true,
                None => {}
            }
        }
        false
    }
}
