//! What a host reports, as changes to keep and as an event for the run's machine.

use fettle_proto::signed;
use fettle_proto::v1;
use fettle_runbooks::id::{Digest, Host, RunId};
use fettle_runbooks::run::{Event, Passage};
use fettle_runbooks::segment::{How, Outcome, Undoing, Verification};

use crate::model::row::{Blob, PlanRow};
use crate::model::{Change, StepEnd};
use crate::world::At;

/// Bytes of a path beyond which it is none.
const LONGEST_PATH: usize = 1024;
/// Bytes of what a host says for people of a step that are kept.
const LONGEST_MESSAGE: usize = 16 * 1024;
/// Bytes of what it says for people of a segment: it stays with the run's machine, which is kept anew with each of its changes.
const LONGEST_REASON: usize = 2048;
/// Bytes of a code.
const LONGEST_CODE: usize = 128;
/// Bytes of an attempt's outputs beyond which none is kept.
const LARGEST_OUTPUTS: usize = 256 * 1024;
/// So many of them are more than a step has.
const MOST_OUTPUTS: usize = 1000;

/// One report, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// To keep.
    pub changes: Vec<Change>,
    /// For the machine.
    pub event: Option<Event>,
    /// Whether the order of the segment is done with.
    pub closes: bool,
}

/// Who says it, and what is known of the run it is about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The run.
    pub run: RunId,
    /// The host, by its certificate.
    pub host: &'a Host,
    /// The runbook the run was started with.
    pub runbook: Digest,
}

/// Understands a report. What makes no sense is kept as a note, so that nothing a host says is lost.
pub fn hear(about: About<'_>, report: v1::Report) -> Heard {
    let About { run, host, .. } = about;
    let (segment, at) = (report.segment, At(report.at_ms));
    let heard = |changes, event| Heard { changes, event, closes: false };
    let noted = |text: String| heard(vec![Change::Noted { run, host: host.clone(), text }], None);
    let Some(what) = report.what else {
        return noted("the host sent a report that this controller does not know".to_owned());
    };
    let path = match &what {
        v1::report::What::SegmentEnded(v1::SegmentEnded { how, .. }) => stopped_at(how.as_ref()),
        v1::report::What::Cancelled(cancelled) => cancelled.interrupted.as_str(),

        v1::report::What::StepStarted(step) => step.path.as_str(),
        v1::report::What::StepEnded(step) => step.path.as_str(),
        v1::report::What::StepSkipped(step) => step.path.as_str(),
        v1::report::What::Accepted(_)
        | v1::report::What::Refused(_)
        | v1::report::What::Planned(_)
        | v1::report::What::ToldAgain(_)
        | v1::report::What::Paused(_) => "",
    };
    if path.len() > LONGEST_PATH {
        return noted("the host reported a step whose path is none".to_owned());
    }
    match what {
        v1::report::What::Accepted(_) => heard(
            vec![Change::OrderAccepted { run, host: host.clone(), segment }],
            Some(Event::Accepted { segment }),
        ),
        v1::report::What::Refused(v1::Refused { code, message }) => {
            let (code, message) = (short(code, LONGEST_CODE), short(message, LONGEST_REASON));
            let text = format!("the host refused segment {segment}: {code}: {message}");
            Heard {
                changes: vec![Change::Noted { run, host: host.clone(), text }],
                event: Some(Event::Refused { segment, code, message }),
                closes: true,
            }
        }
        v1::report::What::Planned(planned) => match plan(about, planned) {
            Ok((plan, first)) => heard(
                plan.into_iter().map(|plan| Change::Planned { run, host: host.clone(), plan }).collect(),
                Some(Event::Planned { segment, first }),
            ),
            Err(message) => Heard {
                changes: vec![Change::Noted { run, host: host.clone(), text: message.clone() }],
                event: Some(Event::Refused { segment, code: "plan-mismatch".to_owned(), message }),
                closes: true,
            },
        },
        v1::report::What::StepStarted(v1::StepStarted { path, attempt }) => {
            let entered = |passage| Event::Entered { segment, passage, path: path.clone(), attempt };
            let event = Passage::of(&path).map(entered);
            heard(vec![Change::StepStarted { run, host: host.clone(), path, attempt, at }], event)
        }
        v1::report::What::StepEnded(ended) => heard(vec![step_ended(run, host, at, ended)], None),
        v1::report::What::StepSkipped(v1::StepSkipped { path, reason }) => {
            let reason = short(reason, LONGEST_MESSAGE);
            heard(vec![Change::StepSkipped { run, host: host.clone(), path, reason, at }], None)
        }
        v1::report::What::SegmentEnded(ended) => match outcome(ended) {
            Some(outcome) => Heard {
                changes: Vec::new(),
                event: Some(Event::SegmentEnded { segment, outcome }),
                closes: true,
            },
            None => noted(format!("segment {segment} ended in a way that this controller does not know")),
        },
        // It is about a whole run, which the coordinator takes up report by report.
        v1::report::What::ToldAgain(_) => heard(Vec::new(), None),
        v1::report::What::Cancelled(v1::Cancelled { interrupted }) => {
            let interrupted = Some(interrupted).filter(|path| !path.is_empty());
            Heard { changes: Vec::new(), event: Some(Event::Cancelled { interrupted }), closes: true }
        }
        v1::report::What::Paused(v1::Paused { on, count }) => heard(
            vec![Change::PauseConfirmed { run, host: host.clone(), on }],
            Some(Event::PauseTold { on, count }),
        ),
    }
}

fn plan(about: About<'_>, planned: v1::Planned) -> Result<(Option<PlanRow>, Option<String>), String> {
    if planned.plan.is_empty() {
        return Ok((None, None));
    }
    let plan = signed::plan::decode(&planned.plan)
        .map_err(|error| format!("the host sent a plan that cannot be read: {error}"))?;
    if plan.agent != *about.host || plan.run != about.run || plan.runbook_digest != about.runbook {
        return Err(format!(
            "the host sent a plan of {} on {} for runbook {}",
            plan.run, plan.agent, plan.runbook_digest
        ));
    }
    let first = plan.steps.first().map(|step| step.path.clone());
    let row = PlanRow {
        digest: signed::plan::digest_of(&planned.plan),
        nonce: plan.nonce,
        bytes: Blob::copied(&planned.plan),
        impossible: planned.impossible.into_iter().collect(),
    };
    Ok((Some(row), first))
}

fn step_ended(run: RunId, host: &Host, at: At, ended: v1::StepEnded) -> Change {
    let took = std::time::Duration::from_millis(ended.took_ms);
    let mut message = short(ended.message, LONGEST_MESSAGE);
    let mut outputs = ended.outputs;
    let bytes = outputs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    if bytes > LARGEST_OUTPUTS || outputs.len() > MOST_OUTPUTS {
        outputs.clear();
        message = format!(
            "its outputs are larger than {} KiB, or more than {MOST_OUTPUTS}, and were not kept",
            LARGEST_OUTPUTS / 1024
        );
    }
    Change::StepEnded(Box::new(StepEnd {
        run,
        host: host.clone(),
        path: ended.path,
        attempt: ended.attempt,
        outcome: ended.outcome,
        message,
        exit_code: ended.exit_code,
        outputs: outputs.into_iter().collect(),
        stdout: ended.stdout.unwrap_or_default().into(),
        stderr: ended.stderr.unwrap_or_default().into(),
        at,
        began_at: at.minus(took),
    }))
}

/// The beginning of what a host says.
fn short(mut text: String, longest: usize) -> String {
    text.truncate(text.floor_char_boundary(longest));
    text
}

/// The step that the end of a segment names, if it names one.
fn stopped_at(how: Option<&v1::segment_ended::How>) -> &str {
    match how {
        Some(v1::segment_ended::How::Gate(gate)) => &gate.path,
        Some(v1::segment_ended::How::Failed(failed)) => &failed.path,
        Some(v1::segment_ended::How::Unknown(unknown)) => &unknown.path,
        Some(v1::segment_ended::How::Done(_) | v1::segment_ended::How::Stopped(_)) | None => "",
    }
}

fn outcome(ended: v1::SegmentEnded) -> Option<Outcome> {
    let verification = match ended.verification() {
        v1::Verification::NotRun => Verification::NotRun,
        v1::Verification::Passed => Verification::Passed,
        v1::Verification::Failed => Verification::Failed,
    };
    let undoing = match ended.undoing() {
        v1::Undoing::None => Undoing::None,
        v1::Undoing::Done => Undoing::Done,
        v1::Undoing::Failed => Undoing::Failed,
    };
    let how = match ended.how? {
        v1::segment_ended::How::Done(v1::SegmentDone {}) => How::Done,
        v1::segment_ended::How::Gate(v1::GateReached { path }) => How::Gate { path },
        v1::segment_ended::How::Failed(v1::SegmentFailed { path, reason }) => {
            How::Failed { path, reason: short(reason, LONGEST_REASON) }
        }
        v1::segment_ended::How::Unknown(v1::SegmentUnknown { path, attempt, reason }) => {
            How::Unknown { path, attempt, reason: short(reason, LONGEST_REASON) }
        }
        v1::segment_ended::How::Stopped(v1::SegmentStopped { reason }) => {
            How::Stopped { reason: short(reason, LONGEST_REASON) }
        }
    };
    Some(Outcome { how, verification, effects: ended.effects, undoing })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(what: v1::report::What) -> Heard {
        let host = "web-1".parse().unwrap();
        let about =
            About { run: RunId::new(uuid::Uuid::from_u128(7)), host: &host, runbook: Digest([0; 32]) };
        hear(about, v1::Report { segment: 2, what: Some(what), ..v1::Report::default() })
    }

    fn ends(how: v1::segment_ended::How) -> Heard {
        heard(v1::report::What::SegmentEnded(v1::SegmentEnded { how: Some(how), ..Default::default() }))
    }

    #[test]
    fn what_a_host_says_of_a_segment_is_cut_to_what_a_machine_may_hold() {
        let long = "é".repeat(1024 * 1024);
        let unknown = v1::SegmentUnknown { path: long.clone(), attempt: 1, reason: String::new() };
        let unknown = ends(v1::segment_ended::How::Unknown(unknown));
        assert!(unknown.event.is_none() && !unknown.closes, "a path of two megabytes is none");
        let interrupted = heard(v1::report::What::Cancelled(v1::Cancelled { interrupted: long.clone() }));
        assert!(interrupted.event.is_none());

        let stopped = ends(v1::segment_ended::How::Stopped(v1::SegmentStopped { reason: long.clone() }));
        let Some(Event::SegmentEnded { outcome: Outcome { how: How::Stopped { reason }, .. }, .. }) =
            stopped.event
        else {
            panic!("{stopped:?}")
        };
        assert!((1..=LONGEST_REASON).contains(&reason.len()));
        let refused = heard(v1::report::What::Refused(v1::Refused { code: long.clone(), message: long }));
        let Some(Event::Refused { code, message, .. }) = refused.event else { panic!("{refused:?}") };
        assert!(code.len() <= LONGEST_CODE && message.len() <= LONGEST_REASON);
    }
}
