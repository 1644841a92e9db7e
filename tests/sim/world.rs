//! Time and randomness as a simulated controller sees them.

use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fettle_controller::world::{At, World};
use uuid::Uuid;

use crate::chance::Chance;
use crate::host::EPOCH_MS;
use crate::trace;

/// A wall clock that can be set. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Wall(Arc<AtomicI64>);

impl Wall {
    /// What it shows, milliseconds since the Unix epoch.
    pub(crate) fn ms(&self) -> i64 {
        let virtual_ms = i64::try_from(trace::now().as_millis()).unwrap_or(i64::MAX);
        EPOCH_MS + virtual_ms + self.0.load(Ordering::SeqCst)
    }

    /// Somebody sets it, so much ahead or back.
    pub(crate) fn jump(&self, by_ms: i64) {
        self.0.fetch_add(by_ms, Ordering::SeqCst);
    }
}

/// One controller's life in simulated time.
pub(crate) struct Simulated {
    wall: Wall,
    ids: Mutex<(Chance, u64, u16)>,
}

impl Simulated {
    /// With the machine's clock, and a chance of its own for each life.
    pub(crate) fn new(wall: Wall, chance: Chance) -> Simulated {
        Simulated { wall, ids: Mutex::new((chance, 0, 0)) }
    }
}

impl World for Simulated {
    fn now(&self) -> At {
        At(self.wall.ms())
    }

    fn sleep_until(&self, at: At) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(at.since(self.now()).min(Duration::from_secs(60))))
    }

    fn uuid(&self) -> Uuid {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let (chance, last, count) = &mut *ids;
        // As the real one: never smaller than the one before.
        let ms = u64::try_from(self.wall.ms()).unwrap_or(0).max(*last);
        *count = if ms == *last { *count + 1 } else { 0 };
        *last = ms;
        let mut random = [0; 10];
        random[..8].copy_from_slice(&chance.word().to_be_bytes());
        random[..2].copy_from_slice(&count.to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid()
    }

    fn secret(&self) -> [u8; 32] {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = [0; 32];
        bytes.iter_mut().for_each(|byte| *byte = ids.0.word().to_le_bytes()[0]);
        bytes
    }

    fn aside(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        work();
        Box::pin(std::future::ready(()))
    }
}
