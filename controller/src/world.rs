//! The outside that decisions need: time and randomness, handed in so that a test can hold both still.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A moment: milliseconds since the Unix epoch, by the controller's wall clock unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct At(pub i64);

impl At {
    /// The moment `by` later; the end of time if that is past it.
    #[must_use]
    pub fn plus(self, by: Duration) -> At {
        At(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The moment `by` earlier.
    #[must_use]
    pub fn minus(self, by: Duration) -> At {
        At(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: At) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(moment) => write!(f, "{moment}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// Time and randomness.
pub trait World: Send + Sync + 'static {
    /// What the wall clock shows.
    fn now(&self) -> At;
    /// Returns once the wall clock shows `at` or later; may return early.
    fn sleep_until(&self, at: At) -> Pin<Box<dyn Future<Output = ()> + Send>>;
    /// A fresh id, version 7, so that ids sort by time.
    fn uuid(&self) -> Uuid;
    /// 32 bytes nobody can guess.
    fn secret(&self) -> [u8; 32];
    /// Does something that blocks, where that holds nobody up. A simulation, in which nothing takes time by itself, does it
    /// at once.
    fn aside(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let working = tokio::task::spawn_blocking(work);
        // Work that panics has not done what it was to do, which its owner sees.
        Box::pin(async { drop(working.await) })
    }
}

/// The outcome of work that blocks, done [aside](World::aside); nothing if it panicked.
pub(crate) fn aside<T: Send + 'static, W: FnOnce() -> T + Send + 'static>(
    world: &dyn World,
    work: W,
) -> impl Future<Output = Option<T>> + Send + use<T, W> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let working = world.aside(Box::new(move || drop(tell.send(work()))));
    async {
        working.await;
        told.await.ok()
    }
}

/// The operating system's clock and randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl World for System {
    #[expect(clippy::disallowed_methods, reason = "this is where the controller reads the time")]
    fn now(&self) -> At {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        At(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn sleep_until(&self, at: At) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        // A long sleep is cut, so that a clock that was set is noticed.
        let left = at.since(self.now()).min(Duration::from_secs(60));
        Box::pin(tokio::time::sleep(left))
    }

    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }

    fn secret(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
        bytes
    }
}
