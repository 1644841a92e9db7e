//! A run that goes on from one that is over: what this host knows of that one, and what follows from it.
//!
//! A person signed which run is meant and what is done with it; what ran there, and what of it still is so, is in this host's
//! journal and nowhere else. Whoever has the controller can neither leave out a step that was not done nor undo anything.

use std::collections::{BTreeMap, BTreeSet};

use fettle_proto::signed::start::Of;
use fettle_proto::{Code, Refusal};
use fettle_runbooks::follow::{self, Became, FollowUp};
use fettle_runbooks::id::{Host, RunId};
use fettle_runbooks::plan::{self, Plan, PlannedStep, PlannedWork, Rendering};
use fettle_runbooks::segment::Program;
use fettle_runbooks::unit::UnitName;

use super::attempt::{Ended, Outcome};
use super::carry::exit;
use super::driver::Driver;
use super::here::{REMEMBER, RunHere};
use super::orders::{Judged, OwnPlan};
use super::record::Record;

/// What an order that goes on from an earlier run comes to.
pub(super) struct Followed {
    /// What its plan will say of that run.
    pub(super) of: plan::Of,
    /// The undos, where it undoes.
    pub(super) known: Option<Rendering>,
}

/// What a person found out: (host, step) → whether it took effect.
type Found = BTreeMap<(Host, String), bool>;

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

    /// No order of it is taken any more.
    fn close(&mut self, run: RunId, now_ms: i64) -> Record {
        let horizon = i64::try_from(REMEMBER.as_millis()).unwrap_or(i64::MAX);
        let is_known = !self.segments.is_empty();
        let until_ms = if is_known {
            self.not_after_ms.saturating_add(horizon)
        } else {
            now_ms.saturating_add(horizon.saturating_mul(8))
        };
        self.not_after_ms = self.not_after_ms.max(until_ms.saturating_sub(horizon));
        self.tombstone = true;
        let tombstone = Record::Tombstone { run, until_ms };
        self.records.push(tombstone.clone());
        tombstone
    }

    /// The last attempt at a path that was born, or else the last; whether any was born.
    fn last(&self, path: &str) -> Option<(Option<&Ended>, bool)> {
        if let Some((_, ended)) = self.last_born(path) {
            return Some((ended, true));
        }
        let all = (path.to_owned(), 0)..=(path.to_owned(), u32::MAX);
        self.attempts.range(all).next_back().map(|(_, ended)| (ended.as_ref(), false))
    }
}

/// What else may be meant.
fn went_on_from(here: &RunHere) -> String {
    let before = here.of().map(|of| format!("; what was done before it is of {}: name that one", of.run));
    before.unwrap_or_default()
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
        self.is_over(run, of.run)?;
        let known = self.runs.get(&of.run);
        if known.and_then(RunHere::of).is_some_and(|of| of.how == FollowUp::Undo) {
            let what = format!("{} is an undo itself: name the run that it was of", of.run);
            return Err(Refusal::new(Code::EarlierMismatch, what));
        }
        self.not_gone_on(run, of.run, &of.found)?;
        // Of one that no order came of, all that may be here is that none is taken any more.
        let Some(earlier) = known.filter(|earlier| !earlier.segments.is_empty()) else {
            let what = format!("this host does not remember {}", of.run);
            return match of.how {
                FollowUp::Retry => followed(vec![format!("{what}: no step is skipped")], None),
                FollowUp::Undo => Err(Refusal::new(
                    Code::EarlierForgotten,
                    format!("{what}, and so not what it did: nothing can be undone"),
                )),
            };
        };
        let (found, own) = match of.how {
            FollowUp::Retry => self.last_acted(of),
            FollowUp::Undo => (of.found.clone(), earlier.plan.as_ref()),
        };
        let Some(own) = own else {
            return match of.how {
                FollowUp::Retry => followed(vec![format!("{} came to no plan here", of.run)], None),
                FollowUp::Undo => {
                    let what = format!("{} came to no plan on this host, so it did nothing", of.run);
                    Err(Refusal::new(Code::NothingToUndo, format!("{what}{}", went_on_from(earlier))))
                }
            };
        };
        if own.plan.runbook_digest != judged.runbook.digest() {
            let what = format!("{} was of runbook {}", own.plan.run, own.plan.runbook_digest);
            return Err(Refusal::new(Code::EarlierMismatch, what));
        }
        match of.how {
            FollowUp::Retry => {
                let unknown =
                    own.plan.steps.iter().find_map(|step| match self.became(&found, run, &own.plan, step) {
                        Became::Unknown { path, run } => Some((path, run)),
                        Became::Nothing | Became::Done(_) | Became::Failed { .. } | Became::Undone => None,
                    });
                match unknown {
                    Some((path, run)) if own.plan.run == of.run => Err(unknown_outcome(&path, run)),
                    // What people have said of it since is of that one.
                    Some((path, run)) => {
                        let undo = |of: &&Of| of.how == FollowUp::Undo;
                        let of = self.runs.get(&run).and_then(RunHere::of).filter(undo).map(|of| of.run);
                        let unknown = unknown_outcome(&path, run).message;
                        let what = format!("{unknown}, or has said so: name {}", of.unwrap_or(run));
                        Err(Refusal::new(Code::OutcomeUnknown, what))
                    }
                    None => followed(Vec::new(), None),
                }
            }
            FollowUp::Undo => {
                let back = follow::backwards(&own.plan, |step| self.became(&found, run, &own.plan, step))
                    .map_err(|(path, run)| unknown_outcome(&path, run))?;
                let stays: Vec<String> = back.stays.iter().map(|what| format!("stays: {what}")).collect();
                if back.steps.is_empty() {
                    let why = match (back.undone_before, stays.is_empty()) {
                        (true, _) => "has been undone".to_owned(),
                        (false, true) => "did nothing on this host".to_owned(),
                        (false, false) => format!("did nothing that has an undo ({})", stays.join("; ")),
                    };
                    let what = format!("{} {why}{}", of.run, went_on_from(earlier));
                    return Err(Refusal::new(Code::NothingToUndo, what));
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
        let (said, Some(own)) = self.last_acted(of) else { return Vec::new() };
        let Rendering { steps, evidence, .. } = rendering;
        let found = evidence.clone();
        let mut left: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for step in &own.plan.steps {
            if let Became::Done(_) = self.became(&said, run, &own.plan, step)
                && let Some(outputs) = self.outputs(&own.plan, step, program, &found)
            {
                left.insert(step.path.clone(), outputs);
            }
        }
        let says = follow::resume(&own.plan, steps, |step| match self.became(&said, run, &own.plan, step) {
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
        let (ended, _) = self.runs.get(&plan.run)?.last(&step.path)?;
        program.left(id, found, &exit(ended.filter(|ended| went_well(ended))?))
    }

    /// The last run that tried a step, of the one that a retry names and of those which that one went on from itself: what began
    /// nothing has changed nothing. If none did, the last that came to a plan. With what people have found out about its steps until
    /// now; of undos, which come later, only what they say now counts.
    fn last_acted(&self, of: &Of) -> (Found, Option<&OwnPlan>) {
        let (mut found, mut planned) = (of.found.clone(), None);
        for here in self.line(of.run).iter().filter_map(|run| self.runs.get(run)) {
            if let Some(own) = &here.plan {
                if own.plan.steps.iter().any(|step| here.last(&step.path).is_some_and(|(_, born)| born)) {
                    return (found, Some(own));
                }
                planned.get_or_insert(own);
            }
            let of_steps = here.of().into_iter().flat_map(|of| &of.found);
            for (what, ran) in of_steps.filter(|((_, path), _)| !path.ends_with("/undo")) {
                found.entry(what.clone()).or_insert(*ran);
            }
        }
        (of.found.clone(), planned)
    }

    /// What became of a step of an earlier run, and whether that still is so. `run` is who asks; what a person has `found`
    /// out counts where this host does not know.
    fn became(&self, found: &Found, run: RunId, plan: &Plan, step: &PlannedStep) -> Became {
        let earlier = plan.run;
        let found = |path: &str| found.get(&(self.config.host.clone(), path.to_owned())).copied();
        let last = || self.runs.get(&earlier)?.last(&step.path);
        let became = match (step.done_in, last()) {
            (Some(run), _) => Became::Done(run),
            (None, None) => return Became::Nothing,
            (None, Some((Some(ended), _))) if went_well(ended) => Became::Done(earlier),
            // How far it had come when it was stopped, its end does not tell.
            (None, Some((Some(Ended { outcome: Outcome::Killed, .. }), _)))
                if found(&step.path) == Some(true) =>
            {
                Became::Done(earlier)
            }
            (None, Some((Some(_), born))) => Became::Failed { born, run: earlier },
            (None, Some((None, _))) => match found(&step.path) {
                Some(true) => Became::Done(earlier),
                Some(false) => Became::Failed { born: false, run: earlier },
                None => Became::Unknown { path: step.path.clone(), run: earlier },
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
            let theirs = *run == done_in
                || here.plan.as_ref().is_some_and(|own| own.plan.steps.iter().any(of_it))
                || self.did_the_same(*run, done_in, path);
            match here.last(&undo).filter(|_| theirs) {
                Some((Some(ended), _)) if went_well(ended) => return Undo::Done(*run),
                Some((None, _)) => known = Undo::Unknown(*run),
                Some((Some(_), _)) | None => {}
            }
        }
        known
    }

    /// Whether a run that went on from another has done this step of it anew, in exactly the same way, or undone what did: what takes
    /// that back leaves nothing of either. What was done in another way is another thing, and so is its undo.
    fn did_the_same(&self, run: RunId, earlier: RunId, path: &str) -> bool {
        let plan_of = |run: RunId| self.runs.get(&run).and_then(|here| here.plan.as_ref());
        let step_of = |run: RunId, path: &str| plan_of(run)?.plan.steps.iter().find(|step| step.path == path);
        // In the plan of an undo, what was done in an earlier run is what a step undoes.
        let undone = step_of(run, &format!("{path}/undo")).and_then(|step| step.done_in);
        let (Some(theirs), Some(own)) = (step_of(undone.unwrap_or(run), path), step_of(earlier, path)) else {
            return false;
        };
        let same =
            PlannedStep { done_in: None, ..theirs.clone() } == PlannedStep { done_in: None, ..own.clone() };
        same && self.line(run).contains(&earlier)
    }

    /// These runs, all that they go on from, all that go on from those, and so on, whether or not this host knows them.
    fn family(&self, of: impl IntoIterator<Item = RunId>) -> BTreeSet<RunId> {
        let mut near: BTreeMap<RunId, Vec<RunId>> = BTreeMap::new();
        for (run, needed) in
            self.runs.iter().flat_map(|(run, here)| here.needs().map(|needed| (*run, needed)))
        {
            near.entry(run).or_default().push(needed);
            near.entry(needed).or_default().push(run);
        }
        let mut open: Vec<RunId> = of.into_iter().collect();
        let mut family: BTreeSet<RunId> = open.iter().copied().collect();
        while let Some(run) = open.pop() {
            open.extend(near.get(&run).into_iter().flatten().filter(|run| family.insert(**run)));
        }
        family
    }

    /// A run and those that it goes on from, by way of each other, back to the first.
    fn line(&self, run: RunId) -> Vec<RunId> {
        let (mut line, mut next) = (Vec::new(), Some(run));
        while let Some(run) = next.filter(|run| !line.contains(run)) {
            line.push(run);
            next = self.runs.get(&run).and_then(RunHere::of).map(|of| of.run);
        }
        line
    }

    /// The runs that tried to do something with a unit in this step, the first of them first: this one, and those that it goes
    /// on from, as far back as nobody has put the unit back since.
    pub(super) fn tried_in(&self, run: RunId, path: &str, unit: &UnitName) -> Vec<RunId> {
        let undo = format!("{path}/undo");
        let put_back = |earlier: &RunId| {
            let well =
                |here: &RunHere| matches!(here.last(&undo), Some((Some(ended), _)) if went_well(ended));
            self.runs.iter().any(|(other, here)| well(here) && self.line(*other).contains(earlier))
        };
        let line = self.line(run);
        let mut tried = vec![run];
        for (later, earlier) in line.iter().zip(line.iter().skip(1)) {
            if put_back(earlier) {
                break;
            }
            let found = self.runs.get(later).and_then(RunHere::of).map(|of| &of.found);
            let own = self.runs.get(earlier).and_then(|here| here.plan.as_ref());
            let (Some(found), Some(own)) = (found, own) else { continue };
            let Some(step) = own.plan.steps.iter().find(|step| step.path == path) else { continue };
            let is_its = matches!(&step.work, PlannedWork::Service { unit: other, .. } if other == unit);
            match self.became(found, run, &own.plan, step) {
                Became::Undone => break,
                Became::Done(_) | Became::Failed { born: true, .. } | Became::Unknown { .. } if is_its => {
                    tried.push(*earlier);
                }
                Became::Nothing | Became::Done(_) | Became::Failed { .. } | Became::Unknown { .. } => {}
            }
        }
        tried.reverse();
        tried
    }

    /// Nothing of the earlier run's family is going on now.
    fn is_over(&self, run: RunId, earlier: RunId) -> Result<(), Refusal> {
        let is_open = |other: &RunId| self.runs.get(other).is_some_and(|here| here.active.is_some());
        match self.family([earlier]).into_iter().find(|other| *other != run && is_open(other)) {
            None => Ok(()),
            Some(open) => {
                Err(Refusal::new(Code::EarlierOpen, format!("{open} is still going on on this host")))
            }
        }
    }

    /// No other run of the family has done something that still stands, or may: that one is to be named. What those did that the
    /// earlier run itself went on from is in its plan, or still counts because it began nothing. `found`: of undos it counts what
    /// people have found out.
    fn not_gone_on(&self, run: RunId, earlier: RunId, found: &Found) -> Result<(), Refusal> {
        let of_undos = found.iter().filter(|((_, path), _)| path.ends_with("/undo"));
        let found: Found = of_undos.map(|(what, ran)| (what.clone(), *ran)).collect();
        let stands = |other: &RunId| {
            let Some(own) = self.runs.get(other).and_then(|here| here.plan.as_ref()) else { return false };
            let mut own_steps = own.plan.steps.iter().filter(|step| step.done_in.is_none());
            own_steps.any(|step| match self.became(&found, run, &own.plan, step) {
                Became::Done(_) | Became::Unknown { .. } => true,
                Became::Nothing | Became::Failed { .. } | Became::Undone => false,
            })
        };
        let (family, line) = (self.family([earlier]), self.line(earlier));
        let others = family.iter().filter(|other| !line.contains(other) && **other != run && stands(other));
        match others.max_by_key(|other| self.line(**other).len()) {
            None => Ok(()),
            Some(later) => {
                let from = self.runs.get(later).and_then(RunHere::of).map_or(earlier, |of| of.run);
                let what = format!("{later} went on from {from}: name that one");
                Err(Refusal::new(Code::EarlierMismatch, what))
            }
        }
    }

    /// Whether what a plan counts on as done in an earlier run still is so, now that it is to be carried out.
    pub(super) fn still_done(&self, run: RunId, plan: &Plan) -> Result<(), Refusal> {
        let Some(of) = &plan.of else { return Ok(()) };
        let said = self.runs.get(&run).and_then(RunHere::of).map(|of| of.found.clone()).unwrap_or_default();
        let said_not = |undo: &str| said.get(&(self.config.host.clone(), undo.to_owned())) == Some(&false);
        self.is_over(run, of.run)?;
        self.not_gone_on(run, of.run, &said)?;
        for step in &plan.steps {
            let Some(done_in) = step.done_in else { continue };
            let path = step.path.strip_suffix("/undo").unwrap_or(&step.path);
            let undo = format!("{path}/undo");
            match self.undo_of(done_in, path, run) {
                Undo::None => {}
                // A person has looked, and signed for that.
                Undo::Unknown(_) if said_not(&undo) => {}
                Undo::Done(by) => {
                    let what = format!("{path}, which was done in {done_in}, was undone by {by}");
                    return Err(Refusal::new(Code::EarlierMismatch, what));
                }
                Undo::Unknown(by) => return Err(unknown_outcome(&undo, by)),
            }
        }
        Ok(())
    }

    /// The earlier run and its family are over for good: whatever was approved for them, and should this host hear of one
    /// only now, nothing of them starts any more.
    pub(super) fn close(&mut self, run: RunId, earlier: RunId) -> Result<Vec<Record>, Refusal> {
        let is_open = |other: &RunId| self.runs.get(other).is_none_or(|here| !here.tombstone);
        let open: Vec<RunId> =
            self.family([earlier]).into_iter().filter(|other| *other != run && is_open(other)).collect();
        for other in &open {
            self.hands.tombstone(*other).map_err(|error| {
                let what = format!("the tombstone of {other} could not be written: {error}");
                Refusal::new(Code::HostUnable, what)
            })?;
        }
        let now_ms = self.now_ms();
        Ok(open.into_iter().map(|other| self.runs.entry(other).or_default().close(other, now_ms)).collect())
    }

    /// Those of the runs that may be forgotten: what remembered ones go by stays, and what tells how it went on from them.
    pub(super) fn forgettable(&self, old: BTreeSet<RunId>) -> Vec<RunId> {
        let kept = self.family(self.runs.keys().filter(|run| !old.contains(run)).copied());
        old.into_iter().filter(|run| !kept.contains(run)).collect()
    }
}

fn unknown_outcome(path: &str, run: RunId) -> Refusal {
    Refusal::new(
        Code::OutcomeUnknown,
        format!("it cannot be told whether {path} of {run} took effect; a person must look and say so"),
    )
}
