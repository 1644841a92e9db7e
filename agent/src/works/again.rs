//! What a controller is told that was restored from a backup: everything this host still knows, run by run.
//!
//! The journal keeps a run for a day after its last order was good. Of its steps it has those that may have changed
//! something; what the others wrote went out with their reports, and is not told again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fettle_proto::reports::MOST_TOLD;
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

/// What is told of one run has no more bytes, and no more reports: well below what a controller takes in one message.
const LONGEST: usize = 2 * 1024 * 1024;
const MOST: usize = MOST_TOLD / 2;
/// A run whose order and plan alone are longer cannot be told in one message.
const TOO_LONG: usize = 5 * 512 * 1024;
/// Of a run with more segments than any has, so many reports of how it began and how it stands are told.
const ENDS: usize = 16;

/// The answer to one restore of the controller: which runs are still to be told. Each is an append of its own that takes it off
/// the list, so that a crash in between leaves out none, and no history is too long for the journal.
#[derive(Debug)]
pub(super) struct Telling {
    after: u64,
    runs: VecDeque<RunId>,
    /// The report of the run that was told last; the next follows when this one is acknowledged.
    last: u64,
    /// The runs of which no controller has acknowledged how they ended.
    unheard: BTreeSet<RunId>,
}

impl Telling {
    pub(super) fn new(after: u64, runs: Vec<RunId>, unheard: BTreeSet<RunId>) -> Telling {
        Telling { after, runs: runs.into(), last: 0, unheard }
    }

    /// How this run ends no controller has acknowledged.
    pub(super) fn is_unheard(&mut self, run: RunId) {
        self.unheard.insert(run);
    }

    /// A report tells of a run.
    pub(super) fn told(&mut self, run: RunId, seq: u64) {
        self.runs.retain(|other| *other != run);
        self.last = seq;
    }

    /// Whether a run is still to be told.
    pub(super) fn owes(&self, run: RunId) -> bool {
        self.runs.contains(&run)
    }

    /// As it is journaled.
    pub(super) fn record(&self) -> Record {
        let runs = self.runs.iter().copied().collect();
        Record::Forgotten { after: self.after, runs, unheard: self.unheard.iter().copied().collect() }
    }
}

impl Driver {
    /// Whether a controller that acknowledges so much had acknowledged more before, and this is not being answered already: as
    /// long as nothing of the answer is acknowledged, all of it is still owed, to whatever controller.
    pub(super) fn has_forgotten(&self, acked: u64) -> bool {
        let known = self.spool.upto();
        acked < known && self.telling.as_ref().is_none_or(|telling| telling.after < known)
    }

    /// The controller has forgotten what it acknowledged: it is to be told of every run again. First of those that are not over,
    /// which people wait for; of the others the newest first.
    pub(super) fn tell_again(&mut self) {
        let over = |here: &RunHere| here.active.is_none() && (here.tombstone || here.is_remediated());
        let known = self.runs.iter().filter(|(_, here)| !here.segments.is_empty());
        let mut runs: Vec<(bool, Reverse<RunId>)> =
            known.map(|(run, here)| (over(here), Reverse(*run))).collect();
        runs.sort_unstable();
        tracing::warn!(
            runs = runs.len(),
            "The controller has forgotten what it acknowledged; telling it again."
        );
        let runs: Vec<RunId> = runs.into_iter().map(|(_, Reverse(run))| run).collect();
        let unheard = self.telling.take().map(|before| before.unheard).unwrap_or_default();
        let mut telling = Telling::new(self.spool.last(), runs, unheard);
        // What it has not heard of these runs is part of what it is told. Before that, and alone, it would be misunderstood.
        let owed = self.spool.take_back();
        let is_told = |report: &v1::Report| report.run.parse().is_ok_and(|run| telling.owes(run));
        let (told, others): (Vec<_>, Vec<_>) = owed.into_iter().partition(is_told);
        let mut by_run: BTreeMap<RunId, Vec<v1::Report>> = BTreeMap::new();
        for report in told {
            let Ok(run) = report.run.parse() else { continue };
            match &report.what {
                Some(What::SegmentEnded(_) | What::Cancelled(_)) => telling.is_unheard(run),
                Some(What::ToldAgain(told)) if told.unheard => telling.is_unheard(run),
                Some(_) | None => {}
            }
            by_run.entry(run).or_default().push(report);
        }
        let mut records = vec![telling.record(), Record::Acked { upto: self.spool.last() }];
        records.extend(others.into_iter().map(|report| self.spool.add(report)));
        self.commit(records, Vec::new());
        self.telling = Some(telling);
        for (run, owed) in by_run {
            // What it was told before is told anew; only what steps have said is in there alone.
            let flat = owed.iter().flat_map(|report| match &report.what {
                Some(What::ToldAgain(told)) => told.reports.clone(),
                Some(_) | None => vec![report.clone()],
            });
            if !self.tell_with(run, &flat.collect::<Vec<_>>()) {
                let records = owed.into_iter().map(|report| self.spool.add(report)).collect();
                self.commit(records, Vec::new());
            }
        }
    }

    /// Tells of the next run, once the controller has the one before.
    pub(super) fn tell_next(&mut self) {
        let upto = self.spool.upto();
        while let Some(telling) = self.telling.as_mut().filter(|telling| telling.last <= upto) {
            let Some(run) = telling.runs.front().copied() else { return };
            self.tell_of(run);
        }
    }

    /// Tells of a run; whether there is anything to be told.
    pub(super) fn tell_of(&mut self, run: RunId) -> bool {
        self.tell_with(run, &[])
    }

    /// … `owed`: what was reported of it and never acknowledged.
    fn tell_with(&mut self, run: RunId, owed: &[v1::Report]) -> bool {
        let now_ms = self.now_ms();
        let stopped = !self.cancels_owed.contains_key(&run);
        let told = self.runs.get(&run).and_then(|here| story(run, here, stopped, now_ms, owed));
        let Some(telling) = &mut self.telling else { return false };
        telling.runs.retain(|other| *other != run);
        let Some((segment, mut told)) = told else { return false };
        told.unheard = telling.unheard.contains(&run);
        let report = self.report(run, segment, now_ms, What::ToldAgain(told));
        if let Some(telling) = &mut self.telling {
            telling.last = self.spool.last();
        }
        self.commit(vec![report], Vec::new());
        true
    }
}

/// What is known of a run, with the number of its newest segment. Nothing of one that was never accepted here. `stopped`: nothing of
/// it runs any more, if it was cancelled.
fn story(
    run: RunId,
    here: &RunHere,
    stopped: bool,
    now_ms: i64,
    owed: &[v1::Report],
) -> Option<(u32, v1::ToldAgain)> {
    let ends: BTreeMap<u32, v1::Report> = here
        .segments
        .iter()
        .filter_map(|(number, segment)| Some((*number, v1::Report::decode(segment.ended.as_deref()?).ok()?)))
        .collect();
    let looks = here.segments.iter().filter(|(_, segment)| segment.looks).map(|(number, _)| *number);
    let mut told = v1::ToldAgain { looks: looks.collect(), ..v1::ToldAgain::default() };
    // As it was said at the time, with what it gave.
    let said = |key: &AttemptKey| {
        owed.iter().find(|owed| {
            matches!(&owed.what, Some(What::StepEnded(step)) if step.path == key.path && step.attempt == key.attempt)
        })
    };
    let (mut newest, mut acted, mut cancelled) = (0, None, false);
    let (mut over, mut known) = (BTreeSet::new(), BTreeSet::new());
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
                told.reports.push(say(*segment, What::Accepted(v1::Accepted::default())));
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
                if !cancelled && result.outcome != Outcome::Killed {
                    over.insert(key.clone());
                }
                let segment = segments.get(key).copied().unwrap_or(newest);
                let ended = say(segment, What::StepEnded(step_ended(key, result)));
                told.reports.push(said(key).map_or(ended, |owed| v1::Report { seq: 0, ..owed.clone() }));
                known.insert((key.path.clone(), key.attempt));
            }
            Record::Paused { on, count, .. } => {
                told.reports.push(say(newest, What::Paused(v1::Paused { on: *on, count: *count })));
            }
            Record::Event { segment, .. } => told.reports.extend(ends.get(segment).cloned()),
            Record::Tombstone { .. } => cancelled = true,
            Record::Intent { .. }
            | Record::Report { .. }
            | Record::Acked { .. }
            | Record::Forgotten { .. }
            | Record::Ended { .. } => {}
        }
    }
    if told.order.is_empty() {
        return None;
    }
    let more = owed.iter().filter_map(|owed| {
        let tells = match &owed.what {
            Some(What::StepEnded(step)) => !known.contains(&(step.path.clone(), step.attempt)),
            Some(What::StepSkipped(_)) => true,
            Some(_) | None => false,
        };
        tells.then(|| v1::Report { seq: 0, ..owed.clone() })
    });
    // As much of that as there is room for beside what may have changed something.
    let mut room = (LONGEST / 2).saturating_sub(told.encoded_len());
    for report in more.take(MOST / 2) {
        let Some(left) = room.checked_sub(report.encoded_len()) else { break };
        room = left;
        told.reports.push(report);
    }
    if here.tombstone && here.active.is_none() && stopped {
        let midway = |key: &AttemptKey| !over.contains(key) && may_have_acted(here, key);
        let interrupted = acted.filter(midway).map(|key| key.path).unwrap_or_default();
        let cancelled = What::Cancelled(v1::Cancelled { interrupted });
        let (run, what) = (run.to_string(), Some(cancelled));
        told.reports.push(v1::Report { seq: 0, run, segment: newest, at_ms: now_ms, what });
    }
    fit(&mut told);
    if told.encoded_len() > TOO_LONG {
        tracing::error!(%run, "A run is too long to be told again; a person must look.");
        return None;
    }
    Some((newest, told))
}

/// Leaves out what is too much: first what steps wrote, then the oldest attempts, then what was between the first segments and
/// the last. A controller that finds too much in a message refuses it, whenever it comes.
fn fit(told: &mut v1::ToldAgain) {
    let older = told.looks.len().saturating_sub(MOST);
    told.looks.drain(..older);
    let too_much = |told: &v1::ToldAgain| told.reports.len() > MOST || told.encoded_len() > LONGEST;
    if told.encoded_len() > LONGEST {
        told.reports.iter_mut().for_each(leave_out_output);
    }
    let of_step =
        |report: &v1::Report| matches!(report.what, Some(What::StepStarted(_) | What::StepEnded(_)));
    while too_much(told) {
        let mut out = told.reports.iter().filter(|report| of_step(report)).count().div_ceil(2);
        if out == 0 {
            break;
        }
        told.reports.retain(|report| {
            let stays = out == 0 || !of_step(report);
            out -= usize::from(!stays);
            stays
        });
    }
    while too_much(told) && told.reports.len() > 2 * ENDS {
        let out = (told.reports.len() - 2 * ENDS).div_ceil(2);
        told.reports.drain(ENDS..ENDS + out);
    }
}

/// Whether an attempt may have had part of its effect: nobody saw its end, or that was not a good one.
fn may_have_acted(here: &RunHere, key: &AttemptKey) -> bool {
    let ended = here.attempts.get(&(key.path.clone(), key.attempt));
    ended.is_some_and(|ended| {
        ended.as_ref().is_none_or(|ended| !["succeeded", "not-started"].contains(&word(ended)))
    })
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

pub(super) fn step_ended(key: &AttemptKey, ended: &Ended) -> v1::StepEnded {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn report(segment: u32, what: What) -> v1::Report {
        v1::Report { segment, what: Some(what), ..v1::Report::default() }
    }

    fn step(segment: u32, wrote: usize) -> [v1::Report; 2] {
        let path = "remediate/step".to_owned();
        let stdout = Some(v1::Kept { head: vec![b'x'; wrote].into(), ..v1::Kept::default() });
        [
            report(segment, What::StepStarted(v1::StepStarted { path: path.clone(), attempt: segment })),
            report(
                segment,
                What::StepEnded(v1::StepEnded { path, attempt: segment, stdout, ..Default::default() }),
            ),
        ]
    }

    fn segment(number: u32, steps: Vec<v1::Report>) -> Vec<v1::Report> {
        let ended = v1::SegmentEnded::default();
        let accepted = report(number, What::Accepted(v1::Accepted::default()));
        [vec![accepted], steps, vec![report(number, What::SegmentEnded(ended))]].concat()
    }

    fn fits(reports: Vec<v1::Report>) -> v1::ToldAgain {
        let mut told = v1::ToldAgain { order: b"order".to_vec().into(), reports, ..Default::default() };
        fit(&mut told);
        assert!(told.reports.len() <= MOST && told.encoded_len() <= LONGEST, "{}", told.encoded_len());
        told
    }

    #[test]
    fn a_run_is_told_in_one_message_however_much_there_is_of_it() {
        let wrote = 600 * 1024;
        let loud = fits(segment(1, (1..=5).flat_map(|attempt| step(attempt, wrote)).collect()));
        assert_eq!(loud.reports.len(), 12, "only what they wrote is left out");
        let Some(What::StepEnded(ended)) = &loud.reports[2].what else { panic!("{:?}", loud.reports[2]) };
        let dropped = ended.stdout.as_ref().map(|kept| (kept.head.len(), kept.dropped));
        assert_eq!(dropped, Some((0, wrote as u64)));

        let steps: Vec<v1::Report> = (1..=9000).flat_map(|attempt| step(attempt, 0)).collect();
        let last = steps[steps.len() - 1].clone();
        let long = fits(segment(1, steps));
        assert_eq!(
            long.reports.first().map(|it| &it.what),
            Some(&Some(What::Accepted(v1::Accepted::default())))
        );
        assert_eq!(long.reports[long.reports.len() - 2], last, "the latest are told");

        let many = fits((1..=9000).flat_map(|number| segment(number, Vec::new())).collect());
        assert_eq!((many.reports[0].segment, many.reports[many.reports.len() - 1].segment), (1, 9000));
    }
}
