//! A person goes on from a run that is over. The hosts decide what that comes to; here it is only asked whether it can be meant.

use std::sync::Arc;

use fettle_proto::signed::{self, Signed, Start, words};
use fettle_proto::v1;
use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::{IncidentId, RunId};
use fettle_runbooks::run::{Ending, State, Wait};

use super::desk::Desk;
use crate::model::row;
use crate::problem::Problem;
use crate::store::RunParts;
use crate::trigger::Entry;

/// A run that is to be gone on from, as the store has it.
pub(crate) struct Earlier {
    pub(super) parts: RunParts,
    /// What goes on from it already.
    pub(super) follow_ups: Vec<RunParts>,
    /// The first of the runs that it goes on from; itself, if it goes on from none.
    pub(super) root: RunId,
}

/// What a start that goes on from a run begins with.
pub(super) struct Followed {
    pub(super) of: (row::Earlier, RunId),
    /// The earlier run's, if it is not closed.
    pub(super) incident: Option<IncidentId>,
    /// The runbook, where it is the earlier run's and not the library's.
    pub(super) source: Option<Arc<Entry>>,
}

impl Desk<'_> {
    /// Whether a start may go on from the run that it names; nothing, if it names none.
    pub(super) fn follow(
        &self,
        start: &Start,
        earlier: Option<&Earlier>,
    ) -> Result<Option<Followed>, Problem> {
        let Some((of, earlier)) = start.of.as_ref().zip(earlier) else { return Ok(None) };
        let RunParts { run, hosts, .. } = &earlier.parts;
        let conflict = |code, message: String| Err(Problem::conflict(code, message));
        let looked_for =
            |host: &&row::HostRunRow| matches!(host.machine.state, State::Waiting(Wait::Resolve { .. }));
        if let Some(host) = hosts.iter().find(looked_for) {
            let what = format!("{} waits for a person to look at a step on {}", run.id, host.host);
            return Err(
                Problem::conflict("outcome-unknown", what).next(&format!("fettle run show {}", run.id))
            );
        }
        if run.ended_at.is_none() {
            let message = format!("{} is still going on", run.id);
            return Err(Problem::conflict("run-open", message).next(&format!("fettle watch {}", run.id)));
        }
        if run.of.as_ref().is_some_and(|of| of.how == FollowUp::Undo) {
            let message = format!("{} is an undo itself: name the run that it was of", run.id);
            let problem = Problem::conflict("is-undo", message);
            return Err(match &run.of {
                Some(of_it) => problem.next(&format!("fettle run {} {} --reason '…'", of.how, of_it.run)),
                None => problem,
            });
        }
        let same = start.runbook == run.runbook
            && start.runbook_digest == run.runbook_digest
            && start.inputs == run.inputs
            && start.hosts.iter().all(|host| run.hosts.contains(host));
        if !same {
            let message =
                format!("the start has another runbook, other inputs or other hosts than {}", run.id);
            return Err(Problem::invalid("follow-mismatch", message));
        }
        if of.how == FollowUp::Undo && start.until != signed::Until::End {
            return Err(Problem::invalid("follow-mismatch", "an undo does not stop at its plan"));
        }
        // Such a host may not know that it was to go on from anything, and would begin anew what was done before.
        let no_plan = |host: &&row::HostRunRow| start.hosts.contains(&host.host) && host.plan.is_none();
        if of.how == FollowUp::Retry
            && let Some(before) = &run.of
            && hosts.iter().any(|host| no_plan(&host))
        {
            let on: Vec<&str> = hosts.iter().filter(no_plan).map(|host| host.host.as_str()).collect();
            let (names, on) = (on.join(", "), on.join(","));
            let what = format!("{} came to no plan on {names}, and went on from {}", run.id, before.run);
            let problem = Problem::conflict("no-plan-there", format!("{what}: name that one there"));
            let next = format!("fettle run retry {} --host {on} --reason '…'", before.run);
            return Err(problem.fix("name the other hosts, if there are any, with --host").next(&next));
        }
        let open = self.model.runs.values().find(|other| {
            let follows = other.of.as_ref().is_some_and(|other| other.run == run.id);
            follows && other.ended_at.is_none() && other.hosts.iter().any(|host| start.hosts.contains(host))
        });
        if let Some((other, how)) = open.and_then(|open| Some((open.id, open.of.as_ref()?.how))) {
            let message = format!("{other} goes on from it already: a {how}, which is not over");
            return Err(Problem::conflict("followed", message).next(&format!("fettle watch {other}")));
        }
        if of.how == FollowUp::Undo {
            let undone = earlier.follow_ups.iter().flat_map(|later| &later.hosts).find(|host| {
                start.hosts.contains(&host.host)
                    && host.machine.ended().is_some_and(|how| how.ending == Ending::Undone)
                    && self.is_undo(earlier, host.run)
            });
            if let Some(undone) = undone {
                let what = format!("{} was undone on {} by {}", run.id, undone.host, undone.run);
                return conflict("undone-before", what);
            }
        }
        let source = match of.how {
            FollowUp::Retry => None,
            // Whatever the library has become since: what ran is what is undone.
            FollowUp::Undo => Some(Arc::new(self.as_it_was(run)?)),
        };
        let incident = run.incident.filter(|incident| {
            self.model.incidents.get(incident).is_some_and(|incident| incident.closed.is_none())
        });
        let row = row::Earlier { run: run.id, how: of.how, reason: of.reason.clone() };
        Ok(Some(Followed { of: (row, earlier.root), incident, source }))
    }

    fn is_undo(&self, earlier: &Earlier, run: RunId) -> bool {
        let later = earlier.follow_ups.iter().find(|later| later.run.id == run);
        later.and_then(|later| later.run.of.as_ref()).is_some_and(|of| of.how == FollowUp::Undo)
    }

    /// The runbook of a run, with the certificates it had then; whether they suffice is asked of the roster in force now.
    fn as_it_was(&self, run: &row::RunRow) -> Result<Entry, Problem> {
        let bytes = run.source.bytes();
        let read = fettle_runbooks::read(&bytes).map_err(|_| {
            Problem::invalid("bad-runbook", "the runbook of that run cannot be read any more")
        })?;
        let certificates: Vec<v1::Signed> = run.certificates.iter().map(v1::Signed::from).collect();
        let signed: Vec<Signed> =
            certificates.iter().filter_map(|signed| Signed::try_from(signed.clone()).ok()).collect();
        let now = words::from_ms(self.now.0);
        let certified = signed::certified(&bytes, &signed, &self.roster()?.roster, now).is_ok();
        Ok(Entry { runbook: read.runbook, bytes, certificates, certified })
    }
}
