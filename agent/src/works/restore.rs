//! After a restart: what the journal says, and going on from there.
//!
//! | of an attempt that was intended and has no recorded end | then |
//! | --- | --- |
//! | its shim left an exit file | that is its result |
//! | its shim lives | follow it |
//! | no process of it was ever born | it may start now, if it still may |
//! | otherwise | unknown |

use std::collections::BTreeSet;
use std::sync::Arc;

use fettle_proto::signed::{Tag, digest, plan as plan_format};
use fettle_proto::v1;
use fettle_proto::v1::report::What;
use fettle_runbooks::id::RunId;
use fettle_runbooks::segment::{Event, How, Outcome, Undoing, Verification};
use prost::Message as _;

use super::again::{Telling, step_ended};
use super::carry::{Active, acts};
use super::driver::{Driver, kept};
use super::here::{PausedHere, SegmentHere};
use super::orders::{self, OwnPlan};
use super::record::{AttemptKey, Record};
use super::recovery::Found;
use super::shim;

impl Driver {
    /// Takes up what the journal says. Nothing is started, looked at or written.
    pub(super) fn replay(&mut self, records: Vec<Record>) {
        for record in records {
            self.remember(record);
        }
    }

    fn remember(&mut self, record: Record) {
        match &record {
            Record::Report { seq, bytes } => {
                self.remember_report(*seq, bytes);
                return self.spool.remember(*seq, bytes.clone());
            }
            Record::Acked { upto } => return self.spool.remember_acked(*upto),
            Record::Forgotten { after, runs, unheard } => {
                self.telling = Some(Telling::new(*after, runs.clone(), unheard.iter().copied().collect()));
                return;
            }
            Record::Accepted { .. }
            | Record::Planned { .. }
            | Record::Event { .. }
            | Record::Intent { .. }
            | Record::Exited { .. }
            | Record::Tombstone { .. }
            | Record::Paused { .. }
            | Record::Ended { .. } => {}
        }
        let Some(run) = run_of(&record) else { return };
        let here = self.runs.entry(run).or_default();
        if kept(&record) {
            here.records.push(record.clone());
        }
        match record {
            Record::Accepted { segment, digest, content, nonce_consumed, .. } => {
                let order = v1::OrderContent::decode(&content[..]).unwrap_or_default();
                here.segments.insert(segment, SegmentHere::of(digest, &order));
                here.not_after_ms = here.not_after_ms.max(order.not_after_ms);
                if let (Some(nonce), Some(plan)) = (nonce_consumed, &mut here.plan) {
                    plan.consumed.insert(nonce);
                }
            }
            Record::Planned { plan: bytes, .. } => match plan_format::decode(&bytes) {
                Ok(plan) => {
                    here.plan = Some(OwnPlan { bytes, plan: Arc::new(plan), consumed: BTreeSet::new() })
                }
                Err(error) => tracing::error!(%run, %error, "A plan in the journal cannot be read."),
            },
            Record::Event { segment, event, .. } => {
                if let Some(known) = here.segments.get_mut(&segment) {
                    known.ended = Some(event);
                }
            }
            Record::Intent { key, .. } => {
                here.attempts.entry((key.path, key.attempt)).or_default();
            }
            Record::Exited { key, result } => {
                here.attempts.insert((key.path, key.attempt), Some(result));
            }
            Record::Tombstone { until_ms, .. } => {
                here.tombstone = true;
                here.not_after_ms = here.not_after_ms.max(until_ms);
            }
            Record::Paused { on, count, at_ms, .. } => here.pause = Some(PausedHere { on, count, at_ms }),
            Record::Ended { segment, .. } => {
                if let Some(known) = here.segments.get_mut(&segment) {
                    known.is_over = true;
                }
            }
            Record::Report { .. } | Record::Acked { .. } | Record::Forgotten { .. } => {}
        }
    }

    fn remember_report(&mut self, seq: u64, bytes: &[u8]) {
        let Ok(v1::Report { run, what: Some(what), .. }) = v1::Report::decode(bytes) else { return };
        let Ok(run) = run.parse::<RunId>() else { return };
        if let What::ToldAgain(_) = what {
            if let Some(telling) = &mut self.telling {
                telling.told(run, seq);
            }
        } else if let What::StepEnded(step) = what
            && step.path.starts_with("remediate/")
        {
            self.reported.insert((run, step.path, step.attempt));
        }
    }

    /// Goes on with every segment that was accepted and is not over, and looks who started what.
    pub(super) fn resume(&mut self) {
        let runs: Vec<RunId> = self.runs.keys().copied().collect();
        runs.iter().for_each(|run| self.know_who_started(*run));
        for run in runs {
            if let Some(here) = self.runs.get_mut(&run) {
                here.shrink();
            }
            let open = self.runs.get(&run).and_then(|here| {
                here.segments.iter().rev().find(|(_, segment)| !segment.is_over).map(|(number, _)| *number)
            });
            if let Some(segment) = open {
                self.resume_segment(run, segment);
            }
        }
    }

    /// The order that a segment was accepted with, its nonce and the boot it was accepted in.
    fn accepted(&self, run: RunId, wanted: u32) -> Option<(orders::Order, bool, String)> {
        self.runs.get(&run)?.records.iter().find_map(|record| match record {
            Record::Accepted { segment, content, nonce_consumed, boot, .. } if *segment == wanted => {
                let order = orders::read(content, digest(Tag::Order, content)).ok()?;
                Some((order, nonce_consumed.is_some(), boot.clone()))
            }
            Record::Accepted { .. }
            | Record::Planned { .. }
            | Record::Event { .. }
            | Record::Intent { .. }
            | Record::Exited { .. }
            | Record::Tombstone { .. }
            | Record::Paused { .. }
            | Record::Report { .. }
            | Record::Acked { .. }
            | Record::Forgotten { .. }
            | Record::Ended { .. } => None,
        })
    }

    /// Its first order said so, and was believed.
    fn know_who_started(&mut self, run: RunId) {
        let Some(here) = self.runs.get_mut(&run) else { return };
        let first = here.records.iter().find_map(|record| {
            if let Record::Accepted { content, .. } = record { Some(content) } else { None }
        });
        let Some(content) = first else { return };
        here.started = match orders::started_before(content) {
            Ok(started) => Some(started),
            Err(refusal) => {
                tracing::error!(%run, code = %refusal.code, message = %refusal.message, "Who started the run cannot be told any more.");
                None
            }
        };
    }

    fn resume_segment(&mut self, run: RunId, segment: u32) {
        let Some((order, granted, boot)) = self.accepted(run, segment) else {
            return self.give_up(run, segment, "its order is not in the journal any more".to_owned());
        };
        let found = self.look(run);
        let policy = self.hands.policy();
        let own = self.own(run, &policy);
        let judged = match orders::again(&order, &own, granted) {
            Ok(judged) => judged,
            Err(refusal) => return self.give_up(run, segment, refusal.to_string()),
        };
        let followed = match &judged.work {
            orders::Work::Diagnose => self.follow(run, &judged),
            orders::Work::Remediate { .. } | orders::Work::Verify { .. } => Ok(None),
        };
        let mut followed = match followed {
            Ok(followed) => followed,
            Err(refusal) => return self.give_up(run, segment, refusal.to_string()),
        };
        let known = followed.as_mut().and_then(|it| it.known.take());
        let again = match &judged.work {
            orders::Work::Remediate { from, again: Some(attempt), .. } => Some((from.clone(), *attempt)),
            orders::Work::Remediate { again: None, .. }
            | orders::Work::Diagnose
            | orders::Work::Verify { .. } => None,
        };
        let program = match judged.program(self.past(run), known) {
            Ok(program) => program,
            Err(refusal) => return self.give_up(run, segment, refusal.to_string()),
        };
        tracing::info!(%run, segment, "Going on with a segment after a restart.");
        let begin_by = orders::begin_by(&order);
        let active = Active::new(segment, program, judged.runbook, judged.inputs, boot, begin_by)
            .granted(granted)
            .certified(judged.certified)
            .follows(followed.map(|it| it.of));
        let Some(here) = self.runs.get_mut(&run) else { return };
        here.active = Some(active);
        let tombstone = here.tombstone;
        let mut exited = Vec::new();
        for (key, found) in &found {
            match found {
                Found::Exit(ended) => {
                    exited.push(Record::Exited { key: key.clone(), result: (**ended).clone() })
                }
                // It was told that it began, and it will never begin.
                Found::NotStarted if tombstone => {
                    let why = "the run was cancelled before it started".to_owned();
                    let ended = step_ended(key, &shim::not_started("cancelled", why));
                    let at_ms = self.now_ms();
                    exited.push(self.report(run, segment, at_ms, What::StepEnded(ended)));
                }
                Found::Running | Found::NotStarted | Found::Unknown(_) => {}
            }
        }
        if tombstone {
            // Nothing of it begins; what runs is stopped as soon as it is followed again.
            let reason = "the run was cancelled".to_owned();
            self.drive(run, segment, Event::CancelAsked { reason }, exited);
        } else {
            self.begin(run, segment, exited);
        }
        // What became of an attempt that people let be followed by another one is asked of nobody any more.
        let follows = |key: &AttemptKey| {
            again.as_ref().is_some_and(|(path, last)| key.path == *path && key.attempt <= *last)
        };
        for (key, found) in found.into_iter().filter(|(key, _)| tombstone || !follows(key)) {
            self.take_up(key.clone(), segment, found);
            if tombstone {
                self.kill(key, segment);
            }
        }
    }

    /// What became of the attempts that have no recorded end. Their results are taken in; those that were never born are
    /// forgotten, so that they start anew.
    fn look(&mut self, run: RunId) -> Vec<(AttemptKey, Found)> {
        let Some(here) = self.runs.get(&run) else { return Vec::new() };
        let open: Vec<AttemptKey> = here
            .attempts
            .iter()
            .filter(|(_, ended)| ended.is_none())
            .map(|((path, attempt), _)| AttemptKey { run, path: path.clone(), attempt: *attempt })
            .filter(acts)
            .collect();
        let mut found = Vec::new();
        for key in open {
            let what = self.hands.look(&key).unwrap_or_else(|error| {
                Found::Unknown(super::recovery::Unknown {
                    reason: format!("what it left cannot be read: {error}"),
                    dead: super::recovery::Dead::NotKnown,
                })
            });
            if let Some(here) = self.runs.get_mut(&run) {
                let place = (key.path.clone(), key.attempt);
                match &what {
                    Found::Exit(ended) => drop(here.attempts.insert(place, Some((**ended).clone()))),
                    Found::NotStarted => drop(here.attempts.remove(&place)),
                    Found::Running | Found::Unknown(_) => {}
                }
            }
            found.push((key, what));
        }
        found
    }

    /// An attempt whose end nobody saw: it may have changed something, and may still.
    fn under_way(&mut self, run: RunId) -> Option<AttemptKey> {
        let found = self.look(run);
        let here = self.runs.get(&run)?;
        found.into_iter().map(|(key, _)| key).find(|key| here.unknown_attempt(&key.path) == Some(key.attempt))
    }

    fn take_up(&mut self, key: AttemptKey, segment: u32, found: Found) {
        match found {
            Found::Exit(_) | Found::NotStarted => {}
            Found::Running => match self.hands.reattach(&key, self.observer(&key)) {
                Ok(running) => drop(self.running.insert(key, (segment, running))),
                Err(error) => {
                    let reason = format!("it runs, but cannot be followed: {error}");
                    self.was_unknown(&key, segment, reason, super::recovery::Dead::NotKnown);
                }
            },
            Found::Unknown(unknown) => self.was_unknown(&key, segment, unknown.reason, unknown.dead),
        }
    }

    /// A segment that cannot be gone on with is ended and reported. Whether an attempt that was under way had its effect, nobody
    /// will see any more: then a person must look.
    fn give_up(&mut self, run: RunId, segment: u32, reason: String) {
        tracing::error!(%run, segment, reason, "A segment cannot be gone on with.");
        let effects = self.runs.get(&run).is_some_and(|here| !here.attempts.is_empty());
        let how = match self.under_way(run) {
            Some(AttemptKey { path, attempt, .. }) => {
                How::Unknown { path, attempt, reason: format!("it was under way, and {reason}") }
            }
            None => How::Stopped { reason },
        };
        let outcome = Outcome { how, verification: Verification::NotRun, effects, undoing: Undoing::None };
        let at_ms = self.now_ms();
        let records = self.ends(run, segment, at_ms, &outcome).to_vec();
        self.commit_of(run, records, Vec::new());
    }
}

fn run_of(record: &Record) -> Option<RunId> {
    match record {
        Record::Accepted { run, .. }
        | Record::Planned { run, .. }
        | Record::Event { run, .. }
        | Record::Tombstone { run, .. }
        | Record::Paused { run, .. }
        | Record::Ended { run, .. } => Some(*run),
        Record::Intent { key, .. } | Record::Exited { key, .. } => Some(key.run),
        Record::Report { .. } | Record::Acked { .. } | Record::Forgotten { .. } => None,
    }
}
