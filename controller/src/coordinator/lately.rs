//! Which runs ended lately: whether what the store said of a run still holds when it is used.
//!
//! The coordinator remembers only runs that have not ended. Of the others whoever brings a host's story asks the store first,
//! and the coordinator hears of it later. A run that ended in between it no longer remembers, and the store did not yet call it
//! over: taken for a stranger, it would be created anew. So the story says how far history had come when the store was asked.

use std::collections::{BTreeMap, VecDeque};

use fettle_runbooks::id::RunId;

use crate::store::RunParts;
use crate::world::At;

/// So many are remembered, some 100 KiB: far more than end while one story waits for its turn.
const MOST: usize = 4096;

/// What the store says of runs that a host tells of again.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// The number of an event that was durable before the store was asked.
    pub(super) upto: u64,
    /// Those that are over, but for the part of this host.
    pub(super) over: BTreeMap<RunId, Over>,
}

/// A run that is over, and of which a host has more to tell.
#[derive(Debug)]
pub(crate) struct Over {
    /// What is known of it.
    pub(super) parts: RunParts,
    /// The host had told its part; it has gone on since, or the store has lost that.
    pub(super) told: bool,
    /// When its part ended.
    pub(super) ended_at: Option<At>,
}

/// The runs that ended lately, oldest first.
#[derive(Debug, Default)]
pub(super) struct Lately {
    /// The number of an event: of runs that ended up to there nothing is said.
    from: u64,
    ended: VecDeque<(u64, RunId)>,
}

impl Lately {
    /// Remembers those that end from now on, after this event.
    pub(super) fn after(event: u64) -> Lately {
        Lately { from: event, ended: VecDeque::new() }
    }

    /// A run ended with this event.
    pub(super) fn put(&mut self, event: u64, run: RunId) {
        self.ended.push_back((event, run));
        if self.ended.len() > MOST
            && let Some((event, _)) = self.ended.pop_front()
        {
            self.from = event;
        }
    }

    /// Whether a run may have ended after this event.
    pub(super) fn may_have_ended(&self, run: RunId, after: u64) -> bool {
        let since = self.ended.iter().rev().take_while(|(event, _)| *event > after);
        after < self.from || since.map(|(_, ended)| *ended).any(|ended| ended == run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u64) -> RunId {
        RunId::new(uuid::Uuid::from_u128(number.into()))
    }

    #[test]
    fn a_run_may_have_ended_after_an_event_if_it_did_or_if_that_is_too_long_ago_to_tell() {
        let mut lately = Lately::after(10);
        lately.put(11, run(11));
        let may = |lately: &Lately, number, after| lately.may_have_ended(run(number), after);
        assert!(may(&lately, 11, 10));
        assert!(!may(&lately, 11, 11) && !may(&lately, 12, 10));
        assert!(may(&lately, 12, 9), "nothing is known of so long ago");
        for number in 12..12 + MOST as u64 {
            lately.put(number, run(number));
        }
        assert!(may(&lately, 1, 10) && !may(&lately, 1, 11));
        assert!(may(&lately, 12, 11) && !may(&lately, 12, 12));
    }
}
