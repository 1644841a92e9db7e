//! Signals that are over, as far as deduplication needs them: which they were, and nothing of what they said.

use std::collections::{HashMap, VecDeque};

use fettle_runbooks::id::{RunId, SignalId};
use sha2::{Digest as _, Sha256};

use super::MEMORY;
use crate::signal::Key;
use crate::world::At;

/// The most that are remembered, some 20 MiB; the oldest go first.
const MOST: usize = 100_000;

/// A signal that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// Which.
    pub signal: SignalId,
    /// The run it started.
    pub run: Option<RunId>,
    /// Since when it is over here.
    pub at: At,
    /// When it ended, by its source's clock where that says so.
    pub ended: At,
}

/// What is kept of a key: enough of its hash that no two will ever be the same.
type Short = [u8; 16];

fn short(key: &Key) -> Short {
    shortened(&[key.source.as_bytes(), key.fingerprint.as_bytes(), &key.starts_at.0.to_be_bytes()])
}

/// The same of an alert, whatever its start.
fn short_alert(source: &str, fingerprint: &str) -> Short {
    shortened(&[source.as_bytes(), fingerprint.as_bytes()])
}

fn shortened(parts: &[&[u8]]) -> Short {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    let mut short = Short::default();
    for (to, from) in short.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    short
}

/// Signals that are over, bounded in number and in age.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settled {
    by_key: HashMap<Short, Over>,
    /// The one of each alert that was over last.
    by_alert: HashMap<Short, Over>,
    by_age: VecDeque<(At, Short, Short)>,
}

impl Settled {
    /// Remembers one, and forgets what is too old or too much.
    pub fn put(&mut self, key: &Key, over: Over) {
        let (key, alert) = (short(key), short_alert(&key.source, &key.fingerprint));
        self.by_key.insert(key, over);
        self.by_alert.insert(alert, over);
        self.by_age.push_back((over.at, key, alert));
        let oldest = over.at.minus(MEMORY);
        while self.by_age.len() > MOST || self.by_age.front().is_some_and(|(at, ..)| *at < oldest) {
            let Some((at, key, alert)) = self.by_age.pop_front() else { break };
            // Unless it was over a second time since.
            for (known, key) in [(&mut self.by_key, key), (&mut self.by_alert, alert)] {
                if known.get(&key).is_some_and(|over| over.at <= at) {
                    known.remove(&key);
                }
            }
        }
    }

    /// The one with this key.
    pub fn get(&self, key: &Key) -> Option<Over> {
        self.by_key.get(&short(key)).copied()
    }

    /// The last one of this alert, whatever its start.
    pub fn of_alert(&self, source: &str, fingerprint: &str) -> Option<Over> {
        self.by_alert.get(&short_alert(source, fingerprint)).copied()
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key { source: "prod".into(), fingerprint: number.to_string(), starts_at: At(1) }
    }

    fn over(at: i64) -> Over {
        Over { signal: SignalId::new(uuid::Uuid::nil()), run: None, at: At(at), ended: At(at) }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_too_much_time_has_passed() {
        let mut settled = Settled::default();
        for number in 0..MOST + 10 {
            settled.put(&key(number), over(0));
        }
        assert_eq!(settled.len(), MOST);
        assert_eq!((settled.get(&key(9)), settled.get(&key(10))), (None, Some(over(0))));
        assert_eq!((settled.of_alert("prod", "9"), settled.of_alert("prod", "10")), (None, Some(over(0))));
        let later = i64::try_from(MEMORY.as_millis()).unwrap() + 1;
        settled.put(&key(MOST), over(later));
        assert_eq!((settled.len(), settled.get(&key(MOST))), (1, Some(over(later))));
    }
}
