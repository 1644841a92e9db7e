//! People pause a run on this host, and let it go on.
//!
//! A pause is journaled before it is confirmed, and so outlives the agent. What acts and has been started, or is about to be
//! because its intent is written down, goes on; nothing else that acts begins.

use std::time::Duration;

use fettle_proto::v1;
use fettle_runbooks::id::RunId;
use fettle_runbooks::segment::Event;

use super::driver::{Driver, MOST_OWED};
use super::here::PausedHere;
use super::record::{AttemptKey, Record};

/// No timer waits longer.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

impl Driver {
    /// The controller says whether a run is paused. What it said last counts.
    pub(super) fn pause(&mut self, run: RunId, on: bool, count: u32) {
        // Each is answered, and every answer kept until it is acknowledged.
        if self.spool.owed() > MOST_OWED {
            if self.pauses_owed.len() < MOST_OWED || self.pauses_owed.contains_key(&run) {
                self.pauses_owed.insert(run, (on, count));
            }
            tracing::warn!(%run, on, "A pause is not looked at until the controller acknowledges more.");
            return;
        }
        self.pauses_owed.remove(&run);
        let at_ms = self.now_ms();
        let here = self.runs.entry(run).or_default();
        here.not_after_ms = here.not_after_ms.max(at_ms);
        let new = here.pause.is_none_or(|known| (known.on, known.count) != (on, count));
        let turned = here.is_paused() != on;
        let segment = here.segments.keys().next_back().copied().unwrap_or(0);
        let active = here.active.as_mut().map(|active| active.segment);
        if new {
            here.pause = Some(PausedHere { on, count, at_ms });
            here.records.retain(|record| !matches!(record, Record::Paused { .. }));
            tracing::info!(%run, on, "The run is paused, or goes on.");
        }
        if turned
            && !on
            && let Some(active) = &mut here.active
        {
            active.resumed(Some(at_ms));
        }
        let told = v1::report::What::Paused(v1::Paused { on, count });
        let report = self.report(run, segment, at_ms, told);
        let mut records: Vec<Record> =
            new.then_some(Record::Paused { run, on, count, at_ms }).into_iter().collect();
        records.push(report);
        match active.filter(|_| turned) {
            Some(segment) => {
                let event = if on { Event::PauseAsked } else { Event::ResumeAsked };
                self.drive(run, segment, event, records);
            }
            None => self.commit_of(run, records, Vec::new()),
        }
        if turned && !on {
            self.give_birth(run);
        }
    }

    /// What was not looked at because too much was owed, and that the controller says again only when it is connected anew.
    pub(super) fn look_at_pauses(&mut self) {
        while self.spool.owed() <= MOST_OWED
            && let Some((run, (on, count))) = self.pauses_owed.pop_first()
        {
            self.pause(run, on, count);
        }
    }

    /// A segment begins, knowing whether its run is paused.
    pub(super) fn begin(&mut self, run: RunId, segment: u32, records: Vec<Record>) {
        let Some(here) = self.runs.get_mut(&run) else { return };
        let (paused, resumed_at_ms) = (here.is_paused(), here.resumed_at_ms());
        if let Some(active) = &mut here.active {
            active.resumed(resumed_at_ms);
        }
        if paused {
            self.drive(run, segment, Event::PauseAsked, Vec::new());
        }
        self.drive(run, segment, Event::Begin, records);
    }

    /// An attempt waits for the end of a pause; if people agreed to it, not longer than they said.
    pub(super) fn hold(&mut self, key: &AttemptKey, segment: u32, timer: u32) {
        let Some(here) = self.runs.get(&key.run) else { return };
        let (Some(active), Some(plan)) = (&here.active, &here.plan) else { return };
        if !active.is_granted() {
            return;
        }
        let left = active.latest_start_ms(key, &plan.plan).saturating_sub(self.now_ms());
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(LONGEST);
        self.timer_number += 1;
        self.timers.insert((self.world.monotonic() + left, self.timer_number), (key.run, segment, timer));
    }

    /// Starts what its supervisor did not get to start before a pause; where the run was cancelled, that says so.
    pub(super) fn give_birth(&mut self, run: RunId) {
        let (ours, others) =
            std::mem::take(&mut self.unborn).into_iter().partition(|one| one.spec.key.run == run);
        self.unborn = others;
        let ours: Vec<_> = ours;
        for launch in ours {
            self.start_process(launch);
        }
    }
}
