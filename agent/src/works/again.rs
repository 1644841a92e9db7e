//! What a controller is told that was restored from a backup: everything this host still knows, run by run.
//!
//! The journal keeps a run for a day after its last order was good. Of its steps it has those that may have changed
//! something; what the others wrote went out with their reports, and is not told again.

use std::collections::BTreeMap;

use fettle_proto::v1;
use fettle_proto::v1::report::What;
use fettle_runbooks::id::RunId;
use prost::Message as _;

use super::attempt::{Ended, Outcome};
use super::carry::acts;
use super::driver::Driver;
use super::here::RunHere;
use super::output::Kept;
use super::record::{AttemptKey, Record};

/// A run whose telling is longer is told without what its steps wrote; well below what one message may hold.
const LONGEST: usize = 2 * 1024 * 1024;

impl Driver {
    /// The controller has forgotten what it acknowledged: tells it of every run again.
    pub(super) fn tell_again(&mut self) {
        let now_ms = self.now_ms();
        let told: Vec<(RunId, u32, v1::ToldAgain)> = self
            .runs
            .iter()
            .filter_map(|(run, here)| story(*run, here, now_ms).map(|(segment, told)| (*run, segment, told)))
            .collect();
        tracing::warn!(
            runs = told.len(),
            "The controller has forgotten what it acknowledged; telling it again."
        );
        let records = told
            .into_iter()
            .map(|(run, segment, told)| self.report(run, segment, now_ms, What::ToldAgain(told)));
        let records = records.collect();
        self.commit(records, Vec::new());
    }
}

/// What is known of a run, with the number of its newest segment. Nothing of one that was never accepted here.
fn story(run: RunId, here: &RunHere, now_ms: i64) -> Option<(u32, v1::ToldAgain)> {
    let ends: BTreeMap<u32, v1::Report> = here
        .segments
        .iter()
        .filter_map(|(number, segment)| Some((*number, v1::Report::decode(segment.ended.as_deref()?).ok()?)))
        .collect();
    let mut told = v1::ToldAgain::default();
    let (mut newest, mut acted) = (0, None);
    let mut segments = BTreeMap::new();
    for record in &here.records {
        // The journal has no times but those of reports.
        let say = |segment: u32, what| {
            let at_ms = ends.get(&segment).map_or(now_ms, |end| end.at_ms);
            v1::Report { seq: 0, run: run.to_string(), segment, at_ms, what: Some(what) }
        };
        match record {
            Record::Accepted { segment, content, .. } => {
                (newest, told.order) = (*segment, content.clone().into());
                told.reports.push(say(*segment, What::Accepted(v1::Accepted {})));
            }
            Record::Planned { plan, .. } => {
                let planned = v1::Planned { plan: plan.clone().into(), impossible: Default::default() };
                told.reports.push(say(newest, What::Planned(planned)));
            }
            Record::Intent { key, segment } if acts(key) => {
                segments.insert(key.clone(), *segment);
                acted = Some(key.clone());
                let started = v1::StepStarted { path: key.path.clone(), attempt: key.attempt };
                told.reports.push(say(*segment, What::StepStarted(started)));
            }
            Record::Exited { key, result } => {
                let segment = segments.get(key).copied().unwrap_or(newest);
                told.reports.push(say(segment, What::StepEnded(step_ended(key, result))));
            }
            Record::Paused { on, count, .. } => {
                told.reports.push(say(newest, What::Paused(v1::Paused { on: *on, count: *count })));
            }
            Record::Event { segment, .. } => told.reports.extend(ends.get(segment).cloned()),
            Record::Intent { .. }
            | Record::Tombstone { .. }
            | Record::Report { .. }
            | Record::Acked { .. }
            | Record::Ended { .. } => {}
        }
    }
    if told.order.is_empty() {
        return None;
    }
    if here.tombstone && here.active.is_none() {
        let interrupted = acted.filter(|key| !succeeded(here, key)).map(|key| key.path).unwrap_or_default();
        let cancelled = What::Cancelled(v1::Cancelled { interrupted });
        let (run, what) = (run.to_string(), Some(cancelled));
        told.reports.push(v1::Report { seq: 0, run, segment: newest, at_ms: now_ms, what });
    }
    if told.encoded_len() > LONGEST {
        told.reports.iter_mut().for_each(leave_out_output);
    }
    Some((newest, told))
}

fn succeeded(here: &RunHere, key: &AttemptKey) -> bool {
    let ended = here.attempts.get(&(key.path.clone(), key.attempt));
    ended.and_then(Option::as_ref).is_some_and(|ended| word(ended) == "succeeded")
}

fn word(ended: &Ended) -> &'static str {
    match (&ended.outcome, ended.exit_code) {
        (Outcome::Exited, Some(0)) => "succeeded",
        (Outcome::Exited, _) => "failed",
        (Outcome::TimedOut, _) => "timed-out",
        (Outcome::Killed, _) => "killed",
        (Outcome::NotStarted { .. }, _) => "not-started",
    }
}

fn step_ended(key: &AttemptKey, ended: &Ended) -> v1::StepEnded {
    let message = match (&ended.outcome, ended.exit_code, ended.signal) {
        (Outcome::Exited, Some(0), _) => String::new(),
        (Outcome::Exited, Some(code), _) => format!("it exited with {code}"),
        (Outcome::Exited, None, Some(signal)) => format!("signal {signal} ended it"),
        (Outcome::Exited, None, None) => "it ended without an exit code".to_owned(),
        (Outcome::TimedOut, ..) => "it was ended after the longest that it may take".to_owned(),
        (Outcome::Killed, ..) => "it was told to stop".to_owned(),
        (Outcome::NotStarted { message, .. }, ..) => message.clone(),
    };
    let kept = |kept: &Kept| v1::Kept {
        head: kept.head.clone().into(),
        tail: kept.tail.clone().into(),
        dropped: kept.dropped,
    };
    v1::StepEnded {
        path: key.path.clone(),
        attempt: key.attempt,
        outcome: word(ended).to_owned(),
        message,
        exit_code: ended.exit_code,
        signal: ended.signal,
        stdout: Some(kept(&ended.stdout)),
        stderr: Some(kept(&ended.stderr)),
        outputs: Default::default(),
        took_ms: u64::try_from(ended.took.as_millis()).unwrap_or(u64::MAX),
    }
}

fn leave_out_output(report: &mut v1::Report) {
    if let Some(What::StepEnded(ended)) = &mut report.what {
        for kept in [&mut ended.stdout, &mut ended.stderr].into_iter().flatten() {
            let all = kept.head.len() + kept.tail.len();
            kept.dropped = kept.dropped.saturating_add(u64::try_from(all).unwrap_or(u64::MAX));
            (kept.head, kept.tail) = Default::default();
        }
    }
}
