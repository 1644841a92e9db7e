//! A run that goes on from one that is over: what this host knows of that one, and what follows from it.
//!
//! A person signed which run is meant and what is done with it; what ran there, and what of it still is so, is in this host's
//! journal and nowhere else. Whoever has the controller can neither leave out a step that was not done nor undo anything.

use std::collections::{BTreeMap, BTreeSet};

use fettle_proto::signed::start::Of;
use fettle_proto::{Code, Refusal};
use fettle_runbooks::follow::{self, Became, FollowUp};
use fettle_runbooks::id::RunId;
use fettle_runbooks::plan::{self, Plan, PlannedStep, Rendering};
use fettle_runbooks::segment::Program;

use super::attempt::{Ended, Outcome};
use super::carry::exit;
use super::driver::Driver;
use super::here::{REMEMBER, RunHere};
use super::orders::Judged;
use super::record::Record;

/// What an order that goes on from an earlier run comes to.
pub(super) struct Followed {
    /// What its plan will say of that run.
    pub(super) of: plan::Of,
    /// The undos, where it undoes.
    pub(super) known: Option<Rendering>,
}

/// What is known of the undo of a step.
enum Undo {
    None,
    Done(RunId),
    Unknown(RunId),
}

impl RunHere {
    /// The run that it goes on from, as a person signed.
    pub(super) fn of(&self) -> Option<&Of> {
        self.started.as_ref()?.as_ref()?.start().of.as_ref()
    }

    /// The runs without which what this one is to do could not be told any more.
    fn needs(&self) -> impl Iterator<Item = RunId> + '_ {
        let done = self.plan.iter().flat_map(|own| own.plan.steps.iter().filter_map(|step| step.done_in));
        self.of().map(|of| of.run).into_iter().chain(done)
    }

    /// The last attempt at a path; whether any was born.
    fn last(&self, path: &str) -> Option<(Option<&Ended>, bool)> {
        let all = || self.attempts.range((path.to_owned(), 0)..=(path.to_owned(), u32::MAX));
        let born =
            |ended: &Option<Ended>| !matches!(ended, Some(Ended { outcome: Outcome::NotStarted { .. }, .. }));
        let (_, last) = all().next_back()?;
        Some((last.as_ref(), all().any(|(_, ended)| born(ended))))
    }
}

fn went_well(ended: &Ended) -> bool {
    ended.outcome == Outcome::Exited && ended.exit_code == Some(0)
}

impl Driver {
    /// What the first order of a run that goes on from another comes to; nothing, where it goes on from none.
    pub(super) fn follow(&self, run: RunId, judged: &Judged) -> Result<Option<Followed>, Refusal> {
        let Some(of) = judged.started.as_ref().and_then(|started| started.start().of.as_ref()) else {
            return Ok(None);
        };
        let followed =
            |says, known| Ok(Some(Followed { of: plan::Of { run: of.run, how: of.how, says }, known }));
        let Some(earlier) = self.runs.get(&of.run) else {
            let what = format!("this host does not remember {}", of.run);
            return match of.how {
                FollowUp::Retry => followed(vec![format!("{what}: no step is skipped")], None),
                FollowUp::Undo => Err(Refusal::new(
                    Code::EarlierForgotten,
                    format!("{what}, and so not what it did: nothing can be undone"),
                )),
            };
        };
        self.is_over(run, of.run)?;
        if earlier.of().is_some_and(|of| of.how == FollowUp::Undo) {
            let what = format!("{} is an undo itself: name the run that it was of", of.run);
            return Err(Refusal::new(Code::EarlierMismatch, what));
        }
        let Some(own) = &earlier.plan else {
            return match of.how {
                FollowUp::Retry => followed(vec![format!("{} came to no plan here", of.run)], None),
                FollowUp::Undo => {
                    let what = format!("{} came to no plan on this host, so it did nothing", of.run);
                    Err(Refusal::new(Code::NothingToUndo, what))
                }
            };
        };
        if own.plan.runbook_digest != judged.runbook.digest() {
            let what = format!("{} was of runbook {}", of.run, own.plan.runbook_digest);
            return Err(Refusal::new(Code::EarlierMismatch, what));
        }
        self.not_gone_on(run, of)?;
        match of.how {
            FollowUp::Retry => {
                let unknown =
                    own.plan.steps.iter().find_map(|step| match self.became(of, run, &own.plan, step) {
                        Became::Unknown { path, run } => Some((path, run)),
                        Became::Nothing | Became::Done(_) | Became::Failed { .. } | Became::Undone => None,
                    });
                match unknown {
                    Some((path, run)) => Err(unknown_outcome(&path, run)),
                    None => followed(Vec::new(), None),
                }
            }
            FollowUp::Undo => {
                let back = follow::backwards(&own.plan, |step| self.became(of, run, &own.plan, step))
                    .map_err(|(path, run)| unknown_outcome(&path, run))?;
                let stays: Vec<String> = back.stays.iter().map(|what| format!("stays: {what}")).collect();
                if back.steps.is_empty() {
                    let why = match (back.undone_before, stays.is_empty()) {
                        (true, _) => "has been undone".to_owned(),
                        (false, true) => "did nothing on this host".to_owned(),
                        (false, false) => format!("did nothing that has an undo ({})", stays.join("; ")),
                    };
                    return Err(Refusal::new(Code::NothingToUndo, format!("{} {why}", of.run)));
                }
                let known = Rendering { steps: back.steps, verify: Vec::new(), evidence: BTreeMap::new() };
                followed(stays, Some(known))
            }
        }
    }

    /// Marks in a fresh plan what was done in the run that it goes on from. Outputs that were left there go into the evidence.
    pub(super) fn resume_marks(
        &self,
        run: RunId,
        program: &Program,
        rendering: &mut Rendering,
    ) -> Vec<String> {
        let Some(of) = self.runs.get(&run).and_then(RunHere::of) else { return Vec::new() };
        let Some(own) = self.runs.get(&of.run).and_then(|earlier| earlier.plan.as_ref()) else {
            return Vec::new();
        };
        let Rendering { steps, evidence, .. } = rendering;
        let found = evidence.clone();
        let mut left: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for step in &own.plan.steps {
            if let Became::Done(_) = self.became(of, run, &own.plan, step)
                && let Some(outputs) = self.outputs(of.run, &own.plan, step, program, &found)
            {
                left.insert(step.path.clone(), outputs);
            }
        }
        let says = follow::resume(&own.plan, steps, |step| match self.became(of, run, &own.plan, step) {
            // What later steps may want to know of it is not known: it runs again.
            Became::Done(run) if !left.contains_key(&step.path) => Became::Failed { born: true, run },
            became @ (Became::Nothing
            | Became::Done(_)
            | Became::Failed { .. }
            | Became::Undone
            | Became::Unknown { .. }) => became,
        });
        let marked = steps.iter().filter(|step| step.done_in.is_some());
        evidence.extend(marked.filter_map(|step| left.remove(&step.path)).flatten());
        says
    }

    /// What a step that was done has left, `step.output` → JSON text; none: it cannot be told any more.
    fn outputs(
        &self,
        earlier: RunId,
        plan: &Plan,
        step: &PlannedStep,
        program: &Program,
        found: &BTreeMap<String, String>,
    ) -> Option<BTreeMap<String, String>> {
        if step.outputs.is_empty() {
            return Some(BTreeMap::new());
        }
        let id = step.path.strip_prefix("remediate/")?;
        if step.done_in.is_some() {
            let names = step.outputs.keys().map(|name| format!("{id}.{name}"));
            return names.map(|name| Some((name.clone(), plan.evidence.get(&name)?.clone()))).collect();
        }
        let (ended, _) = self.runs.get(&earlier)?.last(&step.path)?;
        program.left(id, found, &exit(ended?))
    }

    /// What became of a step of the run that `of` names, and whether that still is so. `run` is who asks.
    fn became(&self, of: &Of, run: RunId, plan: &Plan, step: &PlannedStep) -> Became {
        let earlier = plan.run;
        let found = |path: &str| of.found.get(&(self.config.host.clone(), path.to_owned())).copied();
        let last = || self.runs.get(&earlier)?.last(&step.path);
        let became = match (step.done_in, last()) {
            (Some(run), _) => Became::Done(run),
            (None, None) => return Became::Nothing,
            (None, Some((Some(ended), _))) if went_well(ended) => Became::Done(earlier),
            (None, Some((ended, born))) => match (found(&step.path), ended) {
                (Some(true), _) => Became::Done(earlier),
                (Some(false), _) => Became::Failed { born: false, run: earlier },
                (None, Some(_)) => Became::Failed { born, run: earlier },
                (None, None) => Became::Unknown { path: step.path.clone(), run: earlier },
            },
        };
        let path = format!("{}/undo", step.path);
        match self.undo_of(step.done_in.unwrap_or(earlier), &step.path, run) {
            Undo::None => became,
            Undo::Done(_) => Became::Undone,
            Undo::Unknown(run) => match found(&path) {
                Some(true) => Became::Undone,
                Some(false) => became,
                None => Became::Unknown { path, run },
            },
        }
    }

    /// Whether a step that was done in a run was undone: by that run itself, or by one that went on from it.
    fn undo_of(&self, done_in: RunId, path: &str, except: RunId) -> Undo {
        let undo = format!("{path}/undo");
        let of_it =
            |step: &PlannedStep| step.done_in == Some(done_in) && (step.path == path || step.path == undo);
        let mut known = Undo::None;
        for (run, here) in self.runs.iter().filter(|(run, _)| **run != except) {
            let theirs =
                *run == done_in || here.plan.as_ref().is_some_and(|own| own.plan.steps.iter().any(of_it));
            match here.last(&undo).filter(|_| theirs) {
                Some((Some(ended), _)) if went_well(ended) => return Undo::Done(*run),
                Some((None, _)) => known = Undo::Unknown(*run),
                Some((Some(_), _)) | None => {}
            }
        }
        known
    }

    /// Nothing of the earlier run, nor of another that goes on from it, is going on now.
    fn is_over(&self, run: RunId, earlier: RunId) -> Result<(), Refusal> {
        let open = self.runs.iter().find(|(other, here)| {
            let concerns = **other == earlier || here.of().is_some_and(|of| of.run == earlier);
            **other != run && concerns && here.active.is_some()
        });
        match open {
            None => Ok(()),
            Some((open, _)) => {
                Err(Refusal::new(Code::EarlierOpen, format!("{open} is still going on on this host")))
            }
        }
    }

    /// No other run has gone on from the earlier one and done something that still stands: that one is to be named.
    fn not_gone_on(&self, run: RunId, of: &Of) -> Result<(), Refusal> {
        let stands = |other: RunId, plan: &Plan| {
            plan.steps
                .iter()
                .filter(|step| step.done_in.is_none())
                .any(|step| matches!(self.became(of, run, plan, step), Became::Done(of) if of == other))
        };
        let later = self.runs.iter().find(|(other, here)| {
            let retry = here.of().is_some_and(|it| it.run == of.run && it.how == FollowUp::Retry);
            **other != run && retry && here.plan.as_ref().is_some_and(|own| stands(**other, &own.plan))
        });
        match later {
            None => Ok(()),
            Some((later, _)) => {
                let what = format!("{later} went on from {}: name that one", of.run);
                Err(Refusal::new(Code::EarlierMismatch, what))
            }
        }
    }

    /// Whether what a plan counts on as done in an earlier run still is so, now that it is to be carried out.
    pub(super) fn still_done(&self, run: RunId, plan: &Plan) -> Result<(), Refusal> {
        let Some(of) = &plan.of else { return Ok(()) };
        self.is_over(run, of.run)?;
        for step in &plan.steps {
            let Some(done_in) = step.done_in else { continue };
            let path = step.path.strip_suffix("/undo").unwrap_or(&step.path);
            match self.undo_of(done_in, path, run) {
                Undo::None => {}
                Undo::Done(by) => {
                    let what = format!("{path}, which was done in {done_in}, was undone by {by}");
                    return Err(Refusal::new(Code::EarlierMismatch, what));
                }
                Undo::Unknown(by) => return Err(unknown_outcome(&format!("{path}/undo"), by)),
            }
        }
        Ok(())
    }

    /// The earlier run is over for good: whatever was approved for it, nothing of it starts any more.
    pub(super) fn close(&mut self, earlier: RunId) -> Result<Option<Record>, Refusal> {
        let Some(here) = self.runs.get(&earlier).filter(|here| !here.tombstone) else { return Ok(None) };
        let horizon = i64::try_from(REMEMBER.as_millis()).unwrap_or(i64::MAX);
        let until_ms = here.not_after_ms.saturating_add(horizon);
        if let Err(error) = self.hands.tombstone(earlier) {
            let what = format!("the tombstone of {earlier} could not be written: {error}");
            return Err(Refusal::new(Code::HostUnable, what));
        }
        let tombstone = Record::Tombstone { run: earlier, until_ms };
        if let Some(here) = self.runs.get_mut(&earlier) {
            here.tombstone = true;
            here.records.push(tombstone.clone());
        }
        Ok(Some(tombstone))
    }

    /// Those of the runs that may be forgotten: what remembered ones go by stays.
    pub(super) fn forgettable(&self, old: BTreeSet<RunId>) -> Vec<RunId> {
        let mut kept: Vec<RunId> = self.runs.keys().filter(|run| !old.contains(run)).copied().collect();
        let mut needed = BTreeSet::new();
        while let Some(run) = kept.pop() {
            let needs = self.runs.get(&run).into_iter().flat_map(RunHere::needs);
            kept.extend(needs.filter(|run| needed.insert(*run)));
        }
        old.into_iter().filter(|run| !needed.contains(run)).collect()
    }
}

fn unknown_outcome(path: &str, run: RunId) -> Refusal {
    Refusal::new(
        Code::OutcomeUnknown,
        format!("it cannot be told whether {path} of {run} took effect; a person must look and say so"),
    )
}
