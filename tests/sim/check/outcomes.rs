//! What steps and runs say of themselves, held against what really happened on the hosts.

use std::collections::BTreeMap;

use fettle_controller::model::{Change, StepEnd};
use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::{Host, RunId};
use fettle_runbooks::plan::{Plan, PlannedStep, PlannedUndo};
use fettle_runbooks::run::{Ending, Final};
use fettle_runbooks::runbook::OnFailure;

use super::chain::Became;
use super::{Attempt, Broken, Checker, Truth, broken, count, step};

/// What is said of a run that has gone through all of its steps.
const RAN: [&str; 2] = ["the symptom is gone", "it ran, and the symptom is still there"];

/// Numbers of events are above this where a store was restored.
const GAP: u64 = 1_000_000_000;

impl Checker {
    pub(super) fn outcome(&self, key: &Attempt, end: &StepEnd) -> Result<(), Broken> {
        let (host, run, path, attempt) = key;
        if self.forgot(host, *run) {
            return Ok(());
        }
        let nothing = Truth::default();
        let truth = self.truth.get(key).unwrap_or(&nothing);
        let outcome = end.outcome.as_str();
        count(format!("rule truth: {outcome}"));
        let right = match outcome {
            "succeeded" if end.exit_code.is_none() && self.probed(*run, host, path) => true,
            "succeeded" => truth.done == Some(0),
            "failed" => truth.done.is_some_and(|code| code != 0) || truth.begun == 0,
            "timed-out" | "killed" => truth.killed,
            "not-started" => truth.begun == 0,
            "unknown" => self.struck.contains(host),
            _ => false,
        };
        let right = right && (end.exit_code.is_none() || end.exit_code == truth.done);
        match right {
            true => Ok(()),
            false => broken(
                "truth",
                format!(
                    "attempt {attempt} of {path} of {run} on {host} is told to be {outcome}, and really {truth:?}"
                ),
            ),
        }
    }

    /// Whether a probe may have decided that this step took effect.
    pub(super) fn probed(&self, run: RunId, host: &Host, path: &str) -> bool {
        self.plan(run, host)
            .and_then(|plan| step(plan, path))
            .is_some_and(|(step, undo)| step.check.is_some() && !undo)
    }

    /// The plan of a run on a host, as it was reported last.
    pub(super) fn plan(&self, run: RunId, host: &Host) -> Option<&Plan> {
        let reported = self.of_run.get(&(run, host.clone()))?;
        self.plans.get(reported.last()?)
    }

    pub(super) fn ending(&self, run: RunId, host: &Host, how: &Final) -> Result<(), Broken> {
        let ending = how.ending;
        count("rule ended");
        if !self.forgot(host, run) {
            self.was_seen(run, host, how)?;
            self.did_what_it_says(run, host, how)?;
        }
        let mut last: BTreeMap<&str, (u32, &str)> = BTreeMap::new();
        for ((_, _, path, attempt), row) in self.model.steps.range((run, host.clone(), String::new(), 0)..) {
            if row.run != run || row.host != *host {
                break;
            }
            last.insert(path, (*attempt, &row.state));
        }
        // Somebody has looked since it was told that nobody knows.
        let resolved = |path: &str, attempt: u32| {
            let told = self.history.iter().skip_while(|record| {
                !matches!(&record.change, Change::StepEnded(end) if end.run == run && end.host == *host
                    && end.path == path && end.attempt == attempt && end.outcome == "unknown")
            });
            told.into_iter().any(|record| {
                matches!(&record.change, Change::Resolved { run: of, host: on, path: what, .. }
                    if *of == run && on == host && what == path)
            })
        };
        let restored = self.model.last_event > GAP;
        for (path, (attempt, state)) in last {
            // A restored store may hear only of the end, and of two that are one host each tells its own.
            let running =
                state == "running" && ending == Ending::Cancelled && !restored && !self.twins.contains(host);
            let open = (state == "unknown" || running) && path.starts_with("remediate/");
            if open {
                count("rule unknown");
            }
            if open && !resolved(path, attempt) {
                let how = format!(
                    "{run} on {host} ended {}, and attempt {attempt} of {path} is {state}",
                    ending.word()
                );
                return broken("unknown", how);
            }
        }
        Ok(())
    }

    /// What is verified was away, and what is unverified was there where it was looked at, since the run did something last.
    fn was_seen(&self, run: RunId, host: &Host, how: &Final) -> Result<(), Broken> {
        let ending = how.ending;
        let (seen, word) = match ending {
            Ending::Verified => (&self.away, "away"),
            Ending::Unverified if RAN.contains(&how.reason.as_str()) => (&self.there, "there"),
            Ending::Unverified
            | Ending::Succeeded
            | Ending::Failed
            | Ending::Undone
            | Ending::Rejected
            | Ending::Expired
            | Ending::Cancelled
            | Ending::Refused => return Ok(()),
        };
        count(format!("rule truth: it was {word}"));
        let acted = self.acted.get(&(run, host.clone())).copied().unwrap_or_default();
        match seen.get(host).is_some_and(|seen| *seen >= acted) {
            true => Ok(()),
            false => {
                let how = format!("and its symptom was never {word} since {acted:?}");
                broken("truth", format!("{run} on {host} is {}, {how}", ending.word()))
            }
        }
    }

    /// A run that failed has a step that was not done; one that ran to its end has none that had to be; one that had nothing to do
    /// began none; of what is undone nothing is left.
    fn did_what_it_says(&self, run: RunId, host: &Host, how: &Final) -> Result<(), Broken> {
        let ending = how.ending;
        let acted =
            (host.clone(), run, "remediate/".to_owned(), 0)..(host.clone(), run, "remediate0".to_owned(), 0);
        if ending == Ending::Succeeded {
            count("rule truth: succeeded");
            if let Some(((_, _, path, _), _)) = self.truth.range(acted).find(|(_, truth)| truth.begun > 0) {
                return broken("truth", format!("{run} on {host} is succeeded, and {path} of it began"));
            }
        }
        let Some(plan) = self.plan(run, host) else { return Ok(()) };
        let retries = plan.of.as_ref().is_some_and(|of| of.how == FollowUp::Retry);
        let is_done = |step: &PlannedStep| {
            let first = (host.clone(), run, step.path.clone(), 0);
            let last = (host.clone(), run, step.path.clone(), u32::MAX);
            // Of one that was let run again, the last attempt counts.
            let mut begun = self.truth.range(first..=last).filter(|(_, truth)| truth.begun > 0);
            retries && step.done_in.is_some()
                || begun.next_back().is_some_and(|(_, truth)| truth.done == Some(0))
        };
        let left = |step: &PlannedStep| {
            matches!(step.undo, PlannedUndo::Work(_))
                && self.chains.became(run, host, &step.path, |of, _| of == run) == Became::Done
        };
        let wrong = match ending {
            Ending::Failed => {
                count("rule truth: failed");
                plan.steps.iter().all(is_done).then(|| "every step of it is done".to_owned())
            }
            Ending::Undone => {
                count("rule truth: undone");
                plan.steps.iter().find(|step| left(step)).map(|step| format!("{} is still done", step.path))
            }
            Ending::Verified | Ending::Unverified if RAN.contains(&how.reason.as_str()) => {
                count("rule truth: it ran");
                // Its author lets it be left out or fail, or nobody but its own check or a person says that it is done.
                let may_not = |step: &PlannedStep| {
                    let said = (host.clone(), run, step.path.clone());
                    step.condition.is_some()
                        || step.check.is_some()
                        || step.on_failure == OnFailure::Continue
                        || self.said_ran.contains(&said)
                };
                let missing = plan.steps.iter().find(|step| !is_done(step) && !may_not(step));
                missing.map(|step| format!("{} is not done", step.path))
            }
            Ending::Verified
            | Ending::Unverified
            | Ending::Succeeded
            | Ending::Rejected
            | Ending::Expired
            | Ending::Cancelled
            | Ending::Refused => None,
        };
        match wrong {
            None => Ok(()),
            Some(why) => broken("truth", format!("{run} on {host} is {}, and {why}", ending.word())),
        }
    }
}
