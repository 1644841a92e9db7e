//! People stop a run on this host: nothing of it begins any more, and what runs of it is ended.
//!
//! The tombstone comes first, durably. The controller is told when nothing of the run runs: by the segment that is under way, or
//! here if there is none. Then something may run nevertheless, of which a journal that was lost would have told.

use fettle_proto::v1;
use fettle_runbooks::id::RunId;
use fettle_runbooks::segment::Event;

use super::driver::{Driver, RETRY_APPEND};
use super::here::REMEMBER;
use super::record::Record;

impl Driver {
    pub(super) fn cancel(&mut self, run: RunId, reason: String) {
        let known = self.runs.contains_key(&run);
        let until_ms = self.runs.get(&run).map_or_else(|| self.now_ms(), |here| here.not_after_ms);
        let horizon = i64::try_from(REMEMBER.as_millis()).unwrap_or(i64::MAX);
        let until_ms = until_ms.saturating_add(if known { horizon } else { horizon.saturating_mul(8) });
        if let Err(error) = self.hands.tombstone(run) {
            if self.owe_cancel(run, reason) {
                tracing::error!(%run, %error, "The tombstone cannot be written, and the run is not cancelled; trying again.");
            }
            return;
        }
        let here = self.runs.entry(run).or_default();
        let before = std::mem::replace(&mut here.tombstone, true);
        here.not_after_ms = here.not_after_ms.max(until_ms.saturating_sub(horizon));
        let mut records = Vec::new();
        if !before {
            records.push(Record::Tombstone { run, until_ms });
        }
        if let Some(segment) = here.active.as_ref().map(|active| active.segment) {
            self.cancels_owed.remove(&run);
            self.drive(run, segment, Event::CancelAsked { reason }, records);
            return self.give_birth(run);
        }
        self.commit_of(run, records, Vec::new());
        match self.hands.stop_all(run) {
            Ok(true) => {
                self.cancels_owed.remove(&run);
                self.confirm_cancelled(run);
            }
            Ok(false) => drop(self.owe_cancel(run, reason)),
            Err(error) => {
                if self.owe_cancel(run, reason) {
                    tracing::error!(%run, %error, "What may still run of a cancelled run cannot be stopped; trying again.");
                }
            }
        }
    }

    /// The controller has asked, and asks again only when it is connected anew. Whether it is owed since now.
    pub(super) fn owe_cancel(&mut self, run: RunId, reason: String) -> bool {
        self.retry_at.get_or_insert(self.world.monotonic() + RETRY_APPEND);
        self.cancels_owed.insert(run, reason).is_none()
    }

    /// Of a run that a restored controller is still to be told of, that is told first: it would not hear of what was not known.
    fn confirm_cancelled(&mut self, run: RunId) {
        if let Some(telling) = self.telling.as_mut().filter(|telling| telling.owes(run)) {
            telling.is_unheard(run);
            if self.tell_of(run) {
                return self.pump();
            }
        }
        let segments = self.runs.get(&run).map(|here| &here.segments);
        let segment = segments.and_then(|all| all.keys().next_back()).copied().unwrap_or(0);
        let confirmed = v1::report::What::Cancelled(v1::Cancelled { interrupted: String::new() });
        let now_ms = self.now_ms();
        let report = self.report(run, segment, now_ms, confirmed);
        self.commit_of(run, vec![report], Vec::new());
    }
}
