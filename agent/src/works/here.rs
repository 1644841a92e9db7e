//! What this host knows of one run: its segments, its plan, its attempts, and what a new journal must say of it.

use std::collections::BTreeMap;
use std::time::Duration;

use fettle_proto::signed::Started;
use fettle_proto::v1;
use fettle_runbooks::id::Digest;

use super::attempt;
use super::carry::Active;
use super::orders::OwnPlan;
use super::output::Kept;
use super::record::Record;

/// How long after its last order could be accepted a run is remembered.
pub(super) const REMEMBER: Duration = Duration::from_secs(24 * 3600);
/// And when it waits for people.
const PATIENCE: Duration = Duration::from_secs(35 * 24 * 3600);

/// What this host knows of one run.
#[derive(Default)]
pub(super) struct RunHere {
    /// Accepted segments: their digests, and how they ended.
    pub(super) segments: BTreeMap<u32, SegmentHere>,
    /// The last moment at which an order of the run was good.
    pub(super) not_after_ms: i64,
    pub(super) plan: Option<OwnPlan>,
    pub(super) started: Option<Option<Started>>,
    /// Attempts that were intended, and how they ended.
    pub(super) attempts: BTreeMap<(String, u32), Option<attempt::Ended>>,
    pub(super) active: Option<Active>,
    /// No attempt starts any more.
    pub(super) tombstone: bool,
    /// What people last asked of it: to pause, or to go on.
    pub(super) pause: Option<PausedHere>,
    /// What a new journal must say of this run.
    pub(super) records: Vec<Record>,
}

/// Whether a run is paused here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PausedHere {
    /// Nothing of it that acts begins.
    pub(super) on: bool,
    /// The controller's count of what it asked.
    pub(super) count: u32,
    /// When, wall clock, milliseconds.
    pub(super) at_ms: i64,
}

/// One accepted segment.
pub(super) struct SegmentHere {
    pub(super) digest: Digest,
    /// The encoded report of its end.
    pub(super) ended: Option<Vec<u8>>,
    pub(super) is_over: bool,
    remediates: bool,
    /// It only looks whether the symptom is gone.
    pub(super) looks: bool,
}

impl SegmentHere {
    /// A segment that has just been accepted.
    pub(super) fn of(digest: Digest, order: &v1::OrderContent) -> SegmentHere {
        let (remediates, looks) = match &order.work {
            Some(v1::order_content::Work::Remediate(_)) => (true, false),
            Some(v1::order_content::Work::Verify(_)) => (false, true),
            Some(v1::order_content::Work::Diagnose(_)) | None => (false, false),
        };
        SegmentHere { digest, ended: None, is_over: false, remediates, looks }
    }

    /// The step at which it stopped, for people to approve or to look.
    fn stopped_at(&self) -> Option<String> {
        let report: v1::Report = prost::Message::decode(self.ended.as_deref()?).ok()?;
        let Some(v1::report::What::SegmentEnded(ended)) = report.what else { return None };
        match ended.how? {
            v1::segment_ended::How::Gate(gate) => Some(gate.path),
            v1::segment_ended::How::Unknown(unknown) => Some(unknown.path),
            v1::segment_ended::How::Done(_)
            | v1::segment_ended::How::Failed(_)
            | v1::segment_ended::How::Stopped(_) => None,
        }
    }
}

impl RunHere {
    /// What the controller is told first of a segment.
    pub(super) fn accepted(&self, segment: u32) -> v1::Accepted {
        let known = self.segments.get(&segment);
        let told = |it: &SegmentHere| v1::Accepted { digest: it.digest.0.to_vec().into(), looks: it.looks };
        known.map(told).unwrap_or_default()
    }

    /// The last segment that remediated; what was only looked at since changes nothing.
    fn last_remediation(&self) -> Option<&SegmentHere> {
        self.segments.values().rev().find(|segment| segment.remediates)
    }

    /// The step at which it last stopped, for people to approve or to look.
    pub(super) fn stopped_at(&self) -> Option<String> {
        self.segments.values().rev().find_map(SegmentHere::stopped_at)
    }

    /// Its remediation is over for good: it neither waits for people nor goes on.
    pub(super) fn is_remediated(&self) -> bool {
        self.last_remediation().is_some_and(|last| last.is_over && last.stopped_at().is_none())
    }

    /// People have paused it.
    pub(super) fn is_paused(&self) -> bool {
        self.pause.is_some_and(|pause| pause.on)
    }

    /// When it was last told to go on, if it was ever paused and is not now.
    pub(super) fn resumed_at_ms(&self) -> Option<i64> {
        self.pause.filter(|pause| !pause.on).map(|pause| pause.at_ms)
    }

    /// The attempt of a step whose outcome is unknown: its last that may have done anything, if nobody saw that end. That a
    /// later one was never born says nothing of it.
    pub(super) fn unknown_attempt(&self, path: &str) -> Option<u32> {
        let (attempt, ended) = self.last_born(path)?;
        ended.is_none().then_some(attempt)
    }

    /// The last attempt at a path that may have done anything, and its end if somebody saw it.
    pub(super) fn last_born(&self, path: &str) -> Option<(u32, Option<&attempt::Ended>)> {
        let all = (path.to_owned(), 0)..=(path.to_owned(), u32::MAX);
        let mut back = self.attempts.range(all).rev();
        let ((_, attempt), ended) = back.find(|(_, ended)| {
            ended.as_ref().is_none_or(|ended| !matches!(ended.outcome, attempt::Outcome::NotStarted { .. }))
        })?;
        Some((*attempt, ended.as_ref()))
    }

    /// Until then orders of the run may come, or may have come before.
    pub(super) fn remembered_until_ms(&self, boot: &str) -> i64 {
        // No approval of a plan outlives the boot it was made in.
        let waits = self.last_remediation().and_then(SegmentHere::stopped_at).is_some()
            && self.plan.as_ref().is_some_and(|plan| plan.plan.boot == boot);
        let horizon = if waits || self.is_paused() { PATIENCE } else { REMEMBER };
        self.not_after_ms.saturating_add(i64::try_from(horizon.as_millis()).unwrap_or(i64::MAX))
    }

    /// Lets go of what only further remediation would need: the outputs of steps.
    pub(super) fn shrink(&mut self) {
        if !self.is_remediated() {
            return;
        }
        // Whoever goes on from this run may need what its steps have left.
        let steps = self.plan.iter().flat_map(|own| own.plan.steps.iter());
        let leave: Vec<String> =
            steps.filter(|step| !step.outputs.is_empty()).map(|step| step.path.clone()).collect();
        let exited = self.records.iter_mut().filter_map(|record| match record {
            Record::Exited { key, result } => Some((&key.path, result)),
            Record::Accepted { .. }
            | Record::Planned { .. }
            | Record::Event { .. }
            | Record::Intent { .. }
            | Record::Tombstone { .. }
            | Record::Paused { .. }
            | Record::Report { .. }
            | Record::Acked { .. }
            | Record::Forgotten { .. }
            | Record::Ended { .. } => None,
        });
        let attempts =
            self.attempts.iter_mut().filter_map(|((path, _), ended)| Some((path, ended.as_mut()?)));
        for (_, ended) in attempts.chain(exited).filter(|(path, _)| !leave.contains(path)) {
            (ended.stdout, ended.stderr) = (Kept::default(), Kept::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(outcome: attempt::Outcome, exit_code: Option<i32>) -> Option<attempt::Ended> {
        let (stdout, stderr) = Default::default();
        let (signal, took, hint) = (None, Duration::ZERO, String::new());
        Some(attempt::Ended { outcome, exit_code, signal, stdout, stderr, took, hint })
    }

    #[test]
    fn that_a_later_attempt_was_never_born_does_not_tell_what_became_of_the_one_before() {
        let path = "remediate/once";
        let unborn = || {
            let (code, message) = ("expired".to_owned(), "too late".to_owned());
            ended(attempt::Outcome::NotStarted { code, message }, None)
        };
        let of = |attempts: Vec<Option<attempt::Ended>>| {
            let numbered = (1..).zip(attempts).map(|(number, ended)| ((path.to_owned(), number), ended));
            RunHere { attempts: numbered.collect(), ..RunHere::default() }.unknown_attempt(path)
        };
        assert_eq!(of(vec![None]), Some(1));
        assert_eq!(of(vec![None, unborn()]), Some(1));
        assert_eq!(of(vec![None, unborn(), None]), Some(3));
        assert_eq!(of(vec![None, ended(attempt::Outcome::Exited, Some(1))]), None);
        assert_eq!(of(vec![unborn()]), None);
    }
}
