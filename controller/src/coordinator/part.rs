//! A host whose word will not come any more: it is revoked, or has lost what it knew.
//!
//! Its part in a run ends without it. What it had begun, or may have begun without telling, is asked of a person: nobody else can
//! know. Deliberately missing: any guess of how that went.

use std::collections::BTreeMap;

use fettle_proto::v1;
use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::{Host, RunId};
use fettle_runbooks::plan::{Plan, PlannedUndo, PlannedWork};
use fettle_runbooks::run::{Event, State};
use fettle_runbooks::runbook::OnFailure;
use fettle_runbooks::segment::{How, Outcome, StepResult, Undoing, Verification};
use prost::Message as _;

use super::desk::Desk;
use crate::model::row::{KeptRow, StepRow};
use crate::model::{Change, StepEnd};
use crate::world::At;

impl Desk<'_> {
    /// A host that refuses to go on with a segment of which it has begun a step, or that stops without a word of that step, has lost
    /// its journal: it will never tell what became of it, so a person must look. What happened, then.
    /// `accepted`: the attempt that it may have begun without telling, behind an order that it had taken on.
    pub(super) fn lost_midway(
        &mut self,
        run: RunId,
        host: &Host,
        at: At,
        event: Event,
        accepted: Option<(String, u32)>,
    ) -> Vec<Event> {
        let Some(row) = self.model.host_runs.get(&(run, host.clone())) else { return vec![event] };
        let segment = row.machine.segment;
        let waits = row.machine.ended().is_some() || row.machine.state.wait().is_some();
        // A host that a restored controller has yet to hear tells what it knows of the step.
        let last_word = !waits && !self.may_tell_of(run, host);
        let (why, refused) = if let Event::Refused { segment: of, code, message } = &event {
            if *of != segment {
                return vec![event];
            }
            (format!(": {code}: {message}"), true)
        } else if matches!(event, Event::Cancelled { interrupted: None }) && last_word {
            (", and was asked to stop".to_owned(), false)
        } else {
            return vec![event];
        };
        let begun = self.under_way(run, host);
        let how = if begun.is_some() { "it had begun" } else { "it may have begun" };
        let Some((path, attempt)) = begun.or(accepted.filter(|_| refused)) else { return vec![event] };
        let reason = format!("{how}, and its host does not know of it any more{why}");
        let unknown = self.never_known(run, host, at, path, attempt, reason);
        if refused { vec![unknown] } else { vec![unknown, event] }
    }

    /// Nobody will ever tell what became of an attempt.
    fn never_known(
        &mut self,
        run: RunId,
        host: &Host,
        at: At,
        path: String,
        attempt: u32,
        reason: String,
    ) -> Event {
        let current = self.model.host_runs.get(&(run, host.clone())).map(|row| row.machine.segment);
        let told = self.model.steps.get(&(run, host.clone(), path.clone(), attempt));
        // What the host itself said of it stays on record.
        if told.is_none_or(|row| row.state != UNKNOWN) {
            self.nobody_tells(run, host, at, &path, attempt, &reason);
        }
        let outcome = Outcome {
            how: How::Unknown { path, attempt, reason },
            verification: Verification::NotRun,
            effects: true,
            undoing: Undoing::None,
        };
        Event::SegmentEnded { segment: current.unwrap_or_default(), outcome }
    }

    fn nobody_tells(&mut self, run: RunId, host: &Host, at: At, path: &str, attempt: u32, message: &str) {
        self.change(Change::StepEnded(Box::new(StepEnd {
            run,
            host: host.clone(),
            path: path.to_owned(),
            attempt,
            outcome: UNKNOWN.to_owned(),
            message: message.to_owned(),
            exit_code: None,
            outputs: BTreeMap::new(),
            stdout: KeptRow::default(),
            stderr: KeptRow::default(),
            at,
            began_at: at,
        })));
    }

    /// Of a host run that is over no step runs, as far as anybody will hear.
    pub(super) fn close_steps(&mut self, run: RunId, host: &Host) {
        let open: Vec<(String, u32)> = self
            .steps_of(run, host)
            .filter(|row| row.state == "running")
            .map(|row| (row.path.clone(), row.attempt))
            .collect();
        for (path, attempt) in open {
            self.nobody_tells(run, host, self.now, &path, attempt, "its host did not tell how it ended");
        }
    }

    fn steps_of<'a>(&'a self, run: RunId, host: &'a Host) -> impl Iterator<Item = &'a StepRow> {
        let all = self.model.steps.range((run, host.clone(), String::new(), 0)..);
        all.take_while(move |((of, on, _, _), _)| *of == run && on == host).map(|(_, row)| row)
    }

    /// Ends the part of a host in every run. Of all of them first, so that none begins because another one is over.
    pub(super) fn part_with(&mut self, host: &Host, why: &str) {
        let open: Vec<RunId> = self.model.open_on(host).map(|row| row.run).collect();
        let mut parts = Vec::new();
        for run in open {
            let begun = self.under_way(run, host).or_else(|| self.may_have_begun(run, host));
            let begun = begun.or_else(|| self.may_have_gone_on(run, host));
            self.host_event(run, host, Event::CancelAsked { reason: why.to_owned() });
            let row = self.model.host_runs.get(&(run, host.clone()));
            if row.is_some_and(|row| matches!(row.machine.state, State::Cancelling { .. })) {
                parts.push((run, begun));
            }
        }
        for (run, begun) in parts {
            // Should it join again, it is sent none of them.
            self.close_orders(run, host);
            if let Some((path, attempt)) = begun {
                let reason = format!(
                    "it may have begun, and so may steps after it, and nobody will hear of them: {why}"
                );
                let unknown = self.never_known(run, host, self.now, path, attempt, reason);
                self.host_event(run, host, unknown);
            }
            self.host_event(run, host, Event::Cancelled { interrupted: None });
        }
    }

    /// Hosts that were revoked, by a controller that did not end their parts or before it was restored.
    pub(super) fn part_with_all_revoked(&mut self) {
        let revoked = self.model.agents.values().filter_map(|row| {
            let (_, reason) = row.revoked.as_ref()?;
            let open = self.model.open_on(&row.host).next().is_some();
            open.then(|| (row.host.clone(), format!("{} is revoked: {reason}", row.host)))
        });
        let revoked: Vec<(Host, String)> = revoked.collect();
        for (host, why) in revoked {
            self.part_with(&host, &why);
        }
    }

    /// The step that acts on a host and has not ended, or of which its host could not tell how, as far as the host has told. An attempt
    /// that another one followed is over, and one that only waits or looks has changed nothing.
    fn under_way(&self, run: RunId, host: &Host) -> Option<(String, u32)> {
        let host_run = self.model.host_runs.get(&(run, host.clone()))?;
        let last: BTreeMap<&str, &StepRow> =
            self.steps_of(run, host).map(|row| (row.path.as_str(), row)).collect();
        // Of one that people let run again, a person is asked anyway.
        let unclear = |row: &StepRow| {
            row.state == UNKNOWN
                && host_run.machine.again.is_none()
                && !host_run.found.contains_key(&row.path)
        };
        let acting = last.into_values().filter(|row| row.path.starts_with("remediate/"));
        let mut open = acting.filter(|row| row.state == "running" || unclear(row));
        let plan = self.plan_of(run, host);
        let row = open.find(|row| {
            let step = plan.iter().flat_map(|plan| &plan.steps).find(|step| step.path == row.path);
            step.is_none_or(|step| acts(&step.work))
        })?;
        Some((row.path.clone(), row.attempt))
    }

    /// The attempt that a host may have begun without telling: the next, behind an order to act.
    pub(super) fn may_have_begun(&self, run: RunId, host: &Host) -> Option<(String, u32)> {
        let row = self.model.host_runs.get(&(run, host.clone()))?;
        // Of one that people let run again, a person is asked anyway.
        if row.machine.again.is_some() {
            return None;
        }
        let open = self.model.orders_open(host).into_iter().find(|order| order.run == run)?;
        let order = v1::OrderContent::decode(&open.content.bytes()[..]).ok()?;
        let Some(v1::order_content::Work::Remediate(v1::Remediate { from, .. })) = order.work else {
            return None;
        };
        let plan = self.plan_of(run, host)?;
        let undoes = plan.of.as_ref().is_some_and(|of| of.how == FollowUp::Undo);
        let steps = plan.steps.iter().skip_while(|step| step.path != from);
        for step in steps.filter(|step| acts(&step.work) && (undoes || step.done_in.is_none())) {
            let of = |attempt| (run, host.clone(), step.path.clone(), attempt);
            let last = self.model.steps.range(of(0)..=of(u32::MAX)).next_back().map(|(_, row)| row);
            let Some(last) = last else { return Some((step.path.clone(), 1)) };
            let goes_on = ["skipped", StepResult::Succeeded.word()].contains(&last.state.as_str());
            if goes_on {
                continue;
            }
            if last.attempt <= step.retry.times {
                return Some((step.path.clone(), last.attempt.saturating_add(1)));
            }
            match step.on_failure {
                OnFailure::Continue => {}
                OnFailure::Stop => return None,
                OnFailure::Undo => return self.undo_that_may_have_begun(run, host, &plan, &step.path),
            }
        }
        None
    }

    /// After a restore: the step that a host may have begun since the backup, if it has told nothing since.
    fn may_have_gone_on(&self, run: RunId, host: &Host) -> Option<(String, u32)> {
        let agent = self.model.agents.get(host)?;
        let since = agent.ahead.filter(|_| agent.acked.is_empty() && self.may_know_more(host))?.since();
        let row = self.model.runs.get(&run).filter(|row| row.created_at < since)?;
        let plan = self.plan_of(run, host)?;
        let undoes = row.of.as_ref().is_some_and(|of| of.how == FollowUp::Undo);
        let from = self.gate_before(run, host);
        let steps = plan.steps.iter().skip_while(|step| from.as_ref().is_some_and(|from| step.path != *from));
        let mut acting = steps.filter(|step| acts(&step.work) && (undoes || step.done_in.is_none()));
        acting.find_map(|step| {
            let of = |attempt| (run, host.clone(), step.path.clone(), attempt);
            let told = self.model.steps.range(of(0)..=of(u32::MAX)).next().is_some();
            (!told).then(|| (step.path.clone(), 1))
        })
    }

    /// The undo that follows the failure of a step: of the latest that is done, or tried where that can be put back.
    fn undo_that_may_have_begun(
        &self,
        run: RunId,
        host: &Host,
        plan: &Plan,
        failed: &str,
    ) -> Option<(String, u32)> {
        let last = |path: &str| {
            let of = |attempt| (run, host.clone(), path.to_owned(), attempt);
            self.model.steps.range(of(0)..=of(u32::MAX)).next_back().map(|(_, row)| row.state.as_str())
        };
        let up_to = plan.steps.iter().position(|step| step.path == failed)?;
        for step in plan.steps.iter().take(up_to + 1).rev() {
            let (succeeded, unborn) = (StepResult::Succeeded.word(), StepResult::NotStarted.word());
            let undone = match (&step.undo, last(&step.path)) {
                (PlannedUndo::Work(_), Some(state)) => state == succeeded,
                (PlannedUndo::Previous, Some(state)) => state != "skipped" && state != unborn,
                (PlannedUndo::None, _) | (_, None) => false,
            };
            let undo = format!("{}/undo", step.path);
            match last(&undo).filter(|_| undone) {
                None if undone => return Some((undo, 1)),
                Some(state) if state != succeeded => return None,
                None | Some(_) => {}
            }
        }
        None
    }

    fn plan_of(&self, run: RunId, host: &Host) -> Option<Plan> {
        let plan = self.model.host_runs.get(&(run, host.clone()))?.plan.as_ref()?.bytes.bytes();
        fettle_proto::signed::plan::decode(&plan).ok()
    }
}

/// Nobody can tell how it ended.
const UNKNOWN: &str = "unknown";

/// Whether a step does anything but wait or look.
fn acts(work: &PlannedWork) -> bool {
    match work {
        PlannedWork::That { .. } | PlannedWork::Wait(_) | PlannedWork::Impossible(_) => false,
        PlannedWork::Script { .. }
        | PlannedWork::Argv(_)
        | PlannedWork::Service { .. }
        | PlannedWork::PutBack { .. } => true,
    }
}
